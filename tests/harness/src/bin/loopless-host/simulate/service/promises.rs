//! Checks whether a run kept the promises of the service: [`Run::check`] is the list.
//!
//! The checks use what the service did: its beats in the store, and the lines that it printed.

use std::collections::BTreeMap;
use std::fmt::Display;

use http::StatusCode;
use loopless_host::console::{Line, Output};
use loopless_host::simulation::{Call, Database, Host, Moment};
use loopless_host::store::Operation;

use super::{Action, Done, TICK};
use crate::simulate::number;
use crate::simulate::scenario::Weather;
use crate::simulate::synchronous::check_synchronous;

/// The prefix of the key of a term's beats. The term follows.
const BEATS: &str = "service/beats/";

/// The key of the current term.
const LEASE_KEY: &str = "service/lease";

/// The first number of a term. Each tick adds 1.
const BIRTH: i64 = 8;

/// The line that a runner prints for a tick.
const DID_SOMETHING: &str = "Service did something";

/// A finished run.
pub struct Run<'a> {
    pub database: &'a Database,
    pub hosts: &'a [Host],
    pub done: &'a [Done],
    pub calls: &'a [Call],
    pub weather: Weather,
    /// Whether a call may outlast the lease.
    pub is_slow: bool,
}

/// An instance: the name of its host, and its number on that host.
type Instance = (String, u64);

impl Run<'_> {
    /// Returns a line for each violation.
    pub fn check(&self) -> Vec<String> {
        let mut violations = self.check_answers();
        if self.weather != Weather::Forgetful {
            violations.extend(self.check_terms());
        }
        violations.extend(self.check_lines());
        violations.extend(check_synchronous(self.calls));
        violations
    }

    /// Checks that every response is one of those in the API guide.
    fn check_answers(&self) -> Vec<String> {
        let answers = self.done.iter().filter_map(|done| {
            let response = done.exchange.result.as_ref().ok()?;
            let statuses: &[u16] = match done.action {
                Action::Start => &[200, 202],
                Action::Stop => &[200, 504],
                Action::Look => &[200],
            };
            let is_unavailable = response.status() == StatusCode::SERVICE_UNAVAILABLE
                && response.headers().contains_key("retry-after");
            // If the host has a time limit, the response may be the host's own.
            let timeout = done.host.settings().reuse.request_timeout;
            let is_right = statuses.contains(&done.status())
                || (is_unavailable && self.weather != Weather::Healthy)
                || timeout.is_some();
            (!is_right).then(|| {
                format!(
                    "{}: {} {}",
                    done.describe(),
                    done.status(),
                    done.exchange.text()
                )
            })
        });
        answers.collect()
    }

    /// The beats of each term, in the order in which they were applied.
    fn beats(&self) -> BTreeMap<String, Vec<Beat>> {
        let mut terms: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for call in self.calls {
            if let (Operation::Increment, Some(term), Some(at), Some(wrote)) = (
                call.operation,
                call.key.strip_prefix(BEATS),
                call.applied,
                &call.wrote,
            ) {
                let history = self.database.history(&call.key);
                let before = history.iter().rev().find(|(moment, _)| *moment < at);
                let before = before.and_then(|(_, value)| value.as_deref());
                let (before, now) = (before.map_or(0, value), value(wrote));
                terms.entry(term.to_owned()).or_default().push(Beat {
                    who: (call.host.to_string(), call.instance),
                    at,
                    is_tick: now > BIRTH && now - before == 1,
                });
            }
        }
        for beats in terms.values_mut() {
            beats.sort_by_key(|beat| beat.at);
        }
        terms
    }

    /// The terms that the lease named, and when each began.
    fn leases(&self) -> Vec<(Moment, i64)> {
        let leases = self.database.history(LEASE_KEY).into_iter();
        leases
            .filter_map(|(moment, term)| Some((moment, value(term.as_deref()?))))
            .collect()
    }

    /// The numbers of a term, in order. `None`: the key was deleted.
    fn numbers(&self, term: impl Display) -> impl Iterator<Item = Option<i64>> {
        let history = self.database.history(&format!("{BEATS}{term}"));
        let numbers = history.into_iter();
        numbers.map(|(_, number)| number.as_deref().map(value))
    }

    /// Checks that only one instance ticks in a term, that none ticks after the term's end, and that no tick is undone.
    fn check_terms(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let leases = self.leases();
        if !leases.is_sorted_by(|(_, one), (_, next)| one < next) {
            violations.push(format!("the lease went {leases:?}"));
        }
        for (term, beats) in self.beats() {
            let runner = &beats[0].who;
            if let Some(Beat { who: other, at, .. }) = beats.iter().find(|beat| beat.who != *runner)
            {
                violations.push(format!(
                    "in term {term}, which is {}.{}'s, {}.{} ticked at {:.3} s",
                    runner.0,
                    runner.1,
                    other.0,
                    other.1,
                    at.at.as_secs_f64()
                ));
            }
            let end = leases
                .iter()
                .find(|(_, leased)| term.parse().is_ok_and(|term: i64| *leased > term));
            let mut late = beats.iter().filter(|beat| beat.is_tick);
            let late = late.find(|beat| end.is_some_and(|(end, _)| beat.at > *end));
            if let Some(Beat { at, .. }) = late {
                let at = at.at.as_secs_f64();
                violations.push(format!("term {term} ticked at {at:.3} s, after its end"));
            }
            // The seal makes the number negative, once.
            let numbers: Vec<i64> = self.numbers(&term).map_while(|number| number).collect();
            let is_open = |number: &i64| *number > 0;
            let open: Vec<i64> = numbers.iter().copied().take_while(is_open).collect();
            let is_doubled = self.weather == Weather::Doubling;
            let is_next = |one: &i64, next: &i64| {
                let added = next - one;
                added == 1 || (is_doubled && added == BIRTH)
            };
            let is_counted = open.is_sorted_by(is_next) && open.first() == Some(&BIRTH);
            let stays_sealed = !numbers[open.len()..].iter().any(is_open);
            if !is_counted || !stays_sealed {
                violations.push(format!("the beats of term {term} went {numbers:?}"));
            }
        }
        violations
    }

    /// Checks that the terms were sealed with as many ticks as were printed, if no answer is lost and nobody dies. An increment
    /// that is applied twice may count for more, if another runner seals the term before the first one sees it.
    fn check_count(&self, printed: usize) -> Option<String> {
        let is_sure = matches!(
            self.weather,
            Weather::Healthy | Weather::Silent | Weather::Doubling
        );
        let dies = |host: &Host| host.settings().reuse.request_timeout.is_some();
        if !is_sure || self.hosts.iter().any(dies) {
            return None;
        }
        let leases = self.leases().into_iter();
        let sealed = leases.filter_map(|(_, term)| {
            let mut numbers = self.numbers(term).flatten();
            ticks(numbers.find(|number| *number < 0)?)
        });
        let (counted, printed) = (sealed.sum::<u64>(), printed as u64);
        let is_right = counted == printed
            || (counted > printed && self.weather == Weather::Doubling && self.is_slow);
        (!is_right).then(|| format!("{counted} ticks were counted, and {printed} printed"))
    }

    /// The lines that instances printed, in order.
    fn lines(&self) -> Vec<(Moment, Instance, Line)> {
        let mut all = Vec::new();
        for host in self.hosts {
            let lines = host.lines().into_iter();
            all.extend(lines.map(|(moment, line)| {
                let who = (host.name().to_owned(), line.instance);
                (moment, who, line)
            }));
        }
        all.sort_by_key(|(moment, ..)| *moment);
        all
    }

    /// Checks that a runner prints only ticks that it made, and that in a healthy system ticks are not too close.
    fn check_lines(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let lines = self.lines();
        let failed = lines.iter().filter(|(_, who, line)| {
            let host = self.hosts.iter().find(|host| host.name() == who.0);
            line.output == Output::Stderr
                && host.is_none_or(|host| host.settings().reuse.request_timeout.is_none())
        });
        violations.extend(failed.map(|(_, (host, instance), line)| {
            format!("instance {host}.{instance} failed: {}", line.text)
        }));

        let mut made: BTreeMap<Instance, usize> = BTreeMap::new();
        for beat in self.beats().into_values().flatten() {
            *made.entry(beat.who).or_default() += usize::from(beat.is_tick);
        }
        let ticks = lines
            .iter()
            .filter(|(_, _, line)| line.text == DID_SOMETHING);
        let ticks: Vec<(Moment, &Instance)> = ticks.map(|(at, who, _)| (*at, who)).collect();
        let mut counts: BTreeMap<&Instance, usize> = BTreeMap::new();
        for (_, who) in &ticks {
            *counts.entry(who).or_default() += 1;
        }
        for (who, count) in counts {
            let made = made.get(who).copied().unwrap_or_default();
            if count > made {
                violations.push(format!(
                    "{}.{} printed {count} ticks, and made {made}",
                    who.0, who.1
                ));
            }
        }
        let is_close = |pair: &&[(Moment, &Instance)]| pair[1].0.at - pair[0].0.at < TICK / 2;
        if self.weather == Weather::Healthy
            && let Some(pair) = ticks.windows(2).find(is_close)
        {
            violations.push(format!(
                "two ticks within half a second, at {:.3} s: the service runs twice",
                pair[1].0.at.as_secs_f64()
            ));
        }
        violations.extend(self.check_count(ticks.len()));
        if self.weather == Weather::Forgetful {
            violations.extend(self.check_alone(&lines));
        }
        violations
    }

    /// Checks that no runner ticks between two ticks of another one, unless the store went back in between.
    fn check_alone(&self, lines: &[(Moment, Instance, Line)]) -> Option<String> {
        let reverts = self.database.reverted();
        let mut runs: BTreeMap<&Instance, Moment> = BTreeMap::new();
        let mut last: Option<(Moment, &Instance)> = None;
        for (at, who, line) in lines {
            if line.text != DID_SOMETHING {
                // Any other line begins or ends a run of the service.
                runs.remove(who);
                continue;
            }
            if let Some(since) = runs.insert(who, *at)
                && let Some((between, other)) = last
                && other != who
                // A tick is printed after its call has returned.
                && !reverts.iter().any(|revert| revert.at + TICK / 2 > since.at && revert < at)
            {
                return Some(format!(
                    "{}.{} ticked at {:.3} s, and {}.{} before and after that",
                    other.0,
                    other.1,
                    between.at.as_secs_f64(),
                    who.0,
                    who.1
                ));
            }
            last = Some((*at, who));
        }
        None
    }
}

/// An increment of a term's number.
struct Beat {
    who: Instance,
    at: Moment,
    /// If not, it began the term, or came after the term had been deleted.
    is_tick: bool,
}

/// The ticks of a term that was sealed with this number. This repeats the component's rule on purpose.
fn ticks(sealed: i64) -> Option<u64> {
    let steps = sealed.unsigned_abs().div_ceil(64);
    (steps / 2).checked_sub(1)
}

/// The number in a value of the store. 0 if the value is invalid.
fn value(value: &[u8]) -> i64 {
    number(value).unwrap_or_default()
}
