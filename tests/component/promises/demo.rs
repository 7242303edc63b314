//! The original's application: one page, one button, one event.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use loopless_host::Reuse;
use loopless_host::store::{Operation, Quirks, Store};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::BUILD;
use crate::support::text;

/// The label of the page's only button.
fn button(response: &Response<Bytes>) -> &str {
    assert_eq!(response.status(), StatusCode::OK, "{}", text(response));
    let (_, rest) = text(response).split_once("<button").unwrap();
    let (button, rest) = rest.split_once("</button>").unwrap();
    assert!(!rest.contains("<button"), "one button");
    button.split_once('>').unwrap().1
}

#[tokio::test(start_paused = true)]
async fn the_button_offers_the_other_state_on_every_host() {
    for &(name, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        assert_eq!(button(&host.get("/").await), "Set", "{name}");
        for _ in 0..2 {
            let set = host.post("/change_event", "True").await;
            assert_eq!(set.status(), StatusCode::NO_CONTENT, "{name}");
            assert!(set.body().is_empty());
            assert_eq!(button(&host.get("/").await), "Clear", "{name}");
            let cleared = host.post("/change_event", "False").await;
            assert_eq!(cleared.status(), StatusCode::NO_CONTENT, "{name}");
            assert_eq!(button(&host.get("/").await), "Set", "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_is_html_and_is_not_cached() {
    let host = BUILD.start().await;
    let page = host.get("/").await;
    assert_eq!(
        page.headers()[header::CONTENT_TYPE],
        "text/html; charset=utf-8"
    );
    assert_eq!(page.headers()[header::CACHE_CONTROL], "no-store");
    assert!(text(&page).contains("<button name=\"state\" value=\"True\">"));
}

#[tokio::test(start_paused = true)]
async fn a_change_has_no_body_and_no_length() {
    let host = BUILD.start().await;
    let changed = host.post("/change_event", "True").await;
    assert!(!changed.headers().contains_key(header::CONTENT_LENGTH));
    assert!(!changed.headers().contains_key(header::CONTENT_TYPE));
    assert_eq!(changed.headers()[header::CACHE_CONTROL], "no-store");
}

#[tokio::test(start_paused = true)]
async fn head_answers_as_get_without_the_body() {
    let host = BUILD.start().await;
    host.post("/change_event", "True").await;
    let get = host.get("/").await;
    let head = host.send(Request::head("/").body("").unwrap()).await;
    assert_eq!(head.status(), get.status());
    assert_eq!(
        head.headers()[header::CONTENT_TYPE],
        get.headers()[header::CONTENT_TYPE]
    );
    // A host of WASI 0.2 would expect a body of this length.
    let length = head.headers().get(header::CONTENT_LENGTH);
    let expected = BUILD.has_wasi_0_3().then(|| get.body().len().to_string());
    assert_eq!(
        length.map(|length| length.to_str().unwrap()),
        expected.as_deref()
    );
    assert!(head.body().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_page_waits_100_ms_for_a_clear_event_and_not_at_all_for_a_set_one() {
    let host = BUILD.start().await;
    let began = Instant::now();
    host.get("/").await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(100), "{waited:?}");
    assert!(waited <= Duration::from_millis(106), "{waited:?}");

    host.post("/change_event", "True").await;
    let began = Instant::now();
    host.get("/").await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_set_during_the_wait_is_shown_at_once() {
    let host = BUILD.start().await;
    let began = Instant::now();
    let waiting = tokio::spawn({
        let host = host.clone();
        async move { host.get("/").await }
    });
    sleep(Duration::from_millis(30)).await;
    host.post("/change_event", "True").await;
    assert_eq!(button(&waiting.await.unwrap()), "Clear");
    assert!(began.elapsed() < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn the_page_of_a_set_event_costs_one_read_and_the_store_is_opened_once_an_instance() {
    let (host, store) = BUILD.observed().await;
    host.post("/change_event", "True").await;
    let reads = store.count(Operation::Get);
    for _ in 0..50 {
        assert_eq!(button(&host.get("/").await), "Clear");
    }
    assert_eq!(store.count(Operation::Get) - reads, 50);
    // Once for Spin's interface, and once for the interface of compare-and-swap if the build uses it.
    let opened = 1 + u64::from(BUILD.keeps("conditions") && BUILD.has_key_value());
    let (instances, opened) = if BUILD.has_wasi_0_3() {
        (1, opened)
    } else {
        (51, 51)
    };
    assert_eq!(host.instances(), instances);
    assert_eq!(store.count(Operation::Open), opened);
}

#[tokio::test(start_paused = true)]
async fn the_state_is_a_generation_under_the_events_name() {
    let (host, store) = BUILD.observed().await;
    host.get("/").await;
    assert_eq!(store.keys().await, Ok(vec![]), "a read writes nothing");
    for (body, generation) in [("True", 1), ("True", 1), ("False", 2), ("True", 3)] {
        host.post("/change_event", body).await;
        let value = store.get("event/event").await.unwrap().unwrap();
        assert_eq!(BUILD.generation(&value), generation);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_in_many_instances_see_one_event() {
    let host = BUILD
        .builder()
        .reuse(Reuse {
            requests: 1,
            ..Reuse::default()
        })
        .start()
        .await
        .unwrap();
    for (body, expected) in [("True", "Clear"), ("False", "Set"), ("True", "Clear")] {
        host.post("/change_event", body).await;
        assert_eq!(button(&host.get("/").await), expected);
    }
    assert_eq!(host.instances(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_sets_at_once_make_one_transition_on_every_host() {
    for &(name, quirks) in BUILD.quirks() {
        let store = BUILD.store().await;
        let host = BUILD.on(&store).quirks(quirks).start().await.unwrap();
        let mut sets = JoinSet::new();
        for _ in 0..100 {
            let host = host.clone();
            sets.spawn(async move { host.post("/change_event", "True").await.status() });
        }
        for status in sets.join_all().await {
            assert_eq!(status, StatusCode::NO_CONTENT, "{name}");
        }
        host.post("/change_event", "False").await;
        host.post("/change_event", "True").await;
        let value = store.get("event/event").await.unwrap().unwrap();
        assert_eq!(BUILD.generation(&value), 3, "{name}");
        // Spin's SQLite store increments only values of eight bytes.
        assert!(quirks != Quirks::SpinSqlite || value.len() == 8, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_go_on_after_an_instance_has_used_up_its_swaps() {
    for &(name, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        for body in ["True", "False"].repeat(200) {
            let changed = host.post("/change_event", body).await;
            assert_eq!(changed.status(), StatusCode::NO_CONTENT, "{name}");
        }
        // On Spin, an instance can make 256 swaps. It is dropped before.
        assert!(host.instances() > 1);
    }
}
