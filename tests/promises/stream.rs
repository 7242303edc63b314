//! An event's changes as server-sent events.

use std::time::Duration;

use super::BUILD;
use crate::support::sse::Client;
use crate::support::{etag, problem, send};
use http::StatusCode;
use http_body_util::BodyExt;
use loopless_host::Harness;
use loopless_host::store::{Operation, Store};
use tokio::time::{Instant, sleep, timeout};

const SET: &str = "{\"set\": true}";
const CLEAR: &str = "{\"set\": false}";

async fn put(host: &Harness, body: &str) {
    let status = send(host, "PUT", "/events/door", &[], body).await.status();
    assert_eq!(status, StatusCode::OK);
}

async fn connect(host: &Harness, headers: &[(&str, &str)]) -> Client {
    Client::connect(host, "/events/door/stream", headers).await
}

/// The generation and the id of a change as the stream tells it.
fn change(message: &str) -> (u64, &str) {
    let (id, data) = message.split_once("\ndata: ").unwrap();
    let id = id.strip_prefix("id: ").unwrap();
    let view: serde_json::Value = serde_json::from_str(data).unwrap();
    let generation = view["generation"].as_u64().unwrap();
    let set = generation % 2 == 1;
    let expected = format!("{{\"name\":\"door\",\"set\":{set},\"generation\":{generation}}}");
    assert_eq!(data, expected);
    (generation, id)
}

/// Checks that the next message is of a change to this generation.
async fn is_told(client: &mut Client, generation: u64) {
    let message = client.next().await.unwrap();
    let (told, id) = change(&message);
    assert_eq!(told, generation, "{message}");
    assert!(BUILD.is_version(id, generation), "{message}");
}

#[tokio::test(start_paused = true)]
async fn it_tells_the_state_at_once_and_then_each_change() {
    let host = BUILD.start().await;
    let began = Instant::now();
    let mut client = connect(&host, &[]).await;
    is_told(&mut client, 0).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    for generation in 1..6 {
        put(&host, if generation % 2 == 1 { SET } else { CLEAR }).await;
        let changed = Instant::now();
        is_told(&mut client, generation).await;
        assert!(changed.elapsed() <= Duration::from_millis(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pulse_is_told_as_its_two_changes() {
    let host = BUILD.start().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    sleep(Duration::from_secs(5)).await;
    put(&host, SET).await;
    put(&host, CLEAR).await;
    // If nobody has seen it set, nobody knows the tag of that.
    let set = client.next().await.unwrap();
    assert_eq!(change(&set).0, 1);
    is_told(&mut client, 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_thing_it_sends_sets_the_time_of_retries() {
    let host = BUILD.start().await;
    let mut client = connect(&host, &[]).await;
    let frame = client.response.body_mut().frame().await.unwrap().unwrap();
    assert!(frame.into_data().unwrap().starts_with(b"retry: 1000\n\n"));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_told_what_was_missed_and_nothing_twice() {
    let host = BUILD.start().await;
    let mut ids = Vec::new();
    for body in [SET, CLEAR, SET, CLEAR] {
        put(&host, body).await;
        let shown = host.get("/events/door").await;
        ids.push(etag(&shown).trim_matches('"').to_owned());
    }
    let mut client = connect(&host, &[("last-event-id", &ids[1])]).await;
    let missed = client.next().await.unwrap();
    assert_eq!(change(&missed), (3, "3"));
    is_told(&mut client, 4).await;
    put(&host, SET).await;
    let last = client.next().await.unwrap();
    let (generation, id) = change(&last);
    assert_eq!(generation, 5);

    let mut client = connect(&host, &[("last-event-id", id)]).await;
    put(&host, CLEAR).await;
    is_told(&mut client, 6).await;

    // What is not an id.
    for id in ["x", "-1", ""] {
        let mut client = connect(&host, &[("last-event-id", id)]).await;
        is_told(&mut client, 6).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_missed_very_much_is_told_the_end_of_it() {
    if !BUILD.keeps("counted") {
        // It is told that there was a pulse, as everybody who has missed something.
        return;
    }
    let (host, store) = BUILD.observed().await;
    let number = (7_u64 << 40) + 1_000_000;
    let value = number.to_string().into_bytes();
    store.set("event/door", &value).await.unwrap();
    let mut client = connect(&host, &[("last-event-id", "1.000007")]).await;
    for generation in 999_901..1_000_000 {
        // Only of the newest is it known which change it was.
        let told = client.next().await.unwrap();
        assert_eq!(change(&told), (generation, generation.to_string().as_str()));
    }
    is_told(&mut client, 1_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_comment_every_15_s_keeps_it_open() {
    let host = BUILD.start().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(client.next().await.unwrap(), ":");
        let waited = began.elapsed().as_secs_f64();
        assert!((15.0..15.2).contains(&waited), "{waited}");
    }
    put(&host, SET).await;
    is_told(&mut client, 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_stream_reads_at_most_twelve_times_a_second_also_after_a_comment() {
    let (host, store) = BUILD.observed().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    assert_eq!(client.next().await.unwrap(), ":");
    let before = store.count(Operation::Get);
    assert_eq!(client.next().await.unwrap(), ":");
    let reads = store.count(Operation::Get) - before;
    assert!((1..=180).contains(&reads), "{reads} reads in 15 s");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_is_gone_stops_reading_within_a_second() {
    let (host, store) = BUILD.observed().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    // Somebody takes what comes, until the client goes away.
    _ = timeout(Duration::from_secs(5), client.next()).await;
    drop(client);
    sleep(Duration::from_millis(1100)).await;
    let before = store.count(Operation::Get);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.count(Operation::Get), before);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_event_ends_its_streams() {
    let host = BUILD.start().await;
    put(&host, SET).await;
    let mut client = connect(&host, &[]).await;
    is_told(&mut client, 1).await;
    send(&host, "DELETE", "/events/door", &[], "").await;
    let last = client.next().await.unwrap();
    let last = last.strip_prefix("event: forgotten\n").unwrap();
    let generation = if BUILD.keeps("counted") { 4 } else { 0 };
    let (told, id) = change(last);
    assert_eq!(told, generation);
    assert!(BUILD.is_version(id, generation), "{id}");
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_variable_ends_it_after_a_while_for_hosts_that_would_cut_it_off() {
    let host = BUILD.builder().variable("stream_max_seconds", "20");
    let host = host.start().await.unwrap();
    let began = Instant::now();
    let mut client = connect(&host, &[]).await;
    is_told(&mut client, 0).await;
    assert_eq!(client.next().await.unwrap(), ":");
    assert_eq!(client.next().await, None);
    let lasted = began.elapsed().as_secs_f64();
    assert!((20.0..20.2).contains(&lasted), "{lasted}");
}

#[tokio::test(start_paused = true)]
async fn it_outlasts_a_store_that_fails_for_a_while() {
    let (host, store) = BUILD.observed().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    store.fail("down");
    assert_eq!(client.next().await.unwrap(), ":");
    store.recover();
    put(&host, SET).await;
    is_told(&mut client, 1).await;
}

#[tokio::test(start_paused = true)]
async fn it_takes_no_parameters() {
    let host = BUILD.start().await;
    let response = host.get("/events/door/stream?from=1").await;
    problem(&response, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_is_told_as_a_reset_and_the_stream_goes_on() {
    let (host, store) = BUILD.observed().await;
    for body in [SET, CLEAR, SET] {
        put(&host, body).await;
    }
    let before = etag(&host.get("/events/door").await)
        .trim_matches('"')
        .to_owned();
    let mut client = connect(&host, &[]).await;
    is_told(&mut client, 3).await;
    store.wipe().await.unwrap();
    let message = client.next().await.unwrap();
    if BUILD.keeps("counted") {
        let told = message.strip_prefix("event: reset\n").unwrap();
        assert_eq!(change(told), (0, "0"));
        put(&host, SET).await;
        is_told(&mut client, 1).await;
    } else {
        // It looks like an event that was forgotten.
        assert!(message.starts_with("event: forgotten\n"), "{message}");
    }

    // To who comes back, too, until the generation has passed the one of before.
    for (generation, body) in [(1, SET), (2, CLEAR), (3, SET)] {
        put(&host, body).await;
        let mut client = connect(&host, &[("last-event-id", &before)]).await;
        let message = client.next().await.unwrap();
        if BUILD.keeps("counted") {
            let told = message.strip_prefix("event: reset\n").unwrap();
            assert_eq!(change(told).0, generation);
        }
    }
}
