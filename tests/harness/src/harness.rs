//! [`Harness`]: a host in a test, in one line.

mod builder;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};

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
use crate::console::{Line, Output};
use crate::guest::{Instances, Life, OfThread};
use crate::server::{Server, listen};

pub use self::builder::Builder;
pub(crate) use self::builder::{Source, program};

/// The authority of requests that name none.
const AUTHORITY: Authority = Authority::from_static("localhost");

/// A host with one component: requests in, responses out.
///
/// Clones are the same host. Instances are made, reused and dropped as Spin does.
#[derive(Clone)]
pub struct Harness {
    handler: ProxyHandler<OfThread>,
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
        Builder::new()
    }

    /// The same host, for another thread: the instances that it makes serve only requests that are given to it or to clones
    /// of it.
    pub(crate) fn apart(&self) -> Self {
        let OfThread(instances) = self.handler.state();
        Self {
            handler: ProxyHandler::new(OfThread(instances.clone())),
            ..self.clone()
        }
    }

    fn state(&self) -> &Instances {
        let OfThread(instances) = self.handler.state();
        instances
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
        self.state().made.load(Ordering::Relaxed)
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let Instances {
            limits, handles, ..
        } = self.state();
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
        self.state().kill();
    }

    /// The instances that there are.
    pub(crate) fn living(&self) -> Vec<Arc<Life>> {
        self.state().living()
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

    /// The same, if fewer requests are under way than [`concurrent_requests`](crate::Limits::concurrent_requests) of the limits.
    /// Otherwise, it is rejected with 503.
    pub(crate) async fn admit<B>(&self, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => self.handle_in(Some(place), request).await,
            Err(_) => {
                let most = self.state().limits.concurrent_requests;
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
            let console = &self.state().console;
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
