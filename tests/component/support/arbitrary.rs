//! Arbitrary requests, and what must hold for every response to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::Value;

/// The token of a server that requires one.
pub const TOKEN: &str = "w1ite";

/// The origin of another site, which a server may allow.
pub const ORIGIN: &str = "https://app.example";

/// The parts of a request. They need not make a valid one.
#[derive(Clone, Debug)]
pub struct Arbitrary {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Arbitrary {
    /// The request, or `None` if it is not valid HTTP: a host rejects such a request before the component sees it.
    pub fn request(&self) -> Option<Request<Bytes>> {
        let mut request = Request::builder()
            .method(self.method.as_str())
            .uri(&self.target);
        for (name, value) in &self.headers {
            request = request.header(name, value.as_slice());
        }
        request.body(self.body.clone().into()).ok()
    }
}

/// A runner that generates the same `cases` each time. `PROPTEST_CASES` and `PROPTEST_RNG_SEED` change their number and seed.
pub fn runner(cases: u32) -> TestRunner {
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    TestRunner::new(config)
}

/// The requests of one case.
pub fn requests() -> impl Strategy<Value = Vec<Arbitrary>> {
    vec(request(), REQUESTS)
}

/// The number of requests in a case.
pub const REQUESTS: usize = 10;

/// One request.
pub fn request() -> impl Strategy<Value = Arbitrary> {
    let headers = vec(header(), 0..4);
    (method(), target(), headers, body()).prop_map(|(method, target, headers, body)| Arbitrary {
        method,
        target,
        headers,
        body,
    })
}

fn strings(known: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(known).prop_map(str::to_owned)
}

fn method() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => strings(&["GET", "PUT", "POST", "DELETE"]),
        2 => strings(&["HEAD", "OPTIONS", "PATCH", "TRACE", "QUERY", "put"]),
        1 => "[A-Z]{1,12}",
    ]
}

/// The name of an event, or an invalid one.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => strings(&["a", "b", "event", "service.cancel", "service.stopped"]),
        1 => "[A-Za-z0-9._~-]{1,70}",
        1 => strings(&[".", "..", "%2e", "%00", "%C3%A4", "%ff", "%", "%zz", "a%2Fb", "<script>"]),
        1 => "[!-~]{0,20}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => name().prop_map(|name| format!("/events/{name}")),
        2 => name().prop_map(|name| format!("/events/{name}/wait")),
        2 => name().prop_map(|name| format!("/events/{name}/stream")),
        3 => strings(&["/", "/change_event", "/events", "/healthz", "/openapi.json", "/page.js"]),
        2 => strings(&["/service", "/service/start", "/service/stop", "/service/stream"]),
        1 => strings(&["/lifespan/startup", "/lifespan/shutdown"]),
        1 => "(/[!-~]{0,12}){1,5}",
        1 => strings(&["//", "/events/", "/events//wait", "/../events/a", "/events/a/wait/", "*"]),
    ]
}

fn parameter() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        4 => strings(&["0", "0.5", "1", "1e0", "+1"]),
        2 => strings(&["", "-1", "nan", "inf", "1e999", "1e-999", "99999999999999999999", "%00", "%ff"]),
        1 => "[ -~]{0,20}",
    ];
    let name = prop_oneof![
        4 => strings(&["wait", "timeout", "limit", "after"]),
        1 => "[a-z%&=+]{0,8}",
    ];
    (name, value).prop_map(|(name, value)| format!("{name}={}", value.replace(' ', "+")))
}

fn target() -> impl Strategy<Value = String> {
    let query = prop_oneof![
        4 => Just(String::new()),
        4 => vec(parameter(), 1..3).prop_map(|all| format!("?{}", all.join("&"))),
        1 => (0..3000_usize).prop_map(|length| format!("?x={}", "y".repeat(length))),
    ];
    (path(), query).prop_map(|(path, query)| path + &query)
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let tags = prop_oneof![
        3 => strings(&["\"0\"", "\"1\"", "\"2\"", "*", "W/\"1\"", "\"1\", \"2\"", "\"7.3f9c2b8a11d04e55\""]),
        2 => strings(&["", "1", "\"", "\"1\" \"2\"", ",,,", "W/", "\"a,b\", *", "\"\u{e4}\""]),
        1 => "[ -~]{0,40}",
        1 => (0..6000_usize).prop_map(|count| "\"1\",".repeat(count)),
    ];
    let value =
        |known: &'static [&'static str]| prop_oneof![4 => strings(known), 1 => "[ -~]{0,30}"];
    let authorization = value(&[
        "Bearer w1ite",
        "Bearer wrong",
        "bearer w1ite",
        "Basic w1ite",
    ]);
    let pair = |name: &'static str, value: BoxedStrategy<String>| {
        value.prop_map(move |value| (name.to_owned(), value.into_bytes()))
    };
    prop_oneof![
        3 => pair("if-none-match", tags.clone().boxed()),
        3 => pair("if-match", tags.boxed()),
        2 => pair("accept", value(&["text/html", "text/html;q=0.1", "*/*", ",", "application/json"]).boxed()),
        2 => pair("prefer", value(&["wait=0", "wait=1", "wait", "wait=-1", "wait=\"1\"; x", "a, wait=99999999999999999999"]).boxed()),
        2 => pair("last-event-id", value(&["0", "1", "7", "1.1", "1.99999999999999999999", "3.3f9c2b8a11d04e55", "18446744073709551615"]).boxed()),
        4 => pair("authorization", authorization.boxed()),
        2 => pair("origin", value(&[ORIGIN, "https://evil.example", "null", "http://localhost"]).boxed()),
        2 => pair("sec-fetch-site", value(&["same-origin", "cross-site", "none"]).boxed()),
        1 => pair("access-control-request-method", value(&["PUT"]).boxed()),
        1 => pair("content-type", value(&["application/json", "text/plain", "multipart/form-data"]).boxed()),
        1 => ("x-[a-z]{1,10}", vec(any::<u8>(), 0..30)),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => strings(&["{\"set\": true}", "{\"set\":false}", "True", "False", "state=True", "state=False"])
            .prop_map(String::into_bytes),
        2 => strings(&["", "{", "{\"set\": 1}", "{\"set\":true,\"set\":false}", "{\"set\":true}x", "[[[[[[", "true", "null", "\u{feff}{\"set\":true}"])
            .prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..100),
        1 => (1000..1100_usize).prop_map(|length| vec![b' '; length]),
        1 => (0..1100_usize).prop_map(|depth| vec![b'['; depth]),
    ]
}

/// What a store holds, except what the service writes while it runs.
pub type Dump = BTreeMap<String, Vec<u8>>;

/// Whether the key is an event's, and not one of the service's two.
pub fn is_of_events(key: &str) -> bool {
    key.starts_with("event/") && !key.starts_with("event/service.")
}

/// Checks what must hold for every response to `request`. The store held `before` before the request, and `after` after it.
pub fn check(
    request: &Arbitrary,
    response: &Response<Bytes>,
    before: &Dump,
    after: &Dump,
) -> Result<(), TestCaseError> {
    let status = response.status();
    let body = String::from_utf8_lossy(response.body());
    let is_expected = status.as_u16() < 500
        || [StatusCode::NOT_IMPLEMENTED, StatusCode::GATEWAY_TIMEOUT].contains(&status);
    prop_assert!(is_expected, "{status} {body}: {request:?}");
    let headers = response.headers();
    let header = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    prop_assert_eq!(header(header::CACHE_CONTROL), Some("no-store"));
    prop_assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
    if status.as_u16() < 400 {
        return Ok(());
    }
    if status != StatusCode::GATEWAY_TIMEOUT {
        prop_assert_eq!(before, after, "{} changed something: {:?}", status, request);
    }
    let kind = header(header::CONTENT_TYPE);
    let is_locked_page =
        status == StatusCode::UNAUTHORIZED && kind == Some("text/html; charset=utf-8");
    if is_locked_page || request.method == Method::HEAD.as_str() {
        return Ok(());
    }
    prop_assert_eq!(kind, Some("application/problem+json"), "{:?}", request);
    let document: Value = serde_json::from_str(&body)
        .map_err(|error| TestCaseError::fail(format!("{error}: {body}")))?;
    prop_assert_eq!(&document["type"], "about:blank");
    prop_assert_eq!(&document["status"], status.as_u16());
    prop_assert_eq!(document["title"].as_str(), status.canonical_reason());
    let detail = document["detail"].as_str().unwrap_or_default();
    prop_assert!(
        detail.ends_with(['.', '~']) || detail.ends_with(".."),
        "{detail}"
    );
    // An error stays short, however long the request is that it quotes.
    prop_assert!(body.len() < 4096, "{} bytes: {:?}", body.len(), request);
    Ok(())
}
