//! The time from a change to the end of a wait.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Method;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::load::{Connection, SET, To, record, times};
use super::report::{Row, Section};
use super::servers::Server;
use super::{Bench, Kept, MEMORY};

/// The number of waits of each age in each round. They begin at equal intervals.
const WAITS: u32 = 30;

/// Where waits and changes are sent.
struct Place {
    name: &'static str,
    waits: To,
    changes: To,
}

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let arguments = &bench.arguments;
    let stores = match &arguments.url {
        Some(url) => vec![(url.to_string(), None)],
        None => {
            let stores = bench.stores("wakes")?.into_iter();
            stores.map(|kept| (kept.name.into(), Some(kept))).collect()
        }
    };
    bench.progress.set_position(0);
    let steps = stores.len() * arguments.ages.len() * 3;
    bench.progress.set_length(steps as u64);
    let mut rows = Vec::new();
    for (name, store) in stores {
        let (_servers, places) = places(bench, store.as_ref()).await?;
        for &age in &arguments.ages {
            let shown = humantime::format_duration(age);
            for place in &places {
                bench.show(format!(
                    "wakes of waits {shown} old, {name}, {}",
                    place.name
                ));
                let mut all = times()?;
                for round in 0..arguments.rounds {
                    all.add(wake(place, age, round, arguments.time / WAITS).await?)?;
                }
                let what = format!("{}, {shown} old", place.name);
                let row = Row::new(Section::Wakes, &name, what, None);
                rows.push(row.with_times(&all));
                bench.progress.inc(1);
            }
        }
    }
    Ok(rows)
}

/// The places to measure with this store, and the servers that they need.
async fn places(bench: &Bench, kept: Option<&Kept>) -> anyhow::Result<(Vec<Server>, Vec<Place>)> {
    let Some(kept) = kept else {
        let url = bench
            .arguments
            .url
            .clone()
            .context("there is neither a store nor a --url")?;
        let token = bench.arguments.access.token.clone();
        let to = Server::running(url.to_string(), url, token).to;
        let place = Place {
            name: "same server",
            waits: to.clone(),
            changes: to,
        };
        return Ok((Vec::new(), vec![place]));
    };
    let start = async |options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned());
        let all: Vec<_> = kept.options.iter().cloned().chain(options).collect();
        Server::host("a host", &all).await
    };
    // A host sends a request to an instance with free capacity. If an instance takes one request at a time, it has none during a
    // wait.
    let shared = start(&[]).await?;
    let apart = start(&["--max-instance-concurrent-reuse-count", "1"]).await?;
    let mut places = vec![
        Place {
            name: "same instance",
            waits: shared.to.clone(),
            changes: shared.to.clone(),
        },
        Place {
            name: "other instance",
            waits: apart.to.clone(),
            changes: apart.to.clone(),
        },
    ];
    if kept.name != MEMORY {
        places.push(Place {
            name: "other process",
            waits: shared.to.clone(),
            changes: To {
                base: apart.to.base.clone(),
                ..shared.to.clone()
            },
        });
    }
    Ok((vec![shared, apart], places))
}

/// Measures waits of this age, each on its own event.
async fn wake(
    place: &Place,
    age: Duration,
    round: u32,
    apart: Duration,
) -> anyhow::Result<Histogram<u64>> {
    let mut tasks = JoinSet::new();
    for number in 0..WAITS {
        let (waits, changes) = (place.waits.clone(), place.changes.clone());
        let unique = format!(
            "{}-{}-{round}-{number}",
            place.name.replace(' ', "-"),
            age.as_millis()
        );
        tasks.spawn(async move {
            let path = format!("/events/{}{unique}", waits.prefix);
            sleep(apart * number).await;
            let mut waiting = Connection::open(&waits).await?;
            let mut changing = Connection::open(&changes).await?;
            let wait = waits.request(
                Method::GET,
                &format!("{path}/wait?timeout=25"),
                Bytes::new(),
            )?;
            let wait = tokio::spawn(async move {
                let answer = waiting.send(wait).await?;
                anyhow::Ok((answer, Instant::now()))
            });
            sleep(age).await;
            let put = changes.request(Method::PUT, &path, SET)?;
            let began = Instant::now();
            let changed = changing.send(put).await?.status();
            let (answer, ended) = wait.await??;
            ensure!(
                changed.is_success(),
                "the server answered a PUT with {changed}"
            );
            ensure!(
                answer.status().is_success(),
                "the server answered a wait with {}",
                answer.status()
            );
            let delete = changes.request(Method::DELETE, &path, Bytes::new())?;
            changing.send(delete).await?;
            Ok(ended.saturating_duration_since(began))
        });
    }
    let mut times = times()?;
    while let Some(took) = tasks.join_next().await {
        record(&mut times, took??);
    }
    Ok(times)
}
