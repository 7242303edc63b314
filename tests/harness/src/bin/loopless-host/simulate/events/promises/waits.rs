//! The results of waits and long polls, how long they may take, and what they must not miss.

use std::time::Duration;

use loopless_host::simulation::{Acceptance, Call, Moment, Outcome};
use loopless_host::store::Operation;

use super::Seen;
use crate::contract::Promise;
use crate::simulate::TIMERS;
use crate::simulate::events::STREAM_MAX;
use crate::simulate::events::clients::Action;
use crate::simulate::events::truth::{State, Version};
use crate::simulate::scenario::{Weather, ms};
use crate::simulate::synchronous::resumed;

/// How long the component waits for an answer of the store. The constants here repeat the component's on purpose.
const PATIENCE: Duration = ms(1500);

/// The sum of the pauses between the attempts of a change.
const BACKOFFS: Duration = ms(512);

/// How long the page waits for its event.
const PAGE_WAIT: Duration = ms(100);

impl Seen<'_> {
    /// The successful reads of the event by this request's instance, with the moments when they were applied and answered. If
    /// `is_own`, only those of this request. Reads of a compare-and-swap are left out, because no wait uses them.
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

    /// Whether a wait that began with the read `start` can see a change of the event.
    ///
    /// In a build where a forgotten event has no value, a wait that began without a value cannot see that the event was
    /// forgotten. Nor can it see a set that is forgotten again by the time of the read `look`.
    fn leaves_a_trace(&self, start: &Call, change: (Moment, State), look: Duration) -> bool {
        let (changed, state) = change;
        start.outcome != Outcome::Read(None)
            || self.run.contract.keeps(Promise::ForgottenSets)
            || !(state.is_forgotten || self.truth.is_forgotten_between(changed, look))
    }

    /// Checks that this request missed no change to a state that `is_due`.
    fn check_missed(
        &self,
        timeout: Duration,
        is_due: impl Fn(State) -> bool,
    ) -> Result<(), String> {
        self.missed(timeout, is_due)
            .map_or(Ok(()), |(moment, state)| {
                let at = moment.at.as_secs_f64();
                Err(format!("it missed the change to {state} at {at:.3} s"))
            })
    }

    /// Returns a change during this request that a read showed in time, and that leads to a state that `is_due`.
    fn missed(&self, timeout: Duration, is_due: impl Fn(State) -> bool) -> Option<(Moment, State)> {
        let exchange = &self.done.exchange;
        // A wait begins with its first read. It cannot see a state that ended before.
        let (start, first, answered) = self.reads(true).next()?;
        let mut reverts = self.truth.reverts();
        if reverts.any(|revert| first < revert && revert < exchange.ended) {
            return self.slept_through(start, answered, is_due);
        }
        let visible = |moment: Moment| moment.at + self.lag();
        // The last read begins in the first half of the grace after the deadline, and the second half is left for its answer.
        let is_fast = self.run.longest_call + TIMERS < self.grace(timeout) / 2;
        let is_sure = self.run.weather == Weather::Healthy && is_fast;
        self.truth.changes().find(|&(moment, state)| {
            // If every later read failed or had no answer by the end, the request could not see the change.
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

    /// Whether the component knows that this read began after this answer. If not, the read may show an earlier state: versions
    /// have no order if the store goes back or has no compare-and-swap.
    fn began_after(&self, call: &Call, answered: Moment) -> bool {
        let calls = &self.run.calls;
        // The component counts a read from before it opens the store, which the first read of a request may have to do.
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

    /// Returns a read that showed a state that `is_due` during a wait which did not end with it.
    ///
    /// If the store goes back, only states that were read can be checked: another state may come and go between two reads.
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

    /// How long the store hung in this time. Each period counts for at most `most`.
    fn silence(&self, from: Duration, to: Duration, most: Duration) -> Duration {
        let silences = self.run.database.silences().into_iter();
        silences
            .filter_map(|(began, ended)| {
                let end = ended.map_or(to, |ended| ended.at).min(to);
                Some(end.checked_sub(began.at.max(from))?.min(most))
            })
            .sum()
    }

    /// Checks that a wait whose first read succeeded continues when the store fails or hangs.
    pub(super) fn check_perseverance(&self) -> Result<(), String> {
        let is_wait = matches!(
            self.done.action,
            Action::Wait { .. } | Action::LongPoll { .. } | Action::Page
        );
        // An answer at the moment of the response came too late.
        let ended = self.done.exchange.ended.at;
        let mut known = self
            .reads(true)
            .filter(|(.., answered)| answered.at < ended);
        if is_wait && known.next().is_some() {
            return Err("it ended with 503 after its first read had succeeded".into());
        }
        Ok(())
    }

    /// The instance that took this request, and when.
    fn acceptance(&self) -> Result<Acceptance, String> {
        let acceptance = self.done.host.acceptance(self.done.exchange.request);
        acceptance.ok_or_else(|| "it has a response, but no instance took it".into())
    }

    /// Checks that a request is answered in time when the store hangs. (On WASI 0.2, a call cannot be cancelled.)
    pub(super) fn check_patience(&self) -> Result<(), String> {
        let exchange = &self.done.exchange;
        let acceptance = self.acceptance()?;
        if !self.run.contract.has_wasi_0_3() {
            return Ok(());
        }
        let (from, to) = (acceptance.moment.at, exchange.ended.at);
        let silent = self.silence(from, to, PATIENCE);
        if silent.is_zero() {
            return Ok(());
        }
        let stopped = self.stopped(acceptance.instance, from, to);
        // A change may have been attempted several times before the store hung.
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
                "it took {:.3} s, and the store hung for {:.3} s of that",
                (to - from).as_secs_f64(),
                self.silence(from, to, Duration::MAX).as_secs_f64()
            ));
        }
        Ok(())
    }

    /// Checks that the event was set during a wait that returned 200. Without compare-and-swap, a clear that was in progress
    /// when the wait began looks like a set.
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

    /// The longest poll interval of a wait at this age.
    fn interval(&self, age: Duration) -> Duration {
        if age < Duration::from_secs(2) {
            self.grace(age).min(self.run.poll_first * 3 / 2)
        } else {
            self.grace(age)
        }
    }

    /// By how much a wait may exceed this timeout.
    fn grace(&self, timeout: Duration) -> Duration {
        (timeout / 20).clamp(self.run.poll_first, self.run.poll_last)
    }

    pub(super) fn check_wait(&self, timeout: Duration) -> Result<(), String> {
        match self.status() {
            200 => self.check_woken(),
            410 => self.held_since_its_start("forgotten", |state| state.is_forgotten),
            _ => self.check_missed(timeout, State::is_set),
        }
    }

    pub(super) fn check_long_poll(&self, known: Version, timeout: Duration) -> Result<(), String> {
        let version = self.done.version();
        match self.status() {
            200 if version == Some(known) => Err("200 with the known version".into()),
            304 if version != Some(known) => Err("304 with another version".into()),
            304 => self.check_missed(timeout, |_| true),
            410 => self.held_since_its_start("forgotten", |state| state.is_forgotten),
            _ => Ok(()),
        }
    }

    /// How long calls of `wasi:keyvalue`, of any request, blocked this request's instance.
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

    /// Checks that a wait ended in time after its deadline, and after the change that it waited for.
    pub(super) fn check_time(&self, timeout: Duration) -> Result<(), String> {
        let exchange = &self.done.exchange;
        let acceptance = self.acceptance()?;
        let accepted = acceptance.moment.at;
        let ended = exchange.ended.at;
        let stopped = self.stopped(acceptance.instance, accepted, ended);
        let first = self.reads(true).next();
        let began = first.map_or(accepted + self.run.longest_call * 2, |(_, _, answered)| {
            answered.at
        });

        let deadline = began.max(accepted + timeout);
        // On WASI 0.2, a read cannot be cancelled.
        let read = if self.run.contract.has_wasi_0_3() {
            Duration::ZERO
        } else {
            self.run.longest_call + self.silence(accepted, ended, Duration::MAX)
        };
        let latest = deadline + self.grace(timeout) + read + stopped + TIMERS;
        if ended > latest {
            return Err(format!(
                "it ended {:.3} s after its deadline",
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
        // A read is due one interval after the last one began, and takes one call. A wait that shares it checks again after
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
                "it ended {:.3} s after the change, in a healthy system",
                (ended - changed.at).as_secs_f64()
            ));
        }
        Ok(())
    }
}
