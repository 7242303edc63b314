//! Named events over HTTP: reads, changes, names, conditions and the list.

use http::{StatusCode, header};
use loopless_host::store::Store;
use serde_json::json;

use super::BUILD;
use crate::support::{CLEAR, SET, etag, json, problem, send, set, text};

#[tokio::test(start_paused = true)]
async fn an_event_is_read_and_changed_as_json_on_every_host() {
    for &(_, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        let shown = host.get("/events/door").await;
        assert_eq!(shown.status(), StatusCode::OK);
        let expected = json!({"name": "door", "set": false, "generation": 0});
        assert_eq!(json(&shown), expected);
        assert_eq!(shown.headers()[header::ETAG], "\"0\"");
        assert_eq!(shown.headers()[header::CACHE_CONTROL], "no-store");

        for (body, is_set, generation, changed) in [
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
                json!({"name": "door", "set": is_set, "generation": generation, "changed": changed})
            );
            let tag = etag(&put).trim_matches('"');
            assert!(BUILD.is_version(tag, generation), "{tag}");
            let shown = host.get("/events/door").await;
            let expected = json!({"name": "door", "set": is_set, "generation": generation});
            assert_eq!(json(&shown), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_event_of_the_page_is_called_event() {
    let host = BUILD.start().await;
    host.post("/change_event", "True").await;
    assert_eq!(json(&host.get("/events/event").await)["set"], true);
    set(&host, "event", false).await;
    assert!(text(&host.get("/").await).contains(">Set<"));
}

#[tokio::test(start_paused = true)]
async fn a_name_has_1_to_64_characters_that_need_no_escape_in_a_url() {
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
            let rejected = send(&host, method, &path, &[], SET).await;
            let detail = problem(&rejected, StatusCode::BAD_REQUEST);
            assert!(detail.contains("64"), "{detail}");
        }
    }
    assert_eq!(store.keys().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_invalid_change_is_400_and_changes_nothing() {
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
async fn a_read_with_the_current_entity_tag_is_304() {
    let host = BUILD.start().await;
    set(&host, "door", true).await;
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
async fn a_change_applies_to_the_state_of_if_match_only_or_if_match_is_501() {
    let (host, store) = BUILD.observed().await;
    let put_if = async |tag: &str, body: &str| {
        let headers = [("if-match", tag)];
        send(&host, "PUT", "/events/door", &headers, body).await
    };
    if !BUILD.keeps("conditions") {
        for condition in ["*", "\"0\"", "\"1\"", "x", ""] {
            let rejected = put_if(condition, SET).await;
            let detail = problem(&rejected, StatusCode::NOT_IMPLEMENTED);
            assert!(detail.contains("compare-and-swap"), "{detail}");
            problem(&put_if(condition, "x").await, StatusCode::BAD_REQUEST);
        }
        assert_eq!(store.keys().await, Ok(vec![]));
        return;
    }
    let fails = async |tag: &str, body: &str| {
        problem(&put_if(tag, body).await, StatusCode::PRECONDITION_FAILED)
    };
    fails("*", SET).await;
    fails("\"1\"", SET).await;
    let changed = put_if("\"0\"", SET).await;
    assert_eq!(json(&changed)["generation"], 1);
    let tag = etag(&changed);
    let detail = fails("\"0\"", CLEAR).await;
    assert!(detail.contains("generation 1"), "{detail}");
    fails(&format!("W/{tag}"), CLEAR).await;
    let detail = fails(tag.trim_matches('"'), CLEAR).await;
    assert!(detail.contains(&format!("{tag}, in quotes")), "{detail}");
    // A tag that is only a generation matches no change that led to it.
    fails("\"1\"", CLEAR).await;
    assert_eq!(json(&host.get("/events/door").await)["generation"], 1);
    let cleared = put_if(&format!("\"9\", {tag}"), CLEAR).await;
    assert_eq!(json(&cleared)["generation"], 2);
    assert_eq!(json(&put_if("*", SET).await)["generation"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_browser_gets_a_page_for_the_event() {
    let host = BUILD.start().await;
    set(&host, "door", true).await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = send(&host, "GET", "/events/door", &[("accept", browser)], "").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(text(&page).contains(">Clear<"));
    assert!(text(&page).contains("action=\"/events/door\""));
    let vary = page.headers()[header::VARY].to_str().unwrap();
    assert!(vary.contains("accept"), "{vary}");
    for other in ["*/*", "application/json, text/html", "application/json"] {
        let shown = send(&host, "GET", "/events/door", &[("accept", other)], "").await;
        assert_eq!(json(&shown)["set"], true, "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_event_is_clear_and_never_has_an_earlier_tag_again() {
    for &(_, quirks) in BUILD.quirks() {
        let host = BUILD.builder().quirks(quirks).start().await.unwrap();
        set(&host, "door", true).await;
        let cleared = set(&host, "door", false).await;
        let forgotten = send(&host, "DELETE", "/events/door", &[], "").await;
        assert_eq!(forgotten.status(), StatusCode::NO_CONTENT);
        assert!(!forgotten.headers().contains_key(header::CONTENT_LENGTH));

        // Without counted generations, they start again from 0. The tags still differ.
        let generation = if BUILD.keeps("counted") { 4 } else { 0 };
        let expected = json!({"name": "door", "set": false, "generation": generation});
        assert_eq!(json(&host.get("/events/door").await), expected);
        set(&host, "door", true).await;
        let again = set(&host, "door", false).await;
        assert_eq!(json(&again)["generation"], generation + 2);
        assert_ne!(etag(&again), etag(&cleared));

        let never = send(&host, "DELETE", "/events/never", &[], "").await;
        assert_eq!(never.status(), StatusCode::NO_CONTENT);
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_listed_in_pages_in_the_order_of_their_names() {
    let host = BUILD.start().await;
    assert_eq!(json(&host.get("/events").await), json!({"events": []}));
    for name in ["e", "b", "d", "a", "c", "gone"] {
        set(&host, name, true).await;
    }
    set(&host, "b", false).await;
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
        let link = page.headers().get(header::LINK);
        let expected = path.as_ref().map(|path| format!("<{path}>; rel=\"next\""));
        assert_eq!(link.map(|link| link.to_str().unwrap()), expected.as_deref());
        pages += 1;
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(pages, 3);
    let all = json(&host.get("/events").await);
    let expected = json!({"name": "b", "set": false, "generation": 2});
    assert_eq!(all["events"][1], expected);

    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "after=a%20b",
        "before=a",
        "limit=1&limit=2",
    ] {
        let rejected = host.get(&format!("/events?{query}")).await;
        problem(&rejected, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test(start_paused = true)]
async fn a_form_changes_the_event_and_redirects_to_its_page() {
    let host = BUILD.start().await;
    for (path, page) in [("/change_event", "/"), ("/events/door", "/events/door")] {
        for (body, is_set) in [("state=True", true), ("state=False", false)] {
            let form = [("content-type", "application/x-www-form-urlencoded")];
            let changed = send(&host, "POST", path, &form, body).await;
            assert_eq!(changed.status(), StatusCode::SEE_OTHER);
            assert_eq!(changed.headers()[header::LOCATION], page);
            let name = if page == "/" { "/events/event" } else { page };
            assert_eq!(json(&host.get(name).await)["set"], is_set);
        }
        for wrong in [
            "state=",
            "state=true",
            "state=True&state=False",
            "state=True&x=1",
        ] {
            let rejected = host.post(path, wrong).await;
            problem(&rejected, StatusCode::BAD_REQUEST);
        }
    }
}
