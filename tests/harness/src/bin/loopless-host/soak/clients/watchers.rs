//! Watchers, which wait, poll and follow streams, and check that they miss nothing.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use rand::RngExt;
use tokio::time::timeout;

use super::Visitor;
use crate::conformance::client::CLOCK_ERROR;
use crate::conformance::stream::{Message, Stream};
use crate::contract::Promise;
use crate::soak::findings::Kind;
use crate::soak::truth::{Reading, Truth, Versions};
use crate::soak::world::{Counts, Outcome};

/// The longest watch.
const LONGEST: Duration = Duration::from_secs(2);

/// A wait or a poll must see any change that is acknowledged this long before its end.
const IN_TIME: Duration = Duration::from_millis(250);

/// The same for streams. A client ends a stream at any time, so the server does not read once more at the end.
const IN_TIME_FOR_STREAMS: Duration = Duration::from_secs(1);

/// The most changes since the last message that a stream sends one by one.
const MOST_TOLD: u64 = 100;

impl Visitor {
    /// Picks how long to watch.
    fn patience(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(0..=LONGEST.as_millis() as u64))
    }

    /// Waits until the event of any writer is set.
    pub(super) async fn wait(&mut self) {
        let world = self.world.clone();
        let truth = self.any_owned();
        let patience = self.patience();
        let client = self.client().await;
        let seconds = patience.as_secs_f64();
        let path = format!("/events/{}/wait?timeout={seconds}", truth.name);
        let (began, sent) = (truth.versions(), Instant::now());
        let Outcome::Answer(answer) = self.ask(client, Method::GET, &path, &[], "").await else {
            return;
        };
        match answer.status {
            StatusCode::OK => {
                Counts::add(&world.counts.woken);
                let Some(reading) = self.reading(&answer, &path) else {
                    return;
                };
                self.judge(&truth, began, reading);
                let most = truth.versions().most;
                if began.least == most && most.is_multiple_of(2) {
                    let what = format!(
                        "GET {path} returned {reading}, but the event was clear all the time"
                    );
                    world.findings.add(Kind::Missed, what);
                }
            }
            StatusCode::REQUEST_TIMEOUT => {
                let is_set = |version: u64| version % 2 == 1;
                self.check_missed(client, &truth, sent, patience, is_set, &path);
            }
            _ => world.unexpected(&format!("GET {path}"), &answer),
        }
    }

    /// Polls the event of any writer until its state differs from the present one.
    pub(super) async fn poll(&mut self) {
        let world = self.world.clone();
        let truth = self.any_owned();
        let client = self.client().await;
        let path = format!("/events/{}", truth.name);
        let Outcome::Answer(known) = self.ask(client, Method::GET, &path, &[], "").await else {
            return;
        };
        let tag = known.header("etag").to_owned();
        let patience = self.patience();
        let path = format!("{path}?wait={}", patience.as_secs_f64());
        let condition = [("if-none-match", tag.as_str())];
        let (began, sent) = (truth.versions(), Instant::now());
        let outcome = self.ask(client, Method::GET, &path, &condition, "").await;
        let Outcome::Answer(answer) = outcome else {
            return;
        };
        match answer.status {
            StatusCode::OK => {
                Counts::add(&world.counts.woken);
                if answer.header("etag") == tag {
                    let what = format!("GET {path} with If-None-Match returned the same state");
                    world.findings.add(Kind::Missed, what);
                }
                if let Some(reading) = self.reading(&answer, &path) {
                    self.judge(&truth, began, reading);
                }
            }
            StatusCode::NOT_MODIFIED => {
                self.check_missed(client, &truth, sent, patience, |_| true, &path);
            }
            _ => world.unexpected(&format!("GET {path}"), &answer),
        }
    }

    /// Checks a watch that was sent at this time and ended without a change: no change to a version that `is_news` happened
    /// meanwhile, unless a fault explains that.
    fn check_missed(
        &self,
        client: usize,
        truth: &Truth,
        sent: Instant,
        patience: Duration,
        is_news: impl Fn(u64) -> bool,
        path: &str,
    ) {
        let now = Instant::now();
        if now.duration_since(sent) + CLOCK_ERROR < patience {
            let lasted = now.duration_since(sent).as_millis();
            let what = format!("GET {path} timed out too early, after {lasted} ms");
            return self.world.findings.add(Kind::Missed, what);
        }
        // The server received the request after `sent`, so the watch lasted at least from `from` to `sent + patience`.
        let from = now - patience;
        let Some(to) = (sent + patience).checked_sub(IN_TIME) else {
            return;
        };
        let server = &self.world.servers[client];
        let change = truth.changed(from, to, is_news);
        if let Some(change) = change
            && !server.explains(sent)
        {
            let lasted = now.duration_since(change.acknowledged).as_millis();
            let what = format!(
                "GET {path} missed change {}, which was acknowledged {lasted} ms before its end",
                change.version
            );
            self.world.findings.add(Kind::Missed, what);
        }
    }

    /// Follows the stream of any writer's event for a while.
    pub(super) async fn follow(&mut self) {
        let world = self.world.clone();
        let truth = self.any_owned();
        let patience = self.patience();
        let number = self.client().await;
        let (client, server) = (&self.clients[number], &world.servers[number]);
        let path = format!("/events/{}/stream", truth.name);
        let (began, sent) = (truth.versions(), Instant::now());
        Counts::add(&world.counts.requests);
        let response = timeout(LONGEST, client.target.request(Method::GET, &path, &[], ""));
        let response = match response.await {
            Ok(Ok(response)) => response,
            // Other requests report a server that does not respond.
            _ => return Counts::add(&world.counts.broken),
        };
        if response.status() != StatusCode::OK {
            Counts::add(&world.counts.refused);
            let is_explained = server.explains(sent) || !world.is_own;
            if !is_explained || response.status().is_client_error() && response.status() != 429 {
                let what = format!("GET {path}: {}", response.status());
                world.findings.add(Kind::Refused, what);
            }
            return;
        }
        let mut stream = Stream::of(response);
        let mut told: Option<u64> = None;
        let end = tokio::time::Instant::now() + patience;
        let broke_off = loop {
            match tokio::time::timeout_at(end, stream.next()).await {
                Err(_) => break false,
                Ok(Ok(Some(message))) => {
                    Counts::add(&world.counts.messages);
                    match self.judge_message(&truth, began, told, &message) {
                        Ok(generation) => told = Some(generation),
                        Err(what) => {
                            world
                                .findings
                                .add(Kind::Missed, format!("GET {path}: {what}"));
                            return;
                        }
                    }
                }
                Ok(Ok(None) | Err(_)) => break true,
            }
        };
        if server.explains(sent) || !world.is_own && broke_off {
            return;
        }
        if broke_off {
            world
                .findings
                .add(Kind::Refused, format!("GET {path} was cut off"));
            return;
        }
        let Some(until) = Instant::now().checked_sub(IN_TIME_FOR_STREAMS) else {
            return;
        };
        let change = truth.changed(sent, until, |version| {
            told.is_none_or(|told| version > told)
        });
        if world.contract.keeps(Promise::Counted)
            && let Some(change) = change
        {
            let what = format!("the stream GET {path} missed change {}", change.version);
            world.findings.add(Kind::Missed, what);
        }
    }

    /// Checks a message of a stream after the generation `told`. Returns the generation of the message.
    fn judge_message(
        &self,
        truth: &Truth,
        began: Versions,
        told: Option<u64>,
        message: &Message,
    ) -> Result<u64, String> {
        let reading = Reading::parse(&message.data);
        let reading = reading.ok_or_else(|| format!("{:?} is not a state", message.data))?;
        let most = truth.versions().most;
        if message.event != "message" {
            return Err(format!("it sent {} with {reading}", message.event));
        }
        if !self.world.contract.keeps(Promise::Counted) {
            return Ok(reading.generation);
        }
        let least = told.map_or(began.least, |told| told + 1);
        truth.check(Versions { least, most }, reading)?;
        match told {
            Some(told) if reading.generation != told + 1 && most - told <= MOST_TOLD => Err(
                format!("after change {told}, it sent change {}", reading.generation),
            ),
            _ => Ok(reading.generation),
        }
    }

    /// Sends a request, and cancels it.
    pub(super) async fn hang_up(&mut self) {
        let world = self.world.clone();
        let owned = self.any_owned();
        let shared = &world.shared[self.random.random_range(0..world.shared.len())];
        let (method, path, body) = match self.random.random_range(0..4) {
            // A cancelled wait may continue until its timeout, which is therefore short.
            0 => (
                Method::GET,
                format!("/events/{}/wait?timeout=3", owned.name),
                "",
            ),
            1 => (Method::GET, format!("/events/{}/stream", owned.name), ""),
            // An event with many writers, because the result of this change stays unknown.
            2 => (
                Method::PUT,
                format!("/events/{}", shared.name),
                "{\"set\": true}",
            ),
            _ => (Method::GET, "/".to_owned(), ""),
        };
        let patience = Duration::from_micros(self.random.random_range(0..50_000));
        let number = self.client().await;
        Counts::add(&world.counts.requests);
        Counts::add(&world.counts.hang_ups);
        // On a connection of its own, which is closed too.
        let client = self.clients[number].target.another_client();
        let request = async {
            if let Ok(response) = client.request(method, &path, &[], body).await {
                _ = response.into_body().collect().await;
            }
        };
        _ = timeout(patience, request).await;
    }
}
