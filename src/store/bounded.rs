//! [`Bounded`] and [`Patient`]: stores whose calls time out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Atomics, Error, Store};
use crate::clock::{Clock, before};

/// How long a call may take.
///
/// Spin's Redis client reconnects by itself, and calls wait for that: with Redis down, a `get` takes more than 30 s to return
/// (Spin 4.1).
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// How recently a store must have answered to be considered available.
const FRESH: Duration = Duration::from_millis(100);

/// Awaits a call of the store, or fails after [`PATIENCE`].
async fn in_time<T>(
    clock: &impl Clock,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let deadline = clock.now().saturating_add(PATIENCE);
    let answer = before(clock, deadline, call).await;
    answer.unwrap_or_else(|| Err(Error::silent(PATIENCE)))
}

/// A store whose calls are all asynchronous. A call fails after [`PATIENCE`] without an answer.
///
/// A call that timed out may take effect later. So before an `increment`, which would then count, the store must answer a read.
///
/// On WASI 0.2, all calls are synchronous, and none times out.
///
/// ```
/// use loopless::clock::Tokio;
/// use loopless::store::{Memory, Patient};
///
/// let store = Patient::new(Memory::default(), Tokio::default());
/// ```
///
/// # Cancel safety
///
/// A write that timed out may take effect later.
#[derive(Debug, Default)]
pub struct Patient<S, C> {
    store: S,
    clock: C,
}

impl<S, C: Clock> Patient<S, C> {
    /// Adds timeouts by `clock` to the calls of `store`.
    pub fn new(store: S, clock: C) -> Self {
        Self { store, clock }
    }
}

impl<S: Store, C: Clock> Store for Patient<S, C> {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send {
        in_time(&self.clock, self.store.get(key))
    }

    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send {
        in_time(&self.clock, self.store.set(key, value))
    }

    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send {
        in_time(&self.clock, self.store.delete(key))
    }

    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send {
        in_time(&self.clock, self.store.keys())
    }
}

impl<S: Atomics, C: Clock> Atomics for Patient<S, C> {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        if delta != 0 {
            self.get(key).await?;
        }
        in_time(&self.clock, self.store.increment(key, delta)).await
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        in_time(&self.clock, self.store.swap(key, old, new)).await
    }
}

/// A store on which `increment` and `swap` are synchronous. Any other call fails after [`PATIENCE`] without an answer.
///
/// The synchronous calls of `wasi:keyvalue` block all requests of the instance, and cannot time out. So they are only made
/// when the store has just answered another call. If it has not, a read comes first.
///
/// On WASI 0.2, all calls are synchronous, and none times out.
///
/// ```
/// use loopless::clock::Tokio;
/// use loopless::store::{Bounded, Memory};
///
/// let store = Bounded::new(Memory::default(), Tokio::default());
/// ```
///
/// # Cancel safety
///
/// A write that timed out may take effect later.
#[derive(Debug, Default)]
pub struct Bounded<S, C> {
    store: S,
    clock: C,
    /// When the store last answered, in nanoseconds, or 0 if it never did.
    answered: AtomicU64,
}

impl<S, C: Clock> Bounded<S, C> {
    /// Adds timeouts by `clock` to the asynchronous calls of `store`.
    pub fn new(store: S, clock: C) -> Self {
        Self {
            store,
            clock,
            answered: AtomicU64::new(0),
        }
    }

    /// Notes the time of an answer. An error does not count, because it may come from the host instead of the store.
    fn note<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if answer.is_ok() {
            self.answered.store(self.nanoseconds(), Ordering::Relaxed);
        }
        answer
    }

    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX)
    }

    async fn bound<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.note(in_time(&self.clock, call).await)
    }
}

impl<S: Store, C: Clock> Bounded<S, C> {
    /// Reads `key` unless the store has just answered another call.
    async fn probe(&self, key: &str) -> Result<(), Error> {
        let answered = self.answered.load(Ordering::Relaxed);
        let age = Duration::from_nanos(self.nanoseconds().saturating_sub(answered));
        if answered == 0 || age > FRESH {
            self.get(key).await?;
        }
        Ok(())
    }
}

impl<S: Store, C: Clock> Store for Bounded<S, C> {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send {
        self.bound(self.store.get(key))
    }

    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send {
        self.bound(self.store.set(key, value))
    }

    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send {
        self.bound(self.store.delete(key))
    }

    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send {
        self.bound(self.store.keys())
    }
}

impl<S: Atomics, C: Clock> Atomics for Bounded<S, C> {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.probe(key).await?;
        self.note(self.store.increment(key, delta).await)
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        self.probe(key).await?;
        self.note(self.store.swap(key, old, new).await)
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::Tokio;

    /// A store that never answers.
    #[derive(Default)]
    struct Silent(Mutex<Vec<&'static str>>);

    impl Silent {
        async fn ask<T>(&self, what: &'static str) -> Result<T, Error> {
            self.0.lock().unwrap().push(what);
            future::pending().await
        }
    }

    impl Store for Silent {
        async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, Error> {
            self.ask("get").await
        }

        async fn set(&self, _: &str, _: &[u8]) -> Result<(), Error> {
            self.ask("set").await
        }

        async fn delete(&self, _: &str) -> Result<(), Error> {
            self.ask("delete").await
        }

        async fn keys(&self) -> Result<Vec<String>, Error> {
            self.ask("keys").await
        }
    }

    impl Atomics for Silent {
        async fn increment(&self, _: &str, _: i64) -> Result<i64, Error> {
            self.ask("increment").await
        }

        async fn swap(&self, _: &str, _: &[u8], _: &[u8]) -> Result<(), Error> {
            self.ask("swap").await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_ends_and_what_counts_is_asked_of_a_store_that_answers() {
        let store = Patient::new(Silent::default(), Tokio::default());
        for error in [
            store.get("a").await.unwrap_err(),
            store.set("a", b"1").await.unwrap_err(),
            store.delete("a").await.unwrap_err(),
            store.keys().await.unwrap_err(),
            store.swap("a", b"1", b"2").await.unwrap_err(),
            store.increment("a", 0).await.unwrap_err(),
            store.increment("a", 1).await.unwrap_err(),
        ] {
            assert!(error.is_silent());
        }
        assert_eq!(store.clock.now(), 7 * PATIENCE);
        let asked = store.store.0.into_inner().unwrap();
        let expected = ["get", "set", "delete", "keys", "swap", "increment", "get"];
        assert_eq!(asked, expected);
    }
}
