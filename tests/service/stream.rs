//! The service's lines as a stream.

use http::StatusCode;
use loopless_host::store::{Memory, Observed, Quirks};
use loopless_host::{Harness, Reuse};
use tokio::time::{Instant, sleep};

use super::{SECOND, host_on, start, status, stop};
use crate::support::sse::Client;

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
