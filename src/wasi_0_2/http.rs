//! Requests and responses on hosts of WASI 0.2.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http_body_util::BodyExt;
use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, Method as WasiMethod, OutgoingBody,
    OutgoingResponse, ResponseOutparam,
};
use wasi::io::streams::{InputStream, OutputStream, StreamError};

use super::{SpinClock, until};
use crate::clock::{Clock, before};
use crate::problem::Problem;

/// How often an idle stream checks whether the client is still connected.
const PROBE: Duration = Duration::from_secs(1);

/// How many bytes of a body are read at once.
const READ: u64 = 16 * 1024;

struct Component;

wasi::http::proxy::export!(Component);

/// `wasi:http/incoming-handler`.
impl Guest for Component {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        spin_executor::run(async {
            let is_head = matches!(request.method(), WasiMethod::Head);
            let mut answer = match incoming(request) {
                Some(request) => crate::component::answer(request).await,
                None => unreadable(),
            };
            if is_head {
                // A host checks the length of the body against this header, and there is no body.
                answer.headers_mut().remove(header::CONTENT_LENGTH);
            }
            send(answer, response).await;
        });
    }
}

fn unreadable() -> Response {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "The request's method, path or headers are not valid HTTP.",
    )
    .into_response()
}

/// Converts a request for the router. `None` if the crate `http` rejects what the host accepted.
fn incoming(request: IncomingRequest) -> Option<Request<Body>> {
    let method = match request.method() {
        WasiMethod::Get => Method::GET,
        WasiMethod::Head => Method::HEAD,
        WasiMethod::Post => Method::POST,
        WasiMethod::Put => Method::PUT,
        WasiMethod::Delete => Method::DELETE,
        WasiMethod::Connect => Method::CONNECT,
        WasiMethod::Options => Method::OPTIONS,
        WasiMethod::Trace => Method::TRACE,
        WasiMethod::Patch => Method::PATCH,
        WasiMethod::Other(name) => Method::from_bytes(name.as_bytes()).ok()?,
    };
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers().entries() {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(&value).ok()?);
    }
    let path = request.path_with_query().unwrap_or_else(|| "/".into());
    let mut uri = Uri::builder().path_and_query(path);
    if let Some(authority) = request.authority() {
        // Hosts pass on the Host header only in this form. The scheme is unknown, because TLS may end before the host.
        uri = uri.scheme("http").authority(authority);
    }
    let uri = uri.build().ok()?;
    let body = request.consume().ok()?;
    let contents = body.stream().ok()?;
    let chunks = stream::unfold(
        Contents {
            contents,
            _body: body,
        },
        |mut body| async {
            let chunk = body.next().await?;
            Some((chunk, body))
        },
    );
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Body::from_stream(chunks))
        .ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// The body of a request. Its stream is its child resource, and must be dropped first.
struct Contents {
    contents: InputStream,
    _body: IncomingBody,
}

impl Contents {
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        until(|| match self.contents.read(READ) {
            Ok(chunk) if chunk.is_empty() => Err(self.contents.subscribe()),
            Ok(chunk) => Ok(Some(Ok(chunk.into()))),
            Err(StreamError::Closed) => Ok(None),
            Err(StreamError::LastOperationFailed(error)) => Ok(Some(Err(error.to_debug_string()))),
        })
        .await
    }
}

/// Sends a response to the host, and its body as long as the client reads it.
async fn send(response: Response, out: ResponseOutparam) {
    let (head, body) = response.into_parts();
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let response = match Fields::from_list(&headers) {
        Ok(headers) => OutgoingResponse::new(headers),
        Err(error) => {
            let error = ErrorCode::InternalError(Some(error.to_string()));
            return ResponseOutparam::set(out, Err(error));
        }
    };
    // Hosts accept every status that `http` accepts.
    _ = response.set_status_code(head.status.as_u16());
    let contents = response.body();
    ResponseOutparam::set(out, Ok(response));
    let Ok(contents) = contents else { return };
    let Ok(writer) = contents.write() else { return };
    let is_whole = write(body, &writer).await;
    drop(writer);
    if is_whole {
        // An error means that the client has disconnected.
        _ = OutgoingBody::finish(contents, None);
    }
}

/// Writes a body. Returns whether it was written completely.
async fn write(mut body: Body, writer: &OutputStream) -> bool {
    loop {
        let probe_at = SpinClock.now().saturating_add(PROBE);
        let frame = match before(&SpinClock, probe_at, body.frame()).await {
            // Without this check, a stream that waits for an event would read the store after its client has disconnected.
            None if writer.check_write().is_err() => return false,
            None => continue,
            Some(None) => return true,
            Some(Some(Err(_))) => return false,
            Some(Some(Ok(frame))) => frame,
        };
        let mut rest = frame.into_data().unwrap_or_default();
        while !rest.is_empty() {
            let room = until(|| match writer.check_write() {
                Ok(0) => Err(writer.subscribe()),
                Ok(room) => Ok(usize::try_from(room).unwrap_or(usize::MAX)),
                Err(_) => Ok(0),
            });
            let chunk = match room.await {
                0 => return false,
                room => rest.split_to(room.min(rest.len())),
            };
            if writer.write(&chunk).is_err() {
                return false;
            }
        }
        if writer.flush().is_err() {
            return false;
        }
    }
}
