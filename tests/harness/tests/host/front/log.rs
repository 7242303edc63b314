//! The host's log.

use std::env::temp_dir;

use serde_json::Value;

use crate::support::connection::{Connection, parts};
use crate::support::{Host, serve_component};

/// The requests in a log in JSON.
pub(super) fn requests(log: &str) -> impl Iterator<Item = Value> {
    let lines = log.lines();
    lines.filter_map(|line| serde_json::from_str(line).ok())
}

#[tokio::test]
async fn each_request_is_a_line_with_the_request_id_of_its_response() {
    let host = Host::in_memory(&["--log-format", "json"]).await;
    let request = "GET /nothing?secret=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\nConnection: close\r\n\r\n";
    let answer = Connection::sends(&host, request).await.end().await;
    let head = parts(&answer).1;
    assert!(head.contains("x-request-id: mine-1"), "{head}");
    let answer = Connection::gets(&host, "/nothing").await.end().await;
    let (_, head, _) = parts(&answer);
    let mut lines = head.lines();
    let id = lines.find_map(|line| line.strip_prefix("x-request-id: "));
    let id = id.expect(head);
    // A rejected request has one too.
    let rejected = "GET / HTTP/1.1\r\nX-Request-Id: mine-2\r\nConnection: close\r\n\r\n";
    let answer = Connection::sends(&host, rejected).await.end().await;
    let head = parts(&answer).1;
    assert!(head.contains("x-request-id: mine-2"), "{head}");
    let log = host.stop().await;
    let line = |id: &str| {
        let line = requests(&log).find(|line| line["request_id"] == id);
        line.unwrap_or_else(|| panic!("{id}: {log}"))
    };
    let first = line("mine-1");
    assert_eq!(first["method"], "GET");
    assert_eq!(first["path"], "/nothing", "without its query");
    assert_eq!(first["status"], 404);
    assert_eq!(first["is_whole"], true);
    assert!(first["bytes"].as_u64() > Some(0), "{first}");
    assert!(first["milliseconds"].is_u64(), "{first}");
    assert_eq!(line(id)["status"], 404);
    assert_eq!(line("mine-2")["status"], 400);
}

#[tokio::test]
async fn by_default_the_host_logs_no_requests() {
    let host = Host::in_memory(&[]).await;
    let answer = Connection::gets(&host, "/nothing").await.end().await;
    assert_eq!(parts(&answer).0, 404);
    let errors = host.stop().await;
    assert_eq!(errors, "Stopping: running requests have 5 s to finish\n");

    let mut asked = serve_component(&temp_dir(), &["--store", "memory"]);
    asked.env("RUST_LOG", "info");
    let host = Host::wait_for(asked).await;
    Connection::gets(&host, "/nothing").await.end().await;
    let errors = host.stop().await;
    assert!(errors.contains("path=\"/nothing\""), "{errors}");
}
