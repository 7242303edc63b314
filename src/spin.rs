//! The store, the clock and the variables of a WASI 0.3 host that has Spin's interfaces and `wasi:keyvalue`.

use std::future::{self, Future};
use std::sync::OnceLock;
use std::time::Duration;

use spin_sdk::key_value;
use spin_sdk::variables;
use spin_sdk::wasip3;
use spin_sdk::wasip3::clocks::{monotonic_clock, system_clock};

use crate::clock::{Calendar, Clock};
use crate::routes::Host;
use crate::settings::Variables;
use crate::store::{Error, Records, Store};

/// What spin-sdk has no bindings for.
mod bindings {
    spin_sdk::wit_bindgen::generate!({
        runtime_path: "spin_sdk::wit_bindgen::rt",
        world: "transitions",
        path: "wit",
        generate_all,
    });
}

use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::store::{self as wasi_store, Bucket};

/// The store's label in spin.toml.
const LABEL: &str = "default";

/// The host's key-value store called `default`, opened when it is first used and kept as long as the instance lives.
///
/// Reads are asynchronous. The writes stop the other requests of the instance while they run, because `wasi:keyvalue`
/// has no asynchronous form; there are few of them.
#[derive(Debug, Default)]
pub struct SpinStore {
    reads: OnceLock<Reads>,
    writes: OnceLock<Bucket>,
}

/// [`key_value::Store`] has no `Debug` of its own.
struct Reads(key_value::Store);

impl std::fmt::Debug for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reads")
    }
}

impl SpinStore {
    async fn reads(&self) -> Result<&key_value::Store, Error> {
        if self.reads.get().is_none() {
            // Two first requests may both come here. One handle stays, the other is closed.
            let opened = key_value::Store::open(LABEL).await.map_err(from_spin)?;
            _ = self.reads.set(Reads(opened));
        }
        match self.reads.get() {
            Some(Reads(store)) => Ok(store),
            None => Err(Error::new("it could not be opened")),
        }
    }

    fn writes(&self) -> Result<&Bucket, Error> {
        if self.writes.get().is_none() {
            _ = self.writes.set(wasi_store::open(LABEL).map_err(from_wasi)?);
        }
        match self.writes.get() {
            Some(bucket) => Ok(bucket),
            None => Err(Error::new("it could not be opened")),
        }
    }

    fn increment_now(&self, key: &str, delta: i64) -> Result<i64, Error> {
        atomics::increment(self.writes()?, key, delta).map_err(from_wasi)
    }

    /// Spin 4.1 never frees the handle of a swap: an instance has 256 of them. It serves 128 requests by default, and a
    /// change takes one swap unless others come between.
    fn swap_now(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let cas = Cas::new(self.writes()?, key).map_err(from_wasi)?;
        // `current` is what starts the transaction, so that it has to be called even by who knows the value.
        if cas.current().map_err(from_wasi)?.as_deref() != Some(old) {
            return Ok(());
        }
        match atomics::swap(cas, new) {
            Err(CasError::StoreError(error)) => Err(from_wasi(error)),
            // On Redis this is also the answer of a swap that was applied.
            Ok(()) | Err(CasError::CasFailed(_)) => Ok(()),
        }
    }
}

impl Store for SpinStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.reads().await?.get(key).await.map_err(from_spin)
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let keys = self.reads().await?.get_keys().await;
        keys.collect().await.map_err(from_spin)
    }

    fn create(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send {
        future::ready(self.increment_now(key, 0).map(drop))
    }

    fn swap(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
    ) -> impl Future<Output = Result<(), Error>> + Send {
        future::ready(self.swap_now(key, old, new))
    }
}

impl Records for SpinStore {
    fn increment(&self, key: &str, delta: i64) -> impl Future<Output = Result<i64, Error>> + Send {
        future::ready(self.increment_now(key, delta))
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.reads().await?.set(key, value).await.map_err(from_spin)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.reads().await?.delete(key).await.map_err(from_spin)
    }
}

fn from_spin(error: key_value::Error) -> Error {
    match error {
        key_value::Error::Other(what) => Error::new(what),
        key_value::Error::StoreTableFull => Error::new("too many stores are open in this instance"),
        key_value::Error::NoSuchStore => no_such_store(),
        key_value::Error::AccessDenied => access_denied(),
    }
}

fn from_wasi(error: wasi_store::Error) -> Error {
    match error {
        wasi_store::Error::Other(what) => Error::new(what),
        wasi_store::Error::NoSuchStore => no_such_store(),
        wasi_store::Error::AccessDenied => access_denied(),
    }
}

fn no_such_store() -> Error {
    Error::new(format!("the host has no store called {LABEL:?}"))
}

fn access_denied() -> Error {
    Error::new(format!(
        "the component may not open the store {LABEL:?}; name it in key_value_stores in spin.toml"
    ))
}

/// The host's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct SpinClock;

impl Clock for SpinClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(monotonic_clock::now())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let nanoseconds = duration.as_nanos().try_into().unwrap_or(u64::MAX);
        monotonic_clock::wait_for(nanoseconds)
    }
}

impl Calendar for SpinClock {
    fn date(&self) -> Duration {
        let now = system_clock::now();
        // Before 1970, there is no service.
        Duration::new(now.seconds.try_into().unwrap_or(0), now.nanoseconds)
    }
}

/// The application's variables.
#[derive(Clone, Copy, Debug)]
pub struct SpinVariables;

impl Variables for SpinVariables {
    async fn get(&self, name: &str) -> Result<Option<String>, String> {
        match variables::get(name).await {
            Ok(value) => Ok(Some(value)),
            Err(variables::Error::Undefined(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// All of it.
#[derive(Clone, Copy, Debug)]
pub struct Spin;

impl Host for Spin {
    type Store = SpinStore;
    type Clock = SpinClock;
    type Variables = SpinVariables;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        wasip3::spawn(task);
    }

    fn print(line: &str) {
        println!("{line}");
    }
}
