//! The shared state of a soak's clients: the servers and their current faults, the events, the counts, and the findings.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use hyper_util::client::legacy;

use super::findings::{Findings, Kind};
use super::lock;
use super::truth::Truth;
use crate::conformance::client::{Answer, Base, Target};
use crate::contract::{Contract, Promise};

/// How long after a fault it may still cause failures. By then, full service is back.
const RECOVERY: Duration = Duration::from_secs(1);

/// The number of events with many writers.
const SHARED: usize = 3;

/// A fault that explains failures of requests: whether it is present, and when it was last.
#[derive(Debug, Default)]
pub struct Fault(Mutex<(bool, Option<Instant>)>);

impl Fault {
    pub fn begin(&self) {
        lock(&self.0).0 = true;
    }

    pub fn end(&self) {
        *lock(&self.0) = (false, Some(Instant::now()));
    }

    /// Records a fault of a moment.
    pub fn strike(&self) {
        lock(&self.0).1 = Some(Instant::now());
    }

    /// Whether the fault is present.
    pub fn is_present(&self) -> bool {
        lock(&self.0).0
    }

    /// Whether the fault explains the failure of a request that was sent at this time.
    pub fn explains(&self, sent: Instant) -> bool {
        let (is_present, ended) = *lock(&self.0);
        is_present || ended.is_some_and(|ended| ended + RECOVERY >= sent)
    }
}

/// A server, and its faults.
#[derive(Debug)]
pub struct Server {
    pub base: Base,
    token: Option<String>,
    /// The server is not running.
    pub down: Fault,
    /// Its instances were killed.
    pub instances: Fault,
    /// Its store fails. For a server that the soak did not start: it has rejected or cut off a request.
    pub store: Fault,
}

impl Server {
    /// The server at `base`, with its token if it requires one.
    pub fn new(base: Base, token: Option<String>) -> Self {
        Self {
            base,
            token,
            down: Fault::default(),
            instances: Fault::default(),
            store: Fault::default(),
        }
    }

    /// A client of this server, with its own connections.
    pub fn target(&self) -> Target {
        Target::new(self.base.clone(), "soak", self.token.clone())
    }

    /// Whether any fault explains the failure of a request that was sent at this time.
    pub fn explains(&self, sent: Instant) -> bool {
        let faults = [&self.down, &self.instances, &self.store];
        faults.iter().any(|fault| fault.explains(sent))
    }
}

/// An event with many writers.
#[derive(Debug)]
pub struct Shared {
    pub name: String,
    /// The highest acknowledged generation.
    pub acknowledged: AtomicU64,
}

/// The counts of what was done.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    /// Acknowledged changes.
    pub changes: AtomicU64,
    /// Waits and polls that a change ended.
    pub woken: AtomicU64,
    /// Messages of streams.
    pub messages: AtomicU64,
    /// Requests that clients cancelled.
    pub hang_ups: AtomicU64,
    /// Rejected requests.
    pub refused: AtomicU64,
    /// Requests without a response.
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

/// The result of a request.
pub enum Outcome {
    Answer(Answer),
    /// The request was rejected and has ended. It may or may not have had an effect.
    Refused,
    /// The request did not reach the server.
    NotSent,
    /// The request may still be in progress.
    Unknown,
}

/// The shared state.
#[derive(Debug)]
pub struct World {
    pub servers: Vec<Server>,
    /// Whether the soak started the servers, and so knows of all faults.
    pub is_own: bool,
    pub contract: Contract,
    /// The event of each writer.
    owned: Vec<Mutex<Arc<Truth>>>,
    /// The events whose writers stopped using them, because their last change may still be in progress.
    retired: Mutex<Vec<Arc<Truth>>>,
    pub shared: Vec<Shared>,
    /// The prefix of the names of all events.
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

    /// Returns a name that no event has had.
    pub fn name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{}{number}", self.prefix)
    }

    /// The prefix of the names of all events.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn another_event(&self) -> Arc<Truth> {
        Arc::new(Truth::new(
            self.name(),
            self.contract.keeps(Promise::Counted),
        ))
    }

    /// The number of writers. Each has an event.
    pub fn writers(&self) -> usize {
        self.owned.len()
    }

    /// The event of a writer.
    pub fn owned(&self, writer: usize) -> Arc<Truth> {
        lock(&self.owned[writer]).clone()
    }

    /// Gives a writer a new event. Its old one is checked after the traffic.
    pub fn retire(&self, writer: usize) {
        let next = self.another_event();
        let retired = std::mem::replace(&mut *lock(&self.owned[writer]), next);
        lock(&self.retired).push(retired);
    }

    /// Gives a writer a new event. Its old one is wrong, and has been reported.
    pub fn give_up(&self, writer: usize) {
        *lock(&self.owned[writer]) = self.another_event();
    }

    /// Takes the [retired](Self::retire) events.
    pub fn take_retired(&self) -> Vec<Arc<Truth>> {
        std::mem::take(&mut lock(&self.retired))
    }

    /// Sends a request. Adds a finding if it fails and no fault explains that.
    ///
    /// `is_contended`: several clients change the event, so a change may be rejected because of contention.
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
                    server.store.strike();
                    // If a proxy rejects a request, the server may still process it.
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
                if !is_contended && !server.store.explains(sent) {
                    let what = format!("{}: {} {}", shown(), answer.status, answer.body);
                    self.findings.add(Kind::Refused, what);
                }
                Outcome::Refused
            }
            Ok(answer) if answer.status.is_server_error() => {
                Counts::add(&self.counts.broken);
                let is_proxys = !self.is_own && [502, 504].contains(&answer.status.as_u16());
                if !is_proxys && !server.instances.explains(sent) {
                    let what = format!("{}: {} {}", shown(), answer.status, answer.body);
                    self.findings.add(Kind::Wrong, what);
                }
                if !self.is_own {
                    server.store.strike();
                }
                Outcome::Unknown
            }
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => {
                Counts::add(&self.counts.broken);
                if !self.is_own {
                    server.store.strike();
                } else if !server.down.explains(sent) && !server.instances.explains(sent) {
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

    /// Adds a finding about a response that this request must not get.
    pub fn unexpected(&self, what: &str, answer: &Answer) {
        let what = format!("{what}: {} {}", answer.status, answer.body);
        self.findings.add(Kind::Wrong, what);
    }
}

/// One client's connections to one of the servers.
#[derive(Debug)]
pub struct Client {
    /// The index of the server.
    pub server: usize,
    pub target: Target,
}
