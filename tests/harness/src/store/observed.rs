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

/// A store that counts what it is asked, and that fails, is slow, hangs, or loses what it held when it is told to.
///
/// Clones are the same store: keep one, give the host the other.
#[derive(Clone, Debug)]
pub struct Observed {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
    /// Whether it hangs.
    hanging: watch::Sender<bool>,
    /// Every call holds it for reading, and whoever restores the store for writing: no call sees half of a restore.
    turn: Arc<RwLock<()>>,
}

/// What an [`Observed`] store held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup(BTreeMap<String, Vec<u8>>);

#[derive(Debug, Default)]
struct State {
    counts: HashMap<Operation, u64>,
    failures: Vec<Failure>,
    chance: Option<Chance>,
    is_counting_twice: bool,
    /// How long each of these takes.
    pauses: HashMap<Operation, Duration>,
}

/// Failures by chance.
#[derive(Debug)]
struct Chance {
    message: String,
    share: f64,
    random: StdRng,
}

/// What becomes of a call.
enum Fate {
    Answered,
    /// It is not done, and fails with this message.
    Refused(String),
    /// It is done, and fails with this message.
    Lost(String),
}

/// Something that a test wants to fail.
#[derive(Debug)]
struct Failure {
    message: String,
    /// `None`: whatever is asked.
    operation: Option<Operation>,
    /// How often still. `None`: until it recovers.
    times: Option<u64>,
    /// Whether it is done all the same, and only its answer is lost.
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

    /// An SQLite database that is observed with this store: its statements are operations of a table of keys and values. One
    /// that selects what belongs to a key is a `Get`, an update is a `Swap`, and so on; what is none of these is an `Open`.
    pub fn database(&self, inner: impl Database) -> impl Database {
        ObservedDatabase {
            inner: Arc::new(inner),
            observed: self.clone(),
        }
    }

    /// A Redis that is observed with this store: its commands are operations of a store of keys and values. `GET` is a `Get`,
    /// `INCRBY` an `Increment`, a script is a `Swap`, and so on; what is none of these is an `Open`, and so is a new connection.
    pub fn redis(&self, inner: impl redis::Server) -> impl redis::Server {
        ObservedRedis {
            inner: Arc::new(inner),
            observed: self.clone(),
        }
    }

    /// How often `operation` was asked for, failures included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// From now on, everything fails with this message and does nothing.
    pub fn fail(&self, message: &str) {
        self.add(message, None, None, false);
    }

    /// From now on, `operation` fails with this message and does nothing. The others do as before.
    pub fn fail_at(&self, operation: Operation, message: &str) {
        self.add(message, Some(operation), None, false);
    }

    /// The next `times` that `operation` is asked for, it fails with this message and does nothing.
    pub fn fail_next(&self, times: u64, operation: Operation, message: &str) {
        self.add(message, Some(operation), Some(times), false);
    }

    /// From now on, `operation` is done, and its answer is lost: it fails with this message.
    pub fn lose_answers(&self, operation: Operation, message: &str) {
        self.add(message, Some(operation), None, true);
    }

    /// From now on, `operation` takes this long.
    pub fn slow_down(&self, operation: Operation, pause: Duration) {
        self.state().pauses.insert(operation, pause);
    }

    /// From now on, this share of all that is asked, from 0 to 1, fails with this message. Half of what fails is done all the
    /// same, and only its answer is lost. `seed` says which calls these are.
    pub fn fail_some(&self, share: f64, seed: u64, message: &str) {
        self.state().chance = Some(Chance {
            message: message.into(),
            share: share.clamp(0.0, 1.0),
            random: StdRng::seed_from_u64(seed),
        });
    }

    /// From now on, there is no answer. What is asked meanwhile is done when the store recovers, if anybody still waits
    /// for it.
    pub fn hang(&self) {
        self.hanging.send_replace(true);
    }

    /// From now on, every increment is done twice, as when a client below this one asks again after a lost answer.
    pub fn count_twice(&self) {
        self.state().is_counting_twice = true;
    }

    /// All is well again.
    pub fn recover(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.chance = None;
        state.is_counting_twice = false;
        state.pauses.clear();
        self.hanging.send_replace(false);
    }

    /// What it holds now. This is not counted and meets no fault.
    ///
    /// # Errors
    ///
    /// Those of the store inside.
    pub async fn backup(&self) -> Result<Backup, Error> {
        let _turn = self.turn.write().await;
        self.read_all().await
    }

    /// Goes back to what it held then: a backup that is restored, or a failover that loses the writes since. What is asked
    /// meanwhile waits. This is not counted and meets no fault.
    ///
    /// # Errors
    ///
    /// Those of the store inside. It may have gone back in part.
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

    /// Loses all that it holds, as Redis with `FLUSHALL`. Otherwise as [`restore`](Self::restore).
    ///
    /// # Errors
    ///
    /// As [`restore`](Self::restore).
    pub async fn wipe(&self) -> Result<(), Error> {
        self.restore(&Backup::default()).await
    }

    /// The values of all keys.
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

    /// Asks the store, as far as it does not fail: `call` is what it then does.
    async fn ask<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        *self.state().counts.entry(operation).or_default() += 1;
        // The sender is this store's own: there is always one.
        _ = self.hanging.subscribe().wait_for(|hangs| !hangs).await;
        let pause = self.state().pauses.get(&operation).copied();
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let _turn = self.turn.read().await;
        let fate = self.state().fate(operation);
        match fate {
            Fate::Answered => call.await,
            Fate::Refused(message) => Err(Error(message)),
            Fate::Lost(message) => {
                call.await?;
                Err(Error(message))
            }
        }
    }
}

impl State {
    fn fate(&mut self, operation: Operation) -> Fate {
        // The latest wish counts. One that has come true often enough is over.
        let failing = self.failures.iter_mut().rev().find(|failure| {
            failure.times != Some(0) && failure.operation.is_none_or(|only| only == operation)
        });
        if let Some(failure) = failing {
            failure.times = failure.times.map(|times| times - 1);
            let message = failure.message.clone();
            return if failure.is_done {
                Fate::Lost(message)
            } else {
                Fate::Refused(message)
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
            Fate::Refused(message)
        }
    }
}

#[async_trait]
impl Store for Observed {
    async fn open(&self) -> Result<(), Error> {
        self.ask(Operation::Open, self.inner.open()).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ask(Operation::Get, self.inner.get(key)).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.ask(Operation::Set, self.inner.set(key, value)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.ask(Operation::Delete, self.inner.delete(key)).await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.ask(Operation::Keys, self.inner.keys()).await
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        let swap = self.inner.swap(key, old, new);
        self.ask(Operation::Swap, swap).await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let increment = async {
            if self.state().is_counting_twice {
                self.inner.increment(key, delta, numbers).await?;
            }
            self.inner.increment(key, delta, numbers).await
        };
        self.ask(Operation::Increment, increment).await
    }

    fn numbers(&self) -> Numbers {
        self.inner.numbers()
    }
}

/// A database whose statements are counted, and fail, as the operations of an [`Observed`] store do.
#[derive(Debug)]
struct ObservedDatabase {
    inner: Arc<dyn Database>,
    observed: Observed,
}

#[async_trait]
impl Database for ObservedDatabase {
    async fn open(&self) -> Result<(), Error> {
        let open = self.inner.open();
        self.observed.ask(Operation::Open, open).await
    }

    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer {
        let (operation, _) = sqlite::operation(statement, &parameters);
        let execute = async {
            if operation == Operation::Increment && self.observed.state().is_counting_twice {
                self.inner
                    .execute(statement, parameters.clone())
                    .await
                    .end?;
            }
            Ok(self.inner.execute(statement, parameters).await)
        };
        let answer = self.observed.ask(operation, execute).await;
        answer.unwrap_or_else(Answer::from)
    }

    fn changes(&self) -> u64 {
        self.inner.changes()
    }

    fn last_insert_rowid(&self) -> i64 {
        self.inner.last_insert_rowid()
    }
}

/// A Redis whose commands are counted, and fail, as the operations of an [`Observed`] store do.
#[derive(Debug)]
struct ObservedRedis {
    inner: Arc<dyn redis::Server>,
    observed: Observed,
}

#[async_trait]
impl redis::Server for ObservedRedis {
    async fn connect(&self, url: &str) -> Result<Arc<dyn redis::Connection>, redis::Error> {
        let connect = async { Ok(self.inner.connect(url).await) };
        let connection = self.observed.ask(Operation::Open, connect).await;
        Ok(Arc::new(ObservedConnection {
            inner: connection.unwrap_or_else(|Error(what)| Err(redis::Error::Other(what)))?,
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
        let execute = async {
            if operation == Operation::Increment && self.observed.state().is_counting_twice {
                _ = self.inner.execute(command, arguments.clone()).await;
            }
            Ok(self.inner.execute(command, arguments).await)
        };
        let answer = self.observed.ask(operation, execute).await;
        answer.unwrap_or_else(|Error(what)| Err(redis::Error::Other(what)))
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
