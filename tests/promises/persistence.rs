//! The event outlives instances and hosts, and hosts share it.

use http::StatusCode;

use super::BUILD;
use loopless_host::Harness;
use loopless_host::store::Quirks;

async fn host(path: &std::path::Path, quirks: Quirks) -> Harness {
    BUILD.on_file(path).quirks(quirks).start().await.unwrap()
}

async fn is_set(host: &Harness) -> bool {
    let page = host.get("/").await;
    assert_eq!(page.status(), StatusCode::OK);
    page.body().windows(7).any(|window| window == b">Clear<")
}

#[tokio::test]
async fn the_state_survives_a_restart() {
    for &(_, quirks) in BUILD.quirks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let first = host(&path, quirks).await;
        first.post("/change_event", "True").await;
        drop(first);
        let second = host(&path, quirks).await;
        assert!(is_set(&second).await);
        second.post("/change_event", "False").await;
        drop(second);
        assert!(!is_set(&host(&path, quirks).await).await);
    }
}

#[tokio::test]
async fn two_hosts_on_one_file_see_each_others_transitions() {
    for &(_, quirks) in BUILD.quirks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let (one, two) = (host(&path, quirks).await, host(&path, quirks).await);
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
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let one = host(&path, Quirks::Exact).await;
    let two = host(&path, Quirks::Exact).await;
    let waiting = tokio::spawn(async move { one.get("/events/event/wait").await.status() });
    two.post("/change_event", "True").await;
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
}
