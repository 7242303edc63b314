//! The builds that keep their events in SQLite. If the database cannot be used, the error says why, and no answer is wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use loopless_host::Harness;
use loopless_host::sqlite::{Connection, Database, Value};

use crate::support::{Build, has_logged_once, is_unavailable, json, problem, set, try_set};

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

/// Checks that every request that needs the database is 503 with this part in its problem.
async fn cannot_be_used(host: &Harness, why: &str) {
    is_unavailable(host, &[why]).await;
    for path in ["/events", "/healthz"] {
        let said = problem(&host.get(path).await, StatusCode::SERVICE_UNAVAILABLE);
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_locked_database_is_503_and_not_an_event_that_was_never_set() {
    for build in BUILDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database.db");
        let open = |path: &Path| Connection::open(path).unwrap();
        let impatient = open(&path).busy_timeout(Duration::ZERO).unwrap();
        let host = on(build, &Arc::new(impatient)).await;
        set(&host, "door", true).await;

        let other = open(&path);
        rows(&other, "BEGIN EXCLUSIVE").await;
        cannot_be_used(&host, "database is locked").await;
        rows(&other, "ROLLBACK").await;
        let door = json(&host.get("/events/door").await);
        assert_eq!(door["generation"], 1);
    }
}

#[tokio::test]
async fn a_full_database_is_503_and_keeps_its_events() {
    for build in BUILDS {
        let database = Arc::new(Connection::memory().unwrap().limit(20 << 10).unwrap());
        let host = on(build, &database).await;
        set(&host, "door", true).await;
        let mut number = 0;
        let rejected = loop {
            let made = try_set(&host, &format!("{number:064}"), true).await;
            if made.status() != StatusCode::OK {
                break made;
            }
            number += 1;
            assert!(number < 1000, "it is never full");
        };
        let detail = problem(&rejected, StatusCode::SERVICE_UNAVAILABLE);
        assert!(detail.contains("full"), "{detail}");
        assert_eq!(json(&host.get("/events/door").await)["set"], true);
    }
}

#[tokio::test]
async fn a_database_that_is_not_granted_is_503_and_the_log_names_the_key_of_the_manifest() {
    let why = "sqlite_databases in the manifest";
    for build in BUILDS {
        let host = build.with_manifest("").await;
        cannot_be_used(&host, why).await;
        has_logged_once(&host, &[why]);
    }
}

#[tokio::test]
async fn a_table_of_another_application_is_503_and_is_not_changed() {
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
            let rejected = try_set(&host, "door", true).await;
            let detail = problem(&rejected, StatusCode::SERVICE_UNAVAILABLE);
            assert!(detail.contains("rename that table"), "{table}: {detail}");
            assert_eq!(rows(&database, "SELECT * FROM loopless").await, before);
            has_logged_once(&host, &["rename that table"]);
        }
    }
}

#[tokio::test]
async fn a_value_that_no_build_writes_is_an_error_and_is_not_overwritten() {
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
            let changed = try_set(&host, "door", true).await;
            assert_eq!(changed.status(), status, "{value}");
            if status != StatusCode::OK {
                let detail = problem(&changed, status);
                assert!(detail.contains("event/door"), "{detail}");
            }
            assert_eq!(rows(&database, "SELECT * FROM loopless").await, before);
        }
    }
}

#[tokio::test]
async fn a_table_that_is_dropped_under_an_instance_is_created_again() {
    for build in BUILDS {
        let database = Arc::new(Connection::memory().unwrap());
        let host = on(build, &database).await;
        set(&host, "door", true).await;
        rows(&database, "DROP TABLE loopless").await;
        assert_eq!(json(&host.get("/events/door").await)["set"], false);
        rows(&database, "DROP TABLE loopless").await;
        set(&host, "door", true).await;
        assert_eq!(json(&host.get("/events/door").await)["set"], true);
    }
}
