//! The store of a simulated world.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::tables::Tables;
use super::{Moment, World, lock};
use crate::guest::Life;
use crate::keyvalue::current_request;
use crate::sqlite::{self, Answer, Value};
use crate::store::{Error, Numbers, Operation, Store};

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

/// What the seed has in store for a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answer,
    Fail,
    LoseAnswer,
    DieBefore,
    DieAfter,
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

/// One instance's connection.
pub(super) struct Connection {
    database: Database,
    host: Arc<str>,
    lag: Duration,
    life: Arc<Life>,
    /// The place in the order of things of the last write of this instance, by its key.
    own: Mutex<HashMap<String, u64>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// A call that waits for a database that hangs. Dropped, it is given up.
struct Waiting<'a> {
    connection: &'a Connection,
    /// What is written all the same.
    write: Option<GivenUp>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(write) = self.write.take() {
            lock(&self.connection.database.0.state).given_up.push(write);
        }
    }
}

/// What a call does when it reaches the database.
struct Applied<T> {
    answer: Result<T, Error>,
    outcome: Outcome,
    /// The key's new value, if it gets one: `Some(None)` deletes it.
    write: Option<Option<Vec<u8>>>,
}

impl<T> Applied<T> {
    fn done(answer: T, write: Option<Option<Vec<u8>>>) -> Self {
        Self {
            answer: Ok(answer),
            outcome: Outcome::Done,
            write,
        }
    }
}

impl Connection {
    /// Takes a call through its fate.
    async fn call<T>(
        &self,
        operation: Operation,
        key: &str,
        what: impl Fn() -> String,
        late: impl FnOnce() -> Option<Late>,
        apply: impl Fn(&State) -> Applied<T>,
    ) -> Result<T, Error> {
        let Inner {
            world,
            state,
            goes_on,
        } = &*self.database.0;
        let asked = world.moment();
        let (there, back, fate, outage, index) = {
            let mut state = lock(state);
            let faults = state.faults;
            let way = || {
                let is_slow = world.chance(faults.slow);
                let most = if is_slow {
                    faults.slow_latency
                } else {
                    faults.latency
                };
                world.time(Duration::ZERO..=most)
            };
            let (there, back) = (way(), way());
            let fate = if world.chance(faults.deaths) {
                *world.pick(&[Fate::DieBefore, Fate::DieAfter])
            } else if world.chance(faults.failing) {
                Fate::Fail
            } else if world.chance(faults.lost_answers) {
                Fate::LoseAnswer
            } else {
                Fate::Answer
            };
            state.calls.push(Call {
                host: self.host.clone(),
                instance: self.life.instance,
                request: current_request(),
                operation,
                key: key.to_owned(),
                asked,
                applied: None,
                answered: None,
                outcome: Outcome::Failed,
                wrote: None,
            });
            (
                there,
                back,
                fate,
                state.outage.clone(),
                state.calls.len() - 1,
            )
        };
        world.sleep(there).await;
        if lock(state).is_hanging() {
            let is_done_anyway = world.chance(0.5) && fate == Fate::Answer;
            let late = late().filter(|_| is_done_anyway);
            let mut waiting = Waiting {
                connection: self,
                write: late.map(|write| GivenUp {
                    who: self.who(),
                    what: what(),
                    key: key.to_owned(),
                    write,
                    index,
                }),
            };
            while lock(state).is_hanging() {
                self.tell(&what(), "hangs");
                goes_on.notified().await;
            }
            waiting.write = None;
        }
        let outage = outage.or_else(|| lock(state).outage.clone());
        if fate == Fate::DieBefore {
            self.tell(&what(), "and dies before it is done");
            lock(state).calls[index].outcome = Outcome::Died;
            self.life.kill();
            return pending().await;
        }

        let mut answer = Err(Error("the connection was lost".into()));
        if let Some(outage) = outage {
            self.tell(&what(), "fails: the store is down");
            answer = Err(Error(outage));
        } else if fate == Fate::Fail {
            self.tell(&what(), "fails");
        } else {
            let applied = {
                let state = lock(state);
                apply(&state)
            };
            let moment = match &applied.write {
                None => world.moment(),
                Some(value) => {
                    let moment = self.database.write(key, value.clone());
                    lock(&self.own).insert(key.to_owned(), moment.order);
                    moment
                }
            };
            let what = || match operation {
                Operation::Open | Operation::Keys => what(),
                _ => format!("{} {}", what(), describe(&applied)),
            };
            match fate {
                Fate::LoseAnswer => self.tell(&what(), "but the answer is lost"),
                Fate::DieAfter => self.tell(&what(), "and dies before it knows"),
                _ => self.tell(
                    &what(),
                    &format!("(asked at {:.3})", asked.at.as_secs_f64()),
                ),
            }
            {
                let call = &mut lock(state).calls[index];
                call.applied = Some(moment);
                call.wrote = applied.write.flatten();
                call.outcome = match fate {
                    Fate::DieAfter => Outcome::Died,
                    Fate::Answer => applied.outcome,
                    _ => Outcome::Failed,
                };
            }
            if fate == Fate::DieAfter {
                self.life.kill();
                return pending().await;
            }
            if fate == Fate::Answer {
                answer = applied.answer;
            }
        }
        world.sleep(back).await;
        lock(state).calls[index].answered = Some(world.moment());
        answer
    }

    fn tell(&self, what: &str, how: &str) {
        let world = &self.database.0.world;
        world.tell(self.who(), || match current_request() {
            Some(request) => format!("{what} {how}, for request {request}"),
            None => format!("{what} {how}"),
        });
    }

    /// The instance, as a trace names it.
    fn who(&self) -> String {
        format!("{}.{}", self.host, self.life.instance)
    }

    /// The value that this instance gets to see.
    fn see(&self, state: &State, key: &str) -> Option<Vec<u8>> {
        if self.lag.is_zero() {
            return state.current(key).cloned();
        }
        let now = self.database.0.world.0.started.elapsed();
        let until = now.checked_sub(self.lag);
        let own = lock(&self.own).get(key).copied();
        state.as_of(key, until, own).cloned()
    }

    async fn add(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        self.call(
            Operation::Increment,
            key,
            || format!("increment {key} by {delta}"),
            never,
            |state| {
                let before = state.current(key).map(Vec::as_slice);
                match numbers.add(before, delta) {
                    Err(error) => Applied {
                        answer: Err(error),
                        outcome: Outcome::Failed,
                        write: None,
                    },
                    // What stays as it is was not written: nobody's copy of it becomes younger.
                    Ok((sum, after)) if before == Some(after.as_slice()) => {
                        Applied::done(sum, None)
                    }
                    Ok((sum, after)) => Applied::done(sum, Some(Some(after))),
                }
            },
        )
        .await
    }
}

/// Of calls that nobody can give up, or that write nothing.
fn never() -> Option<Late> {
    None
}

/// A write that is the same whenever it is made.
fn at_any_time(value: Option<Vec<u8>>) -> Late {
    Box::new(move |_| Some(value))
}

/// A value as a trace shows it: as text, or as a number.
fn show(value: Option<&[u8]>) -> String {
    let Some(value) = value else {
        return "nothing".into();
    };
    match (std::str::from_utf8(value), <[u8; 8]>::try_from(value)) {
        (Ok(text), _) if !text.contains(|c: char| c.is_control()) => format!("{text:?}"),
        (_, Ok(bytes)) => format!("the number {}", i64::from_le_bytes(bytes)),
        _ => format!("{} bytes", value.len()),
    }
}

fn describe<T>(applied: &Applied<T>) -> String {
    match (&applied.outcome, &applied.write, &applied.answer) {
        (_, _, Err(error)) => format!("is refused: {error}"),
        (Outcome::Read(value), ..) => format!("is {}", show(value.as_deref())),
        (_, Some(value), _) => format!("leaves {}", show(value.as_deref())),
        (_, None, _) => "(changes nothing)".into(),
    }
}

#[async_trait]
impl Store for Connection {
    async fn open(&self) -> Result<(), Error> {
        let what = || "opens the store".into();
        self.call(Operation::Open, "", what, never, |_| {
            Applied::done((), None)
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.call(
            Operation::Get,
            key,
            || format!("get {key}"),
            never,
            |state| {
                let value = self.see(state, key);
                Applied {
                    answer: Ok(value.clone()),
                    outcome: Outcome::Read(value),
                    write: None,
                }
            },
        )
        .await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.call(
            Operation::Set,
            key,
            || format!("set {key}"),
            || Some(at_any_time(Some(value.into()))),
            |_| Applied::done((), Some(Some(value.into()))),
        )
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.call(
            Operation::Delete,
            key,
            || format!("delete {key}"),
            || Some(at_any_time(None)),
            |_| Applied::done((), Some(None)),
        )
        .await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.call(
            Operation::Keys,
            "",
            || "lists the keys".into(),
            never,
            |state| {
                let keys = state.history.keys();
                let keys = keys.filter(|key| self.see(state, key).is_some());
                Applied::done(keys.cloned().collect(), None)
            },
        )
        .await
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        self.call(
            Operation::Swap,
            key,
            || format!("swap {key} from {} to {}", show(old), show(Some(new))),
            never,
            |state| {
                let matches = state.current(key).map(Vec::as_slice) == old;
                Applied::done(matches, matches.then(|| Some(new.into())))
            },
        )
        .await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let Inner { world, state, .. } = &*self.database.0;
        let doubled = lock(state).faults.doubled;
        if world.chance(doubled) {
            // Whoever asks again never had this answer.
            _ = self.add(key, delta, numbers).await;
        }
        self.add(key, delta, numbers).await
    }

    fn numbers(&self) -> Numbers {
        Numbers::Text
    }
}

impl State {
    /// Executes a statement. Returns its answer, and what it made of the key.
    fn execute(
        &self,
        statement: &str,
        parameters: &[Value],
        key: &str,
        now: Duration,
    ) -> (Answer, Option<Option<Vec<u8>>>) {
        let answer = self.tables.execute(statement, parameters, now);
        let value = self.tables.value(key);
        let is_written = value.as_ref() != self.current(key);
        (answer, is_written.then_some(value))
    }
}

impl Connection {
    async fn execute_once(
        &self,
        (operation, key): (Operation, &str),
        statement: &str,
        parameters: &[Value],
    ) -> Answer {
        let now = || self.database.0.world.0.started.elapsed();
        let late = || -> Option<Late> {
            let is_read = matches!(operation, Operation::Get | Operation::Keys);
            let (statement, parameters) = (statement.to_owned(), parameters.to_vec());
            let (key, now) = (key.to_owned(), now());
            let write = move |state: &State| state.execute(&statement, &parameters, &key, now).1;
            (!is_read).then(|| Box::new(write) as Late)
        };
        let apply = |state: &State| {
            let (answer, write) = state.execute(statement, parameters, key, now());
            let outcome = match (&answer.end, operation) {
                (Err(_), _) => Outcome::Failed,
                (Ok(()), Operation::Get) => Outcome::Read(state.tables.value(key)),
                (Ok(()), _) => Outcome::Done,
            };
            let end = answer.end.clone();
            Applied {
                answer: end.map(|()| answer),
                outcome,
                write,
            }
        };
        let what = || {
            let parameters: Vec<_> = parameters.iter().map(show_parameter).collect();
            format!("{operation:?} {}", parameters.join(", ")).to_lowercase()
        };
        let answer = self.call(operation, key, what, late, apply).await;
        answer.unwrap_or_else(Answer::from)
    }
}

fn show_parameter(parameter: &Value) -> String {
    match parameter {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

#[async_trait]
impl sqlite::Database for Connection {
    async fn open(&self) -> Result<(), Error> {
        Store::open(self).await
    }

    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer {
        let call = sqlite::operation(statement, &parameters);
        let Inner { world, state, .. } = &*self.database.0;
        let doubled = lock(state).faults.doubled;
        if call.0 == Operation::Increment && world.chance(doubled) {
            // Whoever asks again never had this answer.
            _ = self.execute_once(call, statement, &parameters).await;
        }
        self.execute_once(call, statement, &parameters).await
    }

    fn changes(&self) -> u64 {
        lock(&self.database.0.state).tables.changes()
    }

    fn last_insert_rowid(&self) -> i64 {
        lock(&self.database.0.state).tables.last_insert_rowid()
    }
}
