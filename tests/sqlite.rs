//! The builds that keep their events in SQLite: what goes wrong with a database is a clear error, and never a false answer.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use loopless_host::Harness;
use loopless_host::console::Output;
use loopless_host::sqlite::{Connection, Database, Value};
use support::{Build, json, problem, send};

const BUILDS: [Build; 2] = [Build::SPIN_SQLITE, Build::FERMYON_CLOUD_SQLITE];

async fn rows(database: &Connection, statement: &str) -> Vec<Vec<Value>> {
    let answer = database.execute(statement, Vec::new()).await;
    assert_eq!(answer.end, Ok(()), "{statement}");
    answer.rows
}

async fn on(build: Build, database: &Arc<Connection>) -> Harness {
    let builder = build.builder().database("default", database.clone());
    builder.start().await.unwrap()
}

async fn set(host: &Harness, set: bool) -> http::Response<bytes::Bytes> {
    let body = format!("{{\"set\": {set}}}");
    send(host, "PUT", "/events/door", &[], &body).await
}

/// Every way to ask for the event is 503, and says why. Returns what the last one says.
async fn is_unavailable(host: &Harness, why: &str) -> String {
    let mut said = String::new();
    for response in [
        host.get("/events/door").await,
        host.get("/events").await,
        host.get("/healthz").await,
        host.get("/events/door/wait?timeout=0").await,
        set(host, true).await,
        set(host, false).await,
    ] {
        said = problem(&response, StatusCode::SERVICE_UNAVAILABLE);
        assert!(said.contains(why), "{said}");
    }
    said
}

#[tokio::test]
async fn a_locked_database_is_503_and_no_event_that_was_never_set() {
    for build in BUILDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database.db");
        let open = |path: &Path| Connection::open(path).unwrap();
        let impatient = open(&path).busy_timeout(Duration::ZERO).unwrap();
        let host = on(build, &Arc::new(impatient)).await;
        assert_eq!(set(&host, true).await.status(), StatusCode::OK);

        let other = open(&path);
        rows(&other, "BEGIN EXCLUSIVE").await;
        is_unavailable(&host, "database is locked").await;
        rows(&other, "ROLLBACK").await;
        let door = json(&host.get("/events/door").await);
        assert_eq!(
            (&door["set"], &door["generation"]),
            (&true.into(), &1.into())
        );
    }
}

#[tokio::test]
async fn the_component_trusts_no_rows_of_a_statement_that_failed() {
    for build in BUILDS {
        let store = build.store().await;
        let host = build.on(&store).start().await.unwrap();
        set(&host, true).await;
        // There are no rows, and an error comes after them.
        store.fail("the server went away");
        is_unavailable(&host, "the server went away").await;
        store.recover();
        assert_eq!(json(&host.get("/events/door").await)["set"], true);
    }
}

#[tokio::test]
async fn a_full_database_takes_no_more_and_keeps_what_it_has() {
    for build in BUILDS {
        let database = Arc::new(Connection::memory().unwrap().limit(20 << 10).unwrap());
        let host = on(build, &database).await;
        assert_eq!(set(&host, true).await.status(), StatusCode::OK);
        let mut number = 0;
        let refused = loop {
            let path = format!("/events/{number:064}");
            let made = send(&host, "PUT", &path, &[], "{\"set\": true}").await;
            if made.status() != StatusCode::OK {
                break made;
            }
            number += 1;
            assert!(number < 1000, "it is never full");
        };
        let detail = problem(&refused, StatusCode::SERVICE_UNAVAILABLE);
        assert!(detail.contains("full"), "{detail}");
        assert_eq!(json(&host.get("/events/door").await)["set"], true);
    }
}

#[tokio::test]
async fn a_database_that_is_not_granted_is_503_and_in_the_log_which_says_where_to_name_it() {
    let directory = tempfile::tempdir().unwrap();
    for build in BUILDS {
        let manifest = directory.path().join("spin.toml");
        let component = build.path();
        let text = format!(
            "spin_manifest_version = 2\n\
             [application]\nname = \"loopless\"\n\
             [[trigger.http]]\nroute = \"/...\"\ncomponent = \"loopless\"\n\
             [component.loopless]\nsource = {component:?}\n"
        );
        std::fs::write(&manifest, text).unwrap();
        let host = Harness::builder().manifest(manifest).start().await.unwrap();
        is_unavailable(&host, "sqlite_databases in the manifest").await;
        let log = host.printed(Output::Stderr);
        assert!(
            log[0].contains("sqlite_databases in the manifest"),
            "{log:?}"
        );
        // Once an instance: on WASI 0.2, each request has one.
        assert_eq!(log.len() == 1, build.has_wasi_0_3(), "{log:?}");
    }
}

#[tokio::test]
async fn a_table_of_somebody_else_is_503_and_left_alone() {
    for build in BUILDS {
        for (table, row) in [
            ("(id INTEGER PRIMARY KEY, name TEXT)", "(1, 'a')"),
            ("(key TEXT NOT NULL, worth INTEGER)", "('event/door', 7)"),
            (
                "(name TEXT NOT NULL PRIMARY KEY, value)",
                "('event/door', 7)",
            ),
        ] {
            let database = Arc::new(Connection::memory().unwrap());
            rows(&database, &format!("CREATE TABLE loopless {table}")).await;
            rows(&database, &format!("INSERT INTO loopless VALUES {row}")).await;
            let before = rows(&database, "SELECT * FROM loopless").await;
            let host = on(build, &database).await;
            let set = set(&host, true).await;
            let detail = problem(&set, StatusCode::SERVICE_UNAVAILABLE);
            assert!(detail.contains("rename that table"), "{table}: {detail}");
            assert_eq!(rows(&database, "SELECT * FROM loopless").await, before);
            let log = host.printed(Output::Stderr);
            assert!(log[0].contains("rename that table"), "{log:?}");
        }
    }
}

#[tokio::test]
async fn a_value_that_no_build_writes_is_an_error_and_left_alone() {
    for build in BUILDS {
        for (value, status) in [
            ("1.5", StatusCode::SERVICE_UNAVAILABLE),
            ("'7.3f9c2b8a11d04e55'", StatusCode::INTERNAL_SERVER_ERROR),
            ("x'0700000000000000'", StatusCode::OK),
        ] {
            let database = Arc::new(Connection::memory().unwrap());
            let host = on(build, &database).await;
            host.get("/events/door").await;
            let insert = format!("INSERT INTO loopless VALUES ('event/door', {value})");
            rows(&database, &insert).await;
            let before = rows(&database, "SELECT * FROM loopless").await;
            let set = set(&host, true).await;
            assert_eq!(set.status(), status, "{value}");
            if status != StatusCode::OK {
                let detail = problem(&set, status);
                assert!(detail.contains("event/door"), "{detail}");
            }
            assert_eq!(rows(&database, "SELECT * FROM loopless").await, before);
        }
    }
}

#[tokio::test]
async fn a_database_that_is_wiped_under_an_instance_is_used_again() {
    for build in BUILDS {
        let database = Arc::new(Connection::memory().unwrap());
        let host = on(build, &database).await;
        set(&host, true).await;
        rows(&database, "DROP TABLE loopless").await;
        assert_eq!(json(&host.get("/events/door").await)["set"], false);
        rows(&database, "DROP TABLE loopless").await;
        assert_eq!(set(&host, true).await.status(), StatusCode::OK);
        assert_eq!(json(&host.get("/events/door").await)["set"], true);
    }
}
