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

/// What may happen to a call of a [`Database`]. Probabilities are from 0 to 1, for each call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// The longest time for a call to reach the store, and for its answer to return.
    pub latency: Duration,
    /// The probability that one of the two takes up to [`slow_latency`](Self::slow_latency) instead.
    pub slow: f64,
    /// The longest time for a slow call to reach the store, or for its answer to return.
    pub slow_latency: Duration,
    /// The probability that a call fails and does nothing.
    pub failing: f64,
    /// The probability that a call is done, but its answer is lost: the caller gets an error.
    pub lost_answers: f64,
    /// The probability that an increment is done twice, as if a client library retries after a lost answer.
    pub doubled: f64,
    /// The probability that the instance dies just before or just after a call is done.
    pub deaths: f64,
}

impl Default for Faults {
    /// No faults, and calls that take no time.
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
    /// The longest time from a call to its answer.
    pub fn longest(&self) -> Duration {
        let slow = if self.slow > 0.0 {
            self.slow_latency
        } else {
            Duration::ZERO
        };
        self.latency.max(slow) * 2
    }
}

/// A call of an instance.
#[derive(Clone, Debug)]
pub struct Call {
    /// The name of the instance's host.
    pub host: Arc<str>,
    /// The instance's number on its host.
    pub instance: u64,
    /// The request for which the instance made the call. Not known for calls that block the whole instance.
    pub request: Option<u64>,
    /// The operation.
    pub operation: Operation,
    /// The key, or empty if the operation has none.
    pub key: String,
    /// When the instance made the call.
    pub asked: Moment,
    /// When the store applied it, if it did.
    pub applied: Option<Moment>,
    /// When the instance got the answer, if it did.
    pub answered: Option<Moment>,
    /// The outcome for the instance, even if the answer is still on its way.
    pub outcome: Outcome,
    /// The value that was written, if any.
    pub wrote: Option<Vec<u8>>,
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read returned this value.
    Read(Option<Vec<u8>>),
    /// Another operation was done.
    Done,
    /// The instance got an error.
    Failed,
    /// The instance died.
    Died,
}

/// The store that all hosts of a world share. Every call is atomic. Clones are the same database.
///
/// It is a key-value store, and also an SQLite database labelled `default`, with the same faults. The first column of its
/// tables has the keys, and the second the values. A statement is a call. Its key is the first parameter that is a text.
///
/// A host may read a replica that lags behind ([`Settings::lag`](super::Settings::lag)): its instances see what the database
/// held that long ago, and also what they have written themselves. Writes go to the database.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    world: World,
    state: Mutex<State>,
    /// Wakes the hanging calls, in the order in which they arrived.
    goes_on: Notify,
}

/// The values that a key has had, each with its moment. `None`: the key was deleted.
type Values = Vec<(Moment, Option<Vec<u8>>)>;

struct State {
    faults: Faults,
    outage: Option<String>,
    /// When the database hung, from when to when. Without an end, it still hangs.
    silences: Vec<(Moment, Option<Moment>)>,
    /// Each key's values, oldest first.
    history: BTreeMap<String, Values>,
    /// When the database set a key because it went back.
    reverted: Vec<Moment>,
    calls: Vec<Call>,
    /// Writes that are done when the database goes on, though nobody waits for them.
    given_up: Vec<GivenUp>,
    tables: Tables,
}

/// Does a write later. Returns the key's new value, if it gets one: `Some(None)` deletes it.
type Late = Box<dyn FnOnce(&State) -> Option<Option<Vec<u8>>> + Send>;

/// A write that reached the database while it hung, and that its instance has given up.
struct GivenUp {
    who: String,
    what: String,
    key: String,
    write: Late,
    /// The index of its call.
    index: usize,
}

impl State {
    fn is_hanging(&self) -> bool {
        self.silences.last().is_some_and(|(_, end)| end.is_none())
    }

    fn current(&self, key: &str) -> Option<&Vec<u8>> {
        self.history.get(key)?.last()?.1.as_ref()
    }

    /// What a replica holds that has the values up to the time `until`, and those up to the position `own` in the order of
    /// moments. Without `until`, it has only the latter.
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
    /// An empty database.
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

    /// Changes the faults of calls from now on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.0.state).faults = faults;
    }

    /// From now on, every call fails with this message and does nothing. `None` ends this.
    pub fn set_outage(&self, outage: Option<&str>) {
        lock(&self.0.state).outage = outage.map(str::to_owned);
    }

    /// From now on, calls that reach the database wait until it goes on, and are done then. If an instance gives up a write
    /// before that, it is random whether the write is done.
    pub fn hang(&self) {
        let moment = self.0.world.moment();
        let mut state = lock(&self.0.state);
        if !state.is_hanging() {
            state.silences.push((moment, None));
        }
    }

    /// Ends what [`hang`](Self::hang) started.
    pub fn go_on(&self) {
        let mut given_up = {
            let mut state = lock(&self.0.state);
            if let Some((_, end)) = state.silences.last_mut() {
                end.get_or_insert_with(|| self.0.world.moment());
            }
            std::mem::take(&mut state.given_up)
        };
        // In the order of the calls: instances end in any order.
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

    /// When the database hung, from when to when. Without an end, it still hangs.
    pub fn silences(&self) -> Vec<(Moment, Option<Moment>)> {
        lock(&self.0.state).silences.clone()
    }

    /// Goes back to what it held at this time, as after a failover that loses writes, or when a backup is restored. At time
    /// zero, it held nothing.
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

    /// The moments in a [history](Self::history) at which the database [went back](Self::go_back).
    pub fn reverted(&self) -> Vec<Moment> {
        lock(&self.0.state).reverted.clone()
    }

    /// The value of a key. Faults do not affect this.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.0.state).current(key).cloned()
    }

    /// Sets the value of a key. Faults do not affect this.
    pub fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        self.write(key, Some(value.into()));
    }

    /// Every value that a key has had, each with its moment. `None`: the key was deleted.
    pub fn history(&self, key: &str) -> Vec<(Moment, Option<Vec<u8>>)> {
        let state = lock(&self.0.state);
        state.history.get(key).cloned().unwrap_or_default()
    }

    /// All calls of instances so far, in order.
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
