//! Requests per second, and their response times.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, header};

use super::load::{Asked, Connection, Rate, Sample, To, load, times};
use super::plain::Answer;
use super::report::{Row, Section};
use super::servers::Server;
use super::{Bench, median};

/// The rate at which response times are measured, as a fraction of the closed-loop requests/s.
const PART: f64 = 0.5;

/// A server, and the kinds of requests to it.
struct Case {
    server: Server,
    asked: &'static [Asked],
}

/// A measurement: the index of the server, the kind of request, and the number of connections.
type Key = (usize, Asked, usize);

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let cases = start(bench).await?;
    let arguments = &bench.arguments;
    let asked: usize = cases.iter().map(|case| case.asked.len()).sum();
    let steps = asked * arguments.connections.len() * 2;
    bench.progress.set_position(0);
    bench
        .progress
        .set_length(steps as u64 * u64::from(arguments.rounds));
    let mut samples = BTreeMap::<Key, Vec<(f64, Sample)>>::new();
    for _ in 0..arguments.rounds {
        for &connections in &arguments.connections {
            for (number, case) in cases.iter().enumerate() {
                for &asked in case.asked {
                    let to = &case.server.to;
                    bench.show(format!(
                        "{asked}, {}, {connections} connections",
                        case.server.name
                    ));
                    let closed = load(to, asked, connections, Rate::Closed, arguments.time).await?;
                    bench.progress.inc(1);
                    let rate = Rate::Open((closed.per_second * PART).max(1.0));
                    let open = load(to, asked, connections, rate, arguments.time).await?;
                    bench.progress.inc(1);
                    let taken = samples.entry((number, asked, connections)).or_default();
                    taken.push((closed.per_second, open));
                }
            }
        }
    }
    if bench.arguments.url.is_some() {
        let most = arguments.connections.iter().max();
        forget(&cases[0].server.to, most.copied().unwrap_or(0)).await?;
    }
    rows(&cases, &samples)
}

/// Forgets the events of this number of connections.
async fn forget(to: &To, connections: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(to).await?;
    for number in 0..connections {
        let delete = to.request(Method::DELETE, &to.event(number), Bytes::new())?;
        connection.send(delete).await?;
    }
    Ok(())
}

/// Starts all servers, and sets the event of the page on each.
async fn start(bench: &Bench) -> anyhow::Result<Vec<Case>> {
    const ALL: &[Asked] = &[Asked::Page, Asked::State, Asked::Change, Asked::Static];
    const PAGE: &[Asked] = &[Asked::Page];

    let mut cases = Vec::new();
    match &bench.arguments.url {
        Some(url) => {
            let token = bench.arguments.access.token.clone();
            let server = Server::running(url.to_string(), url.clone(), token);
            cases.push(Case { server, asked: ALL });
        }
        None => {
            for kept in bench.stores("requests")? {
                let server = Server::host(kept.name, &kept.options).await?;
                cases.push(Case { server, asked: ALL });
            }
        }
    }
    for case in &cases {
        case.server.set_page().await?;
    }
    let answer = page(&cases[0].server).await?;
    let server = Server::plain(&answer).await?;
    cases.push(Case {
        server,
        asked: PAGE,
    });
    if let Some(command) = &bench.arguments.original {
        let server = Server::original(command, bench.arguments.original_url.clone()).await?;
        server.set_page().await?;
        cases.push(Case {
            server,
            asked: PAGE,
        });
    }
    Ok(cases)
}

/// The response to `GET /`, without the headers that hyper adds.
async fn page(server: &Server) -> anyhow::Result<Answer> {
    let (mut parts, body) = server.send(Method::GET, "/", "").await?.into_parts();
    for name in [
        header::CONTENT_LENGTH,
        header::DATE,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
    ] {
        parts.headers.remove(name);
    }
    let mut headers = Vec::new();
    for (name, value) in &parts.headers {
        headers.push((name.to_string(), value.to_str()?.to_owned()));
    }
    let body = String::from_utf8(body.into()).context("the page is not UTF-8")?;
    Ok(Answer { headers, body })
}

fn rows(cases: &[Case], samples: &BTreeMap<Key, Vec<(f64, Sample)>>) -> anyhow::Result<Vec<Row>> {
    let per_second = |key: Key| {
        let taken = samples.get(&key)?.iter();
        Some(median(taken.map(|(per_second, _)| *per_second).collect()))
    };
    let named = |name| cases.iter().position(|case| case.server.name == name);
    let mut rows = Vec::new();
    for (&(number, asked, connections), taken) in samples {
        let Some(own) = per_second((number, asked, connections)) else {
            continue;
        };
        let name = &cases[number].server.name;
        let row = Row::new(Section::Requests, name, asked, Some(connections));
        let mut row = row.with("requests_per_second", own);
        let baselines = [
            ("times_hyper", named("hyper"), Asked::Page),
            ("times_static", Some(number), Asked::Static),
            ("times_original", named("original"), Asked::Page),
        ];
        for (figure, baseline, asked) in baselines {
            let baseline = baseline.and_then(|number| per_second((number, asked, connections)));
            if let Some(baseline) = baseline {
                row = row.with(figure, own / baseline);
            }
        }
        let mut all = times()?;
        for (_, sample) in taken {
            all.add(&sample.times)?;
        }
        rows.push(row.with_times(&all));
    }
    Ok(rows)
}
