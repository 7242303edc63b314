//! Load on a server: a number of connections, each with one request at a time.
//!
//! One thread generates the load, so that on a machine with few processors most of them are left for the server.
//!
//! *Closed* load measures throughput: a connection sends its next request as soon as it has a response. *Open* load measures
//! response times: each request is due at a fixed time, whether or not the one before has been answered, and is timed from then
//! on. So a pause of the server delays all requests that are due meanwhile, and coordinated omission is avoided.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use tokio::task::{JoinSet, spawn_blocking};
use tower_service::Service;

use super::timer::Timer;
use crate::conformance::client::{Base, connector};

/// The kind of request that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The page, of an event that is set.
    Page,
    /// The state of a named event.
    State,
    /// A change of a named event. Each connection has its own event, so every request writes.
    Change,
    /// A route that does not use the store.
    Static,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Page => "GET /",
            Self::State => "GET /events/x",
            Self::Change => "PUT /events/x",
            Self::Static => "GET /page.css",
        })
    }
}

pub const SET: Bytes = Bytes::from_static(b"{\"set\": true}");
pub const CLEAR: Bytes = Bytes::from_static(b"{\"set\": false}");

/// The target of requests.
#[derive(Clone, Debug)]
pub struct To {
    pub base: Base,
    pub token: Option<String>,
    /// The prefix of the events' names.
    pub prefix: String,
}

impl To {
    /// The path of an event.
    pub fn event(&self, number: usize) -> String {
        format!("/events/{}{number}", self.prefix)
    }

    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.base.authority());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::from(body))
    }

    /// The request that a connection sends after `count` others.
    fn next(
        &self,
        asked: Asked,
        connection: usize,
        count: u64,
    ) -> http::Result<Request<Full<Bytes>>> {
        let get = |path: &str| self.request(Method::GET, path, Bytes::new());
        let put = |body| self.request(Method::PUT, &self.event(connection), body);
        match asked {
            Asked::Page => get("/"),
            Asked::Static => get("/page.css"),
            Asked::State => get(&self.event(connection)),
            Asked::Change if count.is_multiple_of(2) => put(SET),
            Asked::Change => put(CLEAR),
        }
    }
}

/// A connection over HTTP/1.1.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(to: &To) -> anyhow::Result<Self> {
        let cannot = || format!("cannot connect to {}", to.base);
        let uri = to.base.to_string().parse()?;
        let connected = connector().call(uri).await;
        let stream = connected
            .map_err(anyhow::Error::from_boxed)
            .with_context(cannot)?;
        let (sender, driver) = http1::handshake(stream).await.with_context(cannot)?;
        tokio::spawn(async {
            // The request in progress gets the error.
            _ = driver.await;
        });
        Ok(Self { sender })
    }

    /// Sends a request, and reads the whole response.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Rate {
    /// When the one before has been answered.
    Closed,
    /// At this rate per second, over all connections.
    Open(f64),
}

/// The result of a load.
#[derive(Clone, Debug)]
pub struct Sample {
    pub per_second: f64,
    /// In nanoseconds.
    pub times: Histogram<u64>,
}

/// An empty histogram of times up to a minute, in nanoseconds, with a precision of 0.1 %.
pub fn times() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Adds a time. A time above the histogram's limit counts as the limit.
pub fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

/// Sends requests for this length of time.
///
/// # Errors
///
/// If the server cannot be reached, or a response is not a success.
pub async fn load(
    to: &To,
    asked: Asked,
    connections: usize,
    rate: Rate,
    length: Duration,
) -> anyhow::Result<Sample> {
    let to = to.clone();
    spawn_blocking(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build()?;
        runtime.block_on(ask_all(&to, asked, connections, rate, length))
    })
    .await?
}

async fn ask_all(
    to: &To,
    asked: Asked,
    connections: usize,
    rate: Rate,
    length: Duration,
) -> anyhow::Result<Sample> {
    let mut ready = Vec::new();
    for _ in 0..connections {
        ready.push(Connection::open(to).await?);
    }
    let began = Instant::now();
    let end = began + length;
    let mut tasks = JoinSet::new();
    for (number, connection) in ready.into_iter().enumerate() {
        let schedule = match rate {
            Rate::Closed => None,
            Rate::Open(per_second) => Some(Schedule {
                timer: Timer::new()?,
                next: began + Duration::from_secs_f64(number as f64 / per_second),
                interval: Duration::from_secs_f64(connections as f64 / per_second),
            }),
        };
        tasks.spawn(ask(connection, to.clone(), asked, number, schedule, end));
    }
    let mut times = times()?;
    while let Some(asked) = tasks.join_next().await {
        times.add(asked??)?;
    }
    Ok(Sample {
        per_second: times.len() as f64 / began.elapsed().as_secs_f64(),
        times,
    })
}

/// When the requests of a connection are due.
struct Schedule {
    timer: Timer,
    next: Instant,
    interval: Duration,
}

async fn ask(
    mut connection: Connection,
    to: To,
    asked: Asked,
    number: usize,
    mut schedule: Option<Schedule>,
    end: Instant,
) -> anyhow::Result<Histogram<u64>> {
    let mut times = times()?;
    for count in 0.. {
        let due = match &mut schedule {
            None => match Instant::now() {
                now if now >= end => break,
                now => now,
            },
            Some(schedule) => {
                let due = schedule.next;
                schedule.next += schedule.interval;
                if due >= end {
                    break;
                }
                schedule.timer.until(due).await?
            }
        };
        let answer = connection.send(to.next(asked, number, count)?).await;
        let answer = answer.with_context(|| format!("no answer from {} to {asked}", to.base))?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "{} answered {asked} with {status}",
            to.base
        );
        record(&mut times, due.elapsed());
    }
    Ok(times)
}
