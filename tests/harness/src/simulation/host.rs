//! The hosts of a simulated world.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;

use super::{Database, EPOCH, Moment, World, lock};
use crate::console::{Console, Line};
use crate::guest::{Director, Life, Reuse, Staged};
use crate::harness::Harness;
use crate::sqlite::Databases;
use crate::store::Quirks;

/// How a host is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whose `wasi:keyvalue/atomics` the component gets.
    pub quirks: Quirks,
    /// When instances are reused and dropped.
    pub reuse: Reuse,
    /// The values of Spin variables.
    pub variables: BTreeMap<String, String>,
    /// How far the replica that this host reads lags behind the database. If zero, it reads the database.
    pub lag: Duration,
    /// How far this host's date is ahead of the world's.
    pub calendar_ahead: Duration,
}

/// A host. Clones are the same host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    world: World,
    name: Arc<str>,
    database: Database,
    settings: Settings,
    running: Mutex<Option<Running>>,
    /// How many instances it made before it last crashed.
    instances: AtomicU64,
    log: Arc<Log>,
}

/// A host that is up.
struct Running {
    harness: Harness,
    stage: Arc<Stage>,
    /// Wakes the clients that wait for a response, in the order in which they came. (The order of tokio's `watch` is random.)
    crashed: Arc<Notify>,
}

/// What a host records across crashes.
#[derive(Default)]
struct Log {
    accepted: Mutex<HashMap<u64, Acceptance>>,
    lines: Mutex<Vec<(Moment, Line)>>,
}

/// When an instance took a request, and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// When the instance took the request.
    pub moment: Moment,
    /// The instance's number on its host.
    pub instance: u64,
}

/// A request and its result.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The request's number, from 1 in the order of the world's requests.
    pub request: u64,
    /// When it was sent.
    pub sent: Moment,
    /// When the response was complete, or the connection was lost.
    pub ended: Moment,
    /// The response, or why there is none.
    pub result: Result<Response<Bytes>, Lost>,
}

impl Exchange {
    /// The response's status, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.result.as_ref().ok().map(Response::status)
    }

    /// The response's body as text. Empty if there was none.
    pub fn text(&self) -> &str {
        let body = self.result.as_ref().ok().map(Response::body);
        body.and_then(|body| std::str::from_utf8(body).ok())
            .unwrap_or_default()
    }

    /// The response's body as JSON. Null if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap_or_default()
    }
}

/// Why a client has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The host was down and never got the request.
    #[error("connection refused")]
    Refused,
    /// The instance or the host died. The request may have been served, or not.
    #[error("connection lost")]
    Broken,
}

/// Gives the instances of a host their connections.
struct Stage {
    world: World,
    host: Arc<str>,
    database: Database,
    lag: Duration,
    is_down: AtomicBool,
    log: Arc<Log>,
}

impl Director for Stage {
    fn make(&self, life: &Arc<Life>) -> Result<Staged, String> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err("the host has crashed".into());
        }
        let seed = self.world.number(0..=u64::MAX);
        self.world.tell(&self.host, || {
            format!("makes instance {}.{}", self.host, life.instance)
        });
        let connection = self
            .database
            .connect(self.host.clone(), self.lag, life.clone());
        let connection = Arc::new(connection);
        Ok(Staged {
            databases: Databases::one(connection.clone()),
            store: connection,
            seed,
        })
    }

    fn begin(&self, instance: u64, request: u64) {
        let moment = self.world.moment();
        lock(&self.log.accepted).insert(request, Acceptance { moment, instance });
        self.world.tell(format!("{}.{instance}", self.host), || {
            format!("takes request {request}")
        });
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.0.name)
    }
}

impl Host {
    pub(super) fn start(
        world: World,
        name: String,
        database: Database,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let host = Self(Arc::new(Inner {
            world,
            name: name.into(),
            database,
            settings,
            running: Mutex::default(),
            instances: AtomicU64::new(0),
            log: Arc::default(),
        }));
        host.restart()?;
        Ok(host)
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The host's settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Starts the host if it is down.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`](crate::Builder::start).
    pub fn restart(&self) -> anyhow::Result<()> {
        let inner = &*self.0;
        let mut running = lock(&inner.running);
        if running.is_some() {
            return Ok(());
        }
        let Settings {
            quirks,
            reuse,
            variables,
            lag,
            calendar_ahead,
        } = &inner.settings;
        inner.world.tell(&inner.name, || "starts".into());
        let now = EPOCH + inner.world.0.started.elapsed() + *calendar_ahead;
        let stage = Arc::new(Stage {
            world: inner.world.clone(),
            host: inner.name.clone(),
            database: inner.database.clone(),
            lag: *lag,
            is_down: AtomicBool::new(false),
            log: inner.log.clone(),
        });
        let (world, name, log) = (inner.world.clone(), inner.name.clone(), inner.log.clone());
        let console = Console::new(move |line| {
            world.tell(format!("{name}.{}", line.instance), || {
                format!("prints {:?}", line.text)
            });
            let moment = world.moment();
            lock(&log.lines).push((moment, line));
        });
        let mut builder = Harness::builder()
            .quirks(*quirks)
            .reuse(*reuse)
            .console(console);
        for (name, value) in variables {
            builder = builder.variable(name, value);
        }
        let harness = builder
            .staged(stage.clone(), now, inner.instances.load(Ordering::Relaxed))
            .start_program(inner.world.0.program.clone())?;
        *running = Some(Running {
            harness,
            stage,
            crashed: Arc::default(),
        });
        Ok(())
    }

    /// Crashes the host if it is up. All its instances and requests are lost.
    pub fn crash(&self) {
        let inner = &*self.0;
        let Some(running) = lock(&inner.running).take() else {
            return;
        };
        inner.world.tell(&inner.name, || "crashes".into());
        running.stage.is_down.store(true, Ordering::Relaxed);
        running.harness.kill_instances();
        let instances = running.harness.instances();
        inner.instances.store(instances, Ordering::Relaxed);
        running.crashed.notify_waiters();
    }

    /// Ends a random instance of this host. Returns whether there was one.
    pub fn kill_an_instance(&self) -> bool {
        let inner = &*self.0;
        let living = match &*lock(&inner.running) {
            Some(running) => running.harness.living(),
            None => Vec::new(),
        };
        if living.is_empty() {
            return false;
        }
        let life = inner.world.pick(&living);
        let who = format!("{}.{}", inner.name, life.instance);
        inner.world.tell(who, || "dies".into());
        life.kill();
        true
    }

    /// Sends a request as `client`, and waits for the whole response.
    pub async fn send(
        &self,
        client: impl fmt::Display,
        request: Request<impl Into<Bytes>>,
    ) -> Exchange {
        let inner = &*self.0;
        let world = &inner.world;
        let number = world.next_request();
        let request = request.map(Into::into);
        world.tell(&client, || {
            let (method, uri) = (request.method(), request.uri());
            let mut what = format!("sends request {number} to {}: {method} {uri}", inner.name);
            for (name, value) in request.headers() {
                what += &format!(" ({name}: {})", String::from_utf8_lossy(value.as_bytes()));
            }
            if !request.body().is_empty() {
                what += &format!(" {}", one_line(request.body()));
            }
            what
        });
        let sent = world.moment();
        let result = self.exchange(number, request.map(Full::new)).await;
        let ended = world.moment();
        world.tell(&client, || {
            let after = (ended.at - sent.at).as_secs_f64();
            match &result {
                Ok(response) => {
                    let (status, body) = (response.status().as_u16(), one_line(response.body()));
                    format!("gets {status} after {after:.3} s: {body}")
                }
                Err(lost) => format!("gets nothing, after {after:.3} s: {lost}"),
            }
        });
        Exchange {
            request: number,
            sent,
            ended,
            result,
        }
    }

    async fn exchange(
        &self,
        number: u64,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Lost> {
        let (harness, crashed) = match &*lock(&self.0.running) {
            Some(running) => (running.harness.clone(), running.crashed.clone()),
            None => return Err(Lost::Refused),
        };
        let crashed = crashed.notified();
        let response = async {
            let response = harness.try_handle(number, request).await;
            let (parts, body) = response.map_err(|_| Lost::Broken)?.into_parts();
            let body = body.collect().await.map_err(|_| Lost::Broken)?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        tokio::select! {
            // The order is fixed, so that a seed always gives the same run.
            biased;
            response = response => response,
            () = crashed => Err(Lost::Broken),
        }
    }

    /// When this host gave a request to an instance, and to which one.
    pub fn acceptance(&self, request: u64) -> Option<Acceptance> {
        lock(&self.0.log.accepted).get(&request).copied()
    }

    /// The lines that the component has printed on this host, across crashes, and when. Traps are among them.
    pub fn lines(&self) -> Vec<(Moment, Line)> {
        lock(&self.0.log.lines).clone()
    }
}

/// A body as a trace shows it: its beginning, on one line.
fn one_line(body: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(body);
    let text = text.trim_end().replace('\n', "\\n");
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
