//! The gotcha on the real runtime: what happens to an event in a `static`, and to every request near it.
//!
//! `tests/gotcha/` is the component. Its event is a `tokio::sync::watch` in a `static`, which would be right in a native server.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use loopless_host::console::Output;
use loopless_host::{Harness, Reuse};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::{json, text};

async fn start(reuse: Reuse) -> Harness {
    let builder = Harness::builder().package("tests/gotcha").reuse(reuse);
    builder.start().await.unwrap()
}

/// Sends `GET path`, and waits until the component is waiting too.
async fn begin(host: &Harness, path: &'static str) -> JoinHandle<Response<Bytes>> {
    let host = host.clone();
    let waiting = tokio::spawn(async move { host.get(path).await });
    // Virtual time passes only while nothing runs, so the request sleeps in the component by now.
    sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    waiting
}

/// The text on standard error, without line breaks.
fn log(host: &Harness) -> String {
    let words = host.printed(Output::Stderr).join(" ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn with_one_request_at_a_time_the_event_seems_to_work() {
    let host = start(Reuse::default()).await;
    assert_eq!(json(&host.get("/event").await)["set"], false);
    host.post("/set", "").await;
    assert_eq!(json(&host.get("/event").await)["set"], true);
    assert_eq!(host.get("/wait").await.status(), StatusCode::OK);
    host.post("/clear", "").await;
    let started = Instant::now();
    let waited = host.get("/wait").await;
    assert_eq!(waited.status(), StatusCode::REQUEST_TIMEOUT);
    assert!(started.elapsed() >= Duration::from_secs(3));
    assert_eq!(host.instances(), 1);
    assert_eq!(log(&host), "");
}

#[tokio::test(start_paused = true)]
async fn a_request_in_another_instance_sees_another_event() {
    let host = start(Reuse {
        concurrent_requests: 1,
        ..Reuse::default()
    })
    .await;
    let waiting = begin(&host, "/wait").await;
    let set = host.post("/set", "").await;
    assert_eq!(set.status(), StatusCode::OK);
    let waited = waiting.await.unwrap();
    assert_eq!(waited.status(), StatusCode::REQUEST_TIMEOUT);
    let (set, waited) = (json(&set), json(&waited));
    assert_eq!((&set["set"], &waited["set"]), (&true.into(), &false.into()));
    assert_ne!(set["instance"], waited["instance"]);
    assert_eq!(host.instances(), 2);
    assert_eq!(log(&host), "", "nothing reports it");
}

#[tokio::test(start_paused = true)]
async fn the_event_is_lost_with_its_instance() {
    let host = start(Reuse::default()).await;
    host.post("/set", "").await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(json(&host.get("/event").await)["set"], false);
    assert_eq!(host.instances(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_set_that_wakes_a_wait_of_its_own_instance_fails_every_request_there() {
    let host = start(Reuse::default()).await;
    let bystander = begin(&host, "/bystander").await;
    let waiting = begin(&host, "/wait").await;
    assert_eq!(host.instances(), 1, "all in one instance");
    let set = host.post("/set", "").await;
    let answers = [set, waiting.await.unwrap(), bystander.await.unwrap()];
    for answer in &answers {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(answer.status(), status, "{}", text(answer));
    }
    let log = log(&host);
    // The spelling is that of wit-bindgen 0.57.
    let message = "Cannot support cross-component-model-task wakeup unlses the `wit-bindgen` crate is compiled with the \
        `inter-task-wakeup` feature enabled.";
    assert!(log.contains(message), "{log}");
    assert!(log.contains("wasm trap"), "{log}");

    // The next request gets a new instance, whose event is clear.
    assert_eq!(json(&host.get("/event").await)["set"], false);
    assert_eq!(host.instances(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_nothing_but_the_event_traps_at_once() {
    let host = start(Reuse::default()).await;
    let bystander = begin(&host, "/bystander").await;
    let started = Instant::now();
    for answer in [host.get("/wait/forever").await, bystander.await.unwrap()] {
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    let log = log(&host);
    let message = "Rust task cannot sleep waiting only on Rust-originating events";
    assert!(log.contains(message), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_an_event_that_is_set_succeeds() {
    let host = start(Reuse::default()).await;
    host.post("/set", "").await;
    assert_eq!(host.get("/wait/forever").await.status(), StatusCode::OK);
    assert_eq!(log(&host), "");
}
