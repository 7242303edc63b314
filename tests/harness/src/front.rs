//! The front of a [`Server`](crate::Server): it checks each request before a component sees it, enforces the [`Bounds`], and
//! logs a line for each request.

mod connection;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use crate::harness::{problem, whole};
use crate::{Body, Routes};

pub use self::connection::{Connection, Stream};

/// The limits for clients of a [`Server`](crate::Server).
///
/// None of them limits how long a response may take: [`Reuse::request_timeout`](crate::Reuse::request_timeout) does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many connections are served at the same time. Further connections wait until one ends.
    pub connections: usize,
    /// How long a connection may be idle: from its start, or from the end of a request, until the next request's head is
    /// complete. Then the connection is closed. If it has received part of an HTTP/1.1 head, the client first gets a 408.
    pub head_timeout: Duration,
    /// How long a request's body may take, from when the component first waits for it. A request that takes longer is
    /// answered with 408, and an HTTP/1.1 connection is closed.
    pub body_timeout: Duration,
    /// How long a write to a client may make no progress. Then the connection is closed.
    pub write_timeout: Duration,
}

impl Default for Bounds {
    /// 10,000 connections, and 30 s for each timeout.
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// The header with a request's identifier, in the request and in the response.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest identifier that is accepted from a client, in bytes.
const LONGEST_ID: usize = 128;

/// Answers a request of this connection, or rejects it.
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

/// The identifier that the client gave the request if it is valid, or a new one.
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

/// Checks that a request has exactly one Host header, or, except with HTTP/1.1, none (RFC 9112, section 3.2).
fn check_host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    match (hosts, request.version()) {
        (0, Version::HTTP_11) => Err("An HTTP/1.1 request needs a Host header."),
        (0 | 1, _) => Ok(()),
        _ => Err("There is more than one Host header."),
    }
}

fn too_late(version: Version) -> Response<Body> {
    let mut response = problem(
        StatusCode::REQUEST_TIMEOUT,
        "The body of the request did not arrive in time (--body-timeout).",
    );
    if version < Version::HTTP_2 {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    whole(response)
}

/// Limits how long the request's body may take. Returns the request, and a future that resolves when the body is late.
fn timed(
    request: Request<Incoming>,
    timeout: Duration,
) -> (Request<Body>, impl Future<Output = ()>) {
    let mut expired = None;
    let request = request.map(|body| {
        if body.is_end_stream() {
            return body.map_err(Into::into).boxed_unsync();
        }
        let (sender, receiver) = oneshot::channel();
        expired = Some(receiver);
        Timed {
            body,
            timeout,
            timer: None,
            expired: Some(sender),
        }
        .boxed_unsync()
    });
    let late = async {
        let is_late = match expired {
            Some(expired) => expired.await.is_ok(),
            None => false,
        };
        if !is_late {
            // The body is complete, or the component has dropped it.
            std::future::pending().await
        }
    };
    (request, late)
}

/// A request's body. Reading it fails after `timeout`.
struct Timed {
    body: Incoming,
    timeout: Duration,
    /// Starts when the body is first waited for: a component may start to read a body long after it has arrived.
    timer: Option<Pin<Box<Sleep>>>,
    /// Notified when the body is late.
    expired: Option<oneshot::Sender<()>>,
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
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        if let Some(expired) = self.expired.take() {
            _ = expired.send(());
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

/// Resolves when the server shuts down.
fn until(mut shutdown: watch::Receiver<bool>) -> Shutdown {
    Box::pin(async move {
        // An error means that the server is gone.
        _ = shutdown.wait_for(|is_shutdown| *is_shutdown).await;
    })
}

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of a response. A stream of server-sent events ends when the server shuts down.
///
/// Such a stream may never end by itself. Its clients reconnect, so they lose nothing.
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
                // hyper does not poll for the end of a body whose length it knows.
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

/// A request and its response. It is logged when it is dropped.
struct Exchange {
    connection: Arc<Connection>,
    id: HeaderValue,
    method: Method,
    /// Without the query, which may contain secrets.
    path: String,
    version: Version,
    began: Instant,
    /// `None` while there is no response.
    status: Option<StatusCode>,
    /// The response's Content-Length.
    length: Option<u64>,
    /// How much of the response's body was sent.
    bytes: u64,
    /// Whether all of it was sent.
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
            // 499 is what nginx logs if the client disconnects before there is a response.
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
