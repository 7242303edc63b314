//! An instance's [`Connection`] to the database: what happens to its calls, and the key-value store.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::{Call, Database, Faults, GivenUp, Inner, Late, Outcome, State, World, lock};
use crate::guest::Life;
use crate::store::{Error, Numbers, Operation, Store};
use crate::view::current_request;

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answer,
    Fail,
    LoseAnswer,
    DieBefore,
    DieAfter,
}

impl Faults {
    /// How long a call takes to reach the database, or its answer to return.
    fn way(&self, world: &World) -> Duration {
        let is_slow = world.chance(self.slow);
        let most = if is_slow {
            self.slow_latency
        } else {
            self.latency
        };
        world.time(Duration::ZERO..=most)
    }

    fn fate(&self, world: &World) -> Fate {
        if world.chance(self.deaths) {
            *world.pick(&[Fate::DieBefore, Fate::DieAfter])
        } else if world.chance(self.failing) {
            Fate::Fail
        } else if world.chance(self.lost_answers) {
            Fate::LoseAnswer
        } else {
            Fate::Answer
        }
    }
}

/// An instance's connection to the database.
pub(crate) struct Connection {
    pub(super) database: Database,
    pub(super) host: Arc<str>,
    pub(super) lag: Duration,
    pub(super) life: Arc<Life>,
    /// The position of this instance's last write to each key, in the order of moments.
    pub(super) own: Mutex<HashMap<String, u64>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// A call that waits while the database hangs. If it is dropped, its instance has given it up.
struct Waiting<'a> {
    connection: &'a Connection,
    /// A write that is done even then.
    write: Option<GivenUp>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(write) = self.write.take() {
            lock(&self.connection.database.0.state).given_up.push(write);
        }
    }
}

/// The result of a call that is applied.
pub(super) struct Applied<T> {
    pub(super) answer: Result<T, Error>,
    pub(super) outcome: Outcome,
    /// The key's new value, if it gets one: `Some(None)` deletes it.
    pub(super) write: Option<Option<Vec<u8>>>,
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
    /// Makes a call: it takes its time and meets its faults. `apply` applies it. `late` returns how it is applied after the
    /// instance has given it up, if it can be. `what` describes it for the trace.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        key: &str,
        what: impl Fn() -> String,
        late: impl FnOnce() -> Option<Late>,
        apply: impl Fn(&State) -> Applied<T>,
    ) -> Result<T, Error> {
        let Inner { world, state, .. } = &*self.database.0;
        let asked = world.moment();
        let faults = lock(state).faults;
        let (there, back) = (faults.way(world), faults.way(world));
        let fate = faults.fate(world);
        let (outage, index) = {
            let mut state = lock(state);
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
            (state.outage.clone(), state.calls.len() - 1)
        };
        world.sleep(there).await;
        if lock(state).is_hanging() {
            let is_done_anyway = world.chance(0.5) && fate == Fate::Answer;
            let write = late().filter(|_| is_done_anyway).map(|write| GivenUp {
                who: self.who(),
                what: what(),
                key: key.to_owned(),
                write,
                index,
            });
            self.hang(&what, write).await;
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
                Fate::DieAfter => self.tell(&what(), "and dies before the answer"),
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

    /// Waits until the database goes on. If the future is dropped, `write` is done then.
    async fn hang(&self, what: impl Fn() -> String, write: Option<GivenUp>) {
        let Inner { state, goes_on, .. } = &*self.database.0;
        let mut waiting = Waiting {
            connection: self,
            write,
        };
        while lock(state).is_hanging() {
            self.tell(&what(), "hangs");
            goes_on.notified().await;
        }
        waiting.write = None;
    }

    fn tell(&self, what: &str, how: &str) {
        let world = &self.database.0.world;
        world.tell(self.who(), || match current_request() {
            Some(request) => format!("{what} {how}, for request {request}"),
            None => format!("{what} {how}"),
        });
    }

    /// The instance's name in a trace.
    fn who(&self) -> String {
        format!("{}.{}", self.host, self.life.instance)
    }

    /// The value that this instance sees.
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
                    // A value that does not change is not written, and has no new moment.
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

/// For calls that cannot be given up, or that write nothing.
fn never() -> Option<Late> {
    None
}

/// A write that does not depend on when it is done.
fn at_any_time(value: Option<Vec<u8>>) -> Late {
    Box::new(move |_| Some(value))
}

/// A value as a trace shows it.
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

/// The result of a call as a trace shows it.
fn describe<T>(applied: &Applied<T>) -> String {
    match (&applied.outcome, &applied.write, &applied.answer) {
        (_, _, Err(error)) => format!("is rejected: {error}"),
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
            // The answer to the first increment is lost.
            _ = self.add(key, delta, numbers).await;
        }
        self.add(key, delta, numbers).await
    }

    fn numbers(&self) -> Numbers {
        Numbers::Text
    }
}
