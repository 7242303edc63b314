//! A world of the long-running service: clients that start it, stop it and look at it, and runners that die or stall.
//!
//! What is checked is what the service did, as its beats in the store and its printed lines have it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Request, StatusCode};
use loopless_host::Reuse;
use loopless_host::simulation::{Call, Database, Exchange, Host, Moment, Settings, World};
use loopless_host::store::{Operation, Quirks};

use super::scenario::{Counts, Hardship, Report, Weather, clear_up, faults, join, ms, start_hosts};

/// The keys of the beats of a term: this, and the term.
const BEATS: &str = "service/beats/";

/// The key of the current term.
const LEASE_KEY: &str = "service/lease";

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
    fn status(&self) -> u16 {
        let status = self
            .exchange
            .result
            .as_ref()
            .map(|response| response.status());
        status.map_or(0, |status| status.as_u16())
    }

    fn body(&self) -> String {
        let body = self
            .exchange
            .result
            .as_ref()
            .map(|response| response.body());
        body.map_or(String::new(), |body| {
            String::from_utf8_lossy(body).into_owned()
        })
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body()).unwrap_or_default()
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
pub async fn play(world: World) -> Report {
    let weather = *world.pick(&Weather::ALL);
    let (_, quirks) = *world.pick(&Quirks::ALL);
    let mut faults = faults(&world, weather);
    if faults.slow > 0.0 {
        // Long enough for a runner to be taken for dead while it lives.
        faults.slow = 0.02;
        faults.slow_latency = ms(12_000);
    }
    let database = Database::new(&world, faults);
    let settings = || settings(&world, weather, quirks);
    let hosts = match start_hosts(&world, &database, settings) {
        Ok(hosts) => hosts,
        Err(report) => return report,
    };
    let clients = world.number(1..=3);
    let setting = format!(
        "the service, {weather}; hosts: {}, quirks: {quirks}; {clients} clients; store calls of up to {} ms",
        hosts.len(),
        faults.longest().as_millis()
    );
    world.tell("world", || setting.clone());

    let running: Vec<_> = (1..=clients)
        .map(|client| tokio::spawn(live(world.clone(), client, hosts.clone())))
        .collect();
    let hardship = Hardship::begin(&world, weather, &hosts, &database, ms(20_000));
    let done = join(running).await;
    let deaths = hardship.end();

    let mut violations = clear_up(&world, &database, &hosts).await;
    // Whoever died is taken for dead by now, and calls that were slow are through.
    world.sleep(LEASE * 2 + faults.longest()).await;
    violations.extend(recover(&world, &hosts).await);

    let end = world.moment().at;
    let calls = database.calls();
    let run = Run {
        database: &database,
        hosts: &hosts,
        done: &done,
        calls: &calls,
        is_healthy: weather == Weather::Healthy,
    };
    violations.extend(run.check());
    let counts = Counts::of(&calls);
    Report {
        weather,
        setting,
        counts: Counts {
            operations: done.len() as u64,
            deaths: counts.deaths + deaths,
            virtual_time: end,
            ..counts
        },
        violations,
    }
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
                done.body()
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
    let view = running.json();
    expect(&running, view["state"] == "running" && view["ticks"] == 3);
    seen().await;
    let stopped = act(0, Action::Stop, host()).await;
    expect(&stopped, stopped.status() == 200);
    let took = stopped.exchange.ended.at - stopped.exchange.sent.at;
    expect(&stopped, took < TICK * 2 / 3);
    world.sleep(TICK * 2).await;
    let view = act(0, Action::Look, host()).await;
    let is_right = view.json()["state"] == "stopped" && view.json()["ticks"] == 3;
    expect(&view, is_right);
    violations
}

/// A run that is over.
struct Run<'a> {
    database: &'a Database,
    hosts: &'a [Host],
    done: &'a [Done],
    calls: &'a [Call],
    is_healthy: bool,
}

/// An instance: its host's name, and its number there.
type Instance = (String, u64);

impl Run<'_> {
    fn check(&self) -> Vec<String> {
        let mut violations = Vec::new();
        violations.extend(self.check_answers());
        violations.extend(self.check_terms());
        violations.extend(self.check_lines());
        violations
    }

    /// Every answer is one of those that README names.
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
                || (is_unavailable && !self.is_healthy)
                || timeout.is_some();
            (!is_right).then(|| format!("{}: {} {}", done.describe(), done.status(), done.body()))
        });
        answers.collect()
    }

    /// The beats of each term, in the order in which they happened: by whom, when, and how many there were then.
    fn beats(&self) -> BTreeMap<String, Vec<(Instance, Moment, i64)>> {
        let mut terms: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for call in self.calls {
            if let (Operation::Increment, Some(term), Some(at), Some(wrote)) = (
                call.operation,
                call.key.strip_prefix(BEATS),
                call.applied,
                &call.wrote,
            ) {
                let who = (call.host.to_string(), call.instance);
                let beats = terms.entry(term.to_owned()).or_default();
                beats.push((who, at, number(wrote)));
            }
        }
        for beats in terms.values_mut() {
            beats.sort_by_key(|(_, at, _)| *at);
        }
        terms
    }

    /// One instance ticks in a term, none ticks when there is a new one, and nothing undoes its ticks.
    fn check_terms(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let leases = self.database.history(LEASE_KEY);
        let leases = leases
            .iter()
            .filter_map(|(moment, value)| Some((moment, number(value.as_deref()?))));
        let leases: Vec<_> = leases.collect();
        if !leases.is_sorted_by(|(_, one), (_, next)| one < next) {
            violations.push(format!("the lease went {leases:?}"));
        }
        for (term, beats) in self.beats() {
            let runner = &beats[0].0;
            if let Some((other, at, _)) = beats.iter().find(|(who, ..)| who != runner) {
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
            // The first of them makes the term. Would-be runners do that, too.
            let late = beats
                .iter()
                .find(|(_, at, number)| *number > 1 && end.is_some_and(|(end, _)| at > end));
            if let Some((_, at, _)) = late {
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
            let is_counted = open.iter().zip(1..).all(|(number, count)| *number == count);
            let is_sealed_for_ever = !numbers[open.len()..].iter().any(is_open);
            if !is_counted || !is_sealed_for_ever {
                violations.push(format!("the beats of term {term} went {numbers:?}"));
            }
        }
        violations
    }

    /// A runner says only what it did, and in a healthy system one tick is a second after the other.
    fn check_lines(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut beats: BTreeMap<Instance, usize> = BTreeMap::new();
        for (who, _, number) in self.beats().into_values().flatten() {
            // The first makes the term; a late one is none.
            if number > 1 {
                *beats.entry(who).or_default() += 1;
            }
        }
        let mut said = Vec::new();
        for host in self.hosts {
            let mut lines: BTreeMap<Instance, usize> = BTreeMap::new();
            for (moment, line) in host.lines() {
                let who = (host.name().to_owned(), line.instance);
                if line.text == DID_SOMETHING {
                    *lines.entry(who).or_default() += 1;
                    said.push(moment);
                } else if line.output == loopless_host::console::Output::Stderr
                    && host.settings().reuse.request_timeout.is_none()
                {
                    violations.push(format!(
                        "instance {}.{} failed: {}",
                        who.0, who.1, line.text
                    ));
                }
            }
            for (who, count) in lines {
                let did = beats.get(&who).copied().unwrap_or_default();
                if count > did {
                    violations.push(format!(
                        "{}.{} said {count} times that it did something, and did {did} times",
                        who.0, who.1
                    ));
                }
            }
        }
        said.sort();
        let is_close = |pair: &&[Moment]| pair[1].at - pair[0].at < TICK / 2;
        if self.is_healthy
            && let Some(pair) = said.windows(2).find(is_close)
        {
            violations.push(format!(
                "two ticks within half a second, at {:.3} s: two services",
                pair[1].at.as_secs_f64()
            ));
        }
        violations
    }
}

/// A number as `increment` leaves it: text, or eight bytes.
fn number(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| value.try_into().map_or(0, i64::from_le_bytes))
}
