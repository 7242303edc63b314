//! The service and the lifespan of the application, on the real component.

mod lifespan;
mod stream;

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use loopless_host::store::{Memory, Observed, Operation, Quirks, Store};
use loopless_host::{Harness, Reuse};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{json, problem, set};

const SECOND: Duration = Duration::from_secs(1);

/// The line that the service prints each second.
const TICK: &str = "Service did something";

fn lines(host: &Harness) -> Vec<String> {
    let lines = host.lines();
    lines.into_iter().map(|line| line.text).collect()
}

async fn status(host: &Harness) -> Value {
    let response = host.get("/service").await;
    assert_eq!(response.status(), StatusCode::OK);
    json(&response)
}

async fn start(host: &Harness) -> StatusCode {
    let response = host.post("/service/start", "").await;
    assert_eq!(response.headers()[header::LOCATION], "/service");
    response.status()
}

async fn stop(host: &Harness) -> Response<Bytes> {
    host.post("/service/stop", "").await
}

/// A host on this store, which other hosts may share.
async fn host_on(store: &Observed, quirks: Quirks, reuse: Reuse) -> Harness {
    let builder = Harness::builder().store(store.clone()).quirks(quirks);
    builder.reuse(reuse).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_service_starts_ticks_and_stops_once_on_every_host() {
    for (name, quirks) in Quirks::ALL {
        let host = Harness::builder().quirks(quirks).start().await.unwrap();
        assert_eq!(status(&host).await["state"], "stopped");
        assert_eq!(start(&host).await, StatusCode::ACCEPTED);
        assert_eq!(start(&host).await, StatusCode::OK, "it runs already");
        sleep(SECOND * 3 + SECOND / 2).await;
        let running = status(&host).await;
        assert_eq!(
            (&running["state"], &running["ticks"]),
            (&"running".into(), &3.into())
        );
        assert!(running["started"].is_string() && running["heartbeat"].is_string());
        assert_eq!(running["runner"], 1);

        let asked = Instant::now();
        let stopped = stop(&host).await;
        assert_eq!(stopped.status(), StatusCode::OK);
        assert_eq!(json(&stopped)["state"], "stopped");
        assert!(
            asked.elapsed() < SECOND / 2,
            "{name}: {:?}",
            asked.elapsed()
        );
        assert_eq!(stop(&host).await.status(), StatusCode::OK, "not running");
        let story = ["Service started", TICK, TICK, TICK, "Service stopped"];
        assert_eq!(lines(&host), story, "{name}");
        sleep(SECOND * 10).await;
        assert_eq!(lines(&host).len(), story.len(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_outlives_the_idle_time_and_the_swaps_of_its_instance() {
    for (name, quirks) in Quirks::ALL {
        let host = Harness::builder().quirks(quirks).start().await.unwrap();
        start(&host).await;
        // No request comes meanwhile. On Spin, an instance can make 256 swaps.
        sleep(SECOND * 600 + SECOND / 2).await;
        let running = status(&host).await;
        assert_eq!(running["state"], "running", "{name}");
        assert_eq!(running["ticks"], 600, "{name}");
        assert_eq!(stop(&host).await.status(), StatusCode::OK);
        assert_eq!(lines(&host).len(), 602, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_starts_on_two_hosts_exactly_one_runs() {
    for (name, quirks) in Quirks::ALL {
        let store = Observed::new(Memory::default());
        // A new instance for each request.
        let reuse = Reuse {
            requests: 1,
            ..Reuse::default()
        };
        let hosts = [
            host_on(&store, quirks, reuse).await,
            host_on(&store, quirks, reuse).await,
        ];
        let mut starts = JoinSet::new();
        for number in 0..20 {
            let host = hosts[number % 2].clone();
            starts.spawn(async move { start(&host).await });
        }
        let mut codes = starts.join_all().await;
        codes.sort();
        let (accepted, others) = codes.split_last().unwrap();
        assert_eq!(*accepted, StatusCode::ACCEPTED, "{name}");
        assert_eq!(others, [StatusCode::OK; 19], "{name}");
        sleep(SECOND * 2 + SECOND / 2).await;
        // Either host can stop it.
        assert_eq!(stop(&hosts[0]).await.status(), StatusCode::OK);
        let mut all = lines(&hosts[0]);
        all.extend(lines(&hosts[1]));
        let count = |text: &str| all.iter().filter(|line| *line == text).count();
        assert_eq!(count("Service started"), 1, "{name}: {all:?}");
        assert_eq!(count(TICK), 2, "{name}: {all:?}");
        assert_eq!(count("Service stopped"), 1, "{name}: {all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_request_timeout_kills_the_runner_the_next_status_takes_over() {
    for (name, quirks) in Quirks::ALL {
        let reuse = Reuse {
            request_timeout: Some(SECOND * 4),
            ..Reuse::default()
        };
        let host = host_on(&Observed::new(Memory::default()), quirks, reuse).await;
        start(&host).await;
        sleep(SECOND * 3 + SECOND / 2).await;
        let ticks = status(&host).await["ticks"].as_u64().unwrap();
        assert_eq!(ticks, 3, "{name}");
        sleep(SECOND * 12).await;
        let lost = status(&host).await;
        assert_eq!(lost["state"], "lost", "{name}: {:?}", lines(&host));
        let running = status(&host).await;
        assert_eq!(running["state"], "running", "{name}");
        assert!(running["runner"].as_u64() > lost["runner"].as_u64());
        sleep(SECOND + SECOND / 2).await;
        let now = status(&host).await;
        assert_eq!(now["started"], lost["started"], "{name}: the same run");
        let ticked = lines(&host);
        let ticked = ticked.iter().filter(|line| **line == TICK);
        assert_eq!(now["ticks"], ticked.count(), "{name}");
        assert_eq!(stop(&host).await.status(), StatusCode::OK, "{name}");
        assert_eq!(status(&host).await["state"], "stopped");
    }
}

/// A number in the format of this host's store.
fn value(quirks: Quirks, number: i64) -> Vec<u8> {
    match quirks {
        Quirks::SpinSqlite => number.to_le_bytes().to_vec(),
        Quirks::Exact | Quirks::SpinRedis => number.to_string().into_bytes(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_has_lost_its_lease_does_nothing_more() {
    for (name, quirks) in Quirks::ALL {
        let store = Observed::new(Memory::default());
        let host = host_on(&store, quirks, Reuse::default()).await;
        start(&host).await;
        sleep(SECOND * 2 + SECOND / 2).await;
        // A runner elsewhere that believes this one dead seals its beats like this, here after two ticks.
        let sealed = value(quirks, -64 * 7);
        store.set("service/beats/1", &sealed).await.unwrap();
        sleep(SECOND * 10).await;
        let lines = lines(&host);
        assert_eq!(lines.len(), 4, "{name}: {lines:?}");
        assert!(lines[3].contains("lost its lease"), "{name}: {lines:?}");
        let lost = status(&host).await;
        assert_eq!(
            (&lost["state"], &lost["ticks"]),
            (&"lost".into(), &2.into())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_runner_that_does_not_stop_is_504() {
    let store = Observed::new(Memory::default());
    let reuse = Reuse {
        request_timeout: Some(SECOND * 2),
        ..Reuse::default()
    };
    let dying = host_on(&store, Quirks::Exact, reuse).await;
    start(&dying).await;
    // The runner is dead, and its lease has not expired.
    sleep(SECOND * 3).await;
    let host = host_on(&store, Quirks::Exact, Reuse::default()).await;
    let stopped = host.post("/service/stop?timeout=1", "").await;
    let detail = problem(&stopped, StatusCode::GATEWAY_TIMEOUT);
    assert!(detail.contains("still ran after 1 s"), "{detail}");
    assert_eq!(status(&host).await["state"], "stopping");
    let stopped = stop(&host).await;
    assert_eq!(stopped.status(), StatusCode::OK);
    assert_eq!(lines(&host), ["Service stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_costs_no_tick_twice() {
    for (name, quirks) in Quirks::ALL {
        let store = Observed::new(Memory::default());
        let host = host_on(&store, quirks, Reuse::default()).await;
        start(&host).await;
        sleep(SECOND * 2 + SECOND / 2).await;
        store.fail("down");
        problem(&host.get("/service").await, StatusCode::SERVICE_UNAVAILABLE);
        let rejected = host.post("/service/start", "").await;
        problem(&rejected, StatusCode::SERVICE_UNAVAILABLE);
        sleep(SECOND * 3).await;
        store.recover();
        sleep(SECOND * 3).await;
        let ticks = status(&host).await["ticks"].as_u64().unwrap();
        assert!(ticks >= 5, "{name}: {ticks}");
        assert_eq!(lines(&host).len() as u64, ticks + 1, "{name}");
        assert_eq!(stop(&host).await.status(), StatusCode::OK);
        assert_eq!(host.instances(), 1, "{name}: nothing trapped");
    }
}

#[tokio::test(start_paused = true)]
async fn the_two_events_of_the_service_are_events_like_any_other() {
    let host = Harness::start().await.unwrap();
    start(&host).await;
    let stopped = host.get("/events/service.stopped").await;
    assert_eq!(json(&stopped)["set"], false);
    set(&host, "service.cancel", true).await;
    let stopped = host.get("/events/service.stopped/wait?timeout=2").await;
    assert_eq!(stopped.status(), StatusCode::OK);
    assert_eq!(lines(&host), ["Service started", "Service stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_the_service_did_not_write_is_500_and_is_not_overwritten() {
    let store = Observed::new(Memory::default());
    store.set("service/lease", b"mine").await.unwrap();
    let host = host_on(&store, Quirks::SpinSqlite, Reuse::default()).await;
    for response in [
        host.get("/service").await,
        host.post("/service/start", "").await,
        host.post("/service/stop", "").await,
        host.get("/service/stream").await,
    ] {
        let detail = problem(&response, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(detail.contains("service/lease"), "{detail}");
    }
    let left = store.get("service/lease").await;
    assert_eq!(left, Ok(Some(b"mine".to_vec())));
    assert_eq!(host.instances(), 1, "nothing trapped");
}

#[tokio::test(start_paused = true)]
async fn invalid_times_and_parameters_are_400_and_change_nothing() {
    let host = Harness::start().await.unwrap();
    for path in [
        "/service/start?now=1",
        "/service/stop?timeout=26",
        "/service/stop?timeout=x",
    ] {
        problem(&host.post(path, "").await, StatusCode::BAD_REQUEST);
    }
    problem(&host.get("/service?x=1").await, StatusCode::BAD_REQUEST);
    assert_eq!(status(&host).await["state"], "stopped");
    assert!(lines(&host).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_beat_whose_answer_is_lost_counts_once() {
    for (name, quirks) in Quirks::ALL {
        let store = Observed::new(Memory::default());
        let host = host_on(&store, quirks, Reuse::default()).await;
        start(&host).await;
        // The beats of a running service are increments.
        store.lose_answers(Operation::Increment, "the connection broke");
        sleep(SECOND * 5 + SECOND / 2).await;
        assert_eq!(status(&host).await["ticks"], 5, "{name}");
        assert_eq!(lines(&host).len(), 6, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_increment_that_is_done_twice_costs_a_term_and_breaks_no_promise() {
    for (name, quirks) in Quirks::ALL {
        let store = Observed::new(Memory::default());
        let host = host_on(&store, quirks, Reuse::default()).await;
        // This applies to the increment by 0 that creates the first event too: 0 twice is 0.
        store.count_twice();
        let rejected = host.post("/service/start", "").await;
        problem(&rejected, StatusCode::SERVICE_UNAVAILABLE);
        store.recover();
        assert_eq!(start(&host).await, StatusCode::ACCEPTED, "{name}");
        sleep(SECOND * 2 + SECOND / 2).await;

        // The runner does not print the tick of a beat that counted twice.
        store.count_twice();
        sleep(SECOND).await;
        store.recover();
        let said = lines(&host);
        let lost = "Service lost its lease: the store has counted a beat twice";
        assert_eq!(said.last().unwrap(), lost, "{name}");
        // The next request for the status takes over, with as many ticks as were printed.
        let lost = status(&host).await;
        assert_eq!(
            (&lost["state"], &lost["ticks"]),
            (&"lost".into(), &2.into()),
            "{name}"
        );
        sleep(SECOND * 2 + SECOND / 2).await;
        let running = status(&host).await;
        assert_eq!(running["state"], "running", "{name}");
        assert_eq!(running["ticks"], 4, "{name}");
        assert_eq!(stop(&host).await.status(), StatusCode::OK, "{name}");
    }
}
