//! Waits and long polls over HTTP.

use std::time::Duration;

use http::{StatusCode, header};
use loopless_host::store::Operation;
use loopless_host::{Harness, Reuse};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::BUILD;
use crate::support::{etag, json, problem, send, set};

/// Sets the event `door` after `seconds`, while another request waits.
async fn set_later(host: &Harness, seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
    set(host, "door", true).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_is_answered_when_the_state_differs_from_if_none_match() {
    let host = BUILD.start().await;
    let known = [("if-none-match", "\"0\"")];
    let began = Instant::now();
    let (shown, ()) = tokio::join!(
        send(&host, "GET", "/events/door?wait=20", &known, ""),
        set_later(&host, 7),
    );
    assert_eq!(json(&shown)["generation"], 1);
    assert!(began.elapsed() < Duration::from_millis(7200));

    // If the state differs already, the answer comes at once.
    let began = Instant::now();
    let shown = send(&host, "GET", "/events/door?wait=20", &known, "").await;
    assert_eq!(json(&shown)["generation"], 1);
    assert_eq!(began.elapsed(), Duration::ZERO);

    let known = [("if-none-match", etag(&shown))];
    let began = Instant::now();
    let same = send(&host, "GET", "/events/door?wait=2.5", &known, "").await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(etag(&same), etag(&shown));
    assert!(began.elapsed() >= Duration::from_millis(2500));
    assert!(began.elapsed() <= Duration::from_millis(2600));

    // So it does without If-None-Match.
    let began = Instant::now();
    let shown = host.get("/events/door?wait=20").await;
    assert_eq!(shown.status(), StatusCode::OK);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn prefer_wait_is_a_long_poll_and_is_acknowledged() {
    let host = BUILD.start().await;
    let headers = [
        ("if-none-match", "\"0\""),
        ("prefer", "respond-async, wait=3"),
    ];
    let began = Instant::now();
    let shown = send(&host, "GET", "/events/door", &headers, "").await;
    assert_eq!(shown.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(shown.headers()["preference-applied"], "wait=3");
    assert!(began.elapsed() >= Duration::from_secs(3));

    let headers = [("if-none-match", "\"0\""), ("prefer", "wait=1000")];
    let (shown, ()) = tokio::join!(
        send(&host, "GET", "/events/door", &headers, ""),
        set_later(&host, 1),
    );
    assert_eq!(json(&shown)["generation"], 1);
    assert_eq!(shown.headers()["preference-applied"], "wait=25");

    let headers = [("if-none-match", etag(&shown)), ("prefer", "wait=soon")];
    let shown = send(&host, "GET", "/events/door", &headers, "").await;
    assert_eq!(shown.status(), StatusCode::NOT_MODIFIED);
    assert!(!shown.headers().contains_key("preference-applied"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_set_or_a_pulse_and_with_408_at_its_timeout() {
    for &(_, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        let began = Instant::now();
        let timed_out = host.get("/events/door/wait?timeout=3").await;
        let detail = problem(&timed_out, StatusCode::REQUEST_TIMEOUT);
        assert!(detail.contains("3 s"), "{detail}");
        assert!(began.elapsed() >= Duration::from_secs(3));

        let (waited, ()) = tokio::join!(host.get("/events/door/wait"), async {
            sleep(Duration::from_secs(9)).await;
            set(&host, "door", true).await;
            set(&host, "door", false).await;
        });
        // The wait may share the reading of the clear.
        let shown = json(&waited);
        assert!(
            shown["generation"] == 1 || shown["generation"] == 2,
            "a pulse"
        );

        set(&host, "door", true).await;
        let began = Instant::now();
        let waited = host.get("/events/door/wait?timeout=0").await;
        assert_eq!(json(&waited)["set"], true);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_or_a_long_poll_on_an_event_that_is_forgotten_is_410() {
    for &(_, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        set(&host, "door", true).await;
        let cleared = set(&host, "door", false).await;
        let known = [("if-none-match", etag(&cleared))];
        let (waited, polled, ()) = tokio::join!(
            host.get("/events/door/wait"),
            send(&host, "GET", "/events/door?wait=20", &known, ""),
            async {
                sleep(Duration::from_secs(5)).await;
                send(&host, "DELETE", "/events/door", &[], "").await;
            },
        );
        problem(&waited, StatusCode::GONE);
        problem(&polled, StatusCode::GONE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_to_wait_is_valid_and_at_most_the_maximum_or_400() {
    let host = BUILD.start().await;
    for path in ["/events/door?wait=", "/events/door/wait?timeout="] {
        for time in [
            "25.1", "26", "1e9", "-1", "x", "", "NaN", "inf", "+1", "1s", "0x1", ".",
        ] {
            let response = host.get(&format!("{path}{time}")).await;
            let detail = problem(&response, StatusCode::BAD_REQUEST);
            assert!(detail.contains("from 0 to 25"), "{detail}");
        }
    }
    for path in [
        "/events/door/wait?wait=1",
        "/events/door?timeout=1",
        "/events/door?wait=1&wait=2",
    ] {
        problem(&host.get(path).await, StatusCode::BAD_REQUEST);
    }
    let host = BUILD.builder().variable("wait_max_seconds", "60");
    let host = host.start().await.unwrap();
    let began = Instant::now();
    let timed_out = host.get("/events/door/wait").await;
    problem(&timed_out, StatusCode::REQUEST_TIMEOUT);
    assert!(began.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn variables_set_how_often_a_wait_reads() {
    let mut counts = Vec::new();
    for last in ["100", "1000"] {
        let store = BUILD.store().await;
        let host = BUILD
            .on(&store)
            .variable("poll_last_ms", last)
            .variable("poll_first_ms", "50");
        let host = host.start().await.unwrap();
        host.get("/events/door/wait?timeout=25").await;
        counts.push(store.count(Operation::Get));
    }
    assert!(counts[0] <= 300, "{counts:?}");
    assert!(counts[1] * 2 < counts[0], "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn sixteen_waiters_in_an_instance_share_their_reads() {
    let mut counts = Vec::new();
    for waiters in [1, 16] {
        let store = BUILD.store().await;
        let builder = BUILD.on(&store).reuse(Reuse {
            // One more than there are waiters: when an instance is full, the host starts the next one.
            concurrent_requests: 17,
            ..Reuse::default()
        });
        let host = builder.start().await.unwrap();
        host.get("/events/door").await;
        sleep(Duration::from_millis(1)).await;
        let before = store.count(Operation::Get);
        let mut waits = JoinSet::new();
        for _ in 0..waiters {
            let host = host.clone();
            waits.spawn(async move { host.get("/events/door/wait?timeout=10").await.status() });
            // If all came at the same moment, the host would start an instance for each.
            sleep(Duration::from_millis(1)).await;
        }
        for status in waits.join_all().await {
            assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
        }
        let instances = if BUILD.has_wasi_0_3() { 1 } else { 1 + waiters };
        assert_eq!(host.instances(), instances);
        counts.push(store.count(Operation::Get) - before);
    }
    println!(
        "reads in 10 s: {} by one waiter, {} by sixteen",
        counts[0], counts[1]
    );
    let streams = if BUILD.keeps("shared-reads") { 1 } else { 16 };
    assert!(counts[1] * 10 <= counts[0] * streams * 12, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn waits_and_streams_above_the_limit_of_an_instance_are_429() {
    const MOST: usize = 3;
    // With WASI 0.2, an instance serves one request.
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

    // A wait that has ended gives its place back: one after the other, all are served.
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
async fn a_wait_outlasts_a_store_that_fails_for_a_while() {
    let (host, store) = BUILD.observed().await;
    let (waited, ()) = tokio::join!(host.get("/events/door/wait"), async {
        sleep(Duration::from_secs(2)).await;
        store.fail("down");
        sleep(Duration::from_secs(10)).await;
        store.recover();
        set(&host, "door", true).await;
    });
    assert_eq!(json(&waited)["set"], true);
}
