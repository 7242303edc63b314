use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Error, Numbers, Store};

/// What a store can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as the methods of `Store`")]
pub enum Operation {
    Open,
    Get,
    Set,
    Delete,
    Keys,
    Swap,
    Increment,
}

/// A store that counts what it is asked, and that fails or hangs when a test tells it to.
///
/// Clones are the same store: keep one, give the host the other.
#[derive(Clone, Debug)]
pub struct Observed {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
    /// Whether it hangs.
    hanging: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    counts: HashMap<Operation, u64>,
    failures: Vec<Failure>,
    is_counting_twice: bool,
}

/// Something that a test wants to fail.
#[derive(Debug)]
struct Failure {
    message: String,
    /// `None`: whatever is asked.
    operation: Option<Operation>,
    /// How often still. `None`: until it recovers.
    times: Option<u64>,
}

impl Observed {
    /// Observes `inner`.
    pub fn new(inner: impl Store) -> Self {
        Self {
            inner: Arc::new(inner),
            state: Arc::default(),
            hanging: watch::Sender::default(),
        }
    }

    /// How often `operation` was asked for, failures included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// From now on, everything fails with this message and does nothing.
    pub fn fail(&self, message: &str) {
        self.add(None, None, message);
    }

    /// From now on, `operation` fails with this message and does nothing. The others do as before.
    pub fn fail_at(&self, operation: Operation, message: &str) {
        self.add(Some(operation), None, message);
    }

    /// The next `times` that `operation` is asked for, it fails with this message and does nothing.
    pub fn fail_next(&self, times: u64, operation: Operation, message: &str) {
        self.add(Some(operation), Some(times), message);
    }

    /// From now on, there is no answer. What is asked meanwhile is done when the store recovers, if anybody still waits
    /// for it.
    pub fn hang(&self) {
        self.hanging.send_replace(true);
    }

    /// From now on, every increment is done twice, as where a client below this one asks again after a lost answer.
    pub fn count_twice(&self) {
        self.state().is_counting_twice = true;
    }

    /// All is well again.
    pub fn recover(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.is_counting_twice = false;
        self.hanging.send_replace(false);
    }

    fn add(&self, operation: Option<Operation>, times: Option<u64>, message: &str) {
        self.state().failures.push(Failure {
            message: message.into(),
            operation,
            times,
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn asked(&self, operation: Operation) -> Result<&dyn Store, Error> {
        *self.state().counts.entry(operation).or_default() += 1;
        // The sender is this store's own: there is always one.
        _ = self.hanging.subscribe().wait_for(|hangs| !hangs).await;
        let mut state = self.state();
        // The latest wish counts. One that has come true often enough is over.
        let failing = state.failures.iter_mut().rev().find(|failure| {
            failure.times != Some(0) && failure.operation.is_none_or(|only| only == operation)
        });
        let Some(failure) = failing else {
            return Ok(&*self.inner);
        };
        failure.times = failure.times.map(|times| times - 1);
        Err(Error(failure.message.clone()))
    }
}

#[async_trait]
impl Store for Observed {
    async fn open(&self) -> Result<(), Error> {
        self.asked(Operation::Open).await?.open().await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.asked(Operation::Get).await?.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.asked(Operation::Set).await?.set(key, value).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.asked(Operation::Delete).await?.delete(key).await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.asked(Operation::Keys).await?.keys().await
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        self.asked(Operation::Swap).await?.swap(key, old, new).await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let store = self.asked(Operation::Increment).await?;
        if self.state().is_counting_twice {
            store.increment(key, delta, numbers).await?;
        }
        store.increment(key, delta, numbers).await
    }

    fn numbers(&self) -> Numbers {
        self.inner.numbers()
    }
}
