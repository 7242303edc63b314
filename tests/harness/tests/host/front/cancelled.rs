//! Requests that are cancelled because their client has hung up: they end, and nothing else does.

use std::time::Duration;

use http::{Request, StatusCode};
use hyper_util::rt::TokioExecutor;
use loopless_host::console::Output;
use loopless_host::store::{Memory, Observed, Operation};
use loopless_host::{Harness, Limits, Reuse, Routes};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{component, project, soon};

/// A host in this process, and its store.
pub(super) async fn observed(reuse: Reuse, limits: Limits) -> (Harness, Observed) {
    let store = Observed::new(Memory::default());
    let harness = Harness::builder().component(component()).reuse(reuse);
    let harness = harness.limits(limits).store(store.clone());
    (harness.start().await.unwrap(), store)
}

/// Limits that allow this many requests under way.
pub(super) fn at_once(concurrent_requests: usize) -> Limits {
    Limits {
        concurrent_requests,
        ..Limits::default()
    }
}

/// Waits for the event `door` in a task of its own.
pub(super) fn wait(harness: &Harness, tasks: &mut JoinSet<StatusCode>) {
    wait_for("door", harness, tasks);
}

/// Waits for the event of this name in a task of its own.
fn wait_for(name: &str, harness: &Harness, tasks: &mut JoinSet<StatusCode>) {
    let path = format!("/events/{name}/wait");
    let routes = Routes::from(harness.clone());
    tasks.spawn(async move {
        let request = Request::get(path).body(String::new());
        routes.handle(request.unwrap()).await.status()
    });
}

/// Sets the event `door`.
pub(super) async fn set(harness: &Harness) {
    let set = Request::put("/events/door").body("{\"set\": true}");
    assert_eq!(harness.send(set.unwrap()).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_stops_reading_the_store() {
    let (harness, store) = observed(Reuse::default(), Limits::default()).await;
    let mut waits = JoinSet::new();
    for _ in 0..100 {
        wait(&harness, &mut waits);
    }
    sleep(Duration::from_secs(2)).await;
    let before = store.count(Operation::Get);
    assert!(before >= 100, "{before} reads");
    waits.shutdown().await;
    sleep(Duration::from_secs(1)).await;
    let after = store.count(Operation::Get);
    // Reads that were under way may finish.
    assert!(after <= before + 100, "{} reads more", after - before);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.count(Operation::Get), after);
    assert_eq!(harness.printed(Output::Stderr), [""; 0], "nothing failed");
}

#[tokio::test(start_paused = true)]
async fn other_requests_of_its_instance_go_on() {
    let (harness, store) = observed(Reuse::default(), at_once(8)).await;
    // While an instance starts, it takes one request. After this one, it can take all the others.
    harness.get("/").await;
    let mut kept = JoinSet::new();
    let mut gone = JoinSet::new();
    for number in 0..8 {
        if number % 2 == 0 {
            wait_for("window", &harness, &mut gone);
        } else {
            wait_for("door", &harness, &mut kept);
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(harness.instances(), 1, "all of them in one instance");
    gone.shutdown().await;
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    set(&harness).await;
    let ended = soon(kept.join_all()).await;
    assert_eq!(ended, [StatusCode::OK; 4]);
    assert!(began.elapsed() < Duration::from_secs(2), "told in time");

    // The cancelled requests end too and read nothing. Then all their places are free.
    sleep(Duration::from_secs(2)).await;
    let after = store.count(Operation::Get);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.count(Operation::Get), after);
    let routes = Routes::from(harness.clone());
    let mut held = Vec::new();
    for number in 0..=8 {
        let request = Request::get("/events/door").body(String::new());
        let response = routes.handle(request.unwrap()).await;
        let is_refused = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(is_refused, number == 8, "the response of request {number}");
        held.push(response);
    }
    assert_eq!(harness.printed(Output::Stderr), [""; 0], "nothing failed");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_a_request_left_behind_goes_on_when_others_of_its_instance_are_cancelled() {
    let (harness, _) = observed(Reuse::default(), Limits::default()).await;
    let started = harness.post("/service/start", "").await;
    assert_eq!(started.status(), StatusCode::ACCEPTED);
    let mut waits = JoinSet::new();
    for _ in 0..4 {
        wait(&harness, &mut waits);
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(harness.instances(), 1, "beside the service");
    waits.shutdown().await;
    sleep(Duration::from_secs(60)).await;
    let service = harness.get("/service").await;
    let service: Value = serde_json::from_slice(service.body()).unwrap();
    assert_eq!(service["state"], "running", "{service}");
    assert_eq!(service["runner"], 1, "the same runner: {service}");
    assert!(service["ticks"].as_u64() >= Some(60), "{service}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_beside_such_a_task_ends_and_frees_its_place() {
    let (harness, store) = observed(Reuse::default(), at_once(1)).await;
    store.slow_down(Operation::Get, Duration::from_secs(1));
    let started = harness.post("/service/start", "").await;
    assert_eq!(started.status(), StatusCode::ACCEPTED);
    let routes = Routes::from(harness.clone());
    // The request is cancelled while it waits for the store.
    let change = Request::put("/events/door").body("{\"set\": true}".to_owned());
    let change = timeout(Duration::from_millis(500), routes.handle(change.unwrap()));
    assert!(change.await.is_err(), "the store is slow");
    assert_eq!(harness.instances(), 1, "beside the service");
    sleep(Duration::from_secs(60)).await;
    let next = Request::get("/events/door").body(String::new());
    let next = routes.handle(next.unwrap()).await;
    assert_eq!(next.status(), StatusCode::OK, "its place is free");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_of_wasi_0_2_ends_its_instance() {
    let store = Observed::new(Memory::default());
    let manifest = project().join("deploy/fermyon-cloud.toml");
    let harness = Harness::builder().manifest(manifest).store(store.clone());
    let harness = harness.start().await.unwrap();
    let mut waits = JoinSet::new();
    for _ in 0..10 {
        wait(&harness, &mut waits);
    }
    sleep(Duration::from_secs(2)).await;
    waits.shutdown().await;
    sleep(Duration::from_secs(1)).await;
    let after = store.count(Operation::Get);
    assert!(after >= 10, "{after} reads");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.count(Operation::Get), after);
    assert_eq!(harness.printed(Output::Stderr), [""; 0], "nothing failed");
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_place() {
    for http2 in [false, true] {
        let (harness, store) = observed(Reuse::default(), at_once(1)).await;
        let server = harness.serve().await.unwrap();
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build_http::<String>();
        let status = async |path| {
            let response = client.get(server.url(path).parse().unwrap()).await;
            response.unwrap().status()
        };
        let has_begun = async {
            while store.count(Operation::Get) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            status = status("/events/door/wait") => panic!("nobody sets it: {status}"),
            () = soon(has_begun) => {}
        }
        // The place is free before the 25 s are over that the wait would have taken.
        let next =
            async { while status("/events/door").await == StatusCode::SERVICE_UNAVAILABLE {} };
        let freed = timeout(Duration::from_secs(10), next).await;
        freed.expect("it is still under way");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_stream() {
    let (harness, store) = observed(Reuse::default(), Limits::default()).await;
    let server = harness.serve().await.unwrap();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = "GET /events/door/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 12]).await.unwrap();
    drop(stream);
    // The stream reads until the host notices. After a second without a read, it has ended.
    let reads = || store.count(Operation::Get);
    let mut quiet = tokio::time::interval(Duration::from_secs(1));
    let mut before = None;
    for _ in 0..5 {
        quiet.tick().await;
        if before == Some(reads()) {
            return;
        }
        before = Some(reads());
    }
    panic!("the stream went on reading");
}
