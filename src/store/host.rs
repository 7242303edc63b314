//! The store for unit tests: the harness's store with the quirks of a host.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use loopless_host::store::{Memory, Observed, Quirks, Store as _};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::store::{self, Atomics, Store};

/// The harness's store with the quirks of a host. Each step takes a random time, so that a seed determines a schedule.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) store: Observed,
    quirks: Quirks,
    random: Arc<Mutex<StdRng>>,
    slowest: Duration,
}

impl Host {
    pub(crate) fn new(quirks: Quirks) -> Self {
        Self {
            store: Observed::new(Memory::default()),
            quirks,
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(0))),
            slowest: Duration::ZERO,
        }
    }

    pub(crate) fn scheduled(quirks: Quirks, seed: u64) -> Self {
        Self {
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            slowest: Duration::from_millis(20),
            ..Self::new(quirks)
        }
    }

    /// Random numbers from this store's seed.
    pub(crate) fn random(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let random = self.random.clone();
        move || random.lock().unwrap().random()
    }

    async fn step(&self) {
        if !self.slowest.is_zero() {
            let range = Duration::ZERO..self.slowest;
            let latency = self.random.lock().unwrap().random_range(range);
            tokio::time::sleep(latency).await;
        }
    }
}

fn failed(error: loopless_host::store::Error) -> store::Error {
    store::Error::new(error.0)
}

impl Store for Host {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, store::Error> {
        self.step().await;
        let value = self.store.get(key).await.map_err(failed);
        self.step().await;
        value
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), store::Error> {
        self.step().await;
        let set = self.store.set(key, value).await.map_err(failed);
        self.step().await;
        set
    }

    async fn delete(&self, key: &str) -> Result<(), store::Error> {
        self.step().await;
        self.store.delete(key).await.map_err(failed)
    }

    async fn keys(&self) -> Result<Vec<String>, store::Error> {
        self.step().await;
        self.store.keys().await.map_err(failed)
    }
}

impl Atomics for Host {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, store::Error> {
        self.step().await;
        if self.quirks == Quirks::SpinSqlite
            && let Some(value) = self.store.get(key).await.map_err(failed)?
        {
            assert_eq!(value.len(), 8, "Spin's SQLite host panics");
        }
        let numbers = self.quirks.numbers(&self.store);
        let sum = self.store.increment(key, delta, numbers).await;
        self.step().await;
        sum.map_err(failed)
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), store::Error> {
        self.step().await;
        let seen = self.store.get(key).await.map_err(failed)?;
        if seen.as_deref() != Some(old) {
            return Ok(());
        }
        self.step().await;
        let answer = self
            .quirks
            .swap(&self.store, key, Some(seen.as_deref()), new)
            .await;
        self.step().await;
        answer.map(drop).map_err(failed)
    }
}
