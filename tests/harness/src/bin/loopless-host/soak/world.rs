//! What the clients of a soak share: the servers, what is known of the events, what may go wrong just now, and what was found.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use hyper_util::client::legacy;

use super::findings::{Findings, Kind};
use super::truth::Truth;
use crate::conformance::client::{Answer, Base, Target};
use crate::contract::{Contract, Promise};

/// How long after a trouble has ended its consequences may still be seen: full service is back by then.
pub const RECOVERY: Duration = Duration::from_secs(1);

/// How many events have many writers.
const SHARED: usize = 3;

/// A trouble that explains failures: not there, there, or over since some time.
#[derive(Debug, Default)]
pub struct Trouble(Mutex<(bool, Option<Instant>)>);

impl Trouble {
    pub fn begins(&self) {
        self.state().0 = true;
    }

    pub fn ends(&self) {
        *self.state() = (false, Some(Instant::now()));
    }

    /// It was there for a moment.
    pub fn strikes(&self) {
        self.state().1 = Some(Instant::now());
    }

    /// Whether it was there at this time, or later.
    pub fn was_since(&self, time: Instant) -> bool {
        let (is_there, ended) = *self.state();
        is_there || ended.is_some_and(|ended| ended >= time)
    }

    fn state(&self) -> MutexGuard<'_, (bool, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server, and its troubles.
#[derive(Debug)]
pub struct Server {
    pub base: Base,
    token: Option<String>,
    /// It is not running.
    pub down: Trouble,
    /// Its instances were ended.
    pub instances: Trouble,
    /// Its store fails. Of a server that is not the soak's own: it has refused or broken off a request.
    pub store: Trouble,
}

impl Server {
    /// The server at `base`, which may want a token.
    pub fn new(base: Base, token: Option<String>) -> Self {
        Self {
            base,
            token,
            down: Trouble::default(),
            instances: Trouble::default(),
            store: Trouble::default(),
        }
    }

    /// It, over connections of a client's own.
    pub fn target(&self) -> Target {
        Target::new(self.base.clone(), "soak", self.token.clone())
    }

    /// Whether anything was wrong with it at this time, or later.
    pub fn had_trouble_since(&self, time: Instant) -> bool {
        let troubles = [&self.down, &self.instances, &self.store];
        troubles.iter().any(|trouble| trouble.was_since(time))
    }
}

/// An event that many change. The generation that was last acknowledged, of all that were.
#[derive(Debug)]
pub struct Shared {
    pub name: String,
    pub acknowledged: AtomicU64,
}

/// What was done, in numbers.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    /// Changes that were acknowledged.
    pub changes: AtomicU64,
    /// Waits and polls that ended because of a change.
    pub woken: AtomicU64,
    /// Messages of streams.
    pub messages: AtomicU64,
    /// Requests that clients gave up.
    pub hang_ups: AtomicU64,
    /// Requests that were refused.
    pub refused: AtomicU64,
    /// Requests whose answers did not come.
    pub broken: AtomicU64,
}

impl Counts {
    pub fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub fn of(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

/// What became of a request.
pub enum Outcome {
    Answer(Answer),
    /// It is over. It may have done what it asks for, or not.
    Refused,
    /// It did not reach the server.
    NotSent,
    /// Nobody knows whether it is over.
    Unknown,
}

/// All of it.
#[derive(Debug)]
pub struct World {
    pub servers: Vec<Server>,
    /// Whether the servers are the soak's own: it knows then what goes wrong, and when.
    pub is_own: bool,
    pub contract: Contract,
    /// The event of each writer.
    owned: Vec<Mutex<Arc<Truth>>>,
    /// Those whose writers have given them up, because nobody knows when their last change is over.
    retired: Mutex<Vec<Arc<Truth>>>,
    pub shared: Vec<Shared>,
    /// What the names of all events begin with.
    prefix: String,
    names: AtomicU64,
    pub counts: Counts,
    pub findings: Findings,
    is_over: AtomicBool,
}

impl World {
    pub fn new(
        servers: Vec<Server>,
        is_own: bool,
        contract: Contract,
        prefix: String,
        writers: usize,
        findings: Findings,
    ) -> Self {
        let shared = (0..SHARED).map(|number| Shared {
            name: format!("{prefix}shared-{number}"),
            acknowledged: AtomicU64::new(0),
        });
        let mut world = Self {
            servers,
            is_own,
            contract,
            owned: Vec::new(),
            retired: Mutex::default(),
            shared: shared.collect(),
            prefix,
            names: AtomicU64::new(0),
            counts: Counts::default(),
            findings,
            is_over: AtomicBool::new(false),
        };
        let owned = (0..writers).map(|_| Mutex::new(world.another_event()));
        world.owned = owned.collect();
        world
    }

    /// Ends the traffic for good.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// A name that no event has had.
    pub fn name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{}{number}", self.prefix)
    }

    /// What the names of all events begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn another_event(&self) -> Arc<Truth> {
        Arc::new(Truth::new(
            self.name(),
            self.contract.keeps(Promise::Counted),
        ))
    }

    /// How many events have one writer.
    pub fn writers(&self) -> usize {
        self.owned.len()
    }

    /// The event of this writer.
    pub fn owned(&self, writer: usize) -> Arc<Truth> {
        lock(&self.owned[writer]).clone()
    }

    /// The event of this writer, for which it gets another one. It is still to be looked at.
    pub fn retire(&self, writer: usize) {
        let next = self.another_event();
        let retired = std::mem::replace(&mut *lock(&self.owned[writer]), next);
        lock(&self.retired).push(retired);
    }

    /// Gives this writer another event. What is known of this one is wrong, and that has been told.
    pub fn give_up(&self, writer: usize) {
        *lock(&self.owned[writer]) = self.another_event();
    }

    /// The retired events.
    pub fn take_retired(&self) -> Vec<Arc<Truth>> {
        std::mem::take(&mut lock(&self.retired))
    }

    /// Sends a request, and says what became of it. A failure without an excuse is a finding.
    ///
    /// `is_contended`: many change the same event, and may be in each other's way.
    pub async fn ask(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        is_contended: bool,
    ) -> Outcome {
        let server = &self.servers[client.server];
        let sent = Instant::now();
        let since = sent.checked_sub(RECOVERY).unwrap_or(sent);
        Counts::add(&self.counts.requests);
        let shown = || format!("{method} {}{path}", server.base);
        let answer = client
            .target
            .send(method.clone(), path, headers, body)
            .await;
        match answer {
            Ok(answer) if [429, 503].contains(&answer.status.as_u16()) => {
                Counts::add(&self.counts.refused);
                if !self.is_own {
                    server.store.strikes();
                    // A proxy's answer says nothing of the server behind it.
                    let is_problem = answer.header("content-type") == "application/problem+json";
                    return if is_problem {
                        Outcome::Refused
                    } else {
                        Outcome::Unknown
                    };
                }
                if answer.header("retry-after").is_empty() {
                    let what = format!("{}: {} without Retry-After", shown(), answer.status);
                    self.findings.add(Kind::Wrong, what);
                }
                if !is_contended && !server.store.was_since(since) {
                    let what = format!("{}: {} {}", shown(), answer.status, answer.body);
                    self.findings.add(Kind::Refused, what);
                }
                Outcome::Refused
            }
            Ok(answer) if answer.status.is_server_error() => {
                Counts::add(&self.counts.broken);
                let is_proxys = !self.is_own && [502, 504].contains(&answer.status.as_u16());
                let is_excused = is_proxys || server.instances.was_since(since);
                if !is_excused {
                    let what = format!("{}: {} {}", shown(), answer.status, answer.body);
                    self.findings.add(Kind::Wrong, what);
                }
                if !self.is_own {
                    server.store.strikes();
                }
                Outcome::Unknown
            }
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => {
                Counts::add(&self.counts.broken);
                if !self.is_own {
                    server.store.strikes();
                } else if !server.down.was_since(since) && !server.instances.was_since(since) {
                    self.findings.add(Kind::Refused, format!("{error:#}"));
                }
                let of_client = error.downcast_ref::<legacy::Error>();
                if of_client.is_some_and(legacy::Error::is_connect) {
                    Outcome::NotSent
                } else {
                    Outcome::Unknown
                }
            }
        }
    }

    /// Tells of an answer that no request like this may get.
    pub fn unexpected(&self, what: &str, answer: &Answer) {
        let what = format!("{what}: {} {}", answer.status, answer.body);
        self.findings.add(Kind::Wrong, what);
    }
}

/// Connections of one client to one of the servers.
#[derive(Debug)]
pub struct Client {
    /// Which one.
    pub server: usize,
    pub target: Target,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
