//! Worlds of events: clients that set, clear, forget, read and wait.

mod clients;
mod linearizability;
mod promises;
mod truth;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loopless_host::simulation::{Host, Settings, World};
use loopless_host::store::Quirks;

use crate::contract::Contract;

use super::scenario::{Counts, Report, Stage, Weather, faults, ms, reuse};
use clients::{Action, Done, act};
use promises::{Run, check};
use truth::Version;

/// How long a stream lasts.
pub const STREAM_MAX: Duration = Duration::from_secs(2);

fn settings(world: &World, weather: Weather, quirks: Quirks, poll: (u64, u64)) -> Settings {
    let variables = BTreeMap::from([
        ("poll_first_ms".to_owned(), poll.0.to_string()),
        ("poll_last_ms".to_owned(), poll.1.to_string()),
        ("wait_max_seconds".to_owned(), "600".to_owned()),
        (
            "stream_max_seconds".to_owned(),
            STREAM_MAX.as_secs().to_string(),
        ),
    ]);
    let lag = match weather {
        Weather::Lagging => *world.pick(&[ms(0), ms(20), ms(150), ms(600)]),
        _ => Duration::ZERO,
    };
    Settings {
        quirks,
        reuse: reuse(world),
        variables,
        lag,
        calendar_ahead: Duration::ZERO,
    }
}

/// Runs a world of events.
pub async fn play(world: World, contract: &Contract) -> Report {
    let weather = Weather::pick(&world, contract);
    let (_, quirks) = *world.pick(&Quirks::ALL);
    let poll = *world.pick(&[(5, 100), (5, 100), (1, 1000), (20, 50)]);
    let names: &[&'static str] = if world.chance(0.7) {
        &["event"]
    } else {
        &["event", "door"]
    };
    let faults = faults(&world, weather);
    let settings = || settings(&world, weather, quirks, poll);
    let about = format!("{weather}; {contract}");
    let stage = match Stage::set(&world, &about, weather, quirks, faults, 2..=5, settings) {
        Ok(stage) => stage,
        Err(report) => return report,
    };
    let ends = Ends::default();
    let life = |client| {
        let (world, hosts, ends) = (world.clone(), stage.hosts.clone(), ends.clone());
        live(world, client, names, hosts, ends)
    };
    let mut lived = stage.live(ms(6000), life).await;

    let lag = stage.hosts.iter().map(|host| host.settings().lag).max();
    let lag = lag.unwrap_or_default();
    world.sleep(lag + ms(1000)).await;
    recover(&world, names, &stage.hosts, lag, &mut lived.violations).await;

    let end = world.moment().at;
    let calls = stage.database.calls();
    let is_wait = |done: &&Done| {
        matches!(
            done.action,
            Action::Wait { .. } | Action::LongPoll { .. } | Action::Page
        )
    };
    let counts = Counts {
        waits: lived.done.iter().filter(is_wait).count() as u64,
        ..lived.counts(&calls, end)
    };
    let broken = check(&Run {
        contract,
        database: stage.database.clone(),
        hosts: stage.hosts.clone(),
        names: names.to_vec(),
        done: lived.done,
        poll_first: ms(poll.0),
        poll_last: ms(poll.1),
        weather,
        longest_call: faults.longest(),
        calls,
    });
    stage.report(counts, [lived.violations, broken].concat())
}

/// The deadlines of waits. Changes just before a deadline are the hardest cases.
type Ends = Arc<Mutex<Vec<Duration>>>;

/// The actions of one client.
async fn live(
    world: World,
    client: u64,
    names: &'static [&'static str],
    hosts: Vec<Host>,
    ends: Ends,
) -> Vec<Done> {
    let mut done = Vec::new();
    let mut seen = Version::default();
    let mut next: Option<Action> = None;
    let mut name = *world.pick(names);
    for _ in 0..world.number(3..=8) {
        let pause = *world.pick(&[ms(0), ms(5), ms(60), ms(700)]);
        world.sleep(world.time(Duration::ZERO..=pause)).await;
        let end = lock(&ends).pop().filter(|_| world.chance(0.5));
        let until_end = end.and_then(|end| end.checked_sub(world.moment().at));
        let action = match (next.take(), until_end) {
            (Some(action), _) => action,
            (None, Some(left)) => {
                let before = world.time(ms(0)..=ms(30));
                world.sleep(left.saturating_sub(before)).await;
                Action::Change {
                    set: world.chance(0.8),
                    only_from: None,
                }
            }
            (None, None) => {
                name = *world.pick(names);
                let action = choose(&world, seen);
                // Makes pulses frequent.
                if matches!(action, Action::Change { set: true, .. }) && world.chance(0.4) {
                    next = Some(Action::Change {
                        set: false,
                        only_from: None,
                    });
                }
                action
            }
        };
        if matches!(action, Action::Post { .. } | Action::Page) {
            name = "event";
        }
        if let Action::Wait { timeout } | Action::LongPoll { timeout, .. } = action {
            lock(&ends).push(world.moment().at + timeout);
        }
        let host = world.pick(&hosts).clone();
        let its = act(client, name, action, host).await;
        if let Some(version) = its.version() {
            seen = version;
        }
        done.push(its);
    }
    done
}

fn choose(world: &World, seen: Version) -> Action {
    let timeout = *world.pick(&[
        ms(0),
        ms(20),
        ms(100),
        ms(500),
        ms(500),
        ms(2000),
        ms(10_000),
    ]);
    let change = |set, only_from| Action::Change { set, only_from };
    match world.number(0..=99) {
        0..=19 => change(true, None),
        20..=34 => change(false, None),
        35..=42 => change(world.chance(0.5), Some(seen)),
        43..=47 => Action::Post {
            set: world.chance(0.5),
        },
        48..=55 => Action::Look,
        56..=59 => Action::Page,
        60..=64 => Action::Forget,
        65..=82 => Action::Wait { timeout },
        83..=91 => Action::LongPoll {
            known: seen,
            timeout,
        },
        92..=97 => Action::Stream {
            last_event_id: world.chance(0.5).then_some(seen),
        },
        _ => Action::List,
    }
}

/// Checks that after the faults, every host sees a change made on any host.
async fn recover(
    world: &World,
    names: &[&'static str],
    hosts: &[Host],
    lag: Duration,
    violations: &mut Vec<String>,
) {
    for &name in names {
        for host in hosts {
            for set in [true, false] {
                let change = Action::Change {
                    set,
                    only_from: None,
                };
                let its = act(0, name, change, host.clone()).await;
                if its.exchange.json()["set"] != set {
                    violations.push(format!("{}: {}", its.describe(), its.exchange.text()));
                }
                world.sleep(lag + ms(1)).await;
                for host in hosts {
                    let its = act(0, name, Action::Look, host.clone()).await;
                    if its.exchange.json()["set"] != set {
                        violations.push(format!("{}: {}", its.describe(), its.exchange.text()));
                    }
                }
            }
        }
    }
}

/// Locks the list. Pushes and pops cannot leave it half changed, so a poisoned lock is fine.
fn lock(ends: &Mutex<Vec<Duration>>) -> MutexGuard<'_, Vec<Duration>> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}
