//! Worlds of the long-running service: clients that start, stop and read it, and runners that die or stall.

mod promises;

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use loopless_host::Reuse;
use loopless_host::simulation::{Exchange, Host, Settings, World};
use loopless_host::store::Quirks;

use crate::contract::Contract;

use super::scenario::{Report, Stage, Weather, faults, ms, reuse};
use promises::Run;

/// The time between ticks.
const TICK: Duration = Duration::from_secs(1);

/// How long a runner keeps its lease without a beat.
const LEASE: Duration = Duration::from_secs(5);

/// An operation on the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Start,
    Stop,
    Look,
}

/// An action, and its request and response.
struct Done {
    action: Action,
    host: Host,
    exchange: Exchange,
}

impl Done {
    /// The status of the response. 0 if there was none.
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
    // Constant paths make valid requests.
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
    let reuse = reuse(world);
    Settings {
        quirks,
        reuse: Reuse {
            request_timeout: match weather {
                Weather::Healthy => None,
                _ => *world.pick(&timeouts),
            },
            ..reuse
        },
        variables: BTreeMap::new(),
        lag: match weather {
            Weather::Lagging => *world.pick(&[ms(0), ms(20), ms(150)]),
            _ => Duration::ZERO,
        },
        calendar_ahead: *world.pick(&[ms(0), ms(0), ms(700)]),
    }
}

/// Runs a world of the service.
pub async fn play(world: World, contract: &Contract) -> Report {
    let weather = Weather::pick(&world, contract);
    let (_, quirks) = *world.pick(&Quirks::ALL);
    let mut faults = faults(&world, weather);
    if faults.slow > 0.0 {
        // A slow call outlasts the lease, so a runner loses its term while it is alive.
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

    // By then, the leases of dead runners have expired, and slow calls have returned.
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

/// Checks that after the faults, the service can be started, ticks, and can be stopped, each through any host.
async fn recover(world: &World, hosts: &[Host]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut expect = |done: &Done, is_right: bool| {
        if !is_right {
            violations.push(format!(
                "after the faults, {}: {} {}",
                done.describe(),
                done.status(),
                done.exchange.text()
            ));
        }
    };
    // After this time, every host sees what another has written.
    let lag = hosts.iter().map(|host| host.settings().lag).max();
    let all_see = || world.sleep(lag.unwrap_or_default() + ms(1));
    let host = || world.pick(hosts).clone();
    // The runner may have died a moment ago. If so, its lease has expired by the second attempt.
    let stopped = act(0, Action::Stop, host()).await;
    if stopped.status() != 200 {
        expect(&stopped, stopped.status() == 504);
        world.sleep(LEASE).await;
        let stopped = act(0, Action::Stop, host()).await;
        expect(&stopped, stopped.status() == 200);
    }
    all_see().await;
    let started = act(0, Action::Start, host()).await;
    expect(&started, started.status() == 202);
    world.sleep(TICK * 3 + TICK / 2).await;
    let running = act(0, Action::Look, host()).await;
    let view = running.exchange.json();
    expect(&running, view["state"] == "running" && view["ticks"] == 3);
    all_see().await;
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
