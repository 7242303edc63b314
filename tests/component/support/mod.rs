//! What the integration tests share: builds of the component, requests to them, and checks of their responses.

pub mod arbitrary;
mod build;
pub mod redis;
#[path = "../../harness/tests/support/mod.rs"]
pub mod shared;
pub mod sse;
pub mod table;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use loopless_host::Harness;
use loopless_host::console::Output;
use serde_json::Value;

pub use build::{Build, Kept, Seen};

/// The bodies that set and clear an event.
pub const SET: &str = "{\"set\": true}";
pub const CLEAR: &str = "{\"set\": false}";

/// Sends a request with these headers.
pub async fn send(
    host: &Harness,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Bytes> {
    host.send(request(method, path, headers, body)).await
}

/// A request with these headers.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<String> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned()).unwrap()
}

/// Sets or clears the event of this name, and checks that this succeeds.
pub async fn set(host: &Harness, name: &str, is_set: bool) -> Response<Bytes> {
    let response = try_set(host, name, is_set).await;
    assert_eq!(response.status(), StatusCode::OK, "{}", text(&response));
    response
}

/// Asks to set or clear the event of this name.
pub async fn try_set(host: &Harness, name: &str, is_set: bool) -> Response<Bytes> {
    let body = if is_set { SET } else { CLEAR };
    send(host, "PUT", &format!("/events/{name}"), &[], body).await
}

/// Checks that a read, a wait and changes of the event `door` are rejected with 503, and that each problem contains all `parts`.
pub async fn is_unavailable(host: &Harness, parts: &[&str]) {
    for response in [
        host.get("/events/door").await,
        host.get("/events/door/wait?timeout=0").await,
        try_set(host, "door", true).await,
        try_set(host, "door", false).await,
    ] {
        let detail = problem(&response, StatusCode::SERVICE_UNAVAILABLE);
        assert!(parts.iter().all(|part| detail.contains(part)), "{detail}");
    }
}

/// Checks that each instance has printed one line to standard error, and that it contains all `parts`.
pub fn has_logged_once(host: &Harness, parts: &[&str]) {
    let log = host.printed(Output::Stderr);
    assert!(parts.iter().all(|part| log[0].contains(part)), "{log:?}");
    assert_eq!(log.len() as u64, host.instances(), "{log:?}");
}

/// The entity tag of a response, with its quotes.
pub fn etag(response: &Response<Bytes>) -> &str {
    response.headers()[header::ETAG].to_str().unwrap()
}

pub fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

pub fn json(response: &Response<Bytes>) -> Value {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

/// Checks that the response is a problem document with this status, and returns its detail.
pub fn problem(response: &Response<Bytes>, status: StatusCode) -> String {
    assert_eq!(response.status(), status, "{}", text(response));
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(document["type"], "about:blank");
    assert_eq!(document["status"], status.as_u16());
    assert_eq!(document["title"], status.canonical_reason().unwrap());
    document["detail"].as_str().unwrap().to_owned()
}
