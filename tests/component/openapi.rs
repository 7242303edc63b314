//! `/openapi.json` agrees with the code.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{StatusCode, header};
use loopless::event::Name;
use loopless::promises::PROMISES;
use loopless::settings::Settings;
use loopless_host::Harness;
use serde_json::{Value, json as value};

use crate::support::{Build, json, problem, send};

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

async fn description(host: &Harness) -> Value {
    let described = host.get("/openapi.json").await;
    assert_eq!(described.status(), StatusCode::OK);
    json(&described)
}

#[tokio::test(start_paused = true)]
async fn every_path_has_the_methods_of_its_description_and_no_others() {
    let host = Harness::start().await.unwrap();
    let description = description(&host).await;
    let paths = description["paths"].as_object().unwrap();
    for (path, item) in paths {
        let item = item.as_object().unwrap();
        let mut described: BTreeSet<String> = item.keys().map(|key| key.to_uppercase()).collect();
        described.remove("PARAMETERS");
        // HTTP requires HEAD for every path with GET.
        if described.contains("GET") {
            described.insert("HEAD".into());
        }
        for method in METHODS {
            let path = path.replace("{name}", "door");
            // No route has this parameter, so a method that exists rejects it and does nothing.
            let response = send(&host, method, &format!("{path}?nonsense=1"), &[], "").await;
            if response.status() == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = response.headers()[header::ALLOW].to_str().unwrap();
                let allowed: BTreeSet<String> = allowed.split(',').map(str::to_owned).collect();
                assert_eq!(allowed, described, "{method} {path}");
                assert!(!described.contains(method), "{method} {path}");
            } else {
                assert!(described.contains(method), "{method} {path}");
                assert_ne!(response.status(), StatusCode::NOT_FOUND, "{path}");
            }
        }
    }
}

#[test]
fn every_route_is_described() {
    let described: Value = serde_json::from_str(include_str!("../../src/openapi.json")).unwrap();
    let described: BTreeSet<&str> = described["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let routes: BTreeSet<&str> = include_str!("../../src/routes.rs")
        .split(".route(")
        .skip(1)
        .filter_map(|route| route.split('"').nth(1))
        .collect();
    assert_eq!(described, routes);
}

#[tokio::test(start_paused = true)]
async fn the_limits_are_those_of_the_code() {
    let host = Harness::start().await.unwrap();
    let described = description(&host).await;
    let schemas = &described["components"]["schemas"];
    assert_eq!(schemas["Name"]["maxLength"], Name::LONGEST);
    let pattern = schemas["Name"]["pattern"].as_str().unwrap();
    assert_eq!(pattern, r"^(?!\.\.?$)[A-Za-z0-9._~-]+$");
    for byte in 0..=127_u8 {
        let text = char::from(byte).to_string();
        let is_described = byte.is_ascii_alphanumeric() || "_~-".contains(&text);
        assert_eq!(Name::new(&text).is_some(), is_described, "{text:?}");
    }
    let most = Settings::default().wait_max;
    assert_eq!(schemas["Seconds"]["maximum"], most.as_secs());
    assert_eq!(most, Duration::from_secs(25));
    assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));

    let parameters = described["paths"]["/events"]["get"]["parameters"].as_array();
    let limit = parameters.unwrap().iter().find(|p| p["name"] == "limit");
    let most = limit.unwrap()["schema"]["maximum"].as_u64().unwrap();
    let page = host.get(&format!("/events?limit={most}")).await;
    assert_eq!(page.status(), StatusCode::OK);
    let page = host.get(&format!("/events?limit={}", most + 1)).await;
    problem(&page, StatusCode::BAD_REQUEST);

    let host = Harness::builder().variable("wait_max_seconds", "7");
    let described = description(&host.start().await.unwrap()).await;
    assert_eq!(described["components"]["schemas"]["Seconds"]["maximum"], 7);
}

#[tokio::test(start_paused = true)]
async fn the_description_lists_the_promises_of_the_build() {
    for build in Build::ALL {
        let described = description(&build.start().await).await;
        let ids = PROMISES.iter().map(|promise| promise.id);
        let kept: Vec<_> = ids.filter(|id| build.keeps(id)).collect();
        assert_eq!(described["info"]["x-loopless"]["promises"], value!(kept));
    }
}

/// The host does not depend on this crate, so it lists the promises again.
#[test]
fn the_hosts_list_of_promises_is_complete() {
    let contract = include_str!("../harness/src/bin/loopless-host/contract.rs");
    let variant = |id: &str| -> String {
        let words = id
            .split('-')
            .map(|word| word[..1].to_uppercase() + &word[1..]);
        format!("    {},\n", words.collect::<String>())
    };
    let variants = PROMISES.iter().map(|promise| variant(promise.id));
    let missing: Vec<_> = variants
        .filter(|variant| !contract.contains(variant))
        .collect();
    assert_eq!(missing, [""; 0]);
}
