//! Every error is a problem document, and changes nothing.

use super::BUILD;
use crate::support::problem;
use http::{Request, StatusCode, header};
use loopless_host::console::Output;
use loopless_host::store::{Operation, Store};

#[tokio::test(start_paused = true)]
async fn a_body_that_is_neither_true_nor_false_is_400_and_changes_nothing() {
    let (host, store) = BUILD.observed().await;
    host.post("/change_event", "True").await;
    let before = store.get("event/event").await;
    let bodies: [&[u8]; 8] = [
        b"",
        b"true",
        b"TRUE",
        b"True\n",
        b" False",
        b"{\"set\": true}",
        b"\xff\xfe",
        &[b'x'; 1024],
    ];
    for body in bodies {
        let response = host.post("/change_event", body).await;
        let detail = problem(&response, StatusCode::BAD_REQUEST);
        assert!(
            detail.contains("True") && detail.contains("False"),
            "{detail}"
        );
        assert_eq!(store.get("event/event").await, before);
    }
    assert_eq!(
        store.count(Operation::Swap) + store.count(Operation::Set),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_over_1_kib_is_413() {
    let host = BUILD.start().await;
    for length in [1025, 100_000, 5_000_000] {
        let response = host.post("/change_event", vec![b'x'; length]).await;
        let detail = problem(&response, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(detail.contains("1024"), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_path_with_a_wrong_method_is_405_with_allow() {
    let host = BUILD.start().await;
    for (method, path, allowed) in [
        ("POST", "/", "GET,HEAD"),
        ("DELETE", "/", "GET,HEAD"),
        ("OPTIONS", "/", "GET,HEAD"),
        ("BREW", "/", "GET,HEAD"),
        ("GET", "/change_event", "POST"),
        ("PUT", "/change_event", "POST"),
    ] {
        let request = Request::builder().method(method).uri(path);
        let response = host.send(request.body("").unwrap()).await;
        let detail = problem(&response, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(
            response.headers()[header::ALLOW],
            allowed,
            "{method} {path}"
        );
        assert!(detail.contains(method), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_path_is_404() {
    let host = BUILD.start().await;
    for path in [
        "/nothing",
        "/change_event/",
        "//",
        "/index.html",
        "/%2e%2e/%00",
        "/?/x",
        "/%",
    ] {
        let response = host.get(path).await;
        if path == "/?/x" {
            assert_eq!(response.status(), StatusCode::OK, "a query changes no path");
        } else {
            problem(&response, StatusCode::NOT_FOUND);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_503_with_retry_after_and_loses_nothing() {
    let (host, store) = BUILD.observed().await;
    host.post("/change_event", "True").await;
    let before = store.get("event/event").await;
    store.fail("the disk is on fire");
    for response in [
        host.get("/").await,
        host.post("/change_event", "True").await,
        host.post("/change_event", "False").await,
    ] {
        let detail = problem(&response, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(detail.contains("the disk is on fire"), "{detail}");
    }
    store.recover();
    assert_eq!(store.get("event/event").await, before);
    assert_eq!(host.get("/").await.status(), StatusCode::OK);
    assert_eq!(host.printed(Output::Stderr), [""; 0], "nothing trapped");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_opened_is_503_until_it_can() {
    let store = BUILD.store().await;
    store.fail("not yet");
    let host = BUILD.on(&store).start().await.unwrap();
    problem(&host.get("/").await, StatusCode::SERVICE_UNAVAILABLE);
    let set = host.post("/change_event", "True").await;
    problem(&set, StatusCode::SERVICE_UNAVAILABLE);
    store.recover();
    let set = host.post("/change_event", "True").await;
    assert_eq!(set.status(), StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_value_under_the_events_key_is_500_and_left_alone() {
    let (host, store) = BUILD.observed().await;
    store.set("event/event", b"yes").await.unwrap();
    for response in [
        host.get("/").await,
        host.post("/change_event", "True").await,
    ] {
        let detail = problem(&response, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(detail.contains("event/event"), "{detail}");
    }
    assert_eq!(store.get("event/event").await, Ok(Some(b"yes".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn an_event_of_the_other_strategy_is_500_that_says_which_build_wrote_it() {
    let (host, store) = BUILD.observed().await;
    let (foreign, writer) = if BUILD.keeps("conditions") {
        ("7.3f9c2b8a11d04e55", "without compare-and-swap")
    } else {
        ("7", "with compare-and-swap")
    };
    store.set("event/event", foreign.as_bytes()).await.unwrap();
    for response in [
        host.get("/").await,
        host.post("/change_event", "False").await,
    ] {
        let detail = problem(&response, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(detail.contains(writer), "{detail}");
    }
    assert_eq!(store.get("event/event").await, Ok(Some(foreign.into())));
    let listed = host.get("/events").await;
    assert_eq!(listed.body(), "{\"events\":[]}");
}
