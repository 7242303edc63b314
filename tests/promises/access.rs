//! Who may do what: tokens, pages of other sites, and what browsers are told.

use super::BUILD;
use crate::support::{json, problem, send, text};
use http::{HeaderMap, StatusCode, header};
use loopless_host::store::Operation;
use loopless_host::{Harness, Reuse};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const SITE: &str = "https://app.example";

async fn host(variables: &[(&str, &str)]) -> Harness {
    let builder = variables
        .iter()
        .fold(BUILD.builder(), |builder, (name, value)| {
            builder.variable(*name, *value)
        });
    builder.start().await.unwrap()
}

/// Every request that changes something, with its body.
fn changes() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut changes = vec![
        ("POST", "/change_event", "True"),
        ("POST", "/change_event", "state=True"),
        ("PUT", "/events/door", "{\"set\": true}"),
        ("POST", "/events/door", "state=True"),
        ("DELETE", "/events/door", ""),
    ];
    if BUILD.keeps("service") {
        changes.extend([
            ("POST", "/service/start", ""),
            ("POST", "/service/stop", ""),
        ]);
    }
    changes
}

/// Requests that show something of events or of the service.
fn looks() -> Vec<&'static str> {
    let mut looks = vec![
        "/",
        "/events",
        "/events/door",
        "/events/door?wait=1",
        "/events/door/wait?timeout=1",
        "/events/door/stream",
        "/openapi.json",
        "/no/such/path",
    ];
    if BUILD.keeps("service") {
        looks.extend(["/service", "/service/stream"]);
    }
    looks
}

/// A host of ours whose event `door` is clear and has never been changed.
async fn is_untouched(host: &Harness, headers: &[(&str, &str)]) {
    for path in ["/events/door", "/events/event"] {
        let event = send(host, "GET", path, headers, "").await;
        assert_eq!(json(&event)["generation"], 0, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_token_variable_everyone_may_do_everything() {
    let host = host(&[]).await;
    for (method, path, body) in changes() {
        let response = send(&host, method, path, &[], body).await;
        assert!(response.status().as_u16() < 400, "{method} {path}");
    }
    assert_eq!(host.get("/events").await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_change_needs_the_write_token() {
    let host = host(&[("write_token", "w1ite")]).await;
    for (method, path, body) in changes() {
        for given in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer w1it"),
            Some("Bearer w1itee"),
            Some("Bearer W1ITE"),
            Some("Basic w1ite"),
            Some("w1ite"),
        ] {
            let headers: Vec<_> = given
                .iter()
                .map(|given| ("authorization", *given))
                .collect();
            let refused = send(&host, method, path, &headers, body).await;
            let detail = problem(&refused, StatusCode::UNAUTHORIZED);
            assert!(detail.contains("write_token"), "{detail}");
            assert!(!detail.contains("w1ite"), "{detail}");
            let challenge = &refused.headers()[header::WWW_AUTHENTICATE];
            assert_eq!(challenge, "Bearer realm=\"write\"");
        }
    }
    // Everyone may look.
    is_untouched(&host, &[]).await;
    // The scheme's name is in any case (RFC 9110, 11.1).
    for scheme in ["Bearer w1ite", "bearer w1ite"] {
        for (method, path, body) in changes() {
            let response = send(&host, method, path, &[("authorization", scheme)], body).await;
            assert!(response.status().as_u16() < 400, "{method} {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_needs_the_read_token_or_the_write_token() {
    let host = host(&[("write_token", "w1ite"), ("read_token", "re4d")]).await;
    for path in looks() {
        for given in [&[][..], &[("authorization", "Bearer nonsense")]] {
            let refused = send(&host, "GET", path, given, "").await;
            let detail = problem(&refused, StatusCode::UNAUTHORIZED);
            assert!(detail.contains("read_token"), "{detail}");
            let challenge = &refused.headers()[header::WWW_AUTHENTICATE];
            assert_eq!(challenge, "Bearer realm=\"read\"");
        }
    }
    for token in ["Bearer re4d", "Bearer w1ite"] {
        let headers = [("authorization", token)];
        for path in ["/", "/events", "/events/door", "/openapi.json"] {
            let shown = send(&host, "GET", path, &headers, "").await;
            assert_eq!(shown.status(), StatusCode::OK, "{path}");
        }
        is_untouched(&host, &headers).await;
    }
    // A reader changes nothing.
    for (method, path, body) in changes() {
        let reader = [("authorization", "Bearer re4d")];
        let refused = send(&host, method, path, &reader, body).await;
        problem(&refused, StatusCode::UNAUTHORIZED);
    }
    is_untouched(&host, &[("authorization", "Bearer re4d")]).await;
    // What says nothing about events is everyone's.
    for path in ["/healthz", "/page.css", "/page.js"] {
        assert_eq!(host.get(path).await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_browser_that_may_not_look_gets_a_page_that_asks_for_the_token() {
    let host = host(&[("write_token", "w1ite"), ("read_token", "re4d")]).await;
    let browser = [("accept", "text/html,*/*;q=0.8")];
    for path in ["/", "/events/door"] {
        let page = send(&host, "GET", path, &browser, "").await;
        assert_eq!(page.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(page.headers().contains_key(header::WWW_AUTHENTICATE));
        let kind = &page.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/html; charset=utf-8");
        assert!(text(&page).contains("type=\"password\""));
        assert!(
            !text(&page).contains("<button"),
            "it says nothing of the event"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn variables_that_cannot_be_used_let_nobody_pass() {
    for (variables, named) in [
        (&[("read_token", "re4d")][..], "read_token"),
        (&[("allowed_origins", "*")], "allowed_origins"),
    ] {
        let host = host(variables).await;
        for (method, path, body) in changes() {
            let refused = send(&host, method, path, &[], body).await;
            let detail = problem(&refused, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(
                detail.contains(named) && !detail.contains("re4d"),
                "{detail}"
            );
        }
        let refused = host.get("/events/door").await;
        problem(&refused, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

/// The headers by which a browser says that a page of another site sends this.
const CROSS_SITE: [&[(&str, &str)]; 7] = [
    &[("sec-fetch-site", "cross-site"), ("origin", SITE)],
    &[("sec-fetch-site", "cross-site")],
    // Another tenant of the same cloud, for one.
    &[
        ("sec-fetch-site", "same-site"),
        ("origin", "http://other.localhost"),
    ],
    &[("origin", SITE)],
    &[("origin", "null")],
    &[("origin", "http://localhost:81")],
    &[("origin", "http://localhost.evil.example")],
];

#[tokio::test(start_paused = true)]
async fn a_page_of_another_site_changes_nothing() {
    let host = host(&[]).await;
    for headers in CROSS_SITE {
        for (method, path, body) in changes() {
            for kind in ["text/plain", "application/x-www-form-urlencoded"] {
                let headers = [headers, &[("content-type", kind)]].concat();
                let refused = send(&host, method, path, &headers, body).await;
                let detail = problem(&refused, StatusCode::FORBIDDEN);
                assert!(detail.contains("allowed_origins"), "{detail}");
                assert!(!allows(refused.headers()), "{method} {path}");
            }
        }
        // It may ask, but its browser shows it nothing.
        let shown = send(&host, "GET", "/events/door", headers, "").await;
        assert_eq!(shown.status(), StatusCode::OK);
        assert!(!allows(shown.headers()));
    }
    is_untouched(&host, &[]).await;
}

fn allows(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
}

#[tokio::test(start_paused = true)]
async fn the_applications_own_pages_and_what_is_no_browser_pass() {
    for headers in [
        &[][..],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://localhost"),
        ],
        // Typed into the address bar, or a bookmark.
        &[("sec-fetch-site", "none")],
        &[("origin", "http://localhost")],
        // TLS ends before this host.
        &[("origin", "https://localhost")],
    ] {
        let host = host(&[]).await;
        for (method, path, body) in changes() {
            let response = send(&host, method, path, headers, body).await;
            assert!(
                response.status().as_u16() < 400,
                "{method} {path} {headers:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_an_allowed_origin_may_do_what_the_applications_own_may() {
    let host = host(&[
        (
            "allowed_origins",
            "https://first.example https://app.example",
        ),
        ("write_token", "w1ite"),
    ])
    .await;
    let page = [("sec-fetch-site", "cross-site"), ("origin", SITE)];

    // The browser asks first. It sends no token with that.
    let asks = [&page[..], &[("access-control-request-method", "PUT")]].concat();
    let preflight = send(&host, "OPTIONS", "/events/door", &asks, "").await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    let allowed = |name| preflight.headers()[name].to_str().unwrap();
    assert_eq!(allowed(header::ACCESS_CONTROL_ALLOW_ORIGIN), SITE);
    assert!(allowed(header::ACCESS_CONTROL_ALLOW_METHODS).contains("PUT"));
    assert!(allowed(header::ACCESS_CONTROL_ALLOW_HEADERS).contains("authorization"));
    let is_with_cookies = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
    assert!(!preflight.headers().contains_key(is_with_cookies));

    let refused = send(&host, "PUT", "/events/door", &page, "{\"set\": true}").await;
    problem(&refused, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], SITE);

    let writer = [&page[..], &[("authorization", "Bearer w1ite")]].concat();
    let changed = send(&host, "PUT", "/events/door", &writer, "{\"set\": true}").await;
    assert_eq!(changed.status(), StatusCode::OK);
    let headers = changed.headers();
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], SITE);
    let exposed = headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str();
    assert!(exposed.unwrap().contains("etag"));
    let varies = |headers: &HeaderMap| {
        let mut varies = headers.get_all(header::VARY).iter();
        varies.any(|name| name == "origin")
    };
    assert!(varies(headers));

    // For all others nothing has changed, but that a cache must know of whom there are.
    let other = [
        ("origin", "https://other.example"),
        ("access-control-request-method", "PUT"),
    ];
    let preflight = send(&host, "OPTIONS", "/events/door", &other, "").await;
    problem(&preflight, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!allows(preflight.headers()) && varies(preflight.headers()));
    let writer = [
        ("origin", "https://other.example"),
        ("authorization", "Bearer w1ite"),
    ];
    let refused = send(&host, "DELETE", "/events/door", &writer, "").await;
    problem(&refused, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn every_response_tells_browsers_what_they_may_do_with_it() {
    let host = host(&[("write_token", "w1ite")]).await;
    let paths = [
        "/",
        "/page.css",
        "/page.js",
        "/healthz",
        "/events/door/stream",
    ];
    let mut responses = Vec::new();
    for path in looks().into_iter().chain(paths) {
        let short = ["/events/door/stream", "/service/stream"].contains(&path);
        if !short {
            responses.push(send(&host, "GET", path, &[("accept", "text/html")], "").await);
        }
    }
    responses.push(send(&host, "POST", "/change_event", &[], "True").await);
    responses.push(send(&host, "TRACE", "/", &[], "").await);
    for response in responses {
        let headers = response.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "same-origin");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test(start_paused = true)]
async fn a_form_changes_the_event_and_gets_the_page_again() {
    let host = host(&[]).await;
    for (path, page) in [("/change_event", "/"), ("/events/door", "/events/door")] {
        for (body, is_set) in [("state=True", true), ("state=False", false)] {
            let form = [("content-type", "application/x-www-form-urlencoded")];
            let changed = send(&host, "POST", path, &form, body).await;
            assert_eq!(changed.status(), StatusCode::SEE_OTHER);
            assert_eq!(changed.headers()[header::LOCATION], page);
            let name = if page == "/" { "/events/event" } else { page };
            assert_eq!(json(&host.get(name).await)["set"], is_set);
        }
        for wrong in [
            "state=",
            "state=true",
            "state=True&state=False",
            "state=True&x=1",
        ] {
            let refused = host.post(path, wrong).await;
            problem(&refused, StatusCode::BAD_REQUEST);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_head_of_absurd_length_is_rejected_and_changes_nothing() {
    let host = host(&[]).await;
    let path = format!("/events/door?{}", "x".repeat(1024));
    let refused = send(&host, "PUT", &path, &[], "{\"set\": true}").await;
    problem(&refused, StatusCode::URI_TOO_LONG);

    let long = "\"1\", ".repeat(4000);
    let headers = [("if-none-match", long.as_str())];
    let refused = send(&host, "GET", "/events/door", &headers, "").await;
    problem(&refused, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    is_untouched(&host, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_has_as_many_waits_and_streams_as_it_may_have() {
    const MOST: usize = 3;
    // With WASI 0.2, an instance has one request.
    if !BUILD.has_wasi_0_3() {
        return;
    }
    let reuse = Reuse {
        concurrent_requests: 100,
        requests: 1000,
        ..Reuse::default()
    };
    let limited = |waits: usize| {
        BUILD
            .builder()
            .reuse(reuse)
            .variable("instance_waits_max", waits.to_string())
    };
    let host = limited(MOST).start().await.unwrap();
    host.get("/events/door").await;
    let mut waits = JoinSet::new();
    for _ in 0..20 {
        let host = host.clone();
        waits.spawn(async move { host.get("/events/door/wait?timeout=10").await });
    }
    let mut places = 0;
    while let Some(wait) = waits.join_next().await {
        let wait = wait.unwrap();
        if wait.status() == StatusCode::TOO_MANY_REQUESTS {
            let detail = problem(&wait, StatusCode::TOO_MANY_REQUESTS);
            assert!(detail.contains("instance_waits_max"), "{detail}");
            assert_eq!(wait.headers()[header::RETRY_AFTER], "1");
        } else {
            problem(&wait, StatusCode::REQUEST_TIMEOUT);
            places += 1;
        }
    }
    let instances = usize::try_from(host.instances()).unwrap();
    assert!(places <= MOST * instances, "{places} in {instances}");
    assert!(places < 20, "{places}");

    // What is over gives its place back: one after the other, all are served.
    let host = limited(1).start().await.unwrap();
    for _ in 0..5 {
        let wait = host.get("/events/door/wait?timeout=1").await;
        problem(&wait, StatusCode::REQUEST_TIMEOUT);
        let etag = [("if-none-match", "\"0\"")];
        let poll = send(&host, "GET", "/events/door?wait=1", &etag, "").await;
        assert_eq!(poll.status(), StatusCode::NOT_MODIFIED);
    }
    assert_eq!(host.instances(), 1);
}

#[tokio::test(start_paused = true)]
async fn healthz_makes_one_round_trip_to_the_store_and_says_how_long_it_took() {
    let (host, store) = BUILD.observed().await;
    let reads = store.count(Operation::Get);
    let health = json(&host.get("/healthz").await);
    assert_eq!(store.count(Operation::Get), reads + 1);
    assert_eq!(health["status"], "ok");
    assert_eq!(health["store_ms"], 0.0);
    assert_eq!(health.as_object().unwrap().len(), 2);

    store.fail("the disk is full");
    let ill = host.get("/healthz").await;
    let detail = problem(&ill, StatusCode::SERVICE_UNAVAILABLE);
    assert!(detail.contains("the disk is full"), "{detail}");
    assert!(ill.headers().contains_key(header::RETRY_AFTER));

    if BUILD.has_wasi_0_3() {
        store.recover();
        store.hang();
        let began = Instant::now();
        problem(&host.get("/healthz").await, StatusCode::SERVICE_UNAVAILABLE);
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    store.recover();
    assert_eq!(host.get("/healthz").await.status(), StatusCode::OK);
}
