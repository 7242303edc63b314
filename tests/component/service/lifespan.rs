//! The lifespan of the application: what the operator's host requests at its start and before its end.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use loopless_host::Harness;
use loopless_host::store::{Memory, Observed, Quirks, Store};
use tokio::time::sleep;

use super::{SECOND, TICK, lines, start, status};
use crate::support::{problem, send};

const TOKEN: (&str, &str) = ("authorization", "Bearer sesame");

async fn lifespan(host: &Harness, path: &str) -> Response<Bytes> {
    send(host, "POST", path, &[TOKEN], "").await
}

#[tokio::test(start_paused = true)]
async fn the_lifespan_starts_and_stops_the_service_if_the_variable_says_so() {
    for (name, quirks) in Quirks::ALL {
        let builder = Harness::builder()
            .variable("operator_token", "sesame")
            .variable("service_autostart", "true");
        let host = builder.quirks(quirks).start().await.unwrap();
        for _ in 0..2 {
            let response = lifespan(&host, "/lifespan/startup").await;
            assert_eq!(response.status(), StatusCode::NO_CONTENT, "{name}");
        }
        sleep(SECOND + SECOND / 2).await;
        for _ in 0..2 {
            let response = lifespan(&host, "/lifespan/shutdown").await;
            assert_eq!(response.status(), StatusCode::NO_CONTENT, "{name}");
        }
        let story = [
            "Service started",
            TICK,
            "Stopping service",
            "Service stopped",
        ];
        assert_eq!(lines(&host), story, "{name}");
    }
    let host = Harness::builder().variable("operator_token", "sesame");
    let host = host.start().await.unwrap();
    lifespan(&host, "/lifespan/startup").await;
    assert_eq!(status(&host).await["state"], "stopped");
    assert!(lines(&host).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_startup_that_finds_a_foreign_value_is_500_and_does_not_overwrite_it() {
    for (name, quirks) in Quirks::ALL {
        for key in ["service/lease", "service/terms"] {
            let store = Observed::new(Memory::default());
            store.set(key, b"mine").await.unwrap();
            let builder = Harness::builder().variable("operator_token", "sesame");
            let builder = builder.store(store.clone()).quirks(quirks);
            let host = builder.start().await.unwrap();
            let response = lifespan(&host, "/lifespan/startup").await;
            let detail = problem(&response, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(detail.contains(key), "{name}: {detail}");
            assert_eq!(store.get(key).await, Ok(Some(b"mine".to_vec())));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_lifespan_needs_the_operators_token() {
    let host = Harness::builder().variable("operator_token", "sesame");
    let host = host.start().await.unwrap();
    start(&host).await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer sesam")],
        &[("authorization", "Bearer sesame ")],
        &[("authorization", "Bearer sesamf")],
        &[("authorization", "Basic sesame")],
    ] {
        for path in ["/lifespan/startup", "/lifespan/shutdown"] {
            let response = send(&host, "POST", path, headers, "").await;
            if response.status() == StatusCode::NO_CONTENT {
                // HTTP ignores white space around a header's value.
                assert_eq!(headers[0].1, "Bearer sesame ");
                continue;
            }
            problem(&response, StatusCode::UNAUTHORIZED);
            let challenge = &response.headers()[header::WWW_AUTHENTICATE];
            assert!(challenge.to_str().unwrap().starts_with("Bearer"));
        }
    }
    assert_eq!(status(&host).await["state"], "running");

    for token in [None, Some("")] {
        let mut builder = Harness::builder();
        if let Some(token) = token {
            builder = builder.variable("operator_token", token);
        }
        let host = builder.start().await.unwrap();
        for headers in [&[][..], &[TOKEN], &[("authorization", "Bearer ")]] {
            let response = send(&host, "POST", "/lifespan/startup", headers, "").await;
            let detail = problem(&response, StatusCode::FORBIDDEN);
            assert!(detail.contains("operator_token"), "{detail}");
        }
    }
}
