//! The promises, and whether a run kept them.
//!
//! Each check compares what a client saw with what the event really was ([`Truth`]), as the store's history has it.

use std::time::Duration;

use http::StatusCode;
use loopless_host::console::Output;
use loopless_host::simulation::{Call, Database, Host, Moment, Outcome};
use loopless_host::store::Operation;

use super::clients::{Action, Done};
use super::linearizability::is_linearizable;
use super::truth::{State, Truth};

/// How inexact timers are: tokio's count milliseconds, and a wait may need a few of them one after the other.
const TIMERS: Duration = Duration::from_millis(5);

/// A run that is over.
pub struct Run {
    pub database: Database,
    pub hosts: Vec<Host>,
    pub names: Vec<&'static str>,
    pub done: Vec<Done>,
    pub poll_first: Duration,
    pub poll_last: Duration,
    /// Nothing failed or died.
    pub is_healthy: bool,
    /// The longest that a call of the store took.
    pub longest_call: Duration,
    pub calls: Vec<Call>,
}

/// What was broken, one line each.
pub fn check(run: &Run) -> Vec<String> {
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
        let truth = match Truth::read(&run.database, &format!("event/{name}")) {
            Ok(truth) => truth,
            Err(error) => {
                broken.push(error);
                continue;
            }
        };
        let of_name = || run.done.iter().filter(move |done| done.name == name);
        for done in of_name() {
            let seen = Seen {
                run,
                truth: &truth,
                done,
            };
            if let Err(what) = seen.check() {
                broken.push(format!("{}: {what}", done.describe()));
            }
        }
        // A replica that lags shows the past: there is no order in which that were the present.
        let is_current = run.hosts.iter().all(|host| host.settings().lag.is_zero());
        if is_current && !is_linearizable(of_name(), &truth) {
            broken.push(format!("what was done with {name} is not linearizable"));
        }
    }
    broken
}

/// What one client saw.
struct Seen<'a> {
    run: &'a Run,
    truth: &'a Truth,
    done: &'a Done,
}

impl Seen<'_> {
    fn check(&self) -> Result<(), String> {
        let Ok(response) = &self.done.exchange.result else {
            return Ok(());
        };
        let status = response.status();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            if self.run.is_healthy {
                return Err(format!("503 in a healthy system: {}", self.done.body()));
            }
            return if response.headers().contains_key("retry-after") {
                Ok(())
            } else {
                Err("503 without Retry-After".into())
            };
        }
        if let Some(generation) = self.done.generation() {
            self.held(&format!("generation {generation}"), |state| {
                state.generation() == generation
            })?;
        }
        match self.done.action {
            Action::Look => self.expect(&[200]),
            Action::Change { set, only_from } => self.check_change(set, only_from),
            Action::Post { set } => {
                self.expect(&[204])?;
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

    /// The states that the event had while the request was under way.
    fn states(&self) -> impl Iterator<Item = State> {
        let exchange = &self.done.exchange;
        self.truth
            .between(exchange.sent, exchange.ended, self.lag())
    }

    /// That the event was like this at some time while the request was under way.
    fn held(&self, what: &str, is_like: impl Fn(State) -> bool) -> Result<(), String> {
        if self.states().any(is_like) {
            return Ok(());
        }
        let states: Vec<_> = self.states().map(|state| state.0.to_string()).collect();
        Err(format!(
            "the event was not {what} meanwhile, but {}",
            states.join(", then ")
        ))
    }

    fn check_change(&self, set: bool, only_from: Option<u64>) -> Result<(), String> {
        if let Some(generation) = only_from
            && self.status() == 412
        {
            return self.held(
                &format!("in another generation than {generation}"),
                |state| state.generation() != generation,
            );
        }
        self.expect(&[200])?;
        self.held("what was asked for", |state| state.is_set() == set)?;
        if let Some(generation) = only_from {
            self.held(&format!("in generation {generation}"), |state| {
                state.generation() == generation
            })?;
        }
        let has_changed = self.done.json()["changed"] == true;
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

    /// Whether the event changed while this request was waiting, so that `is_due` to know of it, and it could know.
    fn missed(&self, timeout: Duration, is_due: impl Fn(State) -> bool) -> Option<(Moment, State)> {
        let exchange = &self.done.exchange;
        // It waits from its first read's answer on: what was over before that, nobody can have seen.
        let (_, first, _) = self.reads(true).next()?;
        let visible = |moment: Moment| moment.at + self.lag();
        let (changed, state) = self.truth.changes().find(|&(moment, state)| {
            moment.order > first.order
                && visible(moment) < exchange.sent.at + timeout
                && is_due(state)
        })?;
        // Where every read since has failed, or was still under way at the end, it could not know.
        let could_know = self.reads(false).any(|(_, applied, answered)| {
            applied.order > changed.order
                && applied.at >= visible(changed)
                && answered.at < exchange.ended.at
        });
        // The last look is half an interval after the deadline at the latest, and has as long for its answer.
        let is_fast = self.run.longest_call + TIMERS < self.interval(timeout) / 2;
        (could_know || (self.run.is_healthy && is_fast)).then_some((changed, state))
    }

    /// The poll interval of a wait of this age, before jitter.
    fn interval(&self, age: Duration) -> Duration {
        (age / 20).clamp(self.run.poll_first, self.run.poll_last)
    }

    fn check_wait(&self, timeout: Duration) -> Result<(), String> {
        match self.status() {
            200 => self.held("set", State::is_set),
            410 => self.held("forgotten", State::is_forgotten),
            _ => match self.missed(timeout, State::is_set) {
                None => Ok(()),
                Some((moment, state)) => Err(format!(
                    "the event was set at {:.3} s (generation {}), and the wait missed it",
                    moment.at.as_secs_f64(),
                    state.generation()
                )),
            },
        }
    }

    fn check_long_poll(&self, known: u64, timeout: Duration) -> Result<(), String> {
        let generation = self.done.generation();
        match self.status() {
            200 if generation == Some(known) => Err("200 with the known generation".into()),
            304 if generation != Some(known) => Err("304 with another generation".into()),
            304 => match self.missed(timeout, |_| true) {
                None => Ok(()),
                Some((moment, state)) => Err(format!(
                    "the event changed at {:.3} s (generation {}), and the long poll missed it",
                    moment.at.as_secs_f64(),
                    state.generation()
                )),
            },
            410 => self.held("forgotten", State::is_forgotten),
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
        let latest = deadline + self.interval(timeout) + stopped + TIMERS;
        if ended > latest {
            return Err(format!(
                "it was over {:.3} s after its deadline",
                (ended - deadline).as_secs_f64()
            ));
        }

        let is_answer = matches!(self.status(), 200 | 410);
        if !(self.run.is_healthy && is_answer && self.lag().is_zero()) {
            return Ok(());
        }
        let Some((_, first, answered)) = first else {
            return Ok(());
        };
        let changed = self.truth.changes().find(|(moment, state)| {
            let is_it = match self.done.action {
                Action::LongPoll { .. } => true,
                _ => state.is_set() || state.is_forgotten(),
            };
            moment.order > first.order && is_it
        });
        let Some((changed, _)) = changed else {
            return Ok(());
        };
        // A reading is due an interval (and a quarter, for the jitter) after the last one was sent. It takes a call, and
        // who shares it looks again after the shortest interval.
        let age = (changed.at + self.run.poll_last).saturating_sub(accepted);
        let bound = self.interval(age) * 5 / 4 + self.run.longest_call * 2 + self.run.poll_first;
        let latest = changed.at.max(answered.at) + bound + stopped + TIMERS;
        if ended > latest {
            return Err(format!(
                "it was over {:.3} s after the change, in a healthy system",
                (ended - changed.at).as_secs_f64()
            ));
        }
        Ok(())
    }

    fn check_stream(&self, last_event_id: Option<u64>) -> Result<(), String> {
        let body = self.done.body();
        let ids: Vec<u64> = body
            .lines()
            .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
            .collect();
        let is_forgotten = body.contains("event: forgotten");
        let steps = if is_forgotten {
            // The last message is the forgetting, which is not one transition further on.
            &ids[..ids.len() - 1]
        } else {
            &ids[..]
        };
        if !steps.is_sorted_by(|one, next| one + 1 == *next) {
            return Err(format!("the stream's ids are {ids:?}"));
        }
        let Some(&first) = ids.first() else {
            return match last_event_id {
                Some(_) => Ok(()),
                None => Err("the stream did not begin with the state".into()),
            };
        };
        let is_follow_up = last_event_id.is_some_and(|last| first == last + 1);
        if !is_follow_up {
            self.held("where the stream began", |state| {
                state.generation() == first
            })?;
        }
        for message in body
            .split("\n\n")
            .filter(|message| message.contains("\ndata: "))
        {
            let data = message.split_once("data: ").map_or("", |(_, data)| data);
            let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
            let generation = data["generation"].as_u64().unwrap_or_default();
            if data["set"] != (generation % 2 == 1) {
                return Err(format!("the stream says {message:?}"));
            }
        }
        if self.run.is_healthy && self.lag().is_zero() && !is_forgotten {
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
            let last = self.truth.at(until).generation();
            if until > exchange.sent.at && ids.last().is_some_and(|id| *id < last) {
                return Err(format!(
                    "the stream ended with {ids:?}, though the event had come to {last}"
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
            Some(event) => {
                let generation = event["generation"].as_u64();
                self.held("in the listed generation", |state| {
                    Some(state.generation()) == generation
                })
            }
        }
    }
}
