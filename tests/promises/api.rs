//! Named events over HTTP.

use std::time::Duration;

use super::BUILD;
use crate::support::{etag, json, problem, send, text};
use http::{StatusCode, header};
use loopless_host::store::{Backup, Operation, Store};
use loopless_host::{Harness, Reuse};
use serde_json::json;
use tokio::time::{Instant, sleep};

const SET: &str = "{\"set\": true}";
const CLEAR: &str = "{\"set\": false}";

/// Sets or clears an event, and checks that this works.
async fn put(host: &Harness, name: &str, body: &str) {
    let response = send(host, "PUT", &format!("/events/{name}"), &[], body).await;
    assert_eq!(response.status(), StatusCode::OK, "{}", text(&response));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_shown_and_changed_as_json_on_every_host() {
    for &(_, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        let shown = host.get("/events/door").await;
        assert_eq!(shown.status(), StatusCode::OK);
        let expected = json!({"name": "door", "set": false, "generation": 0});
        assert_eq!(json(&shown), expected);
        assert_eq!(shown.headers()[header::ETAG], "\"0\"");
        assert_eq!(shown.headers()[header::CACHE_CONTROL], "no-store");

        for (body, set, generation, changed) in [
            (CLEAR, false, 0, false),
            (SET, true, 1, true),
            (SET, true, 1, false),
            (CLEAR, false, 2, true),
            (SET, true, 3, true),
        ] {
            let put = send(&host, "PUT", "/events/door", &[], body).await;
            assert_eq!(put.status(), StatusCode::OK);
            assert_eq!(
                json(&put),
                json!({"name": "door", "set": set, "generation": generation, "changed": changed})
            );
            let tag = etag(&put).trim_matches('"');
            assert!(BUILD.is_version(tag, generation), "{tag}");
            let shown = host.get("/events/door").await;
            let expected = json!({"name": "door", "set": set, "generation": generation});
            assert_eq!(json(&shown), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_demos_event_is_called_event() {
    let host = BUILD.start().await;
    host.post("/change_event", "True").await;
    assert_eq!(json(&host.get("/events/event").await)["set"], true);
    put(&host, "event", CLEAR).await;
    assert!(text(&host.get("/").await).contains(">Set<"));
}

#[tokio::test(start_paused = true)]
async fn names_have_1_to_64_of_the_characters_that_urls_leave_alone() {
    let (host, store) = BUILD.observed().await;
    let longest = "x".repeat(64);
    for name in ["a", "A.b_c~d-9", "%41", &longest] {
        let shown = host.get(&format!("/events/{name}")).await;
        assert_eq!(shown.status(), StatusCode::OK, "{name}");
    }
    let too_long = "x".repeat(65);
    for name in [
        ".", "..", "%2E", "%2e%2E", "a%20b", "a%2Fb", "%C3%A9", "%FF", "a:b", "a+b", "%00", "a%25",
        &too_long,
    ] {
        for (method, path) in [
            ("GET", ""),
            ("PUT", ""),
            ("DELETE", ""),
            ("GET", "/wait"),
            ("GET", "/stream"),
        ] {
            let path = format!("/events/{name}{path}");
            let detail = problem(
                &send(&host, method, &path, &[], SET).await,
                StatusCode::BAD_REQUEST,
            );
            assert!(detail.contains("64"), "{detail}");
        }
    }
    assert_eq!(store.keys().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_makes_no_sense_is_400_and_changes_nothing() {
    let (host, store) = BUILD.observed().await;
    for body in [
        "",
        "true",
        "{}",
        "[]",
        "{\"set\": 1}",
        "{\"set\": \"true\"}",
        "{\"set\": null}",
        "{\"set\": true",
        "{\"set\": true, \"generation\": 7}",
        "{\"set\": true}{\"set\": true}",
        "True",
    ] {
        let response = send(&host, "PUT", "/events/door", &[], body).await;
        let detail = problem(&response, StatusCode::BAD_REQUEST);
        assert!(detail.contains("{\"set\": true}"), "{detail}");
    }
    let long = format!("{{\"set\": true}}{}", " ".repeat(2000));
    let response = send(&host, "PUT", "/events/door", &[], &long).await;
    problem(&response, StatusCode::PAYLOAD_TOO_LARGE);
    let response = send(&host, "PUT", "/events/door?force=1", &[], SET).await;
    assert!(problem(&response, StatusCode::BAD_REQUEST).contains("force"));
    assert_eq!(store.keys().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_knows_the_state_gets_304() {
    let host = BUILD.start().await;
    put(&host, "door", SET).await;
    let shown = host.get("/events/door").await;
    let tag = etag(&shown);
    for known in [
        tag,
        &format!("W/{tag}"),
        &format!("\"7\", {tag}"),
        &format!("\"a,b\",,{tag}"),
        "*",
    ] {
        let headers = [("if-none-match", known)];
        let response = send(&host, "GET", "/events/door", &headers, "").await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(etag(&response), tag);
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        assert!(response.body().is_empty());
    }
    let unquoted = tag.trim_matches('"');
    for other in ["\"0\"", "\"2\"", unquoted, "\"01\"", "\"+1\"", "\"x\"", ""] {
        let headers = [("if-none-match", other)];
        let response = send(&host, "GET", "/events/door", &headers, "").await;
        assert_eq!(response.status(), StatusCode::OK, "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_can_be_made_from_one_generation_only_or_such_a_change_is_refused() {
    let (host, store) = BUILD.observed().await;
    let put_if = async |tag, body| {
        let headers = [("if-match", tag)];
        send(&host, "PUT", "/events/door", &headers, body).await
    };
    if !BUILD.keeps("conditions") {
        for condition in ["*", "\"0\"", "\"1\"", "x", ""] {
            let refused = put_if(condition, SET).await;
            let detail = problem(&refused, StatusCode::NOT_IMPLEMENTED);
            assert!(detail.contains("compare-and-swap"), "{detail}");
            problem(&put_if(condition, "x").await, StatusCode::BAD_REQUEST);
        }
        assert_eq!(store.keys().await, Ok(vec![]));
        return;
    }
    problem(&put_if("*", SET).await, StatusCode::PRECONDITION_FAILED);
    problem(&put_if("\"1\"", SET).await, StatusCode::PRECONDITION_FAILED);
    let set = put_if("\"0\"", SET).await;
    assert_eq!(json(&set)["generation"], 1);
    let tag = etag(&set);
    let unquoted = tag.trim_matches('"');
    let (weak, several) = (format!("W/{tag}"), format!("\"9\", {tag}"));
    let detail = problem(
        &put_if("\"0\"", CLEAR).await,
        StatusCode::PRECONDITION_FAILED,
    );
    assert!(detail.contains("generation 1"), "{detail}");
    problem(&put_if(&weak, CLEAR).await, StatusCode::PRECONDITION_FAILED);
    let detail = problem(
        &put_if(unquoted, CLEAR).await,
        StatusCode::PRECONDITION_FAILED,
    );
    assert!(detail.contains(&format!("{tag}, in quotes")), "{detail}");
    // The generation alone is any change's that led to it.
    problem(
        &put_if("\"1\"", CLEAR).await,
        StatusCode::PRECONDITION_FAILED,
    );
    assert_eq!(json(&host.get("/events/door").await)["generation"], 1);
    let cleared = put_if(&several, CLEAR).await;
    assert_eq!(json(&cleared)["generation"], 2);
    assert_eq!(json(&put_if("*", SET).await)["generation"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_browser_gets_a_page_for_the_event() {
    let host = BUILD.start().await;
    put(&host, "door", SET).await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = send(&host, "GET", "/events/door", &[("accept", browser)], "").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(text(&page).contains(">Clear<"));
    assert!(text(&page).contains("action=\"/events/door\""));
    assert!(
        page.headers()[header::VARY]
            .to_str()
            .unwrap()
            .contains("accept")
    );
    for other in ["*/*", "application/json, text/html", "application/json"] {
        let shown = send(&host, "GET", "/events/door", &[("accept", other)], "").await;
        assert_eq!(json(&shown)["set"], true, "{other}");
    }
}

/// Sends this after `delay`, while something else waits.
async fn later(host: &Harness, delay: Duration, method: &str, path: &str, body: &str) {
    sleep(delay).await;
    let status = send(host, method, path, &[], body).await.status();
    assert!(status.is_success());
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_answers_when_the_generation_differs() {
    let host = BUILD.start().await;
    let known = [("if-none-match", "\"0\"")];
    let began = Instant::now();
    let (shown, ()) = tokio::join!(
        send(&host, "GET", "/events/door?wait=20", &known, ""),
        later(&host, Duration::from_secs(7), "PUT", "/events/door", SET),
    );
    assert_eq!(json(&shown)["generation"], 1);
    assert!(began.elapsed() < Duration::from_millis(7200));

    // A generation that differs already needs no waiting.
    let began = Instant::now();
    let shown = send(&host, "GET", "/events/door?wait=20", &known, "").await;
    assert_eq!(json(&shown)["generation"], 1);
    assert_eq!(began.elapsed(), Duration::ZERO);

    let known = [("if-none-match", etag(&shown))];
    let began = Instant::now();
    let same = send(&host, "GET", "/events/door?wait=2.5", &known, "").await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(etag(&same), etag(&shown));
    assert!(began.elapsed() >= Duration::from_millis(2500));
    assert!(began.elapsed() <= Duration::from_millis(2600));

    // Without a generation to differ from, there is nothing to wait for.
    let began = Instant::now();
    assert_eq!(
        host.get("/events/door?wait=20").await.status(),
        StatusCode::OK
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn prefer_wait_is_a_long_poll_that_is_acknowledged() {
    let host = BUILD.start().await;
    let headers = [
        ("if-none-match", "\"0\""),
        ("prefer", "respond-async, wait=3"),
    ];
    let began = Instant::now();
    let shown = send(&host, "GET", "/events/door", &headers, "").await;
    assert_eq!(shown.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(shown.headers()["preference-applied"], "wait=3");
    assert!(began.elapsed() >= Duration::from_secs(3));

    let headers = [("if-none-match", "\"0\""), ("prefer", "wait=1000")];
    let (shown, ()) = tokio::join!(
        send(&host, "GET", "/events/door", &headers, ""),
        later(&host, Duration::from_secs(1), "PUT", "/events/door", SET),
    );
    assert_eq!(json(&shown)["generation"], 1);
    assert_eq!(shown.headers()["preference-applied"], "wait=25");

    let headers = [("if-none-match", etag(&shown)), ("prefer", "wait=soon")];
    let shown = send(&host, "GET", "/events/door", &headers, "").await;
    assert_eq!(shown.status(), StatusCode::NOT_MODIFIED);
    assert!(!shown.headers().contains_key("preference-applied"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_set_also_with_a_pulse_and_with_408_at_its_timeout() {
    for &(_, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        let began = Instant::now();
        let timed_out = host.get("/events/door/wait?timeout=3").await;
        let detail = problem(&timed_out, StatusCode::REQUEST_TIMEOUT);
        assert!(detail.contains("3 s"), "{detail}");
        assert!(began.elapsed() >= Duration::from_secs(3));

        let (waited, ()) = tokio::join!(host.get("/events/door/wait"), async {
            sleep(Duration::from_secs(9)).await;
            put(&host, "door", SET).await;
            put(&host, "door", CLEAR).await;
        });
        // The wait may share what the clear has read.
        let shown = json(&waited);
        assert!(
            shown["generation"] == 1 || shown["generation"] == 2,
            "a pulse"
        );

        put(&host, "door", SET).await;
        let began = Instant::now();
        let waited = host.get("/events/door/wait?timeout=0").await;
        assert_eq!(json(&waited)["set"], true);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn waits_are_capped_and_must_make_sense() {
    let host = BUILD.start().await;
    for path in ["/events/door?wait=", "/events/door/wait?timeout="] {
        for time in [
            "25.1", "26", "1e9", "-1", "x", "", "NaN", "inf", "+1", "1s", "0x1", ".",
        ] {
            let response = host.get(&format!("{path}{time}")).await;
            let detail = problem(&response, StatusCode::BAD_REQUEST);
            assert!(detail.contains("from 0 to 25"), "{detail}");
        }
    }
    for path in [
        "/events/door/wait?wait=1",
        "/events/door?timeout=1",
        "/events/door?wait=1&wait=2",
    ] {
        problem(&host.get(path).await, StatusCode::BAD_REQUEST);
    }
    let host = BUILD.builder().variable("wait_max_seconds", "60");
    let host = host.start().await.unwrap();
    let began = Instant::now();
    problem(
        &host.get("/events/door/wait").await,
        StatusCode::REQUEST_TIMEOUT,
    );
    assert!(began.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_cannot_be_used_is_an_error_that_names_it() {
    let host = BUILD.builder().variable("poll_last_ms", "often");
    let host = host.start().await.unwrap();
    for path in [
        "/",
        "/events/door/wait",
        "/events/door/stream",
        "/events/door",
    ] {
        let detail = problem(&host.get(path).await, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            detail.contains("poll_last_ms") && detail.contains("often"),
            "{detail}"
        );
    }
    put(&host, "door", SET).await;
}

#[tokio::test(start_paused = true)]
async fn variables_set_how_often_a_wait_reads() {
    let mut counts = Vec::new();
    for last in ["100", "1000"] {
        let store = BUILD.store().await;
        let host = BUILD
            .on(&store)
            .variable("poll_last_ms", last)
            .variable("poll_first_ms", "50");
        let host = host.start().await.unwrap();
        host.get("/events/door/wait?timeout=25").await;
        counts.push(store.count(Operation::Get));
    }
    assert!(counts[0] <= 300, "{counts:?}");
    assert!(counts[1] * 2 < counts[0], "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn sixteen_waiters_in_an_instance_cost_hardly_more_than_one() {
    let mut counts = Vec::new();
    for waiters in [1, 16] {
        let store = BUILD.store().await;
        let builder = BUILD.on(&store).reuse(Reuse {
            // One more than there are: with the last one, a full instance makes the host start the next.
            concurrent_requests: 17,
            ..Reuse::default()
        });
        let host = builder.start().await.unwrap();
        host.get("/events/door").await;
        sleep(Duration::from_millis(1)).await;
        let before = store.count(Operation::Get);
        let mut waits = tokio::task::JoinSet::new();
        for _ in 0..waiters {
            let host = host.clone();
            waits.spawn(async move { host.get("/events/door/wait?timeout=10").await.status() });
            // At the very same moment, the host would make an instance for each.
            sleep(Duration::from_millis(1)).await;
        }
        for status in waits.join_all().await {
            assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
        }
        let instances = if BUILD.has_wasi_0_3() { 1 } else { 1 + waiters };
        assert_eq!(host.instances(), instances);
        counts.push(store.count(Operation::Get) - before);
    }
    println!(
        "reads in 10 s: {} by one waiter, {} by sixteen",
        counts[0], counts[1]
    );
    let streams = if BUILD.keeps("shared-reads") { 1 } else { 16 };
    assert!(counts[1] * 10 <= counts[0] * streams * 12, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_event_is_clear_its_waiters_get_410_and_no_tag_comes_back() {
    for &(_, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        put(&host, "door", SET).await;
        put(&host, "door", CLEAR).await;
        let cleared = host.get("/events/door").await;
        let known = [("if-none-match", etag(&cleared))];
        let (waited, polled, ()) = tokio::join!(
            host.get("/events/door/wait"),
            send(&host, "GET", "/events/door?wait=20", &known, ""),
            later(&host, Duration::from_secs(5), "DELETE", "/events/door", ""),
        );
        problem(&waited, StatusCode::GONE);
        problem(&polled, StatusCode::GONE);

        let shown = host.get("/events/door").await;
        // Tags tell events of one name apart, where generations begin anew.
        let generation = if BUILD.keeps("counted") { 4 } else { 0 };
        let expected = json!({"name": "door", "set": false, "generation": generation});
        assert_eq!(json(&shown), expected);
        put(&host, "door", SET).await;
        put(&host, "door", CLEAR).await;
        let again = host.get("/events/door").await;
        assert_eq!(json(&again)["generation"], generation + 2);
        assert_ne!(etag(&again), etag(&cleared));

        let again = send(&host, "DELETE", "/events/door", &[], "").await;
        assert_eq!(again.status(), StatusCode::NO_CONTENT);
        assert!(!again.headers().contains_key(header::CONTENT_LENGTH));
        let never = send(&host, "DELETE", "/events/never", &[], "").await;
        assert_eq!(never.status(), StatusCode::NO_CONTENT);
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_goes_by_pages_in_the_order_of_names() {
    let host = BUILD.start().await;
    assert_eq!(json(&host.get("/events").await), json!({"events": []}));
    for name in ["e", "b", "d", "a", "c", "gone"] {
        put(&host, name, SET).await;
    }
    put(&host, "b", CLEAR).await;
    send(&host, "DELETE", "/events/gone", &[], "").await;

    let mut names = Vec::new();
    let mut path = Some("/events?limit=2".to_owned());
    let mut pages = 0;
    while let Some(page) = path {
        let page = host.get(&page).await;
        let list = json(&page);
        for event in list["events"].as_array().unwrap() {
            names.push(event["name"].as_str().unwrap().to_owned());
        }
        path = list["next"].as_str().map(str::to_owned);
        let link = page
            .headers()
            .get(header::LINK)
            .map(|l| l.to_str().unwrap().to_owned());
        assert_eq!(
            link,
            path.as_ref().map(|path| format!("<{path}>; rel=\"next\""))
        );
        pages += 1;
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(pages, 3);
    let all = json(&host.get("/events").await);
    assert_eq!(
        all["events"][1],
        json!({"name": "b", "set": false, "generation": 2})
    );

    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "after=a%20b",
        "before=a",
        "limit=1&limit=2",
    ] {
        problem(
            &host.get(&format!("/events?{query}")).await,
            StatusCode::BAD_REQUEST,
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_503_on_every_route() {
    let (host, store) = BUILD.observed().await;
    put(&host, "door", SET).await;
    store.fail("down");
    for (method, path) in [
        ("GET", "/events"),
        ("GET", "/events/door"),
        ("PUT", "/events/door"),
        ("DELETE", "/events/door"),
        ("GET", "/events/door/wait"),
        ("GET", "/events/door/stream"),
    ] {
        let response = send(&host, method, path, &[], CLEAR).await;
        problem(&response, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1", "{path}");
    }
    store.recover();
    assert_eq!(json(&host.get("/events/door").await)["generation"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_outlasts_a_store_that_fails_for_a_while() {
    let (host, store) = BUILD.observed().await;
    let (waited, ()) = tokio::join!(host.get("/events/door/wait"), async {
        sleep(Duration::from_secs(2)).await;
        store.fail("down");
        sleep(Duration::from_secs(10)).await;
        store.recover();
        put(&host, "door", SET).await;
    });
    assert_eq!(json(&waited)["set"], true);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_wiped_or_restored_is_believed_whatever_was_read_before() {
    for is_wiped in [true, false] {
        let (host, store) = BUILD.observed().await;
        put(&host, "door", SET).await;
        put(&host, "door", CLEAR).await;
        let backup = if is_wiped {
            Backup::default()
        } else {
            store.backup().await.unwrap()
        };
        put(&host, "door", SET).await;
        put(&host, "door", CLEAR).await;
        let generation = if is_wiped { 0 } else { 2 };
        let go_back = async || store.restore(&backup).await.unwrap();

        // A wait that is under way ends on the next set. Without an order of versions, what has gone looks forgotten, and
        // what has come back looks like a change.
        let (waited, ()) = tokio::join!(host.get("/events/door/wait"), async {
            sleep(Duration::from_secs(5)).await;
            go_back().await;
            sleep(Duration::from_secs(5)).await;
            let shown = host.get("/events/door").await;
            assert_eq!(json(&shown)["generation"], generation);
            put(&host, "door", SET).await;
        });
        if BUILD.keeps("counted") {
            assert_eq!(json(&waited)["generation"], generation + 1);
        } else if is_wiped {
            problem(&waited, StatusCode::GONE);
        } else {
            assert_eq!(json(&waited)["generation"], 2);
        }

        // A wait that begins afterwards knows nothing of before.
        go_back().await;
        let waited = host.get("/events/door/wait?timeout=1").await;
        problem(&waited, StatusCode::REQUEST_TIMEOUT);
        let (waited, ()) = tokio::join!(
            host.get("/events/door/wait"),
            later(&host, Duration::from_secs(5), "PUT", "/events/door", SET),
        );
        assert_eq!(json(&waited)["generation"], generation + 1);
    }
}
