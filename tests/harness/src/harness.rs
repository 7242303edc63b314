//! [`Harness`]: a host in a test, in one line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::{
    ExpirationError, InstantiationError, ProxyHandler, TrapOrPanicError,
};

use crate::call::{Call, Sending, Taker, Waiting};
use crate::component;
use crate::console::{Console, Line, Output};
use crate::guest::{Director, Instances, Life, Limits, Program, Reuse, RuntimeClock};
use crate::manifest::Manifest;
use crate::memo::Memo;
use crate::outbound::Allowed;
use crate::platform::{Interface, Platform};
use crate::redis::{self, Outbound};
use crate::server::{Server, listen};
use crate::sqlite::{self, Databases};
use crate::store::{Limited, Memory, Quirks, Quotas, Store};
use crate::variables::Variables;

/// The authority of requests that name none.
const AUTHORITY: Authority = Authority::from_static("localhost");

/// A host with one component: requests in, responses out.
///
/// Clones are the same host. Instances are made, reused and dropped as Spin does.
#[derive(Clone)]
pub struct Harness {
    handler: ProxyHandler<Instances>,
    requests: Arc<AtomicU64>,
    /// One permit for each request that may be under way.
    places: Arc<Semaphore>,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// What a [`Harness`] has in use at a moment.
///
/// When all requests are over, what they left behind has ended and instances have been idle for long enough to be dropped, it
/// is nothing: the first three are 0. What is not has leaked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The requests under way that came through a [`Server`], or through [`Routes`](crate::Routes).
    pub requests: usize,
    /// The instances that there are.
    pub instances: usize,
    /// The handles that the instances have open: stores, buckets, and compare-and-swaps.
    pub handles: usize,
    /// The most handles that one instance has had open at the same time, of all instances so far.
    pub most_handles: usize,
}

/// How a [`Harness`] is set up. See [`Harness::builder`].
pub struct Builder {
    source: Source,
    store: Arc<dyn Store>,
    databases: Databases,
    outbound: Outbound,
    quirks: Quirks,
    reuse: Reuse,
    limits: Limits,
    environment: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    platform: Platform,
    console: Option<Console>,
    director: Option<Arc<dyn Director>>,
    epoch: Option<Duration>,
    instances: u64,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builder")
    }
}

/// Where the component comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The package under test, which cargo names in `CARGO_MANIFEST_DIR`.
    UnderTest,
    Package(PathBuf),
    Component(PathBuf),
    Manifest(PathBuf),
}

impl Harness {
    /// Starts a host in this process, without a socket, on the component of the package under test and an empty
    /// store in memory.
    ///
    /// The component is built when it is first needed, once for all tests of a process.
    ///
    /// # Errors
    ///
    /// As [`Builder::start`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    /// A host that differs from [`Harness::start`].
    pub fn builder() -> Builder {
        Builder {
            source: Source::UnderTest,
            store: Arc::new(Memory::default()),
            databases: Databases::default(),
            outbound: Outbound::default(),
            quirks: Quirks::default(),
            reuse: Reuse::default(),
            limits: Limits::default(),
            environment: BTreeMap::new(),
            variables: BTreeMap::new(),
            platform: Platform::default(),
            console: None,
            director: None,
            epoch: None,
            instances: 0,
        }
    }

    /// Sends a request and waits for the whole response.
    ///
    /// A request that names no host goes to `localhost`. If the component fails, the response is the host's: a
    /// problem document with status 500, 503 or 504.
    pub async fn send(&self, request: Request<impl Into<Bytes>>) -> Response<Bytes> {
        let request = request.map(|body| Full::new(body.into()));
        let (parts, body) = self.handle(request).await.into_parts();
        match body.collect().await {
            Ok(body) => Response::from_parts(parts, body.to_bytes()),
            Err(error) => problem(
                StatusCode::BAD_GATEWAY,
                &format!("The response broke off: {error}."),
            )
            .map(Bytes::from),
        }
    }

    /// Sends `GET path` and waits for the whole response, as [`send`](Self::send).
    ///
    /// A `path` that is not a URL's, or does not begin with a slash, is answered with 400 and reaches no component.
    pub async fn get(&self, path: &str) -> Response<Bytes> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends `POST path` with this body and waits for the whole response. Otherwise as [`get`](Self::get).
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Response<Bytes> {
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Response<Bytes> {
        match Request::builder().method(method).uri(path).body(body) {
            // Without the slash, it would be the name of a host.
            Ok(request) if path.starts_with('/') => self.send(request).await,
            _ => {
                let detail = format!("{path:?} is not the path of a URL.");
                problem(StatusCode::BAD_REQUEST, &detail).map(Bytes::from)
            }
        }
    }

    /// Serves HTTP on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If there is no free port.
    pub async fn serve(&self) -> anyhow::Result<Server> {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        Server::start(listener, self.clone())
    }

    /// What the component has printed so far, unless [`Builder::console`] takes it.
    pub fn lines(&self) -> Vec<Line> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The texts of those [`lines`](Self::lines) that were printed to this output.
    pub fn printed(&self, output: Output) -> Vec<String> {
        let lines = self.lines().into_iter();
        let ours = lines.filter(|line| line.output == output);
        ours.map(|line| line.text).collect()
    }

    /// How many instances have been made.
    pub fn instances(&self) -> u64 {
        self.handler.state().made.load(Ordering::Relaxed)
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let Instances {
            limits, handles, ..
        } = self.handler.state();
        let places = limits.concurrent_requests.min(Semaphore::MAX_PERMITS);
        Usage {
            requests: places - self.places.available_permits(),
            instances: self.living().len(),
            handles: handles.open(),
            most_handles: handles.most_in_instance(),
        }
    }

    /// Ends all instances at once, wherever they are, as a host does that runs out of memory. The requests that they
    /// serve fail; the next one gets a new instance.
    pub fn kill_instances(&self) {
        self.handler.state().kill();
    }

    /// The instances that there are.
    pub(crate) fn living(&self) -> Vec<Arc<Life>> {
        self.handler.state().living()
    }

    /// Gives a request to an instance. The response's body may still be on its way.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped cancels the request. The instance may have done it, or not. If it serves nobody else, it
    /// is ended. Otherwise it goes on for them, and gets no more answers from the store for the request that was
    /// cancelled: an error, when the others have theirs. What a request leaves behind after its response is not cancelled.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        self.handle_in(None, request).await
    }

    /// The same, if fewer requests are under way than [`Limits::concurrent_requests`]. Otherwise, it is rejected with 503.
    pub(crate) async fn admit<B>(&self, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => self.handle_in(Some(place), request).await,
            Err(_) => {
                let most = self.handler.state().limits.concurrent_requests;
                whole(unavailable(&format!(
                    "This host has {most} requests under way, and takes no more at once (--max-concurrent-requests)."
                )))
            }
        }
    }

    async fn handle_in<B>(
        &self,
        place: Option<OwnedSemaphorePermit>,
        request: Request<B>,
    ) -> Response<WasiBody>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let call = Call::new(number, place);
        let waiting = Waiting::new(call.clone());
        let response = match self.call(call.clone(), request).await {
            Ok(response) => response.map(|body| {
                let sending = Sending::new(call);
                Sent { body, sending }.boxed_unsync()
            }),
            Err(error) => {
                self.say(&call, &error);
                whole(failure(&error))
            }
        };
        waiting.ends();
        response
    }

    /// Prints why an instance gave no response, if that is printed nowhere else.
    fn say(&self, call: &Call, error: &wasmtime::Error) {
        let is_said = error.is::<TrapOrPanicError>()
            || error.is::<ExpirationError>()
            || error.is::<InstantiationError<Arc<Call>>>()
            || error.is::<wasmtime::Trap>();
        let was_killed = call.taker().is_some_and(Taker::was_killed);
        if !is_said && !was_killed {
            let instance = call.taker().map_or(0, |taker| taker.instance);
            let what = format!("answered with an error: {error:#}");
            let console = &self.handler.state().console;
            console.print(instance, Output::Stderr, &what);
        }
    }

    /// Gives the request of this number to an instance. An error says that the component gave no response.
    pub(crate) async fn try_handle<B>(
        &self,
        number: u64,
        request: Request<B>,
    ) -> wasmtime::Result<Response<WasiBody>>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        self.call(Call::new(number, None), request).await
    }

    async fn call<B>(
        &self,
        call: Arc<Call>,
        request: Request<B>,
    ) -> wasmtime::Result<Response<WasiBody>>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        let request = match absolute(request) {
            Ok(request) => request,
            Err(detail) => return Ok(whole(problem(StatusCode::BAD_REQUEST, detail))),
        };
        let is_head = request.method() == Method::HEAD;
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let response = self.handler.handle(call, request).await?;
        // HTTP has no place for the body of an answer to HEAD, whatever length its head tells.
        Ok(if is_head {
            response.map(|_| empty())
        } else {
            response
        })
    }
}

/// The body of a response that is being sent.
struct Sent {
    body: WasiBody,
    #[expect(dead_code, reason = "ends when it is dropped")]
    sending: Sending,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Harness")
    }
}

impl Builder {
    /// The component to run, built already. Without this, it is the package under test, which cargo names in
    /// `CARGO_MANIFEST_DIR`.
    pub fn component(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Source::Component(path.into());
        self
    }

    /// The directory of the cargo package to build and run, instead of the package under test. cargo runs a test in the
    /// directory of its own package.
    pub fn package(mut self, directory: impl Into<PathBuf>) -> Self {
        self.source = Source::Package(directory.into());
        self
    }

    /// A Spin manifest (version 2), whose component is built with the manifest's own command, and gets the variables that
    /// the manifest gives it. [`variable`](Self::variable) sets variables of its application then, as `spin up` does.
    pub fn manifest(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Source::Manifest(path.into());
        self
    }

    /// The host to be like. Without this, Spin.
    ///
    /// Its request timeout is the host's, unless [`reuse`](Self::reuse) has a shorter one.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// The store called `default`. Without this, an empty one in memory.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// The SQLite database with this label. Without any, there is an empty one in memory, called `default`.
    ///
    /// The component of a [`manifest`](Self::manifest) may open those that its `sqlite_databases` names. Another one may
    /// open all.
    pub fn database(mut self, label: impl Into<String>, database: impl sqlite::Database) -> Self {
        self.databases.add(label, Arc::new(database));
        self
    }

    /// Where all of the component's connections to a Redis lead. Without this, to the Redis that it names.
    ///
    /// The component of a [`manifest`](Self::manifest) may connect to what its `allowed_outbound_hosts` grants. Another one may
    /// connect to all.
    pub fn redis(mut self, server: impl redis::Server) -> Self {
        self.outbound.server = Arc::new(server);
        self
    }

    /// Whose `wasi:keyvalue` the component meets. Without this, an exact one.
    pub fn quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }

    /// When instances are reused and dropped. Without this, as Spin does.
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.reuse = reuse;
        self
    }

    /// What the host takes on at once, and what its instances may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Gives a Spin variable its value.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Where the component's lines go. Without this, to [`Harness::lines`].
    pub fn console(mut self, console: Console) -> Self {
        self.console = Some(console);
        self
    }

    /// Starts the host.
    ///
    /// # Errors
    ///
    /// If the component does not build, does not load, or imports what this host does not have.
    pub async fn start(mut self) -> anyhow::Result<Harness> {
        let source = std::mem::replace(&mut self.source, Source::UnderTest);
        let (platform, limits) = (self.platform.clone(), self.limits);
        let (program, manifest) = tokio::task::spawn_blocking(move || {
            let manifest = match &source {
                Source::Manifest(path) => Some(Manifest::read(path)?),
                _ => None,
            };
            anyhow::Ok((program(source, &platform, &limits)?, manifest))
        })
        .await??;
        if let Some(manifest) = manifest {
            self.environment.extend(manifest.environment());
            self.outbound.allowed = manifest.outbound_hosts(&self.variables)?;
            self.variables = manifest.variables(&self.variables)?;
            self.databases.grant(manifest.databases())?;
        }
        self.databases.complete()?;
        self.start_program(program)
    }

    /// Lets a simulation stage the host. Its calendar starts at `epoch`, as the time since 1970, and its instances are
    /// numbered from those on that were there before.
    pub(crate) fn staged(
        mut self,
        director: Arc<dyn Director>,
        epoch: Duration,
        instances: u64,
    ) -> Self {
        self.director = Some(director);
        // Nothing of a simulation is outside of it.
        self.outbound.allowed = Allowed::NONE;
        self.epoch = Some(epoch);
        self.instances = instances;
        self
    }

    /// Starts the host on a program that is loaded already.
    pub(crate) fn start_program(self, program: Program) -> anyhow::Result<Harness> {
        let now = match self.epoch {
            Some(epoch) => epoch,
            None => SystemTime::now().duration_since(UNIX_EPOCH)?,
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let console = match self.console {
            Some(console) => console,
            None => {
                let lines = lines.clone();
                Console::new(move |line| {
                    lines
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                })
            }
        };
        let timeouts = [self.reuse.request_timeout, self.platform.request_timeout];
        let reuse = Reuse {
            request_timeout: timeouts.into_iter().flatten().min(),
            ..self.reuse
        };
        let memories = [self.limits.memory, self.platform.memory];
        let limits = Limits {
            memory: memories.into_iter().flatten().min(),
            ..self.limits
        };
        let store = match self.platform.quotas {
            none if none == Quotas::default() => self.store,
            quotas => Arc::new(Limited::new(self.store, quotas)),
        };
        Ok(Harness {
            handler: ProxyHandler::new(Instances {
                program,
                reuse,
                limits,
                store,
                databases: Arc::new(self.databases),
                outbound: Arc::new(self.outbound),
                quirks: self.quirks,
                environment: self.environment.into_iter().collect(),
                variables: Variables(Arc::new(self.variables)),
                console,
                clock: RuntimeClock::start(now),
                made: AtomicU64::new(self.instances),
                handles: Arc::default(),
                lives: Mutex::default(),
                director: self.director,
            }),
            requests: Arc::default(),
            places: Arc::new(Semaphore::new(
                limits.concurrent_requests.min(Semaphore::MAX_PERMITS),
            )),
            lines,
        })
    }
}

/// The program from this source, for this host. Built and compiled once in a process.
pub(crate) fn program(
    source: Source,
    platform: &Platform,
    limits: &Limits,
) -> anyhow::Result<Program> {
    type Key = (PathBuf, Vec<Interface>, usize);
    static PROGRAMS: Memo<Key, Program> = Memo::new();

    let path = match source {
        Source::Component(path) => path,
        Source::Package(directory) => component::build(&directory)?,
        Source::Manifest(path) => Manifest::read(&path)?.build()?,
        Source::UnderTest => {
            let package = std::env::var_os("CARGO_MANIFEST_DIR")
                .context("no component was named, and no cargo is running a test")?;
            component::build(Path::new(&package))?
        }
    };
    let instances = limits.concurrent_requests;
    let key = (path.clone(), platform.lacks.clone(), instances);
    PROGRAMS.get_or_make(key, || {
        Program::load(&path, platform, instances)
            .with_context(|| format!("cannot load the component {}", path.display()))
    })
}

/// Guests want a scheme and an authority, which HTTP/1.1 leaves out of the request line.
fn absolute<B>(mut request: Request<B>) -> Result<Request<B>, &'static str> {
    let mut parts = request.uri().clone().into_parts();
    let host = match request.headers().get(header::HOST) {
        None => None,
        Some(host) => match Authority::try_from(host.as_bytes()) {
            Ok(host) => Some(host),
            Err(_) => return Err("The Host header is not the name of a host."),
        },
    };
    parts.authority = Some(parts.authority.or(host).unwrap_or(AUTHORITY));
    parts.scheme = Some(Scheme::HTTP);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "The request's target is no URI.")?;
    Ok(request)
}

/// What a client sees if the component gave no response.
fn failure(error: &wasmtime::Error) -> Response<String> {
    if error.is::<ExpirationError>() {
        problem(
            StatusCode::GATEWAY_TIMEOUT,
            "The component did not answer within the host's request timeout.",
        )
    } else if error.is::<InstantiationError<Arc<Call>>>() {
        unavailable("The host could not make an instance of the component. Its log says why.")
    } else {
        problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The component failed. The host's log says how.",
        )
    }
}

/// A refusal for now.
fn unavailable(detail: &str) -> Response<String> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A problem document (RFC 9457) of the host's own.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response<String> {
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = Response::new(document.to_string());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn empty() -> WasiBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn whole(response: Response<String>) -> Response<WasiBody> {
    response.map(|body| {
        Full::from(body)
            .map_err(|never| match never {})
            .boxed_unsync()
    })
}
