//! [`Harness`]: a host in this process, without a socket.

mod builder;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::{
    ExpirationError, InstantiationError, ProxyHandler, TrapOrPanicError,
};

use crate::call::{Call, Sending, Taker, Waiting};
use crate::console::{Line, Output};
use crate::guest::{Instances, Life, OfThread};
use crate::server::{Server, listen};

pub use self::builder::Builder;
pub(crate) use self::builder::{Source, program};

/// The authority of requests that do not name one.
const AUTHORITY: Authority = Authority::from_static("localhost");

/// A host with one component: requests in, responses out.
///
/// Clones are the same host. It makes, reuses and drops instances like Spin.
#[derive(Clone)]
pub struct Harness {
    handler: ProxyHandler<OfThread>,
    requests: Arc<AtomicU64>,
    /// One permit for each request that may be under way.
    places: Arc<Semaphore>,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// What a [`Harness`] uses at a moment.
///
/// The first three are 0 when all requests and the work that they left behind have ended, and idle instances are dropped.
/// Otherwise, something has leaked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The requests under way that came through a [`Server`] or through [`Routes`](crate::Routes).
    pub requests: usize,
    /// The instances that have not ended.
    pub instances: usize,
    /// The handles that instances have open: to stores, compare-and-swaps, databases and connections.
    pub handles: usize,
    /// The most handles that a single instance has had open at the same time.
    pub most_handles: usize,
}

impl Harness {
    /// Starts a host for the component of the package under test, with an empty store in memory.
    ///
    /// The component is built once in a process, when it is first needed.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    /// Sets up a host that differs from that of [`Harness::start`].
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The same host for another thread. Its instances serve only requests that are given to this `Harness` or its clones.
    pub(crate) fn apart(&self) -> Self {
        Self {
            handler: ProxyHandler::new(OfThread(self.state().clone())),
            ..self.clone()
        }
    }

    fn state(&self) -> &Arc<Instances> {
        let OfThread(instances) = self.handler.state();
        instances
    }

    /// Sends a request and waits for the whole response.
    ///
    /// A request that does not name a host is for `localhost`. If the component fails, the response is a problem document of
    /// the host with status 500, 503 or 504.
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

    /// Sends `GET path` and waits for the whole response, like [`send`](Self::send).
    ///
    /// A `path` that is not valid, or does not begin with a slash, is answered with 400 and does not reach the component.
    pub async fn get(&self, path: &str) -> Response<Bytes> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends `POST path` with this body and waits for the whole response. Otherwise like [`get`](Self::get).
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Response<Bytes> {
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Response<Bytes> {
        match Request::builder().method(method).uri(path).body(body) {
            // Without the slash, it would be a host name.
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

    /// The lines that the component has printed so far, unless [`Builder::console`] takes them.
    pub fn lines(&self) -> Vec<Line> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The texts of the [`lines`](Self::lines) that were printed to this output.
    pub fn printed(&self, output: Output) -> Vec<String> {
        let lines = self.lines().into_iter();
        let ours = lines.filter(|line| line.output == output);
        ours.map(|line| line.text).collect()
    }

    /// How many instances have been made.
    pub fn instances(&self) -> u64 {
        self.state().made.load(Ordering::Relaxed)
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let Instances {
            limits, handles, ..
        } = &**self.state();
        let places = limits.concurrent_requests.min(Semaphore::MAX_PERMITS);
        Usage {
            requests: places - self.places.available_permits(),
            instances: self.living().len(),
            handles: handles.open(),
            most_handles: handles.most_in_instance(),
        }
    }

    /// Ends all instances at once, as if the host ran out of memory. Their requests fail. The next request gets a new
    /// instance.
    pub fn kill_instances(&self) {
        self.state().kill();
    }

    /// The instances that have not ended.
    pub(crate) fn living(&self) -> Vec<Arc<Life>> {
        self.state().living()
    }

    /// Gives a request to an instance. Returns when the response's head is there; its body may still be on its way.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request is cancelled. It may have been served, or not. If the instance serves no other
    /// request, it is ended. Otherwise, calls of the store for the cancelled request wait until the other requests are
    /// answered, and then return errors. Work that a request leaves behind after its response is not cancelled.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        self.handle_in(None, request).await
    }

    /// Handles a request like [`handle`](Self::handle). Rejects it with 503 if there are already as many under way as
    /// [`concurrent_requests`](crate::Limits::concurrent_requests).
    pub(crate) async fn admit<B>(&self, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => self.handle_in(Some(place), request).await,
            Err(_) => {
                let most = self.state().limits.concurrent_requests;
                whole(unavailable(&format!(
                    "The host serves {most} requests, which is the most at the same time (--max-concurrent-requests)."
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
                let body = body.map_err(move |error| {
                    // The closure owns `sending`, which ends when the body is dropped.
                    _ = &sending;
                    error
                });
                body.boxed_unsync()
            }),
            Err(error) => {
                self.say(&call, &error);
                whole(failure(&error))
            }
        };
        waiting.ends();
        response
    }

    /// Prints why an instance gave no response, unless something else prints that.
    fn say(&self, call: &Call, error: &wasmtime::Error) {
        let is_said = error.is::<TrapOrPanicError>()
            || error.is::<ExpirationError>()
            || error.is::<InstantiationError<Arc<Call>>>()
            || error.is::<wasmtime::Trap>();
        let was_killed = call.taker().is_some_and(Taker::was_killed);
        if !is_said && !was_killed {
            let instance = call.taker().map_or(0, |taker| taker.instance);
            let what = format!("answered with an error: {error:#}");
            let console = &self.state().console;
            console.print(instance, Output::Stderr, &what);
        }
    }

    /// Gives a request with this number to an instance. Returns an error if the component gives no response.
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
        // A response to HEAD has no body, even if its Content-Length is not 0.
        Ok(if is_head {
            response.map(|_| empty())
        } else {
            response
        })
    }
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Harness")
    }
}

/// Adds a scheme and an authority, which guests need and which HTTP/1.1 leaves out of the request line.
fn absolute<B>(mut request: Request<B>) -> Result<Request<B>, &'static str> {
    let mut parts = request.uri().clone().into_parts();
    let host = match request.headers().get(header::HOST) {
        None => None,
        Some(host) => match Authority::try_from(host.as_bytes()) {
            Ok(host) => Some(host),
            Err(_) => return Err("The Host header is not a host name."),
        },
    };
    parts.authority = Some(parts.authority.or(host).unwrap_or(AUTHORITY));
    parts.scheme = Some(Scheme::HTTP);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|_| "The request's target is not a URI.")?;
    Ok(request)
}

/// The response to a client if the component gives none.
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

/// A problem document with status 503 and `Retry-After`.
fn unavailable(detail: &str) -> Response<String> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A problem document (RFC 9457) of the host.
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
