//! The traffic: writers, which each have an event, and [`watchers`].

mod watchers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::findings::Kind;
use super::truth::{Reading, Truth, Versions};
use super::world::{Client, Counts, Outcome, World};
use crate::conformance::client::Answer;
use crate::contract::Promise;

/// How long a client pauses if no server is up.
const PAUSE: Duration = Duration::from_millis(20);

/// The body of a `PUT`.
fn body(set: bool) -> String {
    format!("{{\"set\": {set}}}")
}

/// A client.
pub struct Visitor {
    world: Arc<World>,
    random: StdRng,
    clients: Vec<Client>,
}

impl Visitor {
    /// A client with its own connections. The seed determines its choices.
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

    /// Changes the event of a writer repeatedly, and sends other requests in between, until the time is up.
    pub async fn write(mut self, writer: usize, until: Instant) {
        // The name of an event that is set, read and forgotten repeatedly.
        let mut passing = self.world.name();
        while self.has_time(until) {
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

    /// Watches the events of writers, and cancels requests, until the time is up.
    pub async fn watch(mut self, until: Instant) {
        while self.has_time(until) {
            match self.random.random_range(0..100) {
                0..35 => self.wait().await,
                35..55 => self.poll().await,
                55..70 => self.follow().await,
                70..90 => self.hang_up().await,
                _ => self.look(until).await,
            }
        }
    }

    fn has_time(&self, until: Instant) -> bool {
        Instant::now() < until && !self.world.is_over()
    }

    /// Picks a server that is up. Waits until there is one.
    async fn client(&mut self) -> usize {
        loop {
            let servers = self.world.servers.iter().enumerate();
            let up = servers.filter(|(_, server)| !server.down.is_present());
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

    /// Sets or clears the writer's event.
    async fn change_own(&mut self, writer: usize, until: Instant) {
        let world = self.world.clone();
        let truth = world.owned(writer);
        let path = format!("/events/{}", truth.name);
        let before = truth.versions();
        // If the last change was rejected, a read shows whether it happened.
        if before.is_set().is_none() && !self.resolve(&truth, writer, until).await {
            return;
        }
        let before = truth.versions();
        let is_repetition = self.random.random_ratio(1, 8);
        let has_condition =
            world.contract.keeps(Promise::Conditions) && self.random.random_ratio(1, 4);
        let client = self.client().await;
        let known = match has_condition {
            false => None,
            // Nobody else changes the event, so its tag stays current.
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
            truth.begin_change()
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
                    truth.abandon_change();
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
            truth.acknowledge(sent, reading)
        };
        if let Err(what) = judged {
            world
                .findings
                .add(Kind::Lost, format!("the response to PUT: {what}"));
            world.give_up(writer);
        }
    }

    /// Reads whether a rejected change has happened. Returns whether that is known now.
    async fn resolve(&mut self, truth: &Truth, writer: usize, until: Instant) -> bool {
        while self.has_time(until) {
            let client = self.client().await;
            let path = format!("/events/{}", truth.name);
            match self.ask(client, Method::GET, &path, &[], "").await {
                Outcome::Answer(answer) => {
                    let Some(reading) = self.reading(&answer, &path) else {
                        self.world.give_up(writer);
                        return false;
                    };
                    if let Err(what) = truth.observe(reading) {
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

    /// Parses the event in a response. Adds a finding if there is none.
    fn reading(&self, answer: &Answer, path: &str) -> Option<Reading> {
        let reading = Reading::parse(&answer.body).filter(|_| answer.status == StatusCode::OK);
        if reading.is_none() {
            self.world.unexpected(&format!("GET {path}"), answer);
        }
        reading
    }

    /// Reads the event of any writer, which may be changing it.
    async fn look(&mut self, until: Instant) {
        let truth = self.any_owned();
        let client = self.client().await;
        let path = format!("/events/{}", truth.name);
        let began = truth.versions();
        if let Outcome::Answer(answer) = self.ask(client, Method::GET, &path, &[], "").await {
            if let Some(reading) = self.reading(&answer, &path) {
                self.judge(&truth, began, reading);
            }
        } else if self.has_time(until) {
            sleep(PAUSE).await;
        }
    }

    /// Checks a reading by a request that began when the event had these versions.
    fn judge(&self, truth: &Truth, began: Versions, reading: Reading) {
        let versions = Versions {
            least: began.least,
            most: truth.versions().most,
        };
        if let Err(what) = truth.check(versions, reading) {
            self.world.findings.add(Kind::Lost, what);
        }
    }

    /// Changes or reads an event with many writers.
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
        if world.contract.keeps(Promise::Counted) {
            if reading.generation < acknowledged {
                let name = &shared.name;
                let what = format!("{name} was in generation {acknowledged}, but is {reading}");
                world.findings.add(Kind::Lost, what);
            }
            let generation = reading.generation;
            shared.acknowledged.fetch_max(generation, Ordering::SeqCst);
        }
    }

    /// Sets an event that nobody else uses, reads it, forgets it, and reads it again. Returns whether its name may be used again,
    /// because all requests have ended.
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

    /// Forgets the event that [`set_and_forget`](Self::set_and_forget) may have left.
    async fn forget_passing(&mut self, name: &str) {
        let client = self.client().await;
        let path = format!("/events/{name}");
        self.ask(client, Method::DELETE, &path, &[], "").await;
    }

    /// Reads the page, the description or the list.
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

    /// Sends an invalid request.
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
}
