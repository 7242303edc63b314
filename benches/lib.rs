//! A host in memory, for benchmarks: nothing in it takes time but what is measured.
#![warn(missing_docs)]
#![cfg(not(target_family = "wasm"))]

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use loopless::clock::{Calendar, Clock};
use loopless::event::Events;
use loopless::promises::Build;
use loopless::routes::{self, App, Background};
use loopless::settings::Variables;
use loopless::store::{Atomics, Bounded, Error, Store};
use loopless::strategy::Exact;

/// A store that answers at once.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Vec<u8>>>);

impl Memory {
    fn values(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.values().get(key).cloned())
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.values().insert(key.into(), value.into());
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.values().remove(key);
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        Ok(self.values().keys().cloned().collect())
    }
}

impl Atomics for Memory {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        let mut values = self.values();
        let value = values.entry(key.into()).or_default();
        let number = <[u8; 8]>::try_from(&**value).map_or(0, i64::from_le_bytes) + delta;
        *value = number.to_le_bytes().into();
        Ok(number)
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        if let Some(value) = self.values().get_mut(key).filter(|value| *value == old) {
            *value = new.into();
        }
        Ok(())
    }
}

/// The machine's time. Nobody waits for it here.
#[derive(Clone, Copy, Debug)]
pub struct Machine(Instant);

impl Default for Machine {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Machine {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, _: Duration) {
        pending().await
    }
}

impl Calendar for Machine {
    fn date(&self) -> Duration {
        self.now()
    }
}

/// No variable is set.
#[derive(Clone, Copy, Debug)]
pub struct Unset;

impl Variables for Unset {
    async fn get(&self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// The host, as Spin 4.1 is one.
#[derive(Clone, Copy, Debug)]
pub struct Host;

/// As in the component.
pub type Strategy = Exact<Bounded<Memory, Machine>>;

impl routes::Host for Host {
    type Strategy = Strategy;
    type Clock = Machine;
    type Variables = Unset;

    const BUILD: Build = Build::SPIN;

    fn background() -> Router<App<Self>> {
        routes::background()
    }
}

impl Background for Host {
    type Store = Bounded<Memory, Machine>;

    /// Nothing that is measured leaves a task behind.
    fn spawn(_: impl Future<Output = ()> + Send + 'static) {}

    fn print(_: &str) {}
}

/// No event is set.
pub fn events() -> Events<Strategy, Machine> {
    let machine = Machine::default();
    Events::new(Exact(Bounded::new(Memory::default(), machine)), machine)
}

/// What this gives. It never has to wait here.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    futures_executor::block_on(future)
}
