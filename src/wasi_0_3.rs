//! Hosts of WASI 0.3 with Spin's interfaces: store, clock, variables, random numbers, tasks, requests and responses.

mod outgoing;
#[cfg(feature = "store-redis")]
mod redis;
#[cfg(feature = "store-sqlite")]
mod sqlite;

use std::sync::OnceLock;
use std::time::Duration;

use axum::body::Body;
use spin_sdk::http::{IntoResponse, Request};
use spin_sdk::key_value;
use spin_sdk::variables;
use spin_sdk::wasip3;
use spin_sdk::wasip3::clocks::{monotonic_clock, system_clock};

#[cfg(feature = "store-redis")]
pub use redis::SpinRedis;
#[cfg(feature = "store-sqlite")]
pub use sqlite::SpinDatabase;

use crate::clock::{Calendar, Clock};
use crate::settings::Variables;
use crate::store::{Error, LABEL, Store};

/// `wasi:http/handler`.
#[spin_sdk::http_service]
async fn handle(request: Request) -> impl IntoResponse {
    outgoing::send(crate::component::answer(request.map(Body::new)).await)
}

/// The host's key-value store, opened on first use and kept as long as the instance lives. Its calls are asynchronous, so
/// other requests of the instance continue.
#[derive(Default)]
pub struct SpinStore(OnceLock<key_value::Store>);

/// [`key_value::Store`] does not implement `Debug`.
impl std::fmt::Debug for SpinStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SpinStore")
    }
}

impl SpinStore {
    async fn opened(&self) -> Result<&key_value::Store, Error> {
        if self.0.get().is_none() {
            // Two concurrent first requests may both open it. One handle is kept, the other is closed.
            let opened = key_value::Store::open(LABEL).await.map_err(from_spin)?;
            _ = self.0.set(opened);
        }
        self.0.get().ok_or_else(Error::not_opened)
    }
}

impl Store for SpinStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.opened().await?.get(key).await.map_err(from_spin)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.opened()
            .await?
            .set(key, value)
            .await
            .map_err(from_spin)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.opened().await?.delete(key).await.map_err(from_spin)
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let keys = self.opened().await?.get_keys().await;
        keys.collect().await.map_err(from_spin)
    }
}

fn from_spin(error: key_value::Error) -> Error {
    match error {
        key_value::Error::Other(what) => Error::new(what),
        key_value::Error::StoreTableFull => Error::table_full(),
        key_value::Error::NoSuchStore => Error::no_such_store(),
        key_value::Error::AccessDenied => Error::access_denied(),
    }
}

/// The host's clocks.
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
        // A date before 1970 becomes 1970.
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

/// 64 random bits.
pub fn random() -> u64 {
    wasip3::random::random::get_random_u64()
}

/// Runs `task` in this instance, also after the response was sent.
#[cfg(not(feature = "plain"))]
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    wasip3::spawn(task);
}
