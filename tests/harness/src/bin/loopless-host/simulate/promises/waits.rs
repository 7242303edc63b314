//! What a wait may say, how long it may take, and what it may not miss.

use std::time::Duration;

use loopless_host::simulation::{Call, Moment, Outcome};
use loopless_host::store::Operation;

use super::synchronous::resumed;
use super::{Seen, TIMERS};
use crate::contract::Promise;
use crate::simulate::clients::Action;
use crate::simulate::events::STREAM_MAX;
use crate::simulate::scenario::{Weather, ms};
use crate::simulate::truth::{State, Version};

/// How long the component waits for an answer of the store, at most. Written down anew here, as what follows.
const PATIENCE: Duration = ms(1500);

/// All pauses between the attempts of a change together.
const BACKOFFS: Duration = ms(512);

/// How long the page waits for its event.
const PAGE_WAIT: Duration = ms(100);

impl Seen<'_> {
    /// This request's own reads of the event that succeeded, or all of its instance. Those of a compare-and-swap, which
    /// are of no known request, tell nobody anything.
    pub(super) fn reads(&self, is_own: bool) -> impl Iterator<Item = (&Call, Moment, Moment)> {
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
            || self.run.contract.keeps(Promise::ForgottenSets)
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
    /// notice. If the store goes back, this is all that can be asked: a state may come back between two looks.
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
    pub(super) fn check_perseverance(&self) -> Result<(), String> {
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
    pub(super) fn check_patience(&self) -> Result<(), String> {
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

    /// That a wait that says that the event was set is right. Without compare-and-swap, a clear that was under way when
    /// the wait began looks like a set.
    fn check_woken(&self) -> Result<(), String> {
        let held = self.held_since_its_start("set", State::is_set);
        if self.is_deceived() {
            return Ok(());
        }
        if held.is_ok() || self.run.contract.keeps(Promise::NoEarlyWakeUp) {
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

    pub(super) fn check_wait(&self, timeout: Duration) -> Result<(), String> {
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

    pub(super) fn check_long_poll(&self, known: Version, timeout: Duration) -> Result<(), String> {
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
    pub(super) fn stopped(&self, instance: u64, from: Duration, to: Duration) -> Duration {
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
    pub(super) fn check_time(&self, timeout: Duration) -> Result<(), String> {
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
}
