use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{RwLock, watch};

use super::{Error, Numbers, Store};
use crate::redis;
use crate::sqlite::{self, Answer, Database, Value};

/// An operation of a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named like the methods of `Store`")]
pub enum Operation {
    Open,
    Get,
    Set,
    Delete,
    Keys,
    Swap,
    Increment,
}

/// A store that counts its operations, and that fails, is slow, hangs or loses data on demand.
///
/// Clones are the same store: keep one, and give the host the other.
#[derive(Clone, Debug)]
pub struct Observed {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
    hanging: watch::Sender<bool>,
    /// Locked for reading by each operation, and for writing by a restore: no operation sees half of a restore.
    turn: Arc<RwLock<()>>,
}

/// The contents of an [`Observed`] store at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup(BTreeMap<String, Vec<u8>>);

#[derive(Debug, Default)]
struct State {
    counts: HashMap<Operation, u64>,
    failures: Vec<Failure>,
    chance: Option<Chance>,
    is_counting_twice: bool,
    /// How long each operation takes in addition.
    pauses: HashMap<Operation, Duration>,
}

/// Random failures.
#[derive(Debug)]
struct Chance {
    message: String,
    share: f64,
    random: StdRng,
}

/// What happens to an operation.
enum Fate {
    Answered,
    /// It is not done, and fails with this message.
    Failed(String),
    /// It is done, and fails with this message.
    Lost(String),
}

/// A failure that a test has asked for.
#[derive(Debug)]
struct Failure {
    message: String,
    /// `None`: any operation.
    operation: Option<Operation>,
    /// How many more times. `None`: until the store recovers.
    times: Option<u64>,
    /// Whether the operation is done and only its answer is lost.
    is_done: bool,
}

impl Observed {
    /// Observes `inner`.
    pub fn new(inner: impl Store) -> Self {
        Self {
            inner: Arc::new(inner),
            state: Arc::default(),
            hanging: watch::Sender::default(),
            turn: Arc::default(),
        }
    }

    /// An SQLite database that is observed together with this store. Its statements count as operations on a table of keys and
    /// values: a SELECT for a key is a `Get`, an UPDATE is a `Swap`, and so on. Any other statement is an `Open`.
    pub fn database(&self, inner: impl Database) -> impl Database {
        ObservedDatabase {
            inner: Arc::new(inner),
            observed: self.clone(),
        }
    }

    /// A Redis that is observed together with this store. Its commands count as operations: GET is a `Get`, INCRBY is an
    /// `Increment`, a script is a `Swap`, and so on. Any other command is an `Open`, and so is a new connection.
    pub fn redis(&self, inner: impl redis::Server) -> impl redis::Server {
        ObservedRedis {
            inner: Arc::new(inner),
            observed: self.clone(),
        }
    }

    /// How often `operation` was called, failures included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// From now on, every operation fails with this message and does nothing.
    pub fn fail(&self, message: &str) {
        self.add(message, None, None, false);
    }

    /// From now on, `operation` fails with this message and does nothing. Other operations are not affected.
    pub fn fail_at(&self, operation: Operation, message: &str) {
        self.add(message, Some(operation), None, false);
    }

    /// The next `times` calls of `operation` fail with this message and do nothing.
    pub fn fail_next(&self, times: u64, operation: Operation, message: &str) {
        self.add(message, Some(operation), Some(times), false);
    }

    /// From now on, `operation` is done, but its answer is lost: it fails with this message.
    pub fn lose_answers(&self, operation: Operation, message: &str) {
        self.add(message, Some(operation), None, true);
    }

    /// From now on, `operation` takes this much longer.
    pub fn slow_down(&self, operation: Operation, pause: Duration) {
        self.state().pauses.insert(operation, pause);
    }

    /// From now on, this share of all operations, from 0 to 1, fails with this message. Of half of these, only the answer is
    /// lost: the operation is done. `seed` decides which operations fail.
    pub fn fail_some(&self, share: f64, seed: u64, message: &str) {
        self.state().chance = Some(Chance {
            message: message.into(),
            share: share.clamp(0.0, 1.0),
            random: StdRng::seed_from_u64(seed),
        });
    }

    /// From now on, operations wait until the store recovers. An operation whose caller gives up before that is not done.
    pub fn hang(&self) {
        self.hanging.send_replace(true);
    }

    /// From now on, every increment is done twice, as if a client library retries after a lost answer.
    pub fn count_twice(&self) {
        self.state().is_counting_twice = true;
    }

    /// Ends all faults.
    pub fn recover(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.chance = None;
        state.is_counting_twice = false;
        state.pauses.clear();
        self.hanging.send_replace(false);
    }

    /// The contents of the store. Faults do not affect this, and it is not counted.
    ///
    /// # Errors
    ///
    /// Those of the observed store.
    pub async fn backup(&self) -> Result<Backup, Error> {
        let _turn = self.turn.write().await;
        self.read_all().await
    }

    /// Restores the contents of a backup, as an operator does, or as a failover that loses writes. Operations wait meanwhile.
    /// Faults do not affect this, and it is not counted.
    ///
    /// # Errors
    ///
    /// Those of the observed store. Part of the contents may be restored.
    pub async fn restore(&self, Backup(then): &Backup) -> Result<(), Error> {
        let _turn = self.turn.write().await;
        let Backup(now) = self.read_all().await?;
        for key in now.keys().filter(|key| !then.contains_key(*key)) {
            self.inner.delete(key).await?;
        }
        for (key, value) in then {
            self.inner.set(key, value).await?;
        }
        Ok(())
    }

    /// Deletes all keys, like FLUSHALL of Redis. Otherwise like [`restore`](Self::restore).
    ///
    /// # Errors
    ///
    /// Those of [`restore`](Self::restore).
    pub async fn wipe(&self) -> Result<(), Error> {
        self.restore(&Backup::default()).await
    }

    async fn read_all(&self) -> Result<Backup, Error> {
        let mut all = BTreeMap::new();
        for key in self.inner.keys().await? {
            if let Some(value) = self.inner.get(&key).await? {
                all.insert(key, value);
            }
        }
        Ok(Backup(all))
    }

    fn add(&self, message: &str, operation: Option<Operation>, times: Option<u64>, is_done: bool) {
        self.state().failures.push(Failure {
            message: message.into(),
            operation,
            times,
            is_done,
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation and applies the faults to it. `call` does it.
    async fn ask<T, E: From<Error>, F: Future<Output = Result<T, E>> + Send>(
        &self,
        operation: Operation,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T, E> {
        *self.state().counts.entry(operation).or_default() += 1;
        // The sender is in `self`, so there is no error.
        _ = self.hanging.subscribe().wait_for(|hangs| !hangs).await;
        let pause = self.state().pauses.get(&operation).copied();
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let _turn = self.turn.read().await;
        let (fate, is_counting_twice) = {
            let mut state = self.state();
            (state.fate(operation), state.is_counting_twice)
        };
        if let Fate::Failed(message) = fate {
            return Err(Error(message).into());
        }
        if operation == Operation::Increment && is_counting_twice {
            call().await?;
        }
        let answer = call().await?;
        match fate {
            Fate::Lost(message) => Err(Error(message).into()),
            _ => Ok(answer),
        }
    }
}

impl State {
    fn fate(&mut self, operation: Operation) -> Fate {
        // The latest failure that is not used up applies.
        let failing = self.failures.iter_mut().rev().find(|failure| {
            failure.times != Some(0) && failure.operation.is_none_or(|only| only == operation)
        });
        if let Some(failure) = failing {
            failure.times = failure.times.map(|times| times - 1);
            let message = failure.message.clone();
            return if failure.is_done {
                Fate::Lost(message)
            } else {
                Fate::Failed(message)
            };
        }
        let Some(chance) = &mut self.chance else {
            return Fate::Answered;
        };
        if !chance.random.random_bool(chance.share) {
            return Fate::Answered;
        }
        let message = chance.message.clone();
        if chance.random.random_bool(0.5) {
            Fate::Lost(message)
        } else {
            Fate::Failed(message)
        }
    }
}

#[async_trait]
impl Store for Observed {
    async fn open(&self) -> Result<(), Error> {
        self.ask(Operation::Open, || self.inner.open()).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ask(Operation::Get, || self.inner.get(key)).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.ask(Operation::Set, || self.inner.set(key, value))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.ask(Operation::Delete, || self.inner.delete(key)).await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.ask(Operation::Keys, || self.inner.keys()).await
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        let swap = || self.inner.swap(key, old, new);
        self.ask(Operation::Swap, swap).await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let increment = || self.inner.increment(key, delta, numbers);
        self.ask(Operation::Increment, increment).await
    }

    fn numbers(&self) -> Numbers {
        self.inner.numbers()
    }
}

/// See [`Observed::database`].
#[derive(Debug)]
struct ObservedDatabase {
    inner: Arc<dyn Database>,
    observed: Observed,
}

#[async_trait]
impl Database for ObservedDatabase {
    async fn open(&self) -> Result<(), Error> {
        let open = || self.inner.open();
        self.observed.ask(Operation::Open, open).await
    }

    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer {
        let (operation, _) = sqlite::operation(statement, &parameters);
        let execute = || async {
            let answer = self.inner.execute(statement, parameters.clone()).await;
            match answer.end {
                Ok(()) => Ok(answer),
                Err(_) => Err(answer),
            }
        };
        match self.observed.ask(operation, execute).await {
            Ok(answer) | Err(answer) => answer,
        }
    }

    fn changes(&self) -> u64 {
        self.inner.changes()
    }

    fn last_insert_rowid(&self) -> i64 {
        self.inner.last_insert_rowid()
    }
}

/// See [`Observed::redis`].
#[derive(Debug)]
struct ObservedRedis {
    inner: Arc<dyn redis::Server>,
    observed: Observed,
}

#[async_trait]
impl redis::Server for ObservedRedis {
    async fn connect(&self, url: &str) -> Result<Arc<dyn redis::Connection>, redis::Error> {
        let connect = || self.inner.connect(url);
        Ok(Arc::new(ObservedConnection {
            inner: self.observed.ask(Operation::Open, connect).await?,
            observed: self.observed.clone(),
        }))
    }
}

struct ObservedConnection {
    inner: Arc<dyn redis::Connection>,
    observed: Observed,
}

#[async_trait]
impl redis::Connection for ObservedConnection {
    async fn execute(
        &self,
        command: &str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<redis::Value, redis::Error> {
        let operation = redis::operation(command);
        let execute = || self.inner.execute(command, arguments.clone());
        self.observed.ask(operation, execute).await
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::super::Memory;
    use super::*;

    #[tokio::test]
    async fn a_share_of_the_calls_fails_and_half_of_that_is_done() {
        let store = Observed::new(Memory::default());
        for (percent, failures) in [(0_u32, 0..=0), (10, 60..=140), (100, 1000..=1000)] {
            store.fail_some(f64::from(percent) / 100.0, 1, "by chance");
            let (mut failed, mut done) = (0, 0);
            for _ in 0..1000 {
                let before = store.inner.get("n").await.unwrap();
                let answer = store.increment("n", 1, Numbers::Text).await;
                let is_done = store.inner.get("n").await.unwrap() != before;
                match answer {
                    Ok(_) => assert!(is_done),
                    Err(error) => {
                        assert_eq!(error, Error("by chance".into()));
                        failed += 1;
                        done += u32::from(is_done);
                    }
                }
            }
            assert!(failures.contains(&failed), "{percent} %: {failed}");
            assert!(
                (failed * 3 / 10..=failed * 7 / 10).contains(&done),
                "{done} of {failed}"
            );
        }
        store.recover();
        assert!(store.increment("n", 0, Numbers::Text).await.is_ok());
    }

    #[tokio::test]
    async fn it_goes_back_to_a_backup_also_while_it_hangs_and_can_be_wiped() {
        let store = Observed::new(Memory::default());
        store.set("kept", b"1").await.unwrap();
        store.set("changed", b"1").await.unwrap();
        let backup = store.backup().await.unwrap();
        store.set("changed", b"2").await.unwrap();
        store.set("new", b"1").await.unwrap();
        let counts = [Operation::Get, Operation::Set, Operation::Keys].map(|of| store.count(of));

        store.fail("down");
        store.hang();
        store.restore(&backup).await.unwrap();
        assert_eq!(store.backup().await.unwrap(), backup);
        store.recover();
        assert_eq!(store.get("changed").await, Ok(Some(b"1".to_vec())));
        assert_eq!(store.keys().await.unwrap(), ["changed", "kept"]);

        store.wipe().await.unwrap();
        assert_eq!(store.keys().await, Ok(vec![]));
        assert_eq!(store.backup().await.unwrap(), Backup::default());
        let now = [Operation::Get, Operation::Set, Operation::Keys].map(|of| store.count(of));
        // One `get` and two `keys` are this test's.
        assert_eq!(now, [counts[0] + 1, counts[1], counts[2] + 2]);
    }

    #[tokio::test]
    async fn what_is_asked_during_a_restore_waits_for_its_end() {
        let store = Observed::new(Memory::default());
        let restoring = store.turn.write().await;
        let mut asked = store.get("key");
        let mut context = Context::from_waker(Waker::noop());
        assert!(asked.as_mut().poll(&mut context).is_pending());
        drop(restoring);
        assert_eq!(asked.await, Ok(None));
    }
}
