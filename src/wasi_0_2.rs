//! Hosts of WASI 0.2 with Spin's interfaces: store, clock, variables, random numbers, requests and responses.
//!
//! An instance serves one request, and no task outlives it. Calls of the host are synchronous, except for sleeping and for
//! reading and writing bodies.

mod http;
#[cfg(feature = "store-redis")]
mod redis;
#[cfg(feature = "store-sqlite")]
mod sqlite;

use std::future::poll_fn;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use spin_executor::CancelOnDropToken;
use wasi::clocks::monotonic_clock;
use wasi::io::poll::Pollable;

#[cfg(feature = "store-redis")]
pub use redis::SpinRedis;
#[cfg(feature = "store-sqlite")]
pub use sqlite::SpinDatabase;

use crate::clock::Clock;
use crate::settings::Variables;
use crate::store::{Error, LABEL, Store};

/// The interfaces of Spin 2 and 3.
mod bindings {
    wit_bindgen::generate!({
        world: "spin-two",
        path: "wit",
        generate_all,
    });
}

use bindings::fermyon::spin::{key_value, variables};

/// Calls `step` until it returns a value. Whenever it returns a pollable instead, waits for that.
///
/// The executor does not tell a future which pollable is ready, so `step` has to find out.
fn until<T>(
    mut step: impl FnMut() -> Result<T, Pollable> + Send,
) -> impl Future<Output = T> + Send {
    // Dropped before `step`, because a host traps if the parent of a pollable is dropped first.
    let mut subscription: Option<CancelOnDropToken> = None;
    poll_fn(move |cx: &mut Context<'_>| {
        drop(subscription.take());
        match step() {
            Ok(value) => Poll::Ready(value),
            Err(pollable) => {
                let waker = cx.waker().clone();
                let token = spin_executor::push_waker_and_get_token(pollable, waker);
                subscription = Some(token.into());
                Poll::Pending
            }
        }
    })
}

/// The host's key-value store, opened on first use.
#[derive(Debug, Default)]
pub struct SpinStore(OnceLock<key_value::Store>);

impl SpinStore {
    fn opened(&self) -> Result<&key_value::Store, Error> {
        if self.0.get().is_none() {
            _ = self
                .0
                .set(key_value::Store::open(LABEL).map_err(from_spin)?);
        }
        self.0.get().ok_or_else(Error::not_opened)
    }
}

impl Store for SpinStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.opened()?.get(key).map_err(from_spin)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.opened()?.set(key, value).map_err(from_spin)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.opened()?.delete(key).map_err(from_spin)
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.opened()?.get_keys().map_err(from_spin)
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

/// The host's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct SpinClock;

impl Clock for SpinClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(monotonic_clock::now())
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let nanoseconds = duration.as_nanos().try_into().unwrap_or(u64::MAX);
        let end = monotonic_clock::now().saturating_add(nanoseconds);
        until(move || {
            if monotonic_clock::now() >= end {
                Ok(())
            } else {
                Err(monotonic_clock::subscribe_instant(end))
            }
        })
    }
}

/// The application's variables.
#[derive(Clone, Copy, Debug)]
pub struct SpinVariables;

impl Variables for SpinVariables {
    async fn get(&self, name: &str) -> Result<Option<String>, String> {
        match variables::get(name) {
            Ok(value) => Ok(Some(value)),
            Err(variables::Error::Undefined(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// 64 random bits.
pub fn random() -> u64 {
    wasi::random::random::get_random_u64()
}
