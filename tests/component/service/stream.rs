//! The lines of the service as a stream.

use http::StatusCode;
use loopless_host::store::{Memory, Observed, Quirks};
use loopless_host::{Harness, Reuse};
use tokio::time::{Instant, sleep};

use super::{SECOND, TICK, host_on, start, status, stop};
use crate::support::sse::Client;

async fn connect(host: &Harness, headers: &[(&str, &str)]) -> Client {
    Client::connect(host, "/service/stream", headers).await
}

/// Checks that the first run goes on with ticks from line `number` on, until it stops. Returns the number of the last line.
async fn ends(client: &mut Client, mut number: u64) -> u64 {
    loop {
        let message = client.next().await.unwrap();
        if message == ":" {
            continue;
        }
        if message.ends_with("Service stopped") {
            assert_eq!(message, format!("id: 1.{number}\ndata: Service stopped"));
            return number;
        }
        assert_eq!(message, format!("id: 1.{number}\ndata: {TICK}"));
        number += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_has_each_line_once_and_goes_on_after_the_clients_last_one() {
    let host = Harness::start().await.unwrap();
    let mut early = connect(&host, &[]).await;
    start(&host).await;
    let story = [
        "id: 1.1\ndata: Service started",
        "id: 1.2\ndata: Service did something",
        "id: 1.3\ndata: Service did something",
        "id: 1.4\ndata: Service stopped",
    ];
    early.receives(&story[..3]).await;
    let mut late = connect(&host, &[]).await;
    late.receives(&story[2..3]).await;
    stop(&host).await;
    late.receives(&story[3..]).await;
    early.receives(&story[3..]).await;

    for number in 1..4 {
        let id = format!("1.{number}");
        let mut again = connect(&host, &[("last-event-id", &id)]).await;
        again.receives(&story[number..]).await;
    }
    // Ids that are not of this run, or invalid.
    for id in ["1.5", "2.1", "x", ""] {
        let mut again = connect(&host, &[("last-event-id", id)]).await;
        again.receives(&story[3..]).await;
    }

    start(&host).await;
    early.receives(&["id: 2.1\ndata: Service started"]).await;
    let mut again = connect(&host, &[("last-event-id", "1.2")]).await;
    again.receives(&story[2..]).await;
    again.receives(&["id: 2.1\ndata: Service started"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_has_each_tick_once_after_a_takeover_too() {
    let store = Observed::new(Memory::default());
    let reuse = Reuse {
        request_timeout: Some(SECOND * 3),
        ..Reuse::default()
    };
    let dying = host_on(&store, Quirks::Exact, reuse).await;
    let host = host_on(&store, Quirks::Exact, Reuse::default()).await;
    start(&dying).await;
    let mut client = connect(&host, &[]).await;
    client.receives(&["id: 1.1\ndata: Service started"]).await;
    sleep(SECOND * 10).await;
    assert_eq!(status(&host).await["state"], "lost");
    sleep(SECOND * 3).await;
    stop(&host).await;
    let number = ends(&mut client, 2).await;
    assert_eq!(status(&host).await["ticks"], number - 2);
}

#[tokio::test(start_paused = true)]
async fn the_stream_goes_on_from_the_state_of_a_restored_store() {
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
    client.receives(&story).await;

    let restored = Instant::now();
    store.restore(&backup).await.unwrap();
    client.receives(&story[2..3]).await;
    assert!(restored.elapsed() < SECOND / 2, "within one reading");
    // The earlier runner notices, and another one goes on with the run.
    sleep(SECOND * 8).await;
    assert_eq!(status(&host).await["state"], "lost");
    sleep(SECOND * 3 + SECOND / 2).await;
    assert_eq!(stop(&host).await.status(), StatusCode::OK);
    let number = ends(&mut client, 4).await;
    assert_eq!(status(&host).await["ticks"], number - 2);

    // A restore to a time before the run began.
    let backup = store.backup().await.unwrap();
    start(&host).await;
    client.receives(&["id: 3.1\ndata: Service started"]).await;
    store.restore(&backup).await.unwrap();
    let last = format!("id: 1.{number}\ndata: Service stopped");
    client.receives(&[&last]).await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_has_the_next_run_after_the_store_was_wiped() {
    let store = Observed::new(Memory::default());
    let host = host_on(&store, Quirks::Exact, Reuse::default()).await;
    start(&host).await;
    let mut client = connect(&host, &[]).await;
    client.receives(&["id: 1.1\ndata: Service started"]).await;
    client
        .receives(&["id: 1.2\ndata: Service did something"])
        .await;
    store.wipe().await.unwrap();
    // The runner notices at its next beat.
    sleep(SECOND * 2).await;
    assert_eq!(status(&host).await["state"], "stopped");
    assert_eq!(start(&host).await, StatusCode::ACCEPTED);
    client.receives(&["id: 1.1\ndata: Service started"]).await;
    client
        .receives(&["id: 1.2\ndata: Service did something"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_service_that_never_ran_stays_open_for_its_time() {
    let host = Harness::builder().variable("stream_max_seconds", "20");
    let host = host.start().await.unwrap();
    let mut client = connect(&host, &[]).await;
    client.receives(&[":"]).await;
    assert_eq!(client.next().await, None);
}
