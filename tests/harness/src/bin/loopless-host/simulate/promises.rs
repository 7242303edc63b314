//! The promises, and whether a run kept them.
//!
//! Each check compares what a client saw with what the event really was ([`Truth`]), as the store's history has it.

use std::time::Duration;

use http::StatusCode;
use loopless_host::console::Output;
use loopless_host::simulation::{Call, Database, Host, Lost, Moment, Outcome};
use loopless_host::store::Operation;
use serde_json::Value;

use super::clients::{Action, Done};
use super::events::STREAM_MAX;
use super::linearizability::is_linearizable;
use super::scenario::{Weather, ms};
use super::truth::{State, Truth, Version};
use crate::contract::Contract;

/// How inexact timers are: tokio's count milliseconds, and a wait may need a few of them one after the other.
const TIMERS: Duration = Duration::from_millis(5);

/// How long the component waits for an answer of the store, at most. Written down anew here, as what follows.
const PATIENCE: Duration = ms(1500);

/// How long ago the store may have answered whoever makes a call that cannot be given up.
const FRESH: Duration = ms(100);

/// All pauses between the attempts of a change together.
const BACKOFFS: Duration = ms(512);

/// How long the page waits for its event.
const PAGE_WAIT: Duration = ms(100);

/// A run that is over.
pub struct Run<'a> {
    /// What the component says that it promises.
    pub contract: &'a Contract,
    pub database: Database,
    pub hosts: Vec<Host>,
    pub names: Vec<&'static str>,
    pub done: Vec<Done>,
    pub poll_first: Duration,
    pub poll_last: Duration,
    pub weather: Weather,
    /// The longest that a call of the store took.
    pub longest_call: Duration,
    pub calls: Vec<Call>,
}

/// What was broken, one line each.
pub fn check(run: &Run<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    for host in &run.hosts {
        for (_, line) in host.lines() {
            if line.output == Output::Stderr {
                let instance = line.instance;
                broken.push(format!(
                    "instance {}.{instance} failed: {}",
                    host.name(),
                    line.text
                ));
            }
        }
    }
    for &name in &run.names {
        let truth = match Truth::read(&run.database, &format!("event/{name}"), run.contract) {
            Ok(truth) => truth,
            Err(error) => {
                broken.push(error);
                continue;
            }
        };
        let truth = &truth;
        let of_name = || {
            let done = run.done.iter().filter(move |done| done.name == name);
            done.map(move |done| Seen { run, truth, done })
        };
        for seen in of_name() {
            if let Err(what) = seen.check() {
                broken.push(format!("{}: {what}", seen.done.describe()));
            }
        }
        // A replica that lags shows the past, and so does a store that goes back: there is no order in which that were
        // the present.
        let is_current = run.hosts.iter().all(|host| host.settings().lag.is_zero());
        let is_true = is_current && truth.reverts().next().is_none();
        if is_true && !is_linearizable(of_name(), run.contract.is_exact()) {
            broken.push(format!("what was done with {name} is not linearizable"));
        }
    }
    if run.contract.has_wasi_0_3() {
        broken.extend(check_synchronous(&run.calls));
    }
    broken
}

/// That a call that stops its instance, and cannot be given up, is made only of a store that has just answered this
/// instance.
pub fn check_synchronous(calls: &[Call]) -> Option<String> {
    let is_fresh = |call: &Call| {
        let instance = (&*call.host, call.instance);
        calls
            .iter()
            .filter(|other| (&*other.host, other.instance) == instance)
            .filter_map(|other| Some((other, other.answered?)))
            .filter(|(_, answered)| answered.order < call.asked.order)
            .any(|(other, answered)| {
                let seen = resumed(calls, instance, answered.at);
                let has_answered =
                    other.outcome != Outcome::Failed && seen + FRESH + TIMERS >= call.asked.at;
                // A host may ask its store more than once in one call.
                let is_same = is_synchronous(other) && answered.at == call.asked.at;
                has_answered || is_same
            })
    };
    let mut synchronous = calls.iter().filter(|call| is_synchronous(call));
    let call = synchronous.find(|call| !is_fresh(call))?;
    Some(format!(
        "{}.{} asked for {:?} {} at {:.3} s, and did not know whether the store answers",
        call.host,
        call.instance,
        call.operation,
        call.key,
        call.asked.at.as_secs_f64()
    ))
}

/// Whether it is a call of `wasi:keyvalue`, which stops its instance.
fn is_synchronous(call: &Call) -> bool {
    call.request.is_none()
}

/// When an instance that may be stopped sees what has come to it at this time.
fn resumed(calls: &[Call], instance: (&str, u64), came: Duration) -> Duration {
    let its = |call: &&Call| is_synchronous(call) && (&*call.host, call.instance) == instance;
    calls.iter().filter(its).fold(came, |seen, call| {
        match call.answered.map(|answered| answered.at) {
            Some(end) if (call.asked.at..end).contains(&seen) => end,
            _ => seen,
        }
    })
}

/// What one client saw.
pub struct Seen<'a> {
    run: &'a Run<'a>,
    pub truth: &'a Truth,
    pub done: &'a Done,
}

impl Seen<'_> {
    fn check(&self) -> Result<(), String> {
        let Ok(response) = &self.done.exchange.result else {
            return Ok(());
        };
        let status = response.status();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            if self.run.weather == Weather::Healthy {
                return Err(format!("503 in a healthy system: {}", self.done.body()));
            }
            if !response.headers().contains_key("retry-after") {
                return Err("503 without Retry-After".into());
            }
            self.check_perseverance()?;
            return self.check_patience();
        }
        self.check_patience()?;
        if let Some(version) = self.done.version() {
            self.was(version)?;
        }
        if self.is_refused() && self.writes().next().is_some() {
            return Err(format!("status {status}, and still it wrote"));
        }
        match self.done.action {
            Action::Look => self.expect(&[200]),
            Action::Change { set, only_from } => self.check_change(set, only_from),
            Action::Post { set } => {
                self.expect(&[204])?;
                if self.is_deceived() {
                    return Ok(());
                }
                self.held("what was asked for", |state| state.is_set() == set)
            }
            Action::Page => {
                self.expect(&[200])?;
                let is_set = self.done.body().contains(">Clear<");
                self.held("what the page shows", |state| state.is_set() == is_set)
            }
            Action::Forget => {
                self.expect(&[204])?;
                self.held("forgotten, or never set", |state| !state.exists())
            }
            Action::Wait { timeout } => {
                self.expect(&[200, 408, 410])?;
                self.check_wait(timeout)?;
                self.check_time(timeout)
            }
            Action::LongPoll { known, timeout } => {
                self.expect(&[200, 304, 410])?;
                self.check_long_poll(known, timeout)?;
                self.check_time(timeout)
            }
            Action::Stream { last_event_id } => {
                self.expect(&[200])?;
                self.check_stream(last_event_id)
            }
            Action::List => {
                self.expect(&[200])?;
                self.check_list()
            }
        }
    }

    fn status(&self) -> u16 {
        self.done.status().map_or(0, |status| status.as_u16())
    }

    fn expect(&self, statuses: &[u16]) -> Result<(), String> {
        let status = self.status();
        if statuses.contains(&status) {
            Ok(())
        } else {
            Err(format!("status {status}: {}", self.done.body()))
        }
    }

    fn lag(&self) -> Duration {
        self.done.host.settings().lag
    }

    /// The states that the event had while the request was under way, and since when.
    fn history(&self) -> impl Iterator<Item = (Option<Moment>, State)> {
        self.history_from(self.done.exchange.sent)
    }

    /// The states that the event had from this moment on, while the request was under way, and since when.
    fn history_from(&self, from: Moment) -> impl Iterator<Item = (Option<Moment>, State)> {
        let ended = self.done.exchange.ended;
        self.truth.between(from, ended, self.lag())
    }

    /// That the event was like this at some time while the request was under way.
    fn held(&self, what: &str, is_like: impl Fn(State) -> bool) -> Result<(), String> {
        self.held_from(self.done.exchange.sent, what, is_like)
    }

    /// That the event was like this at some time during a wait, which begins with its first read.
    fn held_since_its_start(
        &self,
        what: &str,
        is_like: impl Fn(State) -> bool,
    ) -> Result<(), String> {
        let first = self.reads(true).next().map(|(_, applied, _)| applied);
        self.held_from(first.unwrap_or(self.done.exchange.sent), what, is_like)
    }

    fn held_from(
        &self,
        from: Moment,
        what: &str,
        is_like: impl Fn(State) -> bool,
    ) -> Result<(), String> {
        let states: Vec<_> = self.history_from(from).map(|(_, state)| state).collect();
        if states.iter().any(|state| is_like(*state)) {
            return Ok(());
        }
        let states: Vec<_> = states.iter().map(State::to_string).collect();
        Err(format!(
            "the event was not {what} meanwhile, but {}",
            states.join(", then ")
        ))
    }

    /// That the event had this version at some time while the request was under way.
    fn was(&self, version: Version) -> Result<(), String> {
        self.held(&format!("in version {version}"), |state| {
            state.version == version
        })
    }

    /// Whether the component says that it did nothing, or the request never came there.
    pub fn is_refused(&self) -> bool {
        match &self.done.exchange.result {
            Ok(response) => {
                let status = response.status();
                status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED
            }
            Err(lost) => *lost == Lost::Refused,
        }
    }

    /// When a change that this request asked for had been made. `None` where it may still be under way.
    pub fn end_of_change(&self) -> Option<Moment> {
        let is_done = self.done.status().is_some_and(|status| status.is_success());
        is_done.then_some(self.done.exchange.ended)
    }

    /// What this request wrote, where changes are plain writes.
    pub fn writes(&self) -> impl Iterator<Item = (Version, Moment)> {
        let key = format!("event/{}", self.done.name);
        let request = self.done.exchange.request;
        self.run.calls.iter().filter_map(move |call| {
            let is_its = call.request == Some(request) && call.key == key;
            let version = match call.operation {
                Operation::Set => Version::of_value(call.wrote.as_deref())?,
                Operation::Delete => Version::default(),
                _ => return None,
            };
            call.applied
                .filter(|_| is_its)
                .map(|moment| (version, moment))
        })
    }

    fn check_change(&self, set: bool, only_from: Option<Version>) -> Result<(), String> {
        if only_from.is_some() && !self.run.contract.keeps("conditions") {
            return self.expect(&[501]);
        }
        if let Some(version) = only_from
            && self.status() == 412
        {
            return self.held(&format!("in another version than {version}"), |state| {
                state.version != version
            });
        }
        self.expect(&[200])?;
        if self.is_deceived() {
            return Ok(());
        }
        self.held("what was asked for", |state| state.is_set() == set)?;
        if let Some(version) = only_from {
            self.was(version)?;
        }
        let has_changed = self.done.json()["changed"] == true;
        if !self.run.contract.keeps("changed") {
            let has_written = self.writes().next().is_some();
            return match has_written == has_changed {
                true => Ok(()),
                false => Err(format!(
                    "it says that it changed something: {has_changed}, and wrote: {has_written}"
                )),
            };
        }
        self.held("what \"changed\" says that it was before", |state| {
            (state.is_set() == set) != has_changed
        })
    }

    /// This request's own reads of the event that succeeded, or all of its instance. Those of a compare-and-swap, which
    /// are of no known request, tell nobody anything.
    fn reads(&self, is_own: bool) -> impl Iterator<Item = (&Call, Moment, Moment)> {
        let request = self.done.exchange.request;
        let instance = self
            .done
            .host
            .acceptance(request)
            .map(|acceptance| acceptance.instance);
        let key = format!("event/{}", self.done.name);
        self.run.calls.iter().filter_map(move |call| {
            let is_of_it = call.operation == Operation::Get
                && call.key == key
                && call.host.as_ref() == self.done.host.name()
                && Some(call.instance) == instance
                && (if is_own {
                    call.request == Some(request)
                } else {
                    call.request.is_some()
                })
                && matches!(call.outcome, Outcome::Read(_));
            is_of_it.then_some((call, call.applied?, call.answered?))
        })
    }

    /// Whether a wait that began with `start`, of this request, can tell that the event changed to `state`. One that
    /// began on an event without a value cannot, where nothing is left of what is forgotten: not that it was forgotten,
    /// and not that it had been set, if it is forgotten again when somebody looks, until `look`.
    fn leaves_a_trace(&self, start: &Call, change: (Moment, State), look: Duration) -> bool {
        let (changed, state) = change;
        start.outcome != Outcome::Read(None)
            || self.run.contract.keeps("forgotten-sets")
            || !(state.is_forgotten || self.truth.is_forgotten_between(changed, look))
    }

    /// Whether the event changed while this request was waiting, so that `is_due` to know of it, and it could know.
    fn missed(&self, timeout: Duration, is_due: impl Fn(State) -> bool) -> Option<(Moment, State)> {
        let exchange = &self.done.exchange;
        // It waits from its first read's answer on: what was over before that, nobody can have seen.
        let (start, first, answered) = self.reads(true).next()?;
        let mut reverts = self.truth.reverts();
        if reverts.any(|revert| first < revert && revert < exchange.ended) {
            return self.slept_through(start, answered, is_due);
        }
        let visible = |moment: Moment| moment.at + self.lag();
        // The last look is in the first half of the grace after the deadline, and has as long for its answer.
        let is_fast = self.run.longest_call + TIMERS < self.grace(timeout) / 2;
        let is_sure = self.run.weather == Weather::Healthy && is_fast;
        self.truth.changes().find(|&(moment, state)| {
            // Where every read since has failed, or was still under way at the end, it could not know.
            let could_know = || {
                self.reads(false).any(|(call, applied, ended)| {
                    applied.order > moment.order
                        && applied.at >= visible(moment)
                        && ended.at < exchange.ended.at
                        && self.began_after(call, answered)
                        && self.leaves_a_trace(start, (moment, state), applied.at)
                })
            };
            moment.order > first.order
                && visible(moment) < exchange.sent.at + timeout
                && is_due(state)
                && (could_know()
                    || (is_sure && self.leaves_a_trace(start, (moment, state), exchange.ended.at)))
        })
    }

    /// Whether the component knows that a read of this request's instance began when it had this answer. If not, the read
    /// may show what was before: a store that goes back has no order of versions, and neither has one without
    /// compare-and-swap.
    fn began_after(&self, call: &Call, answered: Moment) -> bool {
        let calls = &self.run.calls;
        // The first read of a request may have to open the store before it asks.
        let before = calls.iter().rev().find(|other| {
            other.asked.order < call.asked.order
                && (&other.host, other.instance) == (&call.host, call.instance)
                && other.request == call.request
        });
        let began = match before {
            Some(before) if before.operation == Operation::Open => before.asked.at,
            _ => call.asked.at,
        };
        began > resumed(calls, (&*call.host, call.instance), answered.at)
    }

    /// A read of this request's instance that showed that the event `is_due`, after the start of a wait that still took no
    /// notice. Where the store goes back, this is all that can be asked: a state may come back between two looks.
    fn slept_through(
        &self,
        start: &Call,
        answered: Moment,
        is_due: impl Fn(State) -> bool,
    ) -> Option<(Moment, State)> {
        let state = |call: &Call| match &call.outcome {
            Outcome::Read(value) => State::of(value.as_deref(), self.run.contract),
            _ => None,
        };
        let start = state(start)?;
        self.reads(false).find_map(|(call, applied, ended)| {
            let state = state(call)?;
            let is_news = self.began_after(call, answered)
                && ended.at < self.done.exchange.ended.at
                && state.version != start.version;
            (is_news && is_due(state)).then_some((applied, state))
        })
    }

    /// How much of this time the store hung, at most so long at a time.
    fn silence(&self, from: Duration, to: Duration, most: Duration) -> Duration {
        let silences = self.run.database.silences().into_iter();
        silences
            .filter_map(|(began, ended)| {
                let end = ended.map_or(to, |ended| ended.at).min(to);
                Some(end.checked_sub(began.at.max(from))?.min(most))
            })
            .sum()
    }

    /// That a wait that knows where it began goes on when the store fails, and when it hangs.
    fn check_perseverance(&self) -> Result<(), String> {
        let is_wait = matches!(
            self.done.action,
            Action::Wait { .. } | Action::LongPoll { .. } | Action::Page
        );
        // An answer that came when it had just given up came too late.
        let ended = self.done.exchange.ended.at;
        let mut known = self
            .reads(true)
            .filter(|(.., answered)| answered.at < ended);
        if is_wait && known.next().is_some() {
            return Err("it had begun to wait, and ended with 503".into());
        }
        Ok(())
    }

    /// That who asks a store that hangs is told so in time. (WASI 0.2 has no way to give up a call.)
    fn check_patience(&self) -> Result<(), String> {
        let exchange = &self.done.exchange;
        let Some(acceptance) = self.done.host.acceptance(exchange.request) else {
            return Err("no instance took it, and still it has a response".into());
        };
        if !self.run.contract.has_wasi_0_3() {
            return Ok(());
        }
        let (from, to) = (acceptance.moment.at, exchange.ended.at);
        let silent = self.silence(from, to, PATIENCE);
        if silent.is_zero() {
            return Ok(());
        }
        let stopped = self.stopped(acceptance.instance, from, to);
        // Before the store was silent, a change may have been tried again and again.
        let calls = self.run.calls.iter();
        let calls = calls.filter(|call| call.request == Some(exchange.request));
        let working = self.run.longest_call * u32::try_from(calls.count()).unwrap_or(u32::MAX);
        let waiting = match self.done.action {
            Action::Wait { timeout } | Action::LongPoll { timeout, .. } => timeout,
            Action::Page => PAGE_WAIT,
            Action::Stream { .. } => STREAM_MAX,
            _ => Duration::ZERO,
        };
        let pauses = waiting + self.grace(waiting) + BACKOFFS;
        if to - from > silent + stopped + working + pauses + TIMERS {
            return Err(format!(
                "it took {:.3} s, of which the store hung for {:.3} s",
                (to - from).as_secs_f64(),
                self.silence(from, to, Duration::MAX).as_secs_f64()
            ));
        }
        Ok(())
    }

    /// Whether the store went back, while this request was under way, to what looks as if the event had been changed: with
    /// compare-and-swap, to a later generation than it had before, or to another change of the same one, as where a store is
    /// wiped and a backup restored;
    /// without an order of versions, to any. Nobody can tell.
    fn is_deceived(&self) -> bool {
        let sent = self.done.exchange.sent;
        let mut earliest = None::<Version>;
        self.history().any(|(since, state)| {
            let version = state.version;
            let is_later = earliest.is_some_and(|earliest| {
                version != earliest && version.generation >= earliest.generation
            });
            let is_later = is_later || !self.run.contract.is_exact();
            if earliest.is_none_or(|earliest| version.generation < earliest.generation) {
                earliest = Some(version);
            }
            let is_revert = |since: Moment| since > sent && self.truth.is_revert(since);
            is_later && since.is_some_and(is_revert)
        })
    }

    /// That a wait that says that the event was set is right. Without compare-and-swap, a clear that was under way when
    /// the wait began looks like a set.
    fn check_woken(&self) -> Result<(), String> {
        let held = self.held_since_its_start("set", State::is_set);
        if self.is_deceived() {
            return Ok(());
        }
        if held.is_ok() || self.run.contract.keeps("no-early-wake-up") {
            return held;
        }
        let Some((_, first, _)) = self.reads(true).next() else {
            return held;
        };
        let lags = self.run.hosts.iter().map(|host| host.settings().lag);
        let lag = lags.max().unwrap_or_default();
        let is_before = |one: Moment, other: Moment| {
            if lag.is_zero() {
                one.order < other.order
            } else {
                one.at < other.at + lag
            }
        };
        let clears = self.run.done.iter().filter(|done| {
            matches!(
                done.action,
                Action::Change { set: false, .. } | Action::Post { set: false }
            ) && done.name == self.done.name
        });
        let was_under_way = clears.map(|done| Self { done, ..*self }).any(|clear| {
            is_before(clear.done.exchange.sent, first)
                && clear.writes().any(|(_, written)| {
                    is_before(first, written) && written.order < self.done.exchange.ended.order
                })
        });
        if was_under_way { Ok(()) } else { held }
    }

    /// The longest poll interval of a wait of this age.
    fn interval(&self, age: Duration) -> Duration {
        if age < Duration::from_secs(2) {
            self.grace(age).min(self.run.poll_first * 3 / 2)
        } else {
            self.grace(age)
        }
    }

    /// How long a wait with this timeout may be over it.
    fn grace(&self, timeout: Duration) -> Duration {
        (timeout / 20).clamp(self.run.poll_first, self.run.poll_last)
    }

    fn check_wait(&self, timeout: Duration) -> Result<(), String> {
        match self.status() {
            200 => self.check_woken(),
            410 => self.held_since_its_start("forgotten", |state| state.is_forgotten),
            _ => match self.missed(timeout, State::is_set) {
                None => Ok(()),
                Some((moment, state)) => Err(format!(
                    "the event was set at {:.3} s (version {state}), and the wait missed it",
                    moment.at.as_secs_f64(),
                )),
            },
        }
    }

    fn check_long_poll(&self, known: Version, timeout: Duration) -> Result<(), String> {
        let version = self.done.version();
        match self.status() {
            200 if version == Some(known) => Err("200 with the known version".into()),
            304 if version != Some(known) => Err("304 with another version".into()),
            304 => match self.missed(timeout, |_| true) {
                None => Ok(()),
                Some((moment, state)) => Err(format!(
                    "the event changed at {:.3} s (version {state}), and the long poll missed it",
                    moment.at.as_secs_f64(),
                )),
            },
            410 => self.held_since_its_start("forgotten", |state| state.is_forgotten),
            _ => Ok(()),
        }
    }

    /// How long this request's instance was stopped by calls of `wasi:keyvalue`, of whichever request.
    fn stopped(&self, instance: u64, from: Duration, to: Duration) -> Duration {
        let calls = self.run.calls.iter().filter(|call| {
            call.request.is_none()
                && call.instance == instance
                && call.host.as_ref() == self.done.host.name()
        });
        calls
            .filter_map(|call| {
                let end = call.answered.map_or(to, |answered| answered.at).min(to);
                end.checked_sub(call.asked.at.max(from))
            })
            .sum()
    }

    /// That a wait was not over too late: neither after its time, nor after what it waited for.
    fn check_time(&self, timeout: Duration) -> Result<(), String> {
        let exchange = &self.done.exchange;
        let Some(acceptance) = self.done.host.acceptance(exchange.request) else {
            return Err("no instance took it, and still it has a response".into());
        };
        let accepted = acceptance.moment.at;
        let ended = exchange.ended.at;
        let stopped = self.stopped(acceptance.instance, accepted, ended);
        let first = self.reads(true).next();
        let began = first.map_or(accepted + self.run.longest_call * 2, |(_, _, answered)| {
            answered.at
        });

        let deadline = began.max(accepted + timeout);
        // WASI 0.2 has no way to give up a read.
        let read = if self.run.contract.has_wasi_0_3() {
            Duration::ZERO
        } else {
            self.run.longest_call + self.silence(accepted, ended, Duration::MAX)
        };
        let latest = deadline + self.grace(timeout) + read + stopped + TIMERS;
        if ended > latest {
            return Err(format!(
                "it was over {:.3} s after its deadline",
                (ended - deadline).as_secs_f64()
            ));
        }

        let is_answer = matches!(self.status(), 200 | 410);
        let is_healthy = self.run.weather == Weather::Healthy;
        if !(is_healthy && is_answer && self.lag().is_zero()) {
            return Ok(());
        }
        let Some((start, first, answered)) = first else {
            return Ok(());
        };
        // A reading is due an interval after the last one was sent. It takes a call, and who shares it looks again after
        // the shortest interval.
        let due = |changed: Moment| {
            let age = (changed.at + self.run.poll_last).saturating_sub(accepted);
            let bound = self.interval(age) + self.run.longest_call * 2 + self.run.poll_first;
            changed.at.max(answered.at) + bound
        };
        let changed = self.truth.changes().find(|&(moment, state)| {
            let is_it = match self.done.action {
                Action::LongPoll { .. } => true,
                _ => state.is_set() || state.is_forgotten,
            };
            moment.order > first.order
                && is_it
                && self.leaves_a_trace(start, (moment, state), due(moment))
        });
        let Some((changed, _)) = changed else {
            return Ok(());
        };
        if ended > due(changed) + stopped + TIMERS {
            return Err(format!(
                "it was over {:.3} s after the change, in a healthy system",
                (ended - changed.at).as_secs_f64()
            ));
        }
        Ok(())
    }

    fn check_stream(&self, last_event_id: Option<Version>) -> Result<(), String> {
        let messages = messages(self.done.body())?;
        let is_forgotten = messages.iter().any(|message| message.is_forgotten);
        let versions: Vec<_> = messages.iter().map(|message| message.version).collect();
        let told = || {
            let versions: Vec<_> = versions.iter().map(Version::to_string).collect();
            versions.join(", ")
        };
        if versions.is_empty() {
            return match last_event_id {
                Some(_) => Ok(()),
                None => Err("the stream did not begin with the state".into()),
            };
        }
        // That it was forgotten comes last, and is no step from one state to the next.
        let steps = &versions[..versions.len() - usize::from(is_forgotten)];
        if self.run.contract.keeps("counted") {
            let known = [last_event_id].into_iter();
            let known = known.chain(versions.iter().copied().map(Some));
            for (index, (step, known)) in steps.iter().zip(known).enumerate() {
                let is_next = known.is_some_and(|known| known.generation + 1 == step.generation);
                // The client's last id may be of another event, and ahead of this one.
                let may_reset = self.run.weather == Weather::Forgetful || index == 0;
                let is_reset = messages[index].is_reset && may_reset;
                // What was between two states that were read is told without a tag.
                if step.tag.is_some() {
                    self.was(*step)?;
                }
                if !(index == 0 || is_reset) && (!is_next || messages[index].is_reset) {
                    return Err(format!("the stream's ids are {}", told()));
                }
            }
        } else {
            let flags = last_event_id.iter().chain(steps).map(|step| step.is_set());
            if !flags.is_sorted_by(|one, next| one != next) {
                return Err(format!("the stream tells no pulse between {}", told()));
            }
            // What was between two states that were read is told without a tag.
            let was_read = |index: usize, version: &Version| {
                version.tag.is_some()
                    || index + 1 == versions.len()
                    || (index == 0 && last_event_id.is_none())
            };
            for (index, version) in versions.iter().enumerate() {
                if was_read(index, version) {
                    self.was(*version)?;
                }
            }
        }
        let is_healthy = self.run.weather == Weather::Healthy;
        if is_healthy && self.lag().is_zero() && !is_forgotten {
            let bound = self.run.poll_last * 5 / 4 + self.run.longest_call * 2;
            let exchange = &self.done.exchange;
            let instance = self.done.host.acceptance(exchange.request);
            let stopped = instance.map_or(Duration::ZERO, |acceptance| {
                self.stopped(acceptance.instance, exchange.sent.at, exchange.ended.at)
            });
            let until = exchange
                .ended
                .at
                .saturating_sub(bound + stopped + TIMERS + self.run.poll_first);
            let mut later = self.truth.from(until);
            let last = versions.last();
            if until > exchange.sent.at && !later.any(|state| Some(&state.version) == last) {
                return Err(format!(
                    "the stream ended with {}, which was over at {:.3} s",
                    told(),
                    until.as_secs_f64()
                ));
            }
        }
        Ok(())
    }

    fn check_list(&self) -> Result<(), String> {
        let list = self.done.json();
        let events = list["events"].as_array().cloned().unwrap_or_default();
        let listed = events.iter().find(|event| event["name"] == self.done.name);
        match listed {
            None => self.held("unset or forgotten", |state| !state.exists()),
            Some(event) => self.held("in the listed generation", |state| {
                event["generation"] == state.version.generation
            }),
        }
    }
}

/// What a stream told.
struct Message {
    version: Version,
    is_forgotten: bool,
    is_reset: bool,
}

/// The messages of a stream.
///
/// # Errors
///
/// Where one of them says no state, or two.
fn messages(body: &str) -> Result<Vec<Message>, String> {
    let messages = body.split("\n\n").filter(|text| text.contains("data: "));
    let read = |text: &str| {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let version = Version::parse(field("id: ")?)?;
        let data: Value = serde_json::from_str(field("data: ")?).ok()?;
        let is_one = data["generation"] == version.generation && data["set"] == version.is_set();
        is_one.then_some(Message {
            version,
            is_forgotten: field("event: ") == Some("forgotten"),
            is_reset: field("event: ") == Some("reset"),
        })
    };
    messages
        .map(|text| read(text).ok_or_else(|| format!("the stream says {text:?}")))
        .collect()
}
