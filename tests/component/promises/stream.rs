//! The changes of an event as server-sent events.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use loopless_host::Harness;
use loopless_host::store::{Operation, Store};
use tokio::time::{Instant, sleep, timeout};

use super::BUILD;
use crate::support::sse::Client;
use crate::support::{etag, problem, send, set};

async fn connect(host: &Harness, headers: &[(&str, &str)]) -> Client {
    Client::connect(host, "/events/door/stream", headers).await
}

/// The generation and the id in the message of a change.
fn change(message: &str) -> (u64, &str) {
    let (id, data) = message.split_once("\ndata: ").unwrap();
    let id = id.strip_prefix("id: ").unwrap();
    let view: serde_json::Value = serde_json::from_str(data).unwrap();
    let generation = view["generation"].as_u64().unwrap();
    let is_set = generation % 2 == 1;
    let expected = format!("{{\"name\":\"door\",\"set\":{is_set},\"generation\":{generation}}}");
    assert_eq!(data, expected);
    (generation, id)
}

/// Checks that the next message is the change to this generation.
async fn receives(client: &mut Client, generation: u64) {
    let message = client.next().await.unwrap();
    let (received, id) = change(&message);
    assert_eq!(received, generation, "{message}");
    assert!(BUILD.is_version(id, generation), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_state_at_once_and_then_each_change() {
    let host = BUILD.start().await;
    let began = Instant::now();
    let mut client = connect(&host, &[]).await;
    receives(&mut client, 0).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    for generation in 1..6 {
        set(&host, "door", generation % 2 == 1).await;
        let changed = Instant::now();
        receives(&mut client, generation).await;
        assert!(changed.elapsed() <= Duration::from_millis(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pulse_is_two_messages() {
    let host = BUILD.start().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    sleep(Duration::from_secs(5)).await;
    set(&host, "door", true).await;
    set(&host, "door", false).await;
    // If nobody has read the event while it was set, its tag then is unknown.
    let set = client.next().await.unwrap();
    assert_eq!(change(&set).0, 1);
    receives(&mut client, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_the_retry_time() {
    let host = BUILD.start().await;
    let mut client = connect(&host, &[]).await;
    let frame = client.response.body_mut().frame().await.unwrap().unwrap();
    assert!(frame.into_data().unwrap().starts_with(b"retry: 1000\n\n"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reconnects_gets_the_changes_that_it_missed_and_no_other() {
    let host = BUILD.start().await;
    let mut ids = Vec::new();
    for is_set in [true, false, true, false] {
        let changed = set(&host, "door", is_set).await;
        ids.push(etag(&changed).trim_matches('"').to_owned());
    }
    let mut client = connect(&host, &[("last-event-id", &ids[1])]).await;
    let missed = client.next().await.unwrap();
    assert_eq!(change(&missed), (3, "3"));
    receives(&mut client, 4).await;
    set(&host, "door", true).await;
    let last = client.next().await.unwrap();
    let (generation, id) = change(&last);
    assert_eq!(generation, 5);

    let mut client = connect(&host, &[("last-event-id", id)]).await;
    set(&host, "door", false).await;
    receives(&mut client, 6).await;

    // Invalid ids.
    for id in ["x", "-1", ""] {
        let mut client = connect(&host, &[("last-event-id", id)]).await;
        receives(&mut client, 6).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_missed_very_many_changes_gets_the_last_100() {
    if !BUILD.keeps("counted") {
        // The client learns that there was a pulse, however many changes it missed.
        return;
    }
    let (host, store) = BUILD.observed().await;
    let number = (7_u64 << 40) + 1_000_000;
    let value = number.to_string().into_bytes();
    store.set("event/door", &value).await.unwrap();
    let mut client = connect(&host, &[("last-event-id", "1.000007")]).await;
    for generation in 999_901..1_000_000 {
        // Only the tag of the last change is known.
        let message = client.next().await.unwrap();
        let id = generation.to_string();
        assert_eq!(change(&message), (generation, id.as_str()));
    }
    receives(&mut client, 1_000_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_comment_every_15_s_keeps_a_stream_open() {
    let host = BUILD.start().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(client.next().await.unwrap(), ":");
        let waited = began.elapsed().as_secs_f64();
        assert!((15.0..15.2).contains(&waited), "{waited}");
    }
    set(&host, "door", true).await;
    receives(&mut client, 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_stream_reads_at_most_twelve_times_a_second() {
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
async fn a_stream_whose_client_hung_up_stops_reading_within_a_second() {
    let (host, store) = BUILD.observed().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    // The client reads for a while before it hangs up.
    _ = timeout(Duration::from_secs(5), client.next()).await;
    drop(client);
    sleep(Duration::from_millis(1100)).await;
    let before = store.count(Operation::Get);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(store.count(Operation::Get), before);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_forgotten_ends_its_streams() {
    let host = BUILD.start().await;
    set(&host, "door", true).await;
    let mut client = connect(&host, &[]).await;
    receives(&mut client, 1).await;
    send(&host, "DELETE", "/events/door", &[], "").await;
    let last = client.next().await.unwrap();
    let last = last.strip_prefix("event: forgotten\n").unwrap();
    let generation = if BUILD.keeps("counted") { 4 } else { 0 };
    let (received, id) = change(last);
    assert_eq!(received, generation);
    assert!(BUILD.is_version(id, generation), "{id}");
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_after_the_time_that_the_variable_sets() {
    let host = BUILD.builder().variable("stream_max_seconds", "20");
    let host = host.start().await.unwrap();
    let began = Instant::now();
    let mut client = connect(&host, &[]).await;
    receives(&mut client, 0).await;
    assert_eq!(client.next().await.unwrap(), ":");
    assert_eq!(client.next().await, None);
    let lasted = began.elapsed().as_secs_f64();
    assert!((20.0..20.2).contains(&lasted), "{lasted}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_after_a_store_that_fails_for_a_while() {
    let (host, store) = BUILD.observed().await;
    let mut client = connect(&host, &[]).await;
    client.next().await;
    store.fail("down");
    assert_eq!(client.next().await.unwrap(), ":");
    store.recover();
    set(&host, "door", true).await;
    receives(&mut client, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_no_parameters() {
    let host = BUILD.start().await;
    let response = host.get("/events/door/stream?from=1").await;
    problem(&response, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_wiped_is_a_reset_and_the_stream_goes_on() {
    let (host, store) = BUILD.observed().await;
    for is_set in [true, false, true] {
        set(&host, "door", is_set).await;
    }
    let before = etag(&host.get("/events/door").await)
        .trim_matches('"')
        .to_owned();
    let mut client = connect(&host, &[]).await;
    receives(&mut client, 3).await;
    store.wipe().await.unwrap();
    let message = client.next().await.unwrap();
    if BUILD.keeps("counted") {
        let reset = message.strip_prefix("event: reset\n").unwrap();
        assert_eq!(change(reset), (0, "0"));
        set(&host, "door", true).await;
        receives(&mut client, 1).await;
    } else {
        // It looks as if the event were forgotten.
        assert!(message.starts_with("event: forgotten\n"), "{message}");
    }

    // A client that reconnects gets a reset too, until the generation is greater than the client's. Without compare-and-swap, it
    // gets what must have been between the two states: the end of the event, or the clear.
    for (generation, is_set) in [(1, true), (2, false), (3, true)] {
        set(&host, "door", is_set).await;
        let mut client = connect(&host, &[("last-event-id", &before)]).await;
        let message = client.next().await.unwrap();
        if BUILD.keeps("counted") {
            let reset = message.strip_prefix("event: reset\n").unwrap();
            assert_eq!(change(reset).0, generation);
        } else if generation == 1 {
            assert!(message.starts_with("event: forgotten\n"), "{message}");
        } else {
            assert_eq!(change(&message).0, 2, "{message}");
        }
    }
}
