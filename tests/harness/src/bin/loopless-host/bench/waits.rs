//! The cost of many waits.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::load::{Connection, SET, To, record, times};
use super::report::{Row, Section};
use super::servers::Server;
use super::{Bench, Kept, MEMORY};
use crate::control::Command;
use crate::soak::host::{Host, Launch};

/// The age from which on the poll interval of a wait no longer grows.
const OLD: Duration = Duration::from_millis(2500);

/// How long all waits may take to begin. The first must not have ended by then.
const PATIENCE: Duration = Duration::from_secs(15);

/// The text in a row about waits on a single event.
const ONE_EVENT: &str = "one event";

/// The number of concurrent changes.
const CHANGES: usize = 16;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let stores = bench.stores("waits")?;
    let all = &bench.arguments.waits;
    bench.progress.set_position(0);
    bench
        .progress
        .set_length((2 * all.len() + stores.len() - 1) as u64);
    for kept in stores {
        // How waits share reads does not depend on the store. So other stores are measured with the least load only.
        let (loads, kinds) = match kept.name {
            MEMORY => (&all[..], 2),
            _ => (&all[..all.len().min(1)], 1),
        };
        for &waits in loads {
            for (events, what) in [(1, ONE_EVENT), (waits, "an event each")]
                .into_iter()
                .take(kinds)
            {
                bench.show(format!("{waits} waits, {what}, {}", kept.name));
                rows.push(many(bench, &kept, waits, events, what).await?);
                bench.progress.inc(1);
            }
        }
    }
    Ok(rows)
}

/// Measures this number of waits on this number of events, on a new host.
async fn many(
    bench: &Bench,
    kept: &Kept,
    waits: usize,
    events: usize,
    what: &str,
) -> anyhow::Result<Row> {
    // The changes are requests too.
    let most = (waits + CHANGES + 1).to_string();
    let limits = [
        "--max-connections",
        &most,
        "--max-concurrent-requests",
        &most,
    ];
    let limits = limits.map(str::to_owned);
    let mut host = Host::start(Launch {
        program: std::env::current_exe()?,
        arguments: kept.options.iter().cloned().chain(limits).collect(),
    })
    .await?;
    let to = Server::running("a host", host.base.clone(), None).to;
    // Memory that the host allocates for its first request is not a cost of waits.
    let first = to.request(Method::GET, &to.event(0), Bytes::new())?;
    Connection::open(&to).await?.send(first).await?;
    let empty = host.memory();

    let mut tasks = JoinSet::new();
    for number in 0..waits {
        let to = to.clone();
        let path = format!("{}/wait?timeout=25", to.event(number % events));
        let mut connection = Connection::open(&to).await?;
        tasks.spawn(async move {
            let answer = connection
                .send(to.request(Method::GET, &path, Bytes::new())?)
                .await?;
            anyhow::Ok((number, answer.status(), Instant::now()))
        });
    }
    let began = Instant::now();
    // Rejected waits have ended already. Waits that have not begun in time will be rejected or end too late.
    let mut over = Vec::new();
    while began.elapsed() < PATIENCE {
        while let Some(answered) = tasks.try_join_next() {
            over.push(answered??);
        }
        if host.tell(Command::Look).await?.requests >= tasks.len() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    sleep(OLD.min(bench.arguments.time * 2)).await;

    let before = (
        host.tell(Command::Look).await?.reads,
        host.cpu(),
        Instant::now(),
    );
    sleep(bench.arguments.time).await;
    let after = (
        host.tell(Command::Look).await?.reads,
        host.cpu(),
        Instant::now(),
    );
    let seconds = (after.2 - before.2).as_secs_f64();
    let mut row = Row::new(Section::Waits, kept.name, what, Some(waits));
    row = row.with("reads_per_second", (after.0 - before.0) as f64 / seconds);
    if let (Some(before), Some(after)) = (before.1, after.1) {
        row = row.with("cores", (after - before).as_secs_f64() / seconds);
    }
    if let (Some(empty), Some(full)) = (empty, host.memory()) {
        row = row.with(
            "kibibytes_each",
            full.saturating_sub(empty) as f64 / 1024.0 / waits as f64,
        );
    }

    let changed = Instant::now();
    let changes = change_all(&to, events).await?;
    let mut times = times()?;
    let mut refused = 0;
    let mut last = Duration::ZERO;
    while let Some(answered) = tasks.join_next().await {
        over.push(answered??);
    }
    for (number, status, ended) in over {
        match status {
            StatusCode::OK => {
                record(
                    &mut times,
                    ended.saturating_duration_since(changes[number % events]),
                );
                last = last.max(ended.saturating_duration_since(changed));
            }
            _ => refused += 1,
        }
    }
    host.kill().await?;
    let row = row.with("refused", f64::from(refused)).with_times(&times);
    Ok(row.with("all_ms", last.as_secs_f64() * 1000.0))
}

/// Sets all events, and returns when each request was sent.
async fn change_all(to: &To, events: usize) -> anyhow::Result<Vec<Instant>> {
    let mut tasks = JoinSet::new();
    for first in 0..CHANGES.min(events) {
        let to = to.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(&to).await?;
            let mut asked = Vec::new();
            for number in (first..events).step_by(CHANGES) {
                asked.push((number, Instant::now()));
                let put = to.request(Method::PUT, &to.event(number), SET)?;
                let status = connection.send(put).await?.status();
                anyhow::ensure!(status.is_success(), "the host answered a PUT with {status}");
            }
            anyhow::Ok(asked)
        });
    }
    let mut all = vec![Instant::now(); events];
    while let Some(asked) = tasks.join_next().await {
        for (number, time) in asked?? {
            all[number] = time;
        }
    }
    Ok(all)
}
