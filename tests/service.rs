//! The service and the application's lifespan, on the real component.

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use loopless_host::store::{Error, Memory, Numbers, Observed, Quirks, Store};
use loopless_host::{Harness, Reuse};
use serde_json::Value;
use support::sse::Client;
use support::{json, problem, send};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const TOKEN: (&str, &str) = ("authorization", "Bearer sesame");

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

/// One store for several hosts.
async fn host_on(store: &Observed, quirks: Quirks, reuse: Reuse) -> Harness {
    let builder = Harness::builder().store(store.clone()).quirks(quirks);
    builder.reuse(reuse).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_tells_the_story_of_the_article_on_every_host() {
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
        let tick = "Service did something";
        let story = ["Service started", tick, tick, tick, "Service stopped"];
        assert_eq!(lines(&host), story, "{name}");
        sleep(SECOND * 10).await;
        assert_eq!(lines(&host).len(), story.len(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_outlives_the_idle_time_of_its_instance_and_the_handles_of_its_host() {
    for (name, quirks) in Quirks::ALL {
        let host = Harness::builder().quirks(quirks).start().await.unwrap();
        start(&host).await;
        // Nobody sends a request meanwhile. An instance on Spin has 256 handles for swaps.
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
        // A fresh instance for every request.
        let reuse = Reuse {
            requests: 1,
            ..Reuse::default()
        };
        let hosts = [
            host_on(&store, quirks, reuse).await,
            host_on(&store, quirks, reuse).await,
        ];
        let mut starts = tokio::task::JoinSet::new();
        for number in 0..20 {
            let host = hosts[number % 2].clone();
            starts.spawn(async move { start(&host).await });
        }
        let mut accepted = 0;
        for code in starts.join_all().await {
            // Who lost every race is told to come again.
            if code == StatusCode::ACCEPTED {
                accepted += 1;
            } else {
                assert_eq!(code, StatusCode::OK, "{name}");
            }
        }
        assert_eq!(accepted, 1, "{name}");
        sleep(SECOND * 2 + SECOND / 2).await;
        // Either host can stop it.
        assert_eq!(stop(&hosts[0]).await.status(), StatusCode::OK);
        let mut all = lines(&hosts[0]);
        all.extend(lines(&hosts[1]));
        let count = |text: &str| all.iter().filter(|line| *line == text).count();
        assert_eq!(count("Service started"), 1, "{name}: {all:?}");
        assert_eq!(count("Service did something"), 2, "{name}: {all:?}");
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
        let ticked = ticked
            .iter()
            .filter(|line| *line == "Service did something");
        assert_eq!(now["ticks"], ticked.count(), "{name}");
        assert_eq!(stop(&host).await.status(), StatusCode::OK, "{name}");
        assert_eq!(status(&host).await["state"], "stopped");
    }
}

/// A number as the store of this host writes it.
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
        // As a runner elsewhere does that has taken it for dead, with two beats.
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
async fn a_stop_of_what_does_not_stop_is_504() {
    let store = Observed::new(Memory::default());
    let reuse = Reuse {
        request_timeout: Some(SECOND * 2),
        ..Reuse::default()
    };
    let dying = host_on(&store, Quirks::Exact, reuse).await;
    start(&dying).await;
    // The runner is dead, and its lease is not over.
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
        let refused = host.post("/service/start", "").await;
        problem(&refused, StatusCode::SERVICE_UNAVAILABLE);
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
async fn its_two_events_are_events_like_any_other() {
    let host = Harness::start().await.unwrap();
    start(&host).await;
    let stopped = host.get("/events/service.stopped").await;
    assert_eq!(json(&stopped)["set"], false);
    let set = "{\"set\": true}";
    let cancel = send(&host, "PUT", "/events/service.cancel", &[], set).await;
    assert_eq!(cancel.status(), StatusCode::OK);
    let stopped = host.get("/events/service.stopped/wait?timeout=2").await;
    assert_eq!(stopped.status(), StatusCode::OK);
    assert_eq!(lines(&host), ["Service started", "Service stopped"]);
}

/// A client of the stream.
async fn connect(host: &Harness, headers: &[(&str, &str)]) -> Client {
    Client::connect(host, "/service/stream", headers).await
}

#[tokio::test(start_paused = true)]
async fn the_stream_tells_each_line_once_and_goes_on_where_a_client_was() {
    let host = Harness::start().await.unwrap();
    let mut early = connect(&host, &[]).await;
    start(&host).await;
    let story = [
        "id: 1.1\ndata: Service started",
        "id: 1.2\ndata: Service did something",
        "id: 1.3\ndata: Service did something",
        "id: 1.4\ndata: Service stopped",
    ];
    early.takes(&story[..3]).await;
    let mut late = connect(&host, &[]).await;
    late.takes(&story[2..3]).await;
    stop(&host).await;
    late.takes(&story[3..]).await;
    early.takes(&story[3..]).await;

    for number in 1..4 {
        let id = format!("1.{number}");
        let mut again = connect(&host, &[("last-event-id", &id)]).await;
        again.takes(&story[number..]).await;
    }
    // Ids that are none of this service's.
    for id in ["1.5", "2.1", "x", ""] {
        let mut again = connect(&host, &[("last-event-id", id)]).await;
        again.takes(&story[3..]).await;
    }

    start(&host).await;
    early.takes(&["id: 2.1\ndata: Service started"]).await;
    let mut again = connect(&host, &[("last-event-id", "1.2")]).await;
    again.takes(&story[2..]).await;
    again.takes(&["id: 2.1\ndata: Service started"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_tells_ticks_once_also_over_a_takeover() {
    let store = Observed::new(Memory::default());
    let reuse = Reuse {
        request_timeout: Some(SECOND * 3),
        ..Reuse::default()
    };
    let dying = host_on(&store, Quirks::Exact, reuse).await;
    let host = host_on(&store, Quirks::Exact, Reuse::default()).await;
    start(&dying).await;
    let mut client = connect(&host, &[]).await;
    client.takes(&["id: 1.1\ndata: Service started"]).await;
    sleep(SECOND * 10).await;
    assert_eq!(status(&host).await["state"], "lost");
    sleep(SECOND * 3).await;
    stop(&host).await;
    let mut number = 2;
    loop {
        let message = client.next().await.unwrap();
        if message == ":" {
            continue;
        }
        if message.ends_with("Service stopped") {
            assert_eq!(message, format!("id: 1.{number}\ndata: Service stopped"));
            break;
        }
        assert_eq!(
            message,
            format!("id: 1.{number}\ndata: Service did something")
        );
        number += 1;
    }
    assert_eq!(status(&host).await["ticks"], number - 2);
}

#[tokio::test(start_paused = true)]
async fn the_stream_goes_on_from_what_a_restored_store_has() {
    let store = Observed::new(Memory::default());
    let host = host_on(&store, Quirks::Exact, Reuse::default()).await;
    start(&host).await;
    let mut client = connect(&host, &[]).await;
    sleep(SECOND * 2 + SECOND / 2).await;
    let backup = store.backup().await.unwrap();
    sleep(SECOND * 2).await;
    let story = [
        "id: 1.1\ndata: Service started",
        "id: 1.2\ndata: Service did something",
        "id: 1.3\ndata: Service did something",
        "id: 1.4\ndata: Service did something",
        "id: 1.5\ndata: Service did something",
    ];
    client.takes(&story).await;

    let restored = Instant::now();
    store.restore(&backup).await.unwrap();
    client.takes(&story[2..3]).await;
    assert!(restored.elapsed() < SECOND / 2, "within one reading");
    // The runner of before has noticed, and another one goes on with the run.
    sleep(SECOND * 8).await;
    assert_eq!(status(&host).await["state"], "lost");
    sleep(SECOND * 3 + SECOND / 2).await;
    assert_eq!(stop(&host).await.status(), StatusCode::OK);
    let mut number = 4;
    loop {
        let message = client.next().await.unwrap();
        if message.ends_with("Service stopped") {
            assert_eq!(message, format!("id: 1.{number}\ndata: Service stopped"));
            break;
        }
        let tick = format!("id: 1.{number}\ndata: Service did something");
        assert_eq!(message, tick);
        number += 1;
    }
    assert_eq!(status(&host).await["ticks"], number - 2);

    // Back over the beginning of a run.
    let backup = store.backup().await.unwrap();
    start(&host).await;
    client.takes(&["id: 3.1\ndata: Service started"]).await;
    store.restore(&backup).await.unwrap();
    let last = format!("id: 1.{number}\ndata: Service stopped");
    client.takes(&[&last]).await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_tells_the_next_run_after_the_store_was_wiped() {
    let store = Observed::new(Memory::default());
    let host = host_on(&store, Quirks::Exact, Reuse::default()).await;
    start(&host).await;
    let mut client = connect(&host, &[]).await;
    client.takes(&["id: 1.1\ndata: Service started"]).await;
    client
        .takes(&["id: 1.2\ndata: Service did something"])
        .await;
    store.wipe().await.unwrap();
    // The runner notices at its next beat.
    sleep(SECOND * 2).await;
    assert_eq!(status(&host).await["state"], "stopped");
    assert_eq!(start(&host).await, StatusCode::ACCEPTED);
    client.takes(&["id: 1.1\ndata: Service started"]).await;
    client
        .takes(&["id: 1.2\ndata: Service did something"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_service_that_never_ran_is_kept_open_and_ends_when_it_must() {
    let host = Harness::builder().variable("stream_max_seconds", "20");
    let host = host.start().await.unwrap();
    let mut client = connect(&host, &[]).await;
    client.takes(&[":"]).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_none_of_the_services_is_500_and_left_alone() {
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
async fn times_and_parameters_that_make_no_sense_are_400_and_change_nothing() {
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

async fn lifespan(host: &Harness, path: &str) -> Response<Bytes> {
    send(host, "POST", path, &[TOKEN], "").await
}

#[tokio::test(start_paused = true)]
async fn the_lifespan_starts_and_stops_the_service_if_the_operator_wants_that() {
    for (name, quirks) in Quirks::ALL {
        let builder = Harness::builder()
            .variable("operator_token", "sesame")
            .variable("service_autostart", "true");
        let host = builder.quirks(quirks).start().await.unwrap();
        for _ in 0..2 {
            let response = lifespan(&host, "/lifespan/startup").await;
            assert_eq!(response.status(), StatusCode::NO_CONTENT, "{name}");
        }
        sleep(SECOND + SECOND / 2).await;
        for _ in 0..2 {
            let response = lifespan(&host, "/lifespan/shutdown").await;
            assert_eq!(response.status(), StatusCode::NO_CONTENT, "{name}");
        }
        let story = [
            "Service started",
            "Service did something",
            "Stopping service",
            "Service stopped",
        ];
        assert_eq!(lines(&host), story, "{name}");
    }
    let host = Harness::builder().variable("operator_token", "sesame");
    let host = host.start().await.unwrap();
    lifespan(&host, "/lifespan/startup").await;
    assert_eq!(status(&host).await["state"], "stopped");
    assert!(lines(&host).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_startup_that_finds_what_is_none_of_the_services_fails_and_traps_nothing() {
    for (name, quirks) in Quirks::ALL {
        for key in ["service/lease", "service/terms"] {
            let store = Observed::new(Memory::default());
            store.set(key, b"mine").await.unwrap();
            let builder = Harness::builder().variable("operator_token", "sesame");
            let builder = builder.store(store.clone()).quirks(quirks);
            let host = builder.start().await.unwrap();
            let response = lifespan(&host, "/lifespan/startup").await;
            let detail = problem(&response, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(detail.contains(key), "{name}: {detail}");
            assert_eq!(store.get(key).await, Ok(Some(b"mine".to_vec())));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_lifespan_is_the_operators() {
    let host = Harness::builder().variable("operator_token", "sesame");
    let host = host.start().await.unwrap();
    start(&host).await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer sesam")],
        &[("authorization", "Bearer sesame ")],
        &[("authorization", "Bearer sesamf")],
        &[("authorization", "Basic sesame")],
    ] {
        for path in ["/lifespan/startup", "/lifespan/shutdown"] {
            let response = send(&host, "POST", path, headers, "").await;
            if response.status() == StatusCode::NO_CONTENT {
                // HTTP cuts the white space around a value.
                assert_eq!(headers[0].1, "Bearer sesame ");
                continue;
            }
            problem(&response, StatusCode::UNAUTHORIZED);
            let challenge = &response.headers()[header::WWW_AUTHENTICATE];
            assert!(challenge.to_str().unwrap().starts_with("Bearer"));
        }
    }
    assert_eq!(status(&host).await["state"], "running");

    for token in [None, Some("")] {
        let mut builder = Harness::builder();
        if let Some(token) = token {
            builder = builder.variable("operator_token", token);
        }
        let host = builder.start().await.unwrap();
        for headers in [&[][..], &[TOKEN], &[("authorization", "Bearer ")]] {
            let response = send(&host, "POST", "/lifespan/startup", headers, "").await;
            let detail = problem(&response, StatusCode::FORBIDDEN);
            assert!(detail.contains("operator_token"), "{detail}");
        }
    }
}

/// A store whose beats take an error for an answer, though they were counted.
#[derive(Debug)]
struct Deaf(Arc<Observed>);

#[async_trait]
impl Store for Deaf {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.0.set(key, value).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key).await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.0.keys().await
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        self.0.swap(key, old, new).await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let sum = self.0.increment(key, delta, numbers).await?;
        if key.starts_with("service/beats/") && delta == 1 {
            return Err(Error("the connection broke".into()));
        }
        Ok(sum)
    }

    fn numbers(&self) -> Numbers {
        self.0.numbers()
    }
}

#[tokio::test(start_paused = true)]
async fn a_beat_whose_answer_is_lost_counts_once() {
    for (name, quirks) in Quirks::ALL {
        let store = Deaf(Arc::new(Observed::new(Memory::default())));
        let host = Harness::builder().store(store).quirks(quirks);
        let host = host.start().await.unwrap();
        start(&host).await;
        sleep(SECOND * 5 + SECOND / 2).await;
        assert_eq!(status(&host).await["ticks"], 5, "{name}");
        assert_eq!(lines(&host).len(), 6, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_counts_twice_costs_a_term_and_no_promise() {
    for (name, quirks) in Quirks::ALL {
        let store = Observed::new(Memory::default());
        let host = host_on(&store, quirks, Reuse::default()).await;
        // Before the first event is born, too: nothing added twice is nothing.
        store.count_twice();
        let refused = host.post("/service/start", "").await;
        problem(&refused, StatusCode::SERVICE_UNAVAILABLE);
        store.recover();
        assert_eq!(start(&host).await, StatusCode::ACCEPTED, "{name}");
        sleep(SECOND * 2 + SECOND / 2).await;

        // The runner does not say a beat that counts for two.
        store.count_twice();
        sleep(SECOND).await;
        store.recover();
        let said = lines(&host);
        let lost = "Service lost its lease: the store has counted a beat twice";
        assert_eq!(said.last().unwrap(), lost, "{name}");
        // The next one who looks takes over, with as many ticks as were said.
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
