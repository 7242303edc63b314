//! A host in memory for benchmarks, whose own parts take as little time as possible.
#![warn(missing_docs)]
#![cfg(not(target_family = "wasm"))]

use std::future::{Future, pending};
use std::time::{Duration, Instant};

use axum::Router;
use loopless::clock::{Calendar, Clock};
use loopless::event::Events;
use loopless::promises::Build;
use loopless::routes::{self, App, Background};
use loopless::settings::Variables;
use loopless::store::{Bounded, Memory};
use loopless::strategy::Exact;

/// The machine's clock. Nothing sleeps in a benchmark.
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

/// Variables of which none is set.
#[derive(Clone, Copy, Debug)]
pub struct Unset;

impl Variables for Unset {
    async fn get(&self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// A host with what Spin 4.1 has.
#[derive(Clone, Copy, Debug)]
pub struct Host;

/// The strategy of the component.
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

    /// Drops the task: no benchmark needs one.
    fn spawn(_: impl Future<Output = ()> + Send + 'static) {}

    fn print(_: &str) {}
}

/// Events on an empty store.
pub fn events() -> Events<Strategy, Machine> {
    let machine = Machine::default();
    // Tags need not differ here.
    let random: fn() -> u64 = || 0;
    let store = Bounded::new(Memory::default(), machine);
    Events::new(Exact::new(store, random), machine)
}

/// Runs a future, which never has to wait here.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    futures_executor::block_on(future)
}
