//! What becomes of requests while the store hangs, and after it went back to an earlier state or to nothing.

use std::time::Duration;

use super::BUILD;
use crate::support::sse::Client;
use crate::support::{Seen, etag, json, problem, send};
use http::{Response, StatusCode, header};
use loopless_host::console::Output;
use loopless_host::store::Operation;
use loopless_host::{Harness, Reuse};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// How long a request may take on these hosts. What cannot be given up (WASI 0.2) ends with that.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A reading of a wait or a stream that is old, with its jitter.
const READING: Duration = Duration::from_millis(125);

const SET: &str = "{\"set\": true}";
const CLEAR: &str = "{\"set\": false}";
/// Who knows an event that nobody has set yet.
const KNOWN: [(&str, &str); 1] = [("if-none-match", "\"0\"")];
const OPERATOR: [(&str, &str); 1] = [("authorization", "Bearer sesame")];

/// Every route that asks the store, as a request.
const ROUTES: [(&str, &str, &str); 19] = [
    ("GET", "/", ""),
    ("POST", "/change_event", "False"),
    ("GET", "/events", ""),
    ("GET", "/events/door", ""),
    ("PUT", "/events/door", CLEAR),
    ("PUT", "/events/new", SET),
    ("POST", "/events/door", "state=False"),
    ("DELETE", "/events/door", ""),
    ("GET", "/events/door/wait", ""),
    ("GET", "/events/door?wait=20", ""),
    ("GET", "/events/door/stream", ""),
    ("GET", "/healthz", ""),
    ("GET", "/service", ""),
    ("POST", "/service/start", ""),
    ("POST", "/service/stop", ""),
    ("GET", "/service/stream", ""),
    ("POST", "/lifespan/startup", ""),
    ("POST", "/lifespan/shutdown", ""),
    ("HEAD", "/", ""),
];

async fn host_on(store: &Seen) -> Harness {
    let reuse = Reuse {
        request_timeout: Some(REQUEST_TIMEOUT),
        ..Reuse::default()
    };
    let builder = BUILD.on(store).reuse(reuse);
    let builder = builder.variable("operator_token", "sesame");
    builder.start().await.unwrap()
}

async fn put(host: &Harness, body: &str) -> Response<bytes::Bytes> {
    let changed = send(host, "PUT", "/events/door", &[], body).await;
    assert_eq!(changed.status(), StatusCode::OK);
    changed
}

/// How often the store was asked for something that changes it. Some of these calls cannot be given up.
fn changes(store: &Seen) -> u64 {
    let all = [
        Operation::Swap,
        Operation::Increment,
        Operation::Set,
        Operation::Delete,
    ];
    all.map(|operation| store.count(operation)).iter().sum()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_503_within_2_s_on_every_route_and_is_asked_for_no_change() {
    for is_first in [false, true] {
        let store = BUILD.store().await;
        let host = host_on(&store).await;
        if !is_first {
            put(&host, SET).await;
        }
        // The store is not known to answer any more. The instance is still there.
        sleep(SECOND / 2).await;
        let before = (store.backup().await.unwrap(), changes(&store));

        store.hang();
        let mut requests = JoinSet::new();
        for (method, path, body) in ROUTES {
            let is_services = path.starts_with("/service") || path.starts_with("/lifespan");
            if is_services && !BUILD.keeps("service") {
                continue;
            }
            let host = host.clone();
            requests.spawn(async move {
                let began = Instant::now();
                let response = send(&host, method, path, &OPERATOR, body).await;
                (format!("{method} {path}"), response, began.elapsed())
            });
        }
        for (what, response, took) in requests.join_all().await {
            if BUILD.has_wasi_0_3() {
                assert_eq!(response.headers()[header::RETRY_AFTER], "1", "{what}");
                assert!(took <= SECOND * 2, "{what}: {took:?}");
                if what.starts_with("HEAD") {
                    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                    continue;
                }
                let detail = problem(&response, StatusCode::SERVICE_UNAVAILABLE);
                assert!(detail.contains("1.5 s"), "{what}: {detail}");
            } else {
                assert!(response.status().is_server_error(), "{what}");
                assert_eq!(took, REQUEST_TIMEOUT, "{what}");
            }
        }
        assert_eq!((store.backup().await.unwrap(), changes(&store)), before);

        store.recover();
        let began = Instant::now();
        assert_eq!(host.get("/healthz").await.status(), StatusCode::OK);
        assert_eq!(json(&put(&host, SET).await)["changed"], is_first);
        assert_eq!(began.elapsed(), Duration::ZERO);
        if BUILD.has_wasi_0_3() {
            assert_eq!(host.printed(Output::Stderr), [""; 0], "nothing trapped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_outlasts_a_store_that_hangs_for_a_while() {
    let store = BUILD.store().await;
    let host = host_on(&store).await;
    let mut client = Client::connect(&host, "/events/door/stream", &[]).await;
    client.next().await.unwrap();
    let woken = async |path, headers| {
        let response = send(&host, "GET", path, headers, "").await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(json(&response)["set"], true, "{path}");
        Instant::now()
    };
    let told = async {
        let message = client.next().await.unwrap();
        assert!(message.contains("\"set\":true"), "{message}");
        Instant::now()
    };
    let (waited, polled, told, changed) = tokio::join!(
        woken("/events/door/wait", &[]),
        woken("/events/door?wait=20", &KNOWN),
        told,
        async {
            sleep(SECOND * 2).await;
            store.hang();
            sleep(SECOND * 5).await;
            if BUILD.has_wasi_0_3() {
                let refused = send(&host, "PUT", "/events/door", &[], SET).await;
                problem(&refused, StatusCode::SERVICE_UNAVAILABLE);
            }
            sleep(SECOND * 5).await;
            store.recover();
            let recovered = Instant::now();
            assert_eq!(json(&put(&host, SET).await)["changed"], true);
            assert_eq!(recovered.elapsed(), Duration::ZERO);
            recovered
        },
    );
    for (what, ended) in [("wait", waited), ("poll", polled), ("stream", told)] {
        let late = ended.duration_since(changed);
        assert!(late <= READING, "{what}: {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_ends_in_time_where_the_store_hangs_for_ever() {
    let store = BUILD.store().await;
    let host = BUILD
        .on(&store)
        .reuse(Reuse {
            request_timeout: Some(REQUEST_TIMEOUT),
            ..Reuse::default()
        })
        .variable("stream_max_seconds", "20");
    let host = host.start().await.unwrap();
    let mut waits = JoinSet::new();
    for (path, headers, status) in [
        (
            "/events/door/wait?timeout=10",
            &[][..],
            StatusCode::REQUEST_TIMEOUT,
        ),
        ("/events/door?wait=10", &KNOWN[..], StatusCode::NOT_MODIFIED),
    ] {
        let host = host.clone();
        waits.spawn(async move {
            let began = Instant::now();
            let response = send(&host, "GET", path, headers, "").await;
            if BUILD.has_wasi_0_3() {
                assert_eq!(response.status(), status, "{path}");
                assert!(began.elapsed() <= SECOND * 10 + READING, "{path}");
            } else {
                assert!(response.status().is_server_error(), "{path}");
                assert_eq!(began.elapsed(), REQUEST_TIMEOUT, "{path}");
            }
        });
    }
    let mut streams = vec!["/events/door/stream"];
    if BUILD.keeps("service") {
        assert!(host.post("/service/start", "").await.status().is_success());
        streams.push("/service/stream");
    }
    for path in streams {
        // That is the platform's to end, too, where no call can be given up.
        if !BUILD.has_wasi_0_3() {
            continue;
        }
        let host = host.clone();
        waits.spawn(async move {
            let began = Instant::now();
            let mut client = Client::connect(&host, path, &[]).await;
            client.next().await.unwrap();
            // The sign of life is as late as an answer may be, and so is the end.
            assert_eq!(client.next().await.unwrap(), ":", "{path}");
            let lasted = began.elapsed();
            assert!(lasted <= SECOND * 17, "{path}: {lasted:?}");
            assert_eq!(client.next().await, None, "{path}");
            let lasted = began.elapsed();
            assert!(
                (SECOND * 20..=SECOND * 22).contains(&lasted),
                "{path}: {lasted:?}"
            );
        });
    }
    sleep(SECOND / 2).await;
    store.hang();
    let before = changes(&store);
    waits.join_all().await;
    assert_eq!(changes(&store), before);
    if BUILD.keeps("service") {
        // Its runner has ended, too.
        let printed = host.printed(Output::Stdout);
        let last = printed.last().unwrap();
        assert!(last.contains("lost its lease"), "{printed:?}");
    }
}

/// The event `door` of a store that lost its last changes: it is set, and was set again and cleared since.
struct Lost {
    host: Harness,
    store: Seen,
    /// The entity tags of the states that it does not have any more.
    tags: Vec<String>,
}

impl Lost {
    async fn new() -> Self {
        let (host, store) = BUILD.observed().await;
        put(&host, SET).await;
        let backup = store.backup().await.unwrap();
        let mut tags = Vec::new();
        for body in [CLEAR, SET, CLEAR] {
            tags.push(etag(&put(&host, body).await).to_owned());
        }
        store.restore(&backup).await.unwrap();
        Self { host, store, tags }
    }

    /// Checks that no tag of a lost state matches the event as it is now.
    async fn is_told_now(&self, is_set: bool) {
        for tag in &self.tags {
            let known = [("if-none-match", tag.as_str())];
            for path in ["/events/door", "/events/door?wait=20"] {
                let began = Instant::now();
                let shown = send(&self.host, "GET", path, &known, "").await;
                assert_eq!(shown.status(), StatusCode::OK, "{path} {tag}");
                assert_eq!(json(&shown)["set"], is_set, "{path} {tag}");
                assert_eq!(began.elapsed(), Duration::ZERO, "{path} {tag}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_store_went_back_no_entity_tag_of_before_matches_another_state() {
    let lost = Lost::new().await;
    lost.is_told_now(true).await;
    // The same changes again are others: none of them is one that was lost.
    for body in [CLEAR, SET, CLEAR] {
        put(&lost.host, body).await;
        lost.is_told_now(body == SET).await;
    }
    lost.store.wipe().await.unwrap();
    lost.is_told_now(false).await;
    for body in [SET, CLEAR, SET, CLEAR] {
        put(&lost.host, body).await;
        lost.is_told_now(body == SET).await;
    }
}

/// The kind of a message, if it has one, and the state in it.
fn told(message: &str) -> (Option<&str>, Value) {
    let lines = || message.lines();
    let kind = lines().find_map(|line| line.strip_prefix("event: "));
    let data = lines().find_map(|line| line.strip_prefix("data: "));
    (kind, serde_json::from_str(data.unwrap()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_from_what_a_restored_store_has() {
    let (host, store) = BUILD.observed().await;
    put(&host, SET).await;
    let backup = store.backup().await.unwrap();
    for body in [CLEAR, SET, CLEAR] {
        put(&host, body).await;
    }
    let mut client = Client::connect(&host, "/events/door/stream", &[]).await;
    let message = client.next().await.unwrap();
    assert_eq!(told(&message).1["set"], false);
    sleep(SECOND * 5).await;

    let restored = Instant::now();
    store.restore(&backup).await.unwrap();
    let message = client.next().await.unwrap();
    assert!(restored.elapsed() <= READING);
    let (kind, state) = told(&message);
    assert_eq!(state["set"], true, "{message}");
    // Without an order of versions, it looks like a change.
    let expected = BUILD.keeps("counted").then_some("reset");
    assert_eq!(kind, expected, "{message}");
    for body in [CLEAR, SET] {
        put(&host, body).await;
        let message = client.next().await.unwrap();
        let (kind, state) = told(&message);
        assert_eq!((kind, &state["set"]), (None, &(body == SET).into()));
    }
}
