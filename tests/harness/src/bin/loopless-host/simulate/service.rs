//! A world of the long-running service: clients that start it, stop it and look at it, and runners that die or stall.
//!
//! What is checked is what the service did, as its beats in the store and its printed lines have it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Request, StatusCode};
use loopless_host::Reuse;
use loopless_host::console::{Line, Output};
use loopless_host::simulation::{Call, Database, Exchange, Host, Moment, Settings, World};
use loopless_host::store::{Operation, Quirks};

use crate::contract::Contract;

use super::promises::check_synchronous;
use super::scenario::{Report, Stage, Weather, faults, ms};

/// The keys of the beats of a term: this, and the term.
const BEATS: &str = "service/beats/";

/// The key of the current term.
const LEASE_KEY: &str = "service/lease";

/// What makes a term. Ticks are what is added to it, one by one.
const BIRTH: i64 = 8;

/// The line of a tick.
const DID_SOMETHING: &str = "Service did something";

/// How far apart ticks are.
const TICK: Duration = Duration::from_secs(1);

/// How long a runner may be silent.
const LEASE: Duration = Duration::from_secs(5);

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Start,
    Stop,
    Look,
}

/// What somebody did, and what came of it.
struct Done {
    action: Action,
    host: Host,
    exchange: Exchange,
}

impl Done {
    /// 0 where there was no response.
    fn status(&self) -> u16 {
        let status = self.exchange.status();
        status.map_or(0, |status| status.as_u16())
    }

    fn describe(&self) -> String {
        let Exchange { request, sent, .. } = &self.exchange;
        let (action, at) = (self.action, sent.at.as_secs_f64());
        format!("request {request} ({action:?}, sent at {at:.3} s)")
    }
}

async fn act(client: u64, action: Action, host: Host) -> Done {
    let request = match action {
        Action::Start => Request::post("/service/start"),
        Action::Stop => Request::post("/service/stop?timeout=3"),
        Action::Look => Request::get("/service"),
    };
    // These are constants that HTTP can say.
    let request = request.body("").unwrap_or_default();
    let exchange = host.send(format!("client {client}"), request).await;
    Done {
        action,
        host,
        exchange,
    }
}

fn settings(world: &World, weather: Weather, quirks: Quirks) -> Settings {
    let timeouts = [None, None, Some(ms(4000)), Some(ms(12_000))];
    Settings {
        quirks,
        reuse: Reuse {
            requests: *world.pick(&[1, 3, 128]),
            concurrent_requests: *world.pick(&[1, 2, 16]),
            idle: *world.pick(&[ms(50), ms(1000)]),
            request_timeout: match weather {
                Weather::Healthy => None,
                _ => *world.pick(&timeouts),
            },
        },
        variables: BTreeMap::new(),
        lag: match weather {
            Weather::Lagging => *world.pick(&[ms(0), ms(20), ms(150)]),
            _ => Duration::ZERO,
        },
        calendar_ahead: *world.pick(&[ms(0), ms(0), ms(700)]),
    }
}

/// A world of the service.
pub async fn play(world: World, contract: &Contract) -> Report {
    let weather = Weather::pick(&world, contract);
    let (_, quirks) = *world.pick(&Quirks::ALL);
    let mut faults = faults(&world, weather);
    if faults.slow > 0.0 {
        // Long enough for a runner to be taken for dead while it lives.
        faults.slow = 0.02;
        faults.slow_latency = ms(12_000);
    }
    let settings = || settings(&world, weather, quirks);
    let about = format!("the service, {weather}");
    let stage = match Stage::set(&world, &about, weather, quirks, faults, 1..=3, settings) {
        Ok(stage) => stage,
        Err(report) => return report,
    };
    let life = |client| live(world.clone(), client, stage.hosts.clone());
    let lived = stage.live(ms(20_000), life).await;

    // Whoever died is taken for dead by now, and calls that were slow are through.
    world.sleep(LEASE * 2 + faults.longest()).await;
    let mut violations = recover(&world, &stage.hosts).await;

    let end = world.moment().at;
    let calls = stage.database.calls();
    let run = Run {
        database: &stage.database,
        hosts: &stage.hosts,
        done: &lived.done,
        calls: &calls,
        weather,
        is_slow: faults.slow > 0.0,
    };
    violations.extend(run.check());
    let counts = lived.counts(&calls, end);
    stage.report(counts, [lived.violations, violations].concat())
}

async fn live(world: World, client: u64, hosts: Vec<Host>) -> Vec<Done> {
    let mut done = Vec::new();
    for _ in 0..world.number(2..=8) {
        let pause = *world.pick(&[ms(0), ms(50), ms(1500), ms(6000)]);
        world.sleep(world.time(Duration::ZERO..=pause)).await;
        let action = *world.pick(&[
            Action::Start,
            Action::Start,
            Action::Stop,
            Action::Look,
            Action::Look,
            Action::Look,
        ]);
        let host = world.pick(&hosts).clone();
        done.push(act(client, action, host).await);
    }
    done
}

/// After all hardship, the service starts on one host, ticks, and stops on another.
async fn recover(world: &World, hosts: &[Host]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut expect = |done: &Done, is_right: bool| {
        if !is_right {
            violations.push(format!(
                "when all was well again, {}: {} {}",
                done.describe(),
                done.status(),
                done.exchange.text()
            ));
        }
    };
    // What one host has written, the others see after this.
    let lag = hosts.iter().map(|host| host.settings().lag).max();
    let seen = || world.sleep(lag.unwrap_or_default() + ms(1));
    let host = || world.pick(hosts).clone();
    // The runner may have been cut off a moment ago. If so, its lease has run out by the second time.
    let stopped = act(0, Action::Stop, host()).await;
    if stopped.status() != 200 {
        expect(&stopped, stopped.status() == 504);
        world.sleep(LEASE).await;
        let stopped = act(0, Action::Stop, host()).await;
        expect(&stopped, stopped.status() == 200);
    }
    seen().await;
    let started = act(0, Action::Start, host()).await;
    expect(&started, started.status() == 202);
    world.sleep(TICK * 3 + TICK / 2).await;
    let running = act(0, Action::Look, host()).await;
    let view = running.exchange.json();
    expect(&running, view["state"] == "running" && view["ticks"] == 3);
    seen().await;
    let stopped = act(0, Action::Stop, host()).await;
    expect(&stopped, stopped.status() == 200);
    let took = stopped.exchange.ended.at - stopped.exchange.sent.at;
    expect(&stopped, took < TICK * 2 / 3);
    world.sleep(TICK * 2).await;
    let view = act(0, Action::Look, host()).await;
    let is_right = view.exchange.json()["state"] == "stopped" && view.exchange.json()["ticks"] == 3;
    expect(&view, is_right);
    violations
}

/// A run that is over.
struct Run<'a> {
    database: &'a Database,
    hosts: &'a [Host],
    done: &'a [Done],
    calls: &'a [Call],
    weather: Weather,
    /// Calls may take so long that a runner is taken for dead.
    is_slow: bool,
}

/// An instance: its host's name, and its number there.
type Instance = (String, u64);

impl Run<'_> {
    fn check(&self) -> Vec<String> {
        let mut violations = Vec::new();
        violations.extend(self.check_answers());
        if self.weather != Weather::Forgetful {
            violations.extend(self.check_terms());
        }
        violations.extend(self.check_lines());
        violations.extend(check_synchronous(self.calls));
        violations
    }

    /// Every answer is one of those that the API guide names.
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
            // The host's own answer, where it cut the request off.
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

    /// What was added to the beats of each term, in the order in which it was.
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
                let number_now = number(wrote);
                terms.entry(term.to_owned()).or_default().push(Beat {
                    who: (call.host.to_string(), call.instance),
                    at,
                    is_tick: number_now > BIRTH && number_now - before.map_or(0, number) == 1,
                });
            }
        }
        for beats in terms.values_mut() {
            beats.sort_by_key(|beat| beat.at);
        }
        terms
    }

    /// What the store held under the key of the current term, and since when.
    fn leases(&self) -> Vec<(Moment, i64)> {
        let leases = self.database.history(LEASE_KEY).into_iter();
        leases
            .filter_map(|(moment, value)| Some((moment, number(value.as_deref()?))))
            .collect()
    }

    /// One instance ticks in a term, none ticks when there is a new one, and nothing undoes its ticks.
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
                violations.push(format!(
                    "there was a tick of term {term} at {:.3} s, after its end",
                    at.at.as_secs_f64()
                ));
            }
            // From above 0 to below it, once: the seal.
            let values = self.database.history(&format!("{BEATS}{term}"));
            let numbers: Vec<i64> = values
                .iter()
                .map_while(|(_, value)| value.as_deref().map(number))
                .collect();
            let is_open = |number: &i64| *number > 0;
            let open: Vec<i64> = numbers.iter().copied().take_while(is_open).collect();
            let is_doubled = self.weather == Weather::Doubling;
            let is_next = |one: &i64, next: &i64| {
                let added = next - one;
                added == 1 || (is_doubled && added == BIRTH)
            };
            let is_counted = open.is_sorted_by(is_next) && open.first() == Some(&BIRTH);
            let is_sealed_for_ever = !numbers[open.len()..].iter().any(is_open);
            if !is_counted || !is_sealed_for_ever {
                violations.push(format!("the beats of term {term} went {numbers:?}"));
            }
        }
        violations
    }

    /// If no answer is lost and nobody dies, the terms were sealed with as many ticks as were said. A beat that is made
    /// twice, and sealed by another runner before its own one knows, counts for more: nobody can tell.
    fn check_count(&self, said: usize) -> Option<String> {
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
            let values = self.database.history(&format!("{BEATS}{term}"));
            let mut numbers = values
                .iter()
                .filter_map(|(_, value)| Some(number(value.as_deref()?)));
            ticks(numbers.find(|number| *number < 0)?)
        });
        let (counted, said) = (sealed.sum::<u64>(), said as u64);
        let is_right = counted == said
            || (counted > said && self.weather == Weather::Doubling && self.is_slow);
        (!is_right).then(|| format!("{counted} ticks were counted, and {said} said"))
    }

    /// What the instances have said, in order.
    fn said(&self) -> Vec<(Moment, Instance, Line)> {
        let mut said = Vec::new();
        for host in self.hosts {
            let lines = host.lines().into_iter();
            said.extend(lines.map(|(moment, line)| {
                let who = (host.name().to_owned(), line.instance);
                (moment, who, line)
            }));
        }
        said.sort_by_key(|(moment, ..)| *moment);
        said
    }

    /// A runner says only what it did, and in a healthy system one tick is a second after the other.
    fn check_lines(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let said = self.said();
        let failed = said.iter().filter(|(_, who, line)| {
            let host = self.hosts.iter().find(|host| host.name() == who.0);
            line.output == Output::Stderr
                && host.is_none_or(|host| host.settings().reuse.request_timeout.is_none())
        });
        violations.extend(failed.map(|(_, (host, instance), line)| {
            format!("instance {host}.{instance} failed: {}", line.text)
        }));

        let mut did: BTreeMap<Instance, usize> = BTreeMap::new();
        for beat in self.beats().into_values().flatten() {
            *did.entry(beat.who).or_default() += usize::from(beat.is_tick);
        }
        let ticks = said
            .iter()
            .filter(|(_, _, line)| line.text == DID_SOMETHING);
        let ticks: Vec<(Moment, &Instance)> = ticks.map(|(at, who, _)| (*at, who)).collect();
        let mut counts: BTreeMap<&Instance, usize> = BTreeMap::new();
        for (_, who) in &ticks {
            *counts.entry(who).or_default() += 1;
        }
        for (who, count) in counts {
            let did = did.get(who).copied().unwrap_or_default();
            if count > did {
                violations.push(format!(
                    "{}.{} said {count} times that it did something, and did {did} times",
                    who.0, who.1
                ));
            }
        }
        let is_close = |pair: &&[(Moment, &Instance)]| pair[1].0.at - pair[0].0.at < TICK / 2;
        if self.weather == Weather::Healthy
            && let Some(pair) = ticks.windows(2).find(is_close)
        {
            violations.push(format!(
                "two ticks within half a second, at {:.3} s: two services",
                pair[1].0.at.as_secs_f64()
            ));
        }
        violations.extend(self.check_count(ticks.len()));
        if self.weather == Weather::Forgetful {
            violations.extend(self.check_alone(&said));
        }
        violations
    }

    /// No runner ticks between two ticks of another one, unless the store went back meanwhile.
    fn check_alone(&self, said: &[(Moment, Instance, Line)]) -> Option<String> {
        let reverts = self.database.reverted();
        let mut runs: BTreeMap<&Instance, Moment> = BTreeMap::new();
        let mut last: Option<(Moment, &Instance)> = None;
        for (at, who, line) in said {
            if line.text != DID_SOMETHING {
                // Whatever else it says, it ticks in another run after that.
                runs.remove(who);
                continue;
            }
            if let Some(since) = runs.insert(who, *at)
                && let Some((between, other)) = last
                && other != who
                // A tick is said when its answer has come.
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

/// Something that was added to the beats of a term.
struct Beat {
    who: Instance,
    at: Moment,
    /// Otherwise, it made the term, or came when the term had been deleted.
    is_tick: bool,
}

/// The ticks of a term that was sealed with this number. Written down anew here.
fn ticks(sealed: i64) -> Option<u64> {
    let steps = sealed.unsigned_abs().div_ceil(64);
    (steps / 2).checked_sub(1)
}

/// A number as `increment` leaves it: text, or eight bytes.
fn number(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| value.try_into().map_or(0, i64::from_le_bytes))
}
