//! A store that fails, hangs, is restored from a backup, or is wiped, and what requests get then.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use loopless_host::console::Output;
use loopless_host::store::{Backup, Operation};
use loopless_host::{Builder, Harness, Reuse};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::BUILD;
use crate::support::sse::Client;
use crate::support::{CLEAR, SET, Seen, etag, json, problem, send, set, try_set};

const SECOND: Duration = Duration::from_secs(1);

/// The request timeout of these hosts. With WASI 0.2, no call of the store can be given up, so it ends such requests.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time between two reads of an old wait or stream, with its jitter.
const READING: Duration = Duration::from_millis(125);

/// The entity tag of an event that nobody has set.
const KNOWN: [(&str, &str); 1] = [("if-none-match", "\"0\"")];
const OPERATOR: [(&str, &str); 1] = [("authorization", "Bearer sesame")];

/// Every request that needs the store: method, path and body.
fn requests() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let all = [
        ("GET", "/", ""),
        ("HEAD", "/", ""),
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
    ];
    all.into_iter().filter(|(_, path, _)| {
        let is_services = path.starts_with("/service") || path.starts_with("/lifespan");
        !is_services || BUILD.keeps("service")
    })
}

/// Checks that a response is 503 with Retry-After, and that its problem contains `detail`. The response to HEAD has no body.
fn is_unavailable(method: &str, path: &str, response: &Response<Bytes>, detail: &str) {
    let retry_after = &response.headers()[header::RETRY_AFTER];
    assert_eq!(retry_after, "1", "{method} {path}");
    if method == "HEAD" {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        return;
    }
    let said = problem(response, StatusCode::SERVICE_UNAVAILABLE);
    assert!(said.contains(detail), "{method} {path}: {said}");
}

fn builder_on(store: &Seen) -> Builder {
    let reuse = Reuse {
        request_timeout: Some(REQUEST_TIMEOUT),
        ..Reuse::default()
    };
    BUILD.on(store).reuse(reuse)
}

async fn host_on(store: &Seen) -> Harness {
    let builder = builder_on(store).variable("operator_token", "sesame");
    builder.start().await.unwrap()
}

/// The number of calls so far that change the store. Some of them cannot be given up.
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
async fn a_store_that_fails_is_503_on_every_route_and_loses_nothing() {
    let store = BUILD.store().await;
    let host = host_on(&store).await;
    set(&host, "door", true).await;
    let before = store.backup().await.unwrap();
    store.fail("the disk is on fire");
    for (method, path, body) in requests() {
        let response = send(&host, method, path, &OPERATOR, body).await;
        is_unavailable(method, path, &response, "the disk is on fire");
    }
    store.recover();
    assert_eq!(store.backup().await.unwrap(), before);
    assert_eq!(host.get("/").await.status(), StatusCode::OK);
    assert_eq!(host.printed(Output::Stderr), [""; 0], "nothing trapped");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_503_within_2_s_on_every_route_and_gets_no_change() {
    for is_first in [false, true] {
        let store = BUILD.store().await;
        let host = host_on(&store).await;
        if !is_first {
            set(&host, "door", true).await;
        }
        // By now, the last answer of the store is too old to rely on. The instance still exists.
        sleep(SECOND / 2).await;
        let before = (store.backup().await.unwrap(), changes(&store));

        store.hang();
        let mut sent = JoinSet::new();
        for (method, path, body) in requests() {
            let host = host.clone();
            sent.spawn(async move {
                let began = Instant::now();
                let response = send(&host, method, path, &OPERATOR, body).await;
                (method, path, response, began.elapsed())
            });
        }
        for (method, path, response, took) in sent.join_all().await {
            if BUILD.has_wasi_0_3() {
                is_unavailable(method, path, &response, "1.5 s");
                assert!(took <= SECOND * 2, "{method} {path}: {took:?}");
            } else {
                assert!(response.status().is_server_error(), "{method} {path}");
                assert_eq!(took, REQUEST_TIMEOUT, "{method} {path}");
            }
        }
        assert_eq!((store.backup().await.unwrap(), changes(&store)), before);

        store.recover();
        let began = Instant::now();
        assert_eq!(host.get("/healthz").await.status(), StatusCode::OK);
        assert_eq!(json(&set(&host, "door", true).await)["changed"], is_first);
        assert_eq!(began.elapsed(), Duration::ZERO);
        if BUILD.has_wasi_0_3() {
            assert_eq!(host.printed(Output::Stderr), [""; 0], "nothing trapped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waits_and_streams_go_on_after_a_store_that_hangs_for_a_while() {
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
                let rejected = try_set(&host, "door", true).await;
                problem(&rejected, StatusCode::SERVICE_UNAVAILABLE);
            }
            sleep(SECOND * 5).await;
            store.recover();
            let recovered = Instant::now();
            assert_eq!(json(&set(&host, "door", true).await)["changed"], true);
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
async fn waits_and_streams_end_in_time_if_the_store_hangs_forever() {
    let store = BUILD.store().await;
    let host = builder_on(&store).variable("stream_max_seconds", "20");
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
    let mut streams = Vec::new();
    // With WASI 0.2, the platform ends streams too.
    if BUILD.has_wasi_0_3() {
        streams.push("/events/door/stream");
    }
    if BUILD.keeps("service") {
        assert!(host.post("/service/start", "").await.status().is_success());
        streams.push("/service/stream");
    }
    for path in streams {
        let host = host.clone();
        waits.spawn(async move {
            let began = Instant::now();
            let mut client = Client::connect(&host, path, &[]).await;
            client.next().await.unwrap();
            // The comment that keeps the stream open and its end are late by at most the time for one answer.
            assert_eq!(client.next().await.unwrap(), ":", "{path}");
            let lasted = began.elapsed();
            assert!(lasted <= SECOND * 17, "{path}: {lasted:?}");
            assert_eq!(client.next().await, None, "{path}");
            let lasted = began.elapsed();
            let is_in_time = (SECOND * 20..=SECOND * 22).contains(&lasted);
            assert!(is_in_time, "{path}: {lasted:?}");
        });
    }
    sleep(SECOND / 2).await;
    store.hang();
    let before = changes(&store);
    waits.join_all().await;
    assert_eq!(changes(&store), before);
    if BUILD.keeps("service") {
        // The service's runner has ended too.
        let printed = host.printed(Output::Stdout);
        let last = printed.last().unwrap();
        assert!(last.contains("lost its lease"), "{printed:?}");
    }
}

/// A host whose store has lost changes of the event `door`: the event was set, cleared, set and cleared, and the store has only the
/// first set.
struct Lost {
    host: Harness,
    store: Seen,
    /// The entity tags of the lost states.
    tags: Vec<String>,
}

impl Lost {
    async fn new() -> Self {
        let (host, store) = BUILD.observed().await;
        set(&host, "door", true).await;
        let backup = store.backup().await.unwrap();
        let mut tags = Vec::new();
        for is_set in [false, true, false] {
            tags.push(etag(&set(&host, "door", is_set).await).to_owned());
        }
        store.restore(&backup).await.unwrap();
        Self { host, store, tags }
    }

    /// Checks that no tag of a lost state matches the present one, which is `is_set`.
    async fn matches_no_tag(&self, is_set: bool) {
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
async fn after_a_restore_no_earlier_entity_tag_matches_another_state() {
    let lost = Lost::new().await;
    lost.matches_no_tag(true).await;
    // The same changes again get other tags than the lost ones.
    for is_set in [false, true, false] {
        set(&lost.host, "door", is_set).await;
        lost.matches_no_tag(is_set).await;
    }
    lost.store.wipe().await.unwrap();
    lost.matches_no_tag(false).await;
    for is_set in [true, false, true, false] {
        set(&lost.host, "door", is_set).await;
        lost.matches_no_tag(is_set).await;
    }
}

/// The event type of a message, if there is one, and the state in its data.
fn parsed(message: &str) -> (Option<&str>, Value) {
    let lines = || message.lines();
    let kind = lines().find_map(|line| line.strip_prefix("event: "));
    let data = lines().find_map(|line| line.strip_prefix("data: "));
    (kind, serde_json::from_str(data.unwrap()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_from_the_state_of_a_restored_store() {
    let (host, store) = BUILD.observed().await;
    set(&host, "door", true).await;
    let backup = store.backup().await.unwrap();
    for is_set in [false, true, false] {
        set(&host, "door", is_set).await;
    }
    let mut client = Client::connect(&host, "/events/door/stream", &[]).await;
    let message = client.next().await.unwrap();
    assert_eq!(parsed(&message).1["set"], false);
    sleep(SECOND * 5).await;

    let restored = Instant::now();
    store.restore(&backup).await.unwrap();
    let message = client.next().await.unwrap();
    assert!(restored.elapsed() <= READING);
    let (kind, state) = parsed(&message);
    assert_eq!(state["set"], true, "{message}");
    // Versions without an order make the restore look like a change.
    let expected = BUILD.keeps("counted").then_some("reset");
    assert_eq!(kind, expected, "{message}");
    for is_set in [false, true] {
        set(&host, "door", is_set).await;
        let message = client.next().await.unwrap();
        let (kind, state) = parsed(&message);
        assert_eq!((kind, &state["set"]), (None, &is_set.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn healthz_reads_the_store_once_and_reports_how_long_that_took() {
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
        assert!(began.elapsed() < SECOND * 2);
    }
    store.recover();
    assert_eq!(host.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_store_that_is_wiped_or_restored_is_the_truth_for_new_and_old_waits() {
    for is_wiped in [true, false] {
        let (host, store) = BUILD.observed().await;
        set(&host, "door", true).await;
        set(&host, "door", false).await;
        let backup = if is_wiped {
            Backup::default()
        } else {
            store.backup().await.unwrap()
        };
        set(&host, "door", true).await;
        set(&host, "door", false).await;
        let generation = if is_wiped { 0 } else { 2 };
        let go_back = async || store.restore(&backup).await.unwrap();

        // A wait that is under way ends on the next set. If versions have no order, a wipe looks like a forgotten event to it,
        // and a restore like a change.
        let (waited, ()) = tokio::join!(host.get("/events/door/wait"), async {
            sleep(SECOND * 5).await;
            go_back().await;
            sleep(SECOND * 5).await;
            let shown = host.get("/events/door").await;
            assert_eq!(json(&shown)["generation"], generation);
            set(&host, "door", true).await;
        });
        if BUILD.keeps("counted") {
            assert_eq!(json(&waited)["generation"], generation + 1);
        } else if is_wiped {
            problem(&waited, StatusCode::GONE);
        } else {
            assert_eq!(json(&waited)["generation"], 2);
        }

        // A wait that begins afterwards knows nothing of the earlier state.
        go_back().await;
        let waited = host.get("/events/door/wait?timeout=1").await;
        problem(&waited, StatusCode::REQUEST_TIMEOUT);
        let (waited, ()) = tokio::join!(host.get("/events/door/wait"), async {
            sleep(SECOND * 5).await;
            set(&host, "door", true).await;
        },);
        assert_eq!(json(&waited)["generation"], generation + 1);
    }
}
