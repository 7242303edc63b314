//! Checks whether a run kept the promises of events: [`check`] is the list.
//!
//! Each check compares what a client saw with the true history of the event ([`Truth`]). The checks of waits and of streams have
//! modules of their own.

mod streams;
mod waits;

use std::time::Duration;

use http::StatusCode;
use loopless_host::console::Output;
use loopless_host::simulation::{Call, Database, Host, Lost, Moment};
use loopless_host::store::Operation;

use super::clients::{Action, Done};
use super::linearizability::is_linearizable;
use super::truth::{State, Truth, Version};
use crate::contract::{Contract, Promise};
use crate::simulate::scenario::Weather;
use crate::simulate::synchronous::check_synchronous;

/// A finished run.
pub struct Run<'a> {
    pub contract: &'a Contract,
    pub database: Database,
    pub hosts: Vec<Host>,
    pub names: Vec<&'static str>,
    pub done: Vec<Done>,
    pub poll_first: Duration,
    pub poll_last: Duration,
    pub weather: Weather,
    /// The longest time of a call of the store.
    pub longest_call: Duration,
    pub calls: Vec<Call>,
}

/// Returns a line for each violation.
pub fn check(run: &Run<'_>) -> Vec<String> {
    let mut broken = failures(run);
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
        // If a replica lags or the store goes back, reads show the past. No order of the operations explains that.
        let is_current = run.hosts.iter().all(|host| host.settings().lag.is_zero())
            && truth.reverts().next().is_none();
        if is_current && !is_linearizable(of_name(), run.contract.is_exact()) {
            broken.push(format!("the operations on {name} are not linearizable"));
        }
    }
    if run.contract.has_wasi_0_3() {
        broken.extend(check_synchronous(&run.calls));
    }
    broken
}

/// What instances wrote to standard error. No request makes an instance fail.
fn failures(run: &Run<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    for host in &run.hosts {
        let lines = host.lines().into_iter().map(|(_, line)| line);
        let errors = lines.filter(|line| line.output == Output::Stderr);
        failures.extend(errors.map(|line| {
            let (instance, text) = (line.instance, line.text);
            format!("instance {}.{instance} failed: {text}", host.name())
        }));
    }
    failures
}

/// A request, and the true history of its event.
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
                return Err(format!(
                    "503 in a healthy system: {}",
                    self.done.exchange.text()
                ));
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
            return Err(format!("it wrote, but has status {status}"));
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
                let is_set = self.done.exchange.text().contains(">Clear<");
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
        self.done
            .exchange
            .status()
            .map_or(0, |status| status.as_u16())
    }

    fn expect(&self, statuses: &[u16]) -> Result<(), String> {
        let status = self.status();
        if statuses.contains(&status) {
            Ok(())
        } else {
            Err(format!("status {status}: {}", self.done.exchange.text()))
        }
    }

    fn lag(&self) -> Duration {
        self.done.host.settings().lag
    }

    /// The states of the event during the request, and when each began.
    fn history(&self) -> impl Iterator<Item = (Option<Moment>, State)> {
        self.history_from(self.done.exchange.sent)
    }

    /// Like [`history`](Self::history), from this moment on.
    fn history_from(&self, from: Moment) -> impl Iterator<Item = (Option<Moment>, State)> {
        let ended = self.done.exchange.ended;
        self.truth.between(from, ended, self.lag())
    }

    /// Checks that the event was in such a state at some time during the request.
    fn held(&self, what: &str, is_like: impl Fn(State) -> bool) -> Result<(), String> {
        self.held_from(self.done.exchange.sent, what, is_like)
    }

    /// Checks that the event was in such a state at some time during a wait, which begins with its first read.
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
            "the event was not {what} during the request, but {}",
            states.join(", then ")
        ))
    }

    /// Checks that the event had this version at some time during the request.
    fn was(&self, version: Version) -> Result<(), String> {
        self.held(&format!("in version {version}"), |state| {
            state.version == version
        })
    }

    /// Whether the component rejected the request or never received it.
    pub fn is_refused(&self) -> bool {
        match &self.done.exchange.result {
            Ok(response) => {
                let status = response.status();
                status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED
            }
            Err(lost) => *lost == Lost::Refused,
        }
    }

    /// By when the change of this request had been made. `None` if it may be made later.
    pub fn end_of_change(&self) -> Option<Moment> {
        let exchange = &self.done.exchange;
        let is_done = exchange.status().is_some_and(|status| status.is_success());
        is_done.then_some(exchange.ended)
    }

    /// The versions that this request wrote. Only without compare-and-swap.
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
        if only_from.is_some() && !self.run.contract.keeps(Promise::Conditions) {
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
        let has_changed = self.done.exchange.json()["changed"] == true;
        if !self.run.contract.keeps(Promise::Changed) {
            let has_written = self.writes().next().is_some();
            return match has_written == has_changed {
                true => Ok(()),
                false => Err(format!(
                    "\"changed\" is {has_changed}, but whether it wrote is {has_written}"
                )),
            };
        }
        self.held("what \"changed\" says that it was before", |state| {
            (state.is_set() == set) != has_changed
        })
    }

    /// Whether the store went back, during this request, to a state that looks like a change of the event. No component could
    /// tell the difference.
    ///
    /// With compare-and-swap, that is a later generation than one before, or another version of the same generation, as when a
    /// store is wiped and a backup restored. Without, versions have no order, and any state looks like a change.
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

    fn check_list(&self) -> Result<(), String> {
        let list = self.done.exchange.json();
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
