//! The event outlives instances and hosts, and hosts share it.

use http::StatusCode;
use loopless_host::Harness;
use loopless_host::store::Quirks;

use super::BUILD;
use crate::support::{Kept, json};

async fn host(kept: &Kept, quirks: Quirks) -> Harness {
    kept.builder().quirks(quirks).start().await.unwrap()
}

async fn is_set(host: &Harness) -> bool {
    json(&host.get("/events/event").await)["set"] == true
}

#[tokio::test]
async fn the_state_survives_a_restart() {
    for &(_, quirks) in BUILD.quirks() {
        let kept = BUILD.kept();
        let first = host(&kept, quirks).await;
        first.post("/change_event", "True").await;
        drop(first);
        let second = host(&kept, quirks).await;
        assert!(is_set(&second).await);
        second.post("/change_event", "False").await;
        drop(second);
        assert!(!is_set(&host(&kept, quirks).await).await);
    }
}

#[tokio::test]
async fn two_hosts_on_one_store_see_each_others_transitions() {
    for &(_, quirks) in BUILD.quirks() {
        let kept = BUILD.kept();
        let (one, two) = (host(&kept, quirks).await, host(&kept, quirks).await);
        for _ in 0..3 {
            one.post("/change_event", "True").await;
            assert!(is_set(&two).await);
            two.post("/change_event", "False").await;
            assert!(!is_set(&one).await);
        }
    }
}

#[tokio::test]
async fn a_set_on_one_host_ends_a_wait_on_the_other() {
    let kept = BUILD.kept();
    let one = host(&kept, Quirks::Exact).await;
    let two = host(&kept, Quirks::Exact).await;
    let waiting = tokio::spawn(async move { one.get("/events/event/wait").await.status() });
    two.post("/change_event", "True").await;
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
}
