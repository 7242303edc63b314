//! Every error is a problem document, and changes nothing.

use http::{StatusCode, header};
use loopless_host::store::{Operation, Store};

use super::BUILD;
use crate::support::{problem, send, set, try_set};

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
        let names_both = detail.contains("True") && detail.contains("False");
        assert!(names_both, "{detail}");
        assert_eq!(store.get("event/event").await, before);
    }
    let writes = store.count(Operation::Swap) + store.count(Operation::Set);
    assert_eq!(writes, 1);
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
async fn a_method_that_a_path_does_not_have_is_405_with_allow() {
    let host = BUILD.start().await;
    for (method, path, allowed) in [
        ("POST", "/", "GET,HEAD"),
        ("DELETE", "/", "GET,HEAD"),
        ("OPTIONS", "/", "GET,HEAD"),
        ("BREW", "/", "GET,HEAD"),
        ("GET", "/change_event", "POST"),
        ("PUT", "/change_event", "POST"),
    ] {
        let response = send(&host, method, path, &[], "").await;
        let detail = problem(&response, StatusCode::METHOD_NOT_ALLOWED);
        let allow = &response.headers()[header::ALLOW];
        assert_eq!(allow, allowed, "{method} {path}");
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
        "/%",
    ] {
        problem(&host.get(path).await, StatusCode::NOT_FOUND);
    }
    let with_query = host.get("/?/x").await;
    assert_eq!(with_query.status(), StatusCode::OK);
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
async fn a_value_that_is_no_event_is_500_and_is_not_overwritten() {
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
async fn an_event_of_the_other_strategy_is_500_and_the_error_names_the_build_that_wrote_it() {
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

#[tokio::test(start_paused = true)]
async fn a_path_or_a_header_that_is_too_long_is_414_or_431_and_changes_nothing() {
    let (host, store) = BUILD.observed().await;
    let name = format!("door?{}", "x".repeat(1024));
    let rejected = try_set(&host, &name, true).await;
    problem(&rejected, StatusCode::URI_TOO_LONG);

    let long = "\"1\", ".repeat(4000);
    let headers = [("if-none-match", long.as_str())];
    let rejected = send(&host, "GET", "/events/door", &headers, "").await;
    problem(&rejected, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(store.keys().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_variable_with_an_invalid_value_is_500_and_the_error_names_it() {
    let host = BUILD.builder().variable("poll_last_ms", "often");
    let host = host.start().await.unwrap();
    for path in [
        "/",
        "/events/door/wait",
        "/events/door/stream",
        "/events/door",
    ] {
        let detail = problem(&host.get(path).await, StatusCode::INTERNAL_SERVER_ERROR);
        let names_it = detail.contains("poll_last_ms") && detail.contains("often");
        assert!(names_it, "{detail}");
    }
    set(&host, "door", true).await;
}
