//! The front of a [`Server`](crate::Server): what a connection and a request must be like before a component sees them,
//! and a line in the log for each request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use crate::harness::{problem, whole};
use crate::{Body, Routes};

/// What clients of a [`Server`](crate::Server) may take of it.
///
/// None of these bounds how long an answer may take: a wait is a long response. That is
/// [`Reuse::request_timeout`](crate::Reuse::request_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many connections are served at the same time. More than these wait until one ends.
    pub connections: usize,
    /// How long a connection may be without a request: until the whole head of the first one is there, and between two.
    /// It is closed then. If a part of a head has come, with HTTP/1.1, it is answered with 408.
    pub head_timeout: Duration,
    /// How long a request's body may take to its end, from when the component begins to wait for it. The answer is 408
    /// then, and an HTTP/1.1 connection is closed.
    pub body_timeout: Duration,
    /// How long a client may take nothing of a response that it has been sent. Its connection is closed then.
    pub write_timeout: Duration,
}

impl Default for Bounds {
    /// 10,000 connections, and 30 s for each of the times.
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// The identifier of a request: in its head, in the head of its response, and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest identifier that is taken from a client.
const LONGEST_ID: usize = 128;

/// What there is to know of a connection.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    bounds: Bounds,
    /// How many of its requests are under way.
    under_way: AtomicUsize,
    opened: Instant,
    /// When the last request ended, in milliseconds since it was opened.
    idle_since: AtomicU64,
    /// Whether something has come since no request was under way.
    has_part: AtomicBool,
    is_http2: AtomicBool,
}

impl Connection {
    pub fn new(peer: SocketAddr, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            peer,
            bounds,
            under_way: AtomicUsize::new(0),
            opened: Instant::now(),
            idle_since: AtomicU64::new(0),
            has_part: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
        })
    }

    /// Waits until it has been without a request for too long. Cancel safe.
    ///
    /// It looks again whenever that can be the case at the earliest, so that requests need not tell it anything.
    pub async fn is_idle(&self) {
        let timeout = self.bounds.head_timeout;
        loop {
            let idle = match self.under_way.load(Ordering::Acquire) {
                0 => {
                    let since = Duration::from_millis(self.idle_since.load(Ordering::Acquire));
                    self.opened.elapsed().saturating_sub(since)
                }
                _ => Duration::ZERO,
            };
            let Some(left) = timeout.checked_sub(idle).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::time::sleep(left).await;
        }
    }

    fn begins_request(&self) {
        self.has_part.store(false, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    fn ends_request(&self) {
        self.has_part.store(false, Ordering::Relaxed);
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(now, Ordering::Release);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection's bytes.
///
/// It closes with 408 if there is a part of a head, and ends if the client takes nothing for too long.
pub struct Stream {
    tcp: TcpStream,
    connection: Arc<Connection>,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub fn new(tcp: TcpStream, connection: Arc<Connection>) -> Self {
        Self {
            tcp,
            connection,
            stalled: None,
        }
    }

    /// The result of a write, unless that has waited for too long.
    fn unless_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.connection.bounds.write_timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer));
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            let connection = &self.connection;
            connection.has_part.store(true, Ordering::Relaxed);
            // The preface of HTTP/2. Nothing else begins like that.
            if new.starts_with(b"PRI ") {
                connection.is_http2.store(true, Ordering::Relaxed);
            }
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper has said what there was to say.
        self.connection.has_part.store(false, Ordering::Relaxed);
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Connection {
            has_part,
            is_http2,
            under_way,
            ..
        } = &*self.connection;
        let is_idle = under_way.load(Ordering::Acquire) == 0;
        if is_idle && has_part.load(Ordering::Relaxed) && !is_http2.load(Ordering::Relaxed) {
            let answer = problem(
                StatusCode::REQUEST_TIMEOUT,
                "The head of the request did not come in time (--head-timeout).",
            );
            let body = answer.body();
            let head = format!(
                "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
                 connection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            // A client that is gone does not get it.
            _ = self.tcp.try_write(format!("{head}{body}").as_bytes());
        }
    }
}

/// Answers a request of this connection, or says what is wrong with it.
pub async fn answer(
    routes: &Routes,
    connection: &Arc<Connection>,
    shutdown: watch::Receiver<bool>,
    mut request: Request<Incoming>,
) -> Response<Sent> {
    let id = request_id(request.headers());
    let mut exchange = Exchange::new(connection.clone(), id.clone(), &request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let version = request.version();
    let mut response = match check_host(&request) {
        Err(detail) => whole(problem(StatusCode::BAD_REQUEST, detail)),
        Ok(()) => {
            let (request, late) = timed(request, connection.bounds.body_timeout);
            tokio::select! {
                biased;
                () = late => too_late(version),
                response = routes.handle(request) => response,
            }
        }
    };
    response.headers_mut().insert(REQUEST_ID, id);
    exchange.status = Some(response.status());
    let length = response.headers().get(header::CONTENT_LENGTH);
    exchange.length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    response.map(|body| Sent {
        body,
        exchange,
        shutdown: is_stream.then(|| until(shutdown)),
    })
}

/// The identifier that the client has given the request, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_valid = |id: &&HeaderValue| {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(byte);
        (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(is_part)
    };
    let mut ids = headers.get_all(REQUEST_ID).iter();
    match (ids.next().filter(is_valid), ids.next()) {
        (Some(id), None) => id.clone(),
        _ => {
            let id = format!("{:032x}", rand::random::<u128>());
            HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        }
    }
}

/// Whether a request says, once, which host it is for (RFC 9112, 3.2).
fn check_host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match (hosts, request.version()) {
        (0, Version::HTTP_11) => Err("A request of HTTP/1.1 needs a Host header."),
        (0 | 1, _) => Ok(()),
        _ => Err("There is more than one Host header."),
    }
}

fn too_late(version: Version) -> Response<Body> {
    let mut response = problem(
        StatusCode::REQUEST_TIMEOUT,
        "The body of the request did not come in time (--body-timeout).",
    );
    if version < Version::HTTP_2 {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    whole(response)
}

/// The request with a body that is an error if it is not whole in time and somebody reads it; and what resolves then.
fn timed(
    request: Request<Incoming>,
    timeout: Duration,
) -> (Request<Body>, impl Future<Output = ()>) {
    let mut late = None;
    let request = request.map(|body| {
        if body.is_end_stream() {
            return body.map_err(Into::into).boxed_unsync();
        }
        let (say, said) = oneshot::channel();
        late = Some(said);
        Timed {
            body,
            timeout,
            late: None,
            say: Some(say),
        }
        .boxed_unsync()
    });
    let late = async {
        let said = match late {
            Some(late) => late.await.is_ok(),
            None => false,
        };
        if !said {
            // The body is whole, or nobody reads it.
            std::future::pending().await
        }
    };
    (request, late)
}

/// A body that may not take too long.
struct Timed {
    body: Incoming,
    timeout: Duration,
    /// Runs since somebody first waited for it. A component may begin late to read a body that has come in time.
    late: Option<Pin<Box<Sleep>>>,
    say: Option<oneshot::Sender<()>>,
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timeout = self.timeout;
        let late = self
            .late
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(late.as_mut().poll(cx));
        if let Some(say) = self.say.take() {
            _ = say.send(());
        }
        Poll::Ready(Some(Err(wasmtime_wasi_http::Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Resolves at the shutdown.
fn until(mut shutdown: watch::Receiver<bool>) -> Shutdown {
    Box::pin(async move {
        // An error says that the server is gone: the same.
        _ = shutdown.wait_for(|is_shutdown| *is_shutdown).await;
    })
}

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body that is being sent. It ends at the shutdown if it is a stream of server-sent events.
///
/// Such a stream may go on forever. Its clients come back by themselves, so that an end, unlike a broken connection,
/// costs them nothing.
pub struct Sent {
    body: Body,
    exchange: Exchange,
    shutdown: Option<Shutdown>,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = match (Pin::new(&mut this.body).poll_frame(cx), &mut this.shutdown) {
            (Poll::Pending, Some(shutdown)) => {
                ready!(shutdown.as_mut().poll(cx));
                None
            }
            (frame, _) => ready!(frame),
        };
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Buf::remaining);
                this.exchange.bytes += bytes as u64;
                // hyper does not ask for the end of a body whose length it knows.
                this.exchange.is_whole =
                    this.body.is_end_stream() || this.exchange.length == Some(this.exchange.bytes);
            }
            Some(Err(_)) => {}
            None => this.exchange.is_whole = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request and its response. Its end is a line in the log.
struct Exchange {
    connection: Arc<Connection>,
    id: HeaderValue,
    method: Method,
    /// Without the query, which may have secrets in it.
    path: String,
    version: Version,
    began: Instant,
    /// `None` while there is no response.
    status: Option<StatusCode>,
    /// How long the body will be, if the head says so.
    length: Option<u64>,
    bytes: u64,
    is_whole: bool,
}

impl Exchange {
    fn new<B>(connection: Arc<Connection>, id: HeaderValue, request: &Request<B>) -> Self {
        connection.begins_request();
        Self {
            connection,
            id,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            version: request.version(),
            began: Instant::now(),
            status: None,
            length: None,
            bytes: 0,
            is_whole: false,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.connection.ends_request();
        let has_no_body = self.method == Method::HEAD
            || matches!(
                self.status,
                Some(StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            );
        tracing::info!(
            target: "loopless_host::request",
            request_id = self.id.to_str().unwrap_or_default(),
            peer = %self.connection.peer,
            version = ?self.version,
            method = %self.method,
            path = self.path,
            // 499, as other servers have it: the client was gone before there was an answer.
            status = self.status.map_or(499, |status| status.as_u16()),
            bytes = self.bytes,
            is_whole = self.is_whole || (has_no_body && self.status.is_some()),
            milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_request_id_is_kept_if_it_cannot_be_mistaken_for_something_else() {
        let ids = |ids: &[&'static str]| {
            let ids = ids
                .iter()
                .map(|id| (REQUEST_ID, HeaderValue::from_static(id)));
            request_id(&ids.collect())
        };
        assert_eq!(ids(&["a-1.b_2~c+3/4=5:6@7"]), "a-1.b_2~c+3/4=5:6@7");
        let longest = "x".repeat(LONGEST_ID).leak();
        assert_eq!(ids(&[longest]), *longest);
        let too_long = "x".repeat(LONGEST_ID + 1).leak();
        for bad in [&[][..], &[""], &["a b"], &["\"a\""], &["<a>"], &[too_long]] {
            let id = ids(bad);
            let is_new = id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit);
            assert!(is_new, "{bad:?}: {id:?}");
        }
        let mut two = HeaderMap::new();
        two.append(REQUEST_ID, HeaderValue::from_static("one"));
        two.append(REQUEST_ID, HeaderValue::from_static("two"));
        assert_eq!(request_id(&two).len(), 32);
    }

    #[test]
    fn a_host_is_said_once_and_always_with_http_1_1() {
        let request = |version, hosts: &[&str]| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            check_host(&request.body(()).unwrap())
        };
        assert!(request(Version::HTTP_11, &["a"]).is_ok());
        assert!(request(Version::HTTP_11, &[]).is_err());
        assert!(request(Version::HTTP_10, &[]).is_ok());
        assert!(request(Version::HTTP_2, &[]).is_ok());
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert!(request(version, &["a", "a"]).is_err(), "{version:?}");
        }
    }
}
