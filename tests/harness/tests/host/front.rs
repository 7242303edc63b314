//! The front of the host: what it accepts from clients, what it rejects, and that it serves the others meanwhile.

mod cancelled;
mod fuzz;
mod log;

use std::time::Duration;

use http::StatusCode;
use loopless_host::{Limits, Reuse};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::connection::{Connection, get, parts, problem};
use crate::support::{Host, soon};
use cancelled::{observed, set, wait};

// How many requests may be under way.

#[tokio::test]
async fn more_requests_than_the_limit_are_503_until_one_ends() {
    let arguments = ["--max-concurrent-requests", "3", "--log-format", "json"];
    let mut host = Host::in_memory(&arguments).await;
    host.prints("3 requests at once (--max-concurrent-requests)")
        .await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Connection::gets(&host, "/events/door/stream").await;
        stream.sees("\"generation\":0}\n\n").await;
        streams.push(stream);
    }
    let rejected = Connection::gets(&host, "/").await.end().await;
    let (head, detail) = problem(&rejected, 503);
    assert!(head.contains("retry-after: 1"), "{head}");
    let names_it = detail.contains('3') && detail.contains("--max-concurrent-requests");
    assert!(names_it, "{detail}");

    drop(streams.pop());
    // The host notices soon that the client has hung up.
    soon(async { while parts(&Connection::gets(&host, "/").await.end().await).0 == 503 {} }).await;
    let log = host.stop().await;
    let is_cut_off =
        |line: Value| line["path"] == "/events/door/stream" && line["is_whole"] == false;
    assert!(log::requests(&log).any(is_cut_off), "{log}");
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_as_many_instances_as_requests() {
    let reuse = Reuse {
        concurrent_requests: 1,
        ..Reuse::default()
    };
    let (harness, _) = observed(reuse, Limits::default()).await;
    // Each request has an instance of its own, of three modules. By default, Wasmtime's pool has room for 1,000 modules.
    let mut waits = JoinSet::new();
    for _ in 0..500 {
        wait(&harness, &mut waits);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(harness.instances(), 500);
    set(&harness).await;
    assert_eq!(waits.join_all().await, [StatusCode::OK; 500]);
}

// Requests that are slow or do not come.

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_408_and_the_connection_is_closed() {
    let host = Host::in_memory(&["--body-timeout", "200ms"]).await;
    for part in ["", "1234567"] {
        let head = "POST /change_event HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n";
        let client = Connection::sends(&host, format!("{head}{part}")).await;
        let answer = client.end().await;
        let (head, detail) = problem(&answer, 408);
        assert!(head.contains("connection: close"), "{head}");
        assert!(detail.contains("--body-timeout"), "{detail}");
    }
    // So is a body that comes slowly and never ends.
    let head = "POST /change_event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Connection::sends(&host, head).await;
    let mut drip = tokio::time::interval(Duration::from_millis(20));
    let answer = soon(async {
        loop {
            tokio::select! {
                _ = drip.tick() => { _ = client.stream.write_all(b"1\r\nx\r\n").await; }
                read = client.stream.read_buf(&mut client.seen) => if !matches!(read, Ok(1..)) {
                    return client.text();
                },
            }
        }
    })
    .await;
    problem(&answer, 408);
}

#[tokio::test]
async fn a_wait_may_take_longer_than_the_timeouts_of_requests() {
    let host = Host::in_memory(&["--body-timeout", "100ms", "--head-timeout", "100ms"]).await;
    // One of the waits has a body, which is incomplete and which nobody reads.
    let head = "GET /events/door/wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let plain = Connection::sends(&host, format!("{head}\r\n")).await;
    let body = format!("{head}Content-Length: 50\r\n\r\n1234567");
    let with_body = Connection::sends(&host, body).await;
    // Both timeouts are over for these requests, and so for the earlier ones.
    let head = "POST /change_event HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n";
    problem(&Connection::sends(&host, head).await.end().await, 408);
    problem(&Connection::sends(&host, "GET /").await.end().await, 408);
    host.set("door", true).await;
    for client in [plain, with_body] {
        let answer = client.end().await;
        assert_eq!(parts(&answer).0, 200, "{answer}");
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let host = Host::in_memory(&["--head-timeout", "200ms"]).await;
    // A part of a head gets a response.
    for part in ["G", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let answer = Connection::sends(&host, part).await.end().await;
        let (_, detail) = problem(&answer, 408);
        assert!(detail.contains("--head-timeout"), "{detail}");
    }
    // A connection that has sent nothing, or no whole preface of HTTP/2, is closed without one.
    for part in ["", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = Connection::sends(&host, part).await.end().await;
        assert!(!answer.contains("HTTP/1.1"), "{part:?}: {answer:?}");
    }
    // So is a connection that is idle after a request.
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Connection::sends(&host, request).await;
    client.sees("</html>").await;
    let seen = client.text();
    assert_eq!(client.end().await, seen);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_responses_is_cut_off() {
    let host = Host::in_memory(&["--write-timeout", "200ms"]).await;
    // So many responses that they fill every buffer between the component and the client.
    let mut client = Connection::open(&host).await;
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10);
    let is_cut_off = async { while client.stream.write_all(requests.as_bytes()).await.is_ok() {} };
    let cut_off = timeout(Duration::from_secs(20), is_cut_off).await;
    cut_off.expect("it still waits");
}

#[tokio::test]
async fn more_connections_than_the_limit_wait() {
    let host = Host::in_memory(&["--max-connections", "2"]).await;
    let request = "GET /events/door HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = Connection::sends(&host, request).await;
    first.sees("\"generation\":0}").await;
    let mut second = Connection::sends(&host, request).await;
    second.sees("\"generation\":0}").await;
    let mut third = Connection::sends(&host, request).await;
    // The host has time to serve the third one: it serves many other requests.
    for _ in 0..20 {
        first.seen.clear();
        first.send(request).await;
        first.sees("\"generation\":0}").await;
    }
    let nothing = third.stream.try_read(&mut [0; 1]);
    assert!(nothing.is_err(), "it was served: {nothing:?}");
    drop(second);
    third.sees("\"generation\":0}").await;
}

// Malformed requests.

#[tokio::test]
async fn a_request_of_http_1_1_has_one_valid_host() {
    let host = Host::in_memory(&[]).await;
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: \r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let answer = Connection::sends(&host, request).await.end().await;
        let (_, detail) = problem(&answer, 400);
        assert!(detail.contains("ost"), "{detail}");
    }
    // HTTP/1.0 needs none.
    let answer = Connection::sends(&host, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(parts(&answer.end().await).0, 200);
}

#[tokio::test]
async fn malformed_and_truncated_requests_do_not_affect_others() {
    let host = Host::in_memory(&["--head-timeout", "500ms", "--body-timeout", "500ms"]).await;
    let long = "x".repeat(100 << 10);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "4"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".into(), "400"),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n".into(), "400"),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".into(), "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12".into(), "400"),
        ("POST /change_event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n".into(), "4"),
        ("\r\n".repeat(50_000), "4"),
        ("\u{16}\u{3}\u{1}\u{2}".repeat(1000), "400"),
    ] {
        let mut client = Connection::open(&host).await;
        // The host may close the connection before it has read everything.
        _ = client.stream.write_all(request.as_bytes()).await;
        let answer = client.end().await;
        let start: String = request.chars().take(80).collect();
        assert!(
            answer.is_empty() || answer[9..].starts_with(status),
            "{start:?}: {answer:?}"
        );
    }
    for request in [
        "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01 hello\r\n\r\n",
    ] {
        let answer = Connection::sends(&host, request).await.end().await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer:?}");
    }
    // A client that hangs up after any byte.
    let request = "POST /change_event HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nTru";
    for length in 0..request.len() {
        drop(Connection::sends(&host, &request[..length]).await);
    }
    // A client that closes its half of the connection.
    let mut half = Connection::gets(&host, "/events/door/wait").await;
    half.stream.shutdown().await.unwrap();
    half.end().await;

    let (status, page) = host.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains(">Set<"), "nothing was changed: {page}");
    let errors = host.stop().await;
    assert!(!errors.contains("panic"), "{errors}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let host = Host::in_memory(&[]).await;
    let names: Vec<_> = (0..50).map(|number| format!("event-{number}")).collect();
    let requests: String = names
        .iter()
        .map(|name| format!("GET /events/{name} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    let client = Connection::sends(&host, requests + &get("/events/last")).await;
    let answers = client.end().await;
    let places: Vec<_> = names
        .iter()
        .map(|name| answers.find(&format!("\"{name}\"")).expect(name))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 51);
}
