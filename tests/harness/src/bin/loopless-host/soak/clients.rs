//! The traffic: writers, each with an event of its own, and those who watch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use super::findings::Kind;
use super::truth::{Reading, Truth, Versions};
use super::world::{Client, Counts, Outcome, RECOVERY, World};
use crate::conformance::client::{Answer, Message, Stream};

/// The longest wait, poll or look at a stream.
const LONGEST: Duration = Duration::from_secs(2);

/// What was acknowledged so long before a watch ended must have been seen by it.
const IN_TIME: Duration = Duration::from_millis(250);

/// The same for streams, whose end is the client's, and which have no last look then.
const IN_TIME_FOR_STREAMS: Duration = Duration::from_secs(1);

/// A server's clock may be coarser than ours.
const COARSE: Duration = Duration::from_millis(10);

/// How long a client pauses if there is no server.
const PAUSE: Duration = Duration::from_millis(20);

/// How many changes a stream tells one by one to somebody who was away.
const MOST_TOLD: u64 = 100;

/// The body of a change.
fn body(set: bool) -> String {
    format!("{{\"set\": {set}}}")
}

/// One client.
pub struct Visitor {
    world: Arc<World>,
    random: StdRng,
    clients: Vec<Client>,
}

impl Visitor {
    /// One with connections of its own, whose choices are those of this seed.
    pub fn new(world: Arc<World>, seed: u64) -> Self {
        let servers = world.servers.iter().enumerate();
        let clients = servers.map(|(server, known)| Client {
            server,
            target: known.target(),
        });
        Self {
            clients: clients.collect(),
            world,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Changes the event of this writer again and again, and does other things in between, until the time is up.
    pub async fn write(mut self, writer: usize, until: Instant) {
        // An event that is set, looked at and forgotten, again and again.
        let mut passing = self.world.name();
        while self.goes_on(until) {
            match self.random.random_range(0..100) {
                0..50 => self.change_own(writer, until).await,
                50..70 => self.look(until).await,
                70..82 => self.change_shared().await,
                82..88 => {
                    if !self.set_and_forget(&passing).await {
                        passing = self.world.name();
                    }
                }
                88..94 => self.read_others().await,
                _ => self.send_nonsense().await,
            }
        }
        self.forget_passing(&passing).await;
    }

    /// Watches the events of the writers, or hangs up, until the time is up.
    pub async fn watch(mut self, until: Instant) {
        while self.goes_on(until) {
            match self.random.random_range(0..100) {
                0..35 => self.wait().await,
                35..55 => self.poll().await,
                55..70 => self.follow().await,
                70..90 => self.hang_up().await,
                _ => self.look(until).await,
            }
        }
    }

    fn goes_on(&self, until: Instant) -> bool {
        Instant::now() < until && !self.world.is_over()
    }

    /// One of the servers that are up.
    async fn client(&mut self) -> usize {
        loop {
            let now = Instant::now();
            let servers = self.world.servers.iter().enumerate();
            let up = servers.filter(|(_, server)| !server.down.was_since(now));
            let up: Vec<_> = up.map(|(number, _)| number).collect();
            if !up.is_empty() {
                return up[self.random.random_range(0..up.len())];
            }
            sleep(PAUSE).await;
        }
    }

    fn any_owned(&mut self) -> Arc<Truth> {
        let writer = self.random.random_range(0..self.world.writers());
        self.world.owned(writer)
    }

    async fn ask(
        &self,
        client: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Outcome {
        let client = &self.clients[client];
        let world = &self.world;
        world.ask(client, method, path, headers, body, false).await
    }

    /// Sets the writer's own event, or clears it.
    async fn change_own(&mut self, writer: usize, until: Instant) {
        let world = self.world.clone();
        let truth = world.owned(writer);
        let path = format!("/events/{}", truth.name);
        let before = truth.versions();
        // Only an event of which somebody has to look what became of it.
        if before.is_set().is_none() && !self.resolve(&truth, writer, until).await {
            return;
        }
        let before = truth.versions();
        let is_repetition = self.random.random_ratio(1, 8);
        let has_condition = world.contract.keeps("conditions") && self.random.random_ratio(1, 4);
        let client = self.client().await;
        let known = match has_condition {
            false => None,
            // Nobody else changes it, so that its tag stays what it is.
            true => match self.ask(client, Method::GET, &path, &[], "").await {
                Outcome::Answer(answer) => Some(answer.header("etag").to_owned()),
                _ => return,
            },
        };
        let condition = known.as_ref().map(|tag| ("if-match", tag.as_str()));
        let headers = condition.as_slice();
        let version = if is_repetition {
            before.least
        } else {
            truth.begins()
        };
        let sent = Instant::now();
        let outcome = self
            .ask(client, Method::PUT, &path, headers, &body(version % 2 == 1))
            .await;
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Refused => return,
            Outcome::NotSent => {
                if !is_repetition {
                    truth.is_not_made();
                }
                return;
            }
            Outcome::Unknown => return world.retire(writer),
        };
        let reading = Reading::parse(&answer.body).filter(|_| answer.status == StatusCode::OK);
        let Some(reading) = reading else {
            world.unexpected(&format!("PUT {path}"), &answer);
            return world.give_up(writer);
        };
        let judged = if is_repetition {
            truth.check(before, reading)
        } else {
            Counts::add(&world.counts.changes);
            truth.is_acknowledged(sent, reading)
        };
        if let Err(what) = judged {
            world
                .findings
                .add(Kind::Lost, format!("the answer to PUT: {what}"));
            world.give_up(writer);
        }
    }

    /// Looks whether a change that was refused has happened. Returns whether that is known now.
    async fn resolve(&mut self, truth: &Truth, writer: usize, until: Instant) -> bool {
        while self.goes_on(until) {
            let client = self.client().await;
            let path = format!("/events/{}", truth.name);
            match self.ask(client, Method::GET, &path, &[], "").await {
                Outcome::Answer(answer) => {
                    let Some(reading) = self.reading(&answer, &path) else {
                        self.world.give_up(writer);
                        return false;
                    };
                    if let Err(what) = truth.is_seen(reading) {
                        self.world.findings.add(Kind::Lost, what);
                        self.world.give_up(writer);
                        return false;
                    }
                    return true;
                }
                _ => sleep(PAUSE).await,
            }
        }
        false
    }

    /// The event in this answer to a look. That there is none is a finding.
    fn reading(&self, answer: &Answer, path: &str) -> Option<Reading> {
        let reading = Reading::parse(&answer.body).filter(|_| answer.status == StatusCode::OK);
        if reading.is_none() {
            self.world.unexpected(&format!("GET {path}"), answer);
        }
        reading
    }

    /// Reads the event of some writer, who may be changing it.
    async fn look(&mut self, until: Instant) {
        let truth = self.any_owned();
        let client = self.client().await;
        let path = format!("/events/{}", truth.name);
        let began = truth.versions();
        if let Outcome::Answer(answer) = self.ask(client, Method::GET, &path, &[], "").await {
            if let Some(reading) = self.reading(&answer, &path) {
                self.judge(&truth, began, reading);
            }
        } else if self.goes_on(until) {
            sleep(PAUSE).await;
        }
    }

    /// What a watcher may have been told who asked when the event had these versions.
    fn judge(&self, truth: &Truth, began: Versions, reading: Reading) {
        let versions = Versions {
            least: began.least,
            most: truth.versions().most,
        };
        if let Err(what) = truth.check(versions, reading) {
            self.world.findings.add(Kind::Lost, what);
        }
    }

    /// Changes an event that others change, too.
    async fn change_shared(&mut self) {
        let world = self.world.clone();
        let shared = &world.shared[self.random.random_range(0..world.shared.len())];
        let path = format!("/events/{}", shared.name);
        let client = self.client().await;
        let is_look = self.random.random_ratio(1, 4);
        let set = self.random.random_bool(0.5);
        let acknowledged = shared.acknowledged.load(Ordering::SeqCst);
        let outcome = if is_look {
            self.ask(client, Method::GET, &path, &[], "").await
        } else {
            let client = &self.clients[client];
            world
                .ask(client, Method::PUT, &path, &[], &body(set), true)
                .await
        };
        let Outcome::Answer(answer) = outcome else {
            return;
        };
        let Some(reading) = self.reading(&answer, &path) else {
            return;
        };
        if !is_look {
            Counts::add(&world.counts.changes);
        }
        if world.contract.keeps("counted") {
            if reading.generation < acknowledged {
                let name = &shared.name;
                let what = format!("{name} was in generation {acknowledged}, and is {reading}");
                world.findings.add(Kind::Lost, what);
            }
            let generation = reading.generation;
            shared.acknowledged.fetch_max(generation, Ordering::SeqCst);
        }
    }

    /// Sets an event that nobody else uses, looks at it, forgets it, and looks again. Returns whether it may be used again:
    /// whether all of this is over.
    async fn set_and_forget(&mut self, name: &str) -> bool {
        let path = format!("/events/{name}");
        for (method, body, is_set) in [
            (Method::PUT, body(true), Some(true)),
            (Method::GET, String::new(), Some(true)),
            (Method::DELETE, String::new(), None),
            (Method::GET, String::new(), Some(false)),
        ] {
            let client = self.client().await;
            let is_change = method != Method::GET;
            let shown = format!("{method} {path}");
            let Outcome::Answer(answer) = self.ask(client, method, &path, &[], &body).await else {
                return false;
            };
            let is_right = match is_set {
                None => answer.status == StatusCode::NO_CONTENT,
                Some(set) => Reading::parse(&answer.body).is_some_and(|reading| reading.set == set),
            };
            if !is_right {
                let what = format!("{shown}: {} {}", answer.status, answer.body);
                self.world.findings.add(Kind::Lost, what);
                return false;
            }
            if is_change {
                Counts::add(&self.world.counts.changes);
            }
        }
        true
    }

    /// Forgets what [`set_and_forget`](Self::set_and_forget) may have left.
    async fn forget_passing(&mut self, name: &str) {
        let client = self.client().await;
        let path = format!("/events/{name}");
        self.ask(client, Method::DELETE, &path, &[], "").await;
    }

    /// Asks for what is not one of the events.
    async fn read_others(&mut self) {
        let client = self.client().await;
        let list = format!("/events?limit=3&after={}", self.world.prefix());
        let paths = ["/", "/openapi.json", list.as_str()];
        let path = paths[self.random.random_range(0..paths.len())];
        if let Outcome::Answer(answer) = self.ask(client, Method::GET, path, &[], "").await
            && answer.status != StatusCode::OK
        {
            self.world.unexpected(&format!("GET {path}"), &answer);
        }
    }

    /// Asks for what makes no sense.
    async fn send_nonsense(&mut self) {
        let long = "x".repeat(2000);
        let (method, path, body, status) = match self.random.random_range(0..6) {
            0 => (Method::PUT, "/events/door", "{\"set\": 1}", 400),
            1 => (Method::GET, "/events/a%20door", "", 400),
            2 => (Method::GET, "/events/door/wait?timeout=soon", "", 400),
            3 => (Method::GET, "/nothing", "", 404),
            4 => (Method::POST, "/events", "", 405),
            _ => (Method::PUT, "/events/door", long.as_str(), 413),
        };
        let client = self.client().await;
        let shown = format!("{method} {path}");
        if let Outcome::Answer(answer) = self.ask(client, method, path, &[], body).await
            && answer.status != status
        {
            self.world.unexpected(&shown, &answer);
        }
    }

    /// How long to watch.
    fn patience(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(0..=LONGEST.as_millis() as u64))
    }

    /// Waits until the event of some writer is set.
    async fn wait(&mut self) {
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
    async fn poll(&mut self) {
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
    async fn follow(&mut self) {
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
        if world.contract.keeps("counted")
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
        if !message.event.is_empty() {
            return Err(format!("it said {} with {reading}", message.event));
        }
        if !self.world.contract.keeps("counted") {
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
    async fn hang_up(&mut self) {
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
