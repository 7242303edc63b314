//! Who may read and change what: tokens, pages of other sites, and what browsers are told.

use http::{HeaderMap, StatusCode, header};
use loopless_host::Harness;

use super::BUILD;
use crate::support::{SET, json, problem, send, text};

const SITE: &str = "https://app.example";

async fn host(variables: &[(&str, &str)]) -> Harness {
    let builder = variables
        .iter()
        .fold(BUILD.builder(), |builder, (name, value)| {
            builder.variable(*name, *value)
        });
    builder.start().await.unwrap()
}

/// Every request that changes something: method, path and body.
fn changes() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut changes = vec![
        ("POST", "/change_event", "True"),
        ("POST", "/change_event", "state=True"),
        ("PUT", "/events/door", SET),
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

/// The paths of requests that read events or the service.
fn reads() -> Vec<&'static str> {
    let mut reads = vec![
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
        reads.extend(["/service", "/service/stream"]);
    }
    reads
}

/// Checks that the events `door` and `event` have never been changed.
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
            let rejected = send(&host, method, path, &headers, body).await;
            let detail = problem(&rejected, StatusCode::UNAUTHORIZED);
            assert!(detail.contains("write_token"), "{detail}");
            assert!(!detail.contains("w1ite"), "{detail}");
            let challenge = &rejected.headers()[header::WWW_AUTHENTICATE];
            assert_eq!(challenge, "Bearer realm=\"write\"");
        }
    }
    // Everyone may read.
    is_untouched(&host, &[]).await;
    // The name of the scheme is case-insensitive (RFC 9110, 11.1).
    for scheme in ["Bearer w1ite", "bearer w1ite"] {
        for (method, path, body) in changes() {
            let response = send(&host, method, path, &[("authorization", scheme)], body).await;
            assert!(response.status().as_u16() < 400, "{method} {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_needs_the_read_token_or_the_write_token() {
    let host = host(&[("write_token", "w1ite"), ("read_token", "re4d")]).await;
    for path in reads() {
        for given in [&[][..], &[("authorization", "Bearer nonsense")]] {
            let rejected = send(&host, "GET", path, given, "").await;
            let detail = problem(&rejected, StatusCode::UNAUTHORIZED);
            assert!(detail.contains("read_token"), "{detail}");
            let challenge = &rejected.headers()[header::WWW_AUTHENTICATE];
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
    // The read token allows no change.
    for (method, path, body) in changes() {
        let reader = [("authorization", "Bearer re4d")];
        let rejected = send(&host, method, path, &reader, body).await;
        problem(&rejected, StatusCode::UNAUTHORIZED);
    }
    is_untouched(&host, &[("authorization", "Bearer re4d")]).await;
    // These say nothing about events, and need no token.
    for path in ["/healthz", "/page.css", "/page.js"] {
        assert_eq!(host.get(path).await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_browser_without_the_read_token_gets_a_page_that_asks_for_it() {
    let host = host(&[("write_token", "w1ite"), ("read_token", "re4d")]).await;
    let browser = [("accept", "text/html,*/*;q=0.8")];
    for path in ["/", "/events/door"] {
        let page = send(&host, "GET", path, &browser, "").await;
        assert_eq!(page.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(page.headers().contains_key(header::WWW_AUTHENTICATE));
        let kind = &page.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/html; charset=utf-8");
        assert!(text(&page).contains("type=\"password\""));
        assert!(!text(&page).contains("<button"), "the event's state");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_variable_rejects_every_request() {
    for (variables, named) in [
        (&[("read_token", "re4d")][..], "read_token"),
        (&[("allowed_origins", "*")], "allowed_origins"),
    ] {
        let host = host(variables).await;
        for (method, path, body) in changes() {
            let rejected = send(&host, method, path, &[], body).await;
            let detail = problem(&rejected, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(detail.contains(named), "{detail}");
            assert!(!detail.contains("re4d"), "{detail}");
        }
        let rejected = host.get("/events/door").await;
        problem(&rejected, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

/// Headers by which a browser says that a page of another site sends the request.
const CROSS_SITE: [&[(&str, &str)]; 7] = [
    &[("sec-fetch-site", "cross-site"), ("origin", SITE)],
    &[("sec-fetch-site", "cross-site")],
    // Such as the application of another tenant of the same cloud.
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
                let rejected = send(&host, method, path, &headers, body).await;
                let detail = problem(&rejected, StatusCode::FORBIDDEN);
                assert!(detail.contains("allowed_origins"), "{detail}");
                assert!(!allows(rejected.headers()), "{method} {path}");
            }
        }
        // Its read is answered, but the browser does not show it the answer.
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
async fn the_applications_own_pages_and_clients_that_are_no_browsers_may_change_events() {
    for headers in [
        &[][..],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://localhost"),
        ],
        // A URL in the address bar, or a bookmark.
        &[("sec-fetch-site", "none")],
        &[("origin", "http://localhost")],
        // A proxy terminates TLS.
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
async fn a_page_of_an_allowed_origin_may_do_what_the_applications_own_pages_may() {
    let host = host(&[
        (
            "allowed_origins",
            "https://first.example https://app.example",
        ),
        ("write_token", "w1ite"),
    ])
    .await;
    let page = [("sec-fetch-site", "cross-site"), ("origin", SITE)];

    // The browser sends a preflight request first, without the token.
    let asks = [&page[..], &[("access-control-request-method", "PUT")]].concat();
    let preflight = send(&host, "OPTIONS", "/events/door", &asks, "").await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    let allowed = |name| preflight.headers()[name].to_str().unwrap();
    assert_eq!(allowed(header::ACCESS_CONTROL_ALLOW_ORIGIN), SITE);
    assert!(allowed(header::ACCESS_CONTROL_ALLOW_METHODS).contains("PUT"));
    assert!(allowed(header::ACCESS_CONTROL_ALLOW_HEADERS).contains("authorization"));
    let is_with_cookies = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
    assert!(!preflight.headers().contains_key(is_with_cookies));

    let rejected = send(&host, "PUT", "/events/door", &page, SET).await;
    problem(&rejected, StatusCode::UNAUTHORIZED);
    assert_eq!(
        rejected.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        SITE
    );

    let writer = [&page[..], &[("authorization", "Bearer w1ite")]].concat();
    let changed = send(&host, "PUT", "/events/door", &writer, SET).await;
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

    // Nothing changes for other origins, except that the response varies by origin.
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
    let rejected = send(&host, "DELETE", "/events/door", &writer, "").await;
    problem(&rejected, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn every_response_has_the_security_headers() {
    let host = host(&[("write_token", "w1ite"), ("stream_max_seconds", "1")]).await;
    let mut responses = Vec::new();
    for path in reads()
        .into_iter()
        .chain(["/page.css", "/page.js", "/healthz"])
    {
        responses.push(send(&host, "GET", path, &[("accept", "text/html")], "").await);
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
