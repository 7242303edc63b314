//! A host of WASI 0.2 with Spin's interfaces: its store, clock, variables and random numbers, and the requests that it
//! has for us.
//!
//! An instance serves one request, and no task outlives it. Calls of the host are synchronous: only sleeping, and
//! reading and writing bodies, lets other futures of the request go on.

mod http;
#[cfg(feature = "store-redis")]
mod redis;
#[cfg(feature = "store-sqlite")]
mod sqlite;

use std::future::{self, Future, poll_fn};
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

/// Spin's interfaces of its versions 2 and 3.
mod bindings {
    wit_bindgen::generate!({
        world: "spin-two",
        path: "wit",
        generate_all,
    });
}

use bindings::fermyon::spin::{key_value, variables};

/// Polls `step` until it is ready. Whenever it is not, what it subscribes to wakes it again.
///
/// `step` is the judge of that: of the executor, a future learns that something has happened, and not what.
fn until<T>(
    mut step: impl FnMut() -> Result<T, Pollable> + Send,
) -> impl Future<Output = T> + Send {
    // Dropped before what it waits for: a host traps if the parent of a pollable goes first.
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

/// The host's key-value store, opened when it is first used.
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

    /// What a call of the opened store answers.
    fn ask<T: Send>(
        &self,
        call: impl FnOnce(&key_value::Store) -> Result<T, key_value::Error>,
    ) -> impl Future<Output = Result<T, Error>> + Send {
        let answer = self
            .opened()
            .and_then(|store| call(store).map_err(from_spin));
        future::ready(answer)
    }
}

impl Store for SpinStore {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send {
        self.ask(|store| store.get(key))
    }

    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send {
        self.ask(|store| store.set(key, value))
    }

    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send {
        self.ask(|store| store.delete(key))
    }

    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send {
        self.ask(key_value::Store::get_keys)
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
