//! The store of a simulated world.

mod connection;
mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::tables::Tables;
use super::{Moment, World, lock};
use crate::guest::Life;
use crate::store::Operation;

pub(super) use connection::Connection;

/// What may happen to the calls of a [`Database`]. Probabilities are from 0 to 1, and of a single call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// How long a call takes at most on its way to the store, and its answer on the way back.
    pub latency: Duration,
    /// How probable it is that one of the two ways takes at most [`slow_latency`](Self::slow_latency) instead.
    pub slow: f64,
    /// What that is.
    pub slow_latency: Duration,
    /// How probable it is that a call fails without having done anything.
    pub failing: f64,
    /// How probable it is that a call is done, but fails for who asked, because the answer is lost.
    pub lost_answers: f64,
    /// How probable it is that an increment is done twice, because a client below the component asks again after a lost
    /// answer.
    pub doubled: f64,
    /// How probable it is that the instance dies just before a call is done, or just after.
    pub deaths: f64,
}

impl Default for Faults {
    /// None, and calls that take no time.
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            slow: 0.0,
            slow_latency: Duration::ZERO,
            failing: 0.0,
            lost_answers: 0.0,
            doubled: 0.0,
            deaths: 0.0,
        }
    }
}

impl Faults {
    /// The longest time that a call and its answer take together.
    pub fn longest(&self) -> Duration {
        let slow = if self.slow > 0.0 {
            self.slow_latency
        } else {
            Duration::ZERO
        };
        self.latency.max(slow) * 2
    }
}

/// One call of an instance.
#[derive(Clone, Debug)]
pub struct Call {
    /// The name of the instance's host.
    pub host: Arc<str>,
    /// The instance's number on its host.
    pub instance: u64,
    /// The request that it works for. Unknown of calls that stop the instance's other requests.
    pub request: Option<u64>,
    /// What was asked.
    pub operation: Operation,
    /// Of which key. Empty where it is of none.
    pub key: String,
    /// When the instance asked.
    pub asked: Moment,
    /// When the store did it, if it did.
    pub applied: Option<Moment>,
    /// When the instance had the answer, if it got one.
    pub answered: Option<Moment>,
    /// What the instance was told, or is going to be told.
    pub outcome: Outcome,
    /// What the key got, if anything.
    pub wrote: Option<Vec<u8>>,
}

/// What a call leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value that a read saw.
    Read(Option<Vec<u8>>),
    /// Something else was done.
    Done,
    /// The instance sees an error.
    Failed,
    /// The instance dies of it.
    Died,
}

/// The store that all hosts of a world share. Every call is done in one step; clones are the same database.
///
/// It is a key-value store, and besides an SQLite database called `default`, which goes through the same. Of its tables, the
/// first column has the keys and the second the values. A statement is a call: of the key that is the first text among its
/// parameters.
///
/// A host may read a replica that lags behind ([`Settings::lag`](super::Settings::lag)): its instances see what the
/// database held that long ago, but at least what they have written themselves. Writes go to the database itself.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    world: World,
    state: Mutex<State>,
    /// Tells the calls that hang when they go on, in the order in which they came.
    goes_on: Notify,
}

/// The values that a key has had, and since when. `None`: it was deleted.
type Values = Vec<(Moment, Option<Vec<u8>>)>;

struct State {
    faults: Faults,
    outage: Option<String>,
    /// When the database hung. Without an end, it still does.
    silences: Vec<(Moment, Option<Moment>)>,
    /// Each key's values, the first one first. A deleted key has none.
    history: BTreeMap<String, Values>,
    /// When a key got a value because the database went back.
    reverted: Vec<Moment>,
    calls: Vec<Call>,
    /// Writes that nobody waits for any more, and that are made when the database goes on.
    given_up: Vec<GivenUp>,
    tables: Tables,
}

/// What a write does to its key, when it is made: `Some(None)` deletes it.
type Late = Box<dyn FnOnce(&State) -> Option<Option<Vec<u8>>> + Send>;

/// A write that reached the database while it hung, and whose instance has given up.
struct GivenUp {
    who: String,
    what: String,
    key: String,
    write: Late,
    /// The call's place among the calls.
    index: usize,
}

impl State {
    fn is_hanging(&self) -> bool {
        self.silences.last().is_some_and(|(_, end)| end.is_none())
    }

    fn current(&self, key: &str) -> Option<&Vec<u8>> {
        self.history.get(key)?.last()?.1.as_ref()
    }

    /// The value as of the moment `until`, or a later one that is not newer than `own`. Without `until`, nothing has
    /// come there yet.
    fn as_of(&self, key: &str, until: Option<Duration>, own: Option<u64>) -> Option<&Vec<u8>> {
        let values = self.history.get(key)?;
        let seen = |moment: &Moment| {
            until.is_some_and(|until| moment.at <= until)
                || own.is_some_and(|own| moment.order <= own)
        };
        let (_, value) = values.iter().rev().find(|(moment, _)| seen(moment))?;
        value.as_ref()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// An empty one.
    pub fn new(world: &World, faults: Faults) -> Self {
        Self(Arc::new(Inner {
            world: world.clone(),
            state: Mutex::new(State {
                faults,
                outage: None,
                silences: Vec::new(),
                history: BTreeMap::new(),
                reverted: Vec::new(),
                calls: Vec::new(),
                given_up: Vec::new(),
                tables: Tables::default(),
            }),
            goes_on: Notify::new(),
        }))
    }

    /// What may happen to calls from now on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.0.state).faults = faults;
    }

    /// From now on, every call fails with this message and does nothing; with `None`, no longer.
    pub fn set_outage(&self, outage: Option<&str>) {
        lock(&self.0.state).outage = outage.map(str::to_owned);
    }

    /// From now on, calls that reach the database get no answer. They are done when it goes on. Of those whose instance has
    /// given up by then, chance decides which are done: it is not known of any of them.
    pub fn hang(&self) {
        let moment = self.0.world.moment();
        let mut state = lock(&self.0.state);
        if !state.is_hanging() {
            state.silences.push((moment, None));
        }
    }

    /// Ends what [`hang`](Self::hang) began.
    pub fn go_on(&self) {
        let mut given_up = {
            let mut state = lock(&self.0.state);
            if let Some((_, end)) = state.silences.last_mut() {
                end.get_or_insert_with(|| self.0.world.moment());
            }
            std::mem::take(&mut state.given_up)
        };
        // In the order in which they were asked: instances end in any order.
        given_up.sort_by_key(|write| write.index);
        for write in given_up {
            let GivenUp {
                who,
                what,
                key,
                write,
                index,
            } = write;
            self.0.world.tell(who, || {
                format!("{what} is done, though nobody waits for it")
            });
            let write = write(&lock(&self.0.state));
            let moment = match &write {
                Some(value) => self.write(&key, value.clone()),
                None => self.0.world.moment(),
            };
            let call = &mut lock(&self.0.state).calls[index];
            call.applied = Some(moment);
            call.wrote = write.flatten();
        }
        self.0.goes_on.notify_waiters();
    }

    /// When the database hung, from its first moment to its last. Without an end, it still does.
    pub fn silences(&self) -> Vec<(Moment, Option<Moment>)> {
        lock(&self.0.state).silences.clone()
    }

    /// Goes back to what it held at this time, as after a failover that has lost writes, or from a backup. At the world's
    /// beginning, that was nothing.
    pub fn go_back(&self, to: Duration) {
        let mut state = lock(&self.0.state);
        let keys: Vec<_> = state.history.keys().cloned().collect();
        for key in keys {
            let then = state.as_of(&key, Some(to), None).cloned();
            if state.current(&key) != then.as_ref() {
                let moment = self.0.world.moment();
                state.reverted.push(moment);
                state.tables.put(&key, then.as_deref());
                state.history.entry(key).or_default().push((moment, then));
            }
        }
        state.tables.forget_younger_than(to);
    }

    /// The moments of those values in a [history](Self::history) that are there because the database
    /// [went back](Self::go_back).
    pub fn reverted(&self) -> Vec<Moment> {
        lock(&self.0.state).reverted.clone()
    }

    /// The value of a key, now and without any fault.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.0.state).current(key).cloned()
    }

    /// Gives a key a value, now and without any fault.
    pub fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        self.write(key, Some(value.into()));
    }

    /// Every value that a key has had, and since when. `None`: it was deleted.
    pub fn history(&self, key: &str) -> Vec<(Moment, Option<Vec<u8>>)> {
        let state = lock(&self.0.state);
        state.history.get(key).cloned().unwrap_or_default()
    }

    /// All calls of instances so far, in the order in which they were asked.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0.state).calls.clone()
    }

    fn write(&self, key: &str, value: Option<Vec<u8>>) -> Moment {
        let moment = self.0.world.moment();
        let mut state = lock(&self.0.state);
        let history = state.history.entry(key.to_owned()).or_default();
        history.push((moment, value));
        moment
    }

    /// The database as one instance sees it.
    pub(super) fn connect(&self, host: Arc<str>, lag: Duration, life: Arc<Life>) -> Connection {
        Connection {
            database: self.clone(),
            host,
            lag,
            life,
            own: Mutex::default(),
        }
    }
}
