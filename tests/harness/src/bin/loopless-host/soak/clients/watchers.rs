//! Those who watch: they wait, poll and follow, and miss nothing.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use rand::RngExt;
use tokio::time::timeout;

use super::Visitor;
use crate::conformance::stream::{Message, Stream};
use crate::contract::Promise;
use crate::soak::findings::Kind;
use crate::soak::truth::{Reading, Truth, Versions};
use crate::soak::world::{Counts, Outcome, RECOVERY};

/// The longest wait, poll or look at a stream.
const LONGEST: Duration = Duration::from_secs(2);

/// What was acknowledged so long before a watch ended must have been seen by it.
const IN_TIME: Duration = Duration::from_millis(250);

/// The same for streams, whose end is the client's, and which have no last look then.
const IN_TIME_FOR_STREAMS: Duration = Duration::from_secs(1);

/// A server's clock may be coarser than ours.
const COARSE: Duration = Duration::from_millis(10);

/// How many changes a stream tells one by one to somebody who was away.
const MOST_TOLD: u64 = 100;

impl Visitor {
    /// How long to watch.
    fn patience(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(0..=LONGEST.as_millis() as u64))
    }

    /// Waits until the event of some writer is set.
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
                    let what = format!("GET {path} answered {reading}: it was clear all the time");
                    world.findings.add(Kind::Missed, what);
                }
            }
            StatusCode::REQUEST_TIMEOUT => {
                let is_set = |version: u64| version % 2 == 1;
                self.misses_nothing(client, &truth, sent, patience, is_set, &path);
            }
            _ => world.unexpected(&format!("GET {path}"), &answer),
        }
    }

    /// Waits until the event of some writer is in another state than now.
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
                    let what = format!("GET {path} with If-None-Match answered the same state");
                    world.findings.add(Kind::Missed, what);
                }
                if let Some(reading) = self.reading(&answer, &path) {
                    self.judge(&truth, began, reading);
                }
            }
            StatusCode::NOT_MODIFIED => {
                self.misses_nothing(client, &truth, sent, patience, |_| true, &path);
            }
            _ => world.unexpected(&format!("GET {path}"), &answer),
        }
    }

    /// A watch that was sent at this time has ended without news. Then there was no such change while it lasted, unless
    /// something else went wrong meanwhile.
    fn misses_nothing(
        &self,
        client: usize,
        truth: &Truth,
        sent: Instant,
        patience: Duration,
        is_news: impl Fn(u64) -> bool,
        path: &str,
    ) {
        let now = Instant::now();
        if now.duration_since(sent) + COARSE < patience {
            let lasted = now.duration_since(sent).as_millis();
            let what = format!("GET {path} said after {lasted} ms that the time was up");
            return self.world.findings.add(Kind::Missed, what);
        }
        // The server began it somewhere between now and then, and looked for the last time after its end.
        let from = now - patience;
        let Some(to) = (sent + patience).checked_sub(IN_TIME) else {
            return;
        };
        let server = &self.world.servers[client];
        let change = truth.changed(from, to, is_news);
        if let Some(change) = change
            && !server.had_trouble_since(sent.checked_sub(RECOVERY).unwrap_or(sent))
        {
            let lasted = now.duration_since(change.acknowledged).as_millis();
            let what = format!(
                "GET {path} missed change {}, which was acknowledged {lasted} ms before it ended",
                change.version
            );
            self.world.findings.add(Kind::Missed, what);
        }
    }

    /// Follows the stream of some writer's event for a while.
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
            // That there is none is said by the other requests.
            _ => return Counts::add(&world.counts.broken),
        };
        if response.status() != StatusCode::OK {
            Counts::add(&world.counts.refused);
            let is_excused = server.had_trouble_since(sent - RECOVERY) || !world.is_own;
            if !is_excused || response.status().is_client_error() && response.status() != 429 {
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
        let has_trouble = server.had_trouble_since(sent.checked_sub(RECOVERY).unwrap_or(sent));
        if has_trouble || !world.is_own && broke_off {
            return;
        }
        if broke_off {
            world
                .findings
                .add(Kind::Refused, format!("GET {path} broke off"));
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
            let what = format!("GET {path} did not tell change {}", change.version);
            world.findings.add(Kind::Missed, what);
        }
    }

    /// Whether this is what a stream may tell that has told `told` before. Returns the generation.
    fn judge_message(
        &self,
        truth: &Truth,
        began: Versions,
        told: Option<u64>,
        message: &Message,
    ) -> Result<u64, String> {
        let reading = Reading::parse(&message.data);
        let reading = reading.ok_or_else(|| format!("{:?} is no state", message.data))?;
        let most = truth.versions().most;
        if message.event != "message" {
            return Err(format!("it said {} with {reading}", message.event));
        }
        if !self.world.contract.keeps(Promise::Counted) {
            return Ok(reading.generation);
        }
        let least = told.map_or(began.least, |told| told + 1);
        truth.check(Versions { least, most }, reading)?;
        match told {
            Some(told) if reading.generation != told + 1 && most - told <= MOST_TOLD => Err(
                format!("after change {told}, it told change {}", reading.generation),
            ),
            _ => Ok(reading.generation),
        }
    }

    /// Asks for something, and goes away.
    pub(super) async fn hang_up(&mut self) {
        let world = self.world.clone();
        let owned = self.any_owned();
        let shared = &world.shared[self.random.random_range(0..world.shared.len())];
        let (method, path, body) = match self.random.random_range(0..4) {
            // What is given up may go on to the end of its own patience.
            0 => (
                Method::GET,
                format!("/events/{}/wait?timeout=3", owned.name),
                "",
            ),
            1 => (Method::GET, format!("/events/{}/stream", owned.name), ""),
            // Only an event of which nobody has to know what became of it.
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
        // On a connection that goes away with it.
        let client = self.clients[number].target.another_client();
        let request = async {
            if let Ok(response) = client.request(method, &path, &[], body).await {
                _ = response.into_body().collect().await;
            }
        };
        _ = timeout(patience, request).await;
    }
}
