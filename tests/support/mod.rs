//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses its own part")]

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use loopless_host::Harness;
use loopless_host::store::{Memory, Observed};
use serde_json::Value;

/// A host whose store the test can see.
pub async fn observed() -> (Harness, Observed) {
    let store = Observed::new(Memory::default());
    let builder = Harness::builder().store(store.clone());
    (builder.start().await.unwrap(), store)
}

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

pub fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

pub fn json(response: &Response<Bytes>) -> Value {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

/// Checks that this is a problem document, and returns its detail.
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
