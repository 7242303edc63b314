//! The front of the host: what it takes from clients, what it rejects, and that the others are served meanwhile.

mod cancelled;
mod fuzz;

use std::time::Duration;

use http::StatusCode;
use loopless_host::{Limits, Reuse};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Host, command, component, project};
use cancelled::{observed, set, wait};

/// Not even a busy machine takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    let result = timeout(PATIENCE, future).await;
    result.expect("it takes too long")
}

/// A connection, byte for byte.
struct Client {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Client {
    async fn connect(host: &Host) -> Self {
        let address = host.url.strip_prefix("http://").unwrap();
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            seen: Vec::new(),
        }
    }

    /// A new connection on which this has been sent.
    async fn sends(host: &Host, bytes: impl AsRef<[u8]>) -> Self {
        let mut client = Self::connect(host).await;
        client.send(bytes).await;
        client
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads on until this has come.
    async fn sees(&mut self, text: &str) {
        while !self.text().contains(text) {
            let read = soon(self.stream.read_buf(&mut self.seen)).await.unwrap();
            assert_ne!(read, 0, "no {text:?} in {:?}", self.text());
        }
    }

    /// Reads to the end of the connection, and returns all that has come.
    async fn end(mut self) -> String {
        // A connection that was reset has ended, too.
        _ = soon(self.stream.read_to_end(&mut self.seen)).await;
        self.text()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}

/// The whole of a request that the host answers and closes.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Status, head, and body of a response of HTTP/1.1.
fn parts(response: &str) -> (u16, &str, &str) {
    let (head, body) = response.split_once("\r\n\r\n").expect(response);
    (head[9..12].parse().expect(head), head, body)
}

/// Asserts that a response is a problem document with this status, and returns its head and what it says.
fn problem(response: &str, status: u16) -> (&str, String) {
    let (actual, head, body) = parts(response);
    assert_eq!(actual, status, "{response}");
    assert!(
        head.contains("content-type: application/problem+json"),
        "{head}"
    );
    let document: Value = serde_json::from_str(body).expect(body);
    assert_eq!(document["status"], status, "{body}");
    (head, document["detail"].as_str().unwrap().to_owned())
}

async fn host(arguments: &[&str]) -> Host {
    let mut all = vec!["--store", "memory"];
    all.extend(arguments);
    Host::start(&std::env::temp_dir(), &all).await
}

/// `loopless-host` with a component that does what components should not.
fn unruly(arguments: &[&str]) -> tokio::process::Command {
    let component = loopless_host::component::build(&project().join("tests/unruly")).unwrap();
    let component = component.to_str().unwrap();
    let mut all = vec!["--listen", "127.0.0.1:0", "--store", "memory"];
    all.extend(["--component", component]);
    all.extend(arguments);
    command(&std::env::temp_dir(), &all)
}

// What is under way at once.

#[tokio::test]
async fn more_requests_than_the_limit_are_refused_with_its_name_until_one_ends() {
    let mut host = host(&["--max-concurrent-requests", "3"]).await;
    host.prints("3 requests at once (--max-concurrent-requests)")
        .await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Client::sends(&host, get("/events/door/stream")).await;
        stream.sees("\"generation\":0}\n\n").await;
        streams.push(stream);
    }
    let refused = Client::sends(&host, get("/")).await.end().await;
    let (head, detail) = problem(&refused, 503);
    assert!(head.contains("retry-after: 1"), "{head}");
    let names_it = detail.contains('3') && detail.contains("--max-concurrent-requests");
    assert!(names_it, "{detail}");

    drop(streams.pop());
    // As soon as the host has seen that it is gone.
    soon(async { while parts(&Client::sends(&host, get("/")).await.end().await).0 == 503 {} })
        .await;
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_as_many_instances_as_requests() {
    let reuse = Reuse {
        concurrent_requests: 1,
        ..Reuse::default()
    };
    let (harness, _) = observed(reuse, Limits::default()).await;
    // Each has an instance of its own, of three modules: Wasmtime's usual pool has room for 1,000.
    let mut waits = JoinSet::new();
    for _ in 0..500 {
        wait(&harness, &mut waits);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(harness.instances(), 500);
    set(&harness).await;
    assert_eq!(waits.join_all().await, [StatusCode::OK; 500]);
}

// Requests that do not come.

#[tokio::test]
async fn a_body_that_does_not_come_is_408_and_closed() {
    let host = host(&["--body-timeout", "200ms"]).await;
    for part in ["", "1234567"] {
        let head = "POST /change_event HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n";
        let client = Client::sends(&host, format!("{head}{part}")).await;
        let (head, detail) = {
            let answer = client.end().await;
            let (head, detail) = problem(&answer, 408);
            (head.to_owned(), detail)
        };
        assert!(head.contains("connection: close"), "{head}");
        assert!(detail.contains("--body-timeout"), "{detail}");
    }
    // A body that never ends is not better.
    let head = "POST /change_event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Client::sends(&host, head).await;
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
async fn a_wait_may_take_longer_than_its_request() {
    let host = host(&["--body-timeout", "100ms", "--head-timeout", "100ms"]).await;
    // One of them has a body that nobody reads, and that does not come.
    let head = "GET /events/door/wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let plain = Client::sends(&host, format!("{head}\r\n")).await;
    let body = format!("{head}Content-Length: 50\r\n\r\n1234567");
    let with_body = Client::sends(&host, body).await;
    // Both times are over for these, and so they are for those before.
    let head = "POST /change_event HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n";
    problem(&Client::sends(&host, head).await.end().await, 408);
    problem(&Client::sends(&host, "GET /").await.end().await, 408);
    host.send("PUT", "/events/door", "{\"set\": true}", false)
        .await;
    for client in [plain, with_body] {
        let answer = client.end().await;
        assert_eq!(parts(&answer).0, 200, "{answer}");
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let host = host(&["--head-timeout", "200ms"]).await;
    // With a part of a head, this is said.
    for part in ["G", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let answer = Client::sends(&host, part).await.end().await;
        let (_, detail) = problem(&answer, 408);
        assert!(detail.contains("--head-timeout"), "{detail}");
    }
    // Without anything, and before anything of HTTP/2 was understood, it is just closed.
    for part in ["", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = Client::sends(&host, part).await.end().await;
        assert!(!answer.contains("HTTP/1.1"), "{part:?}: {answer:?}");
    }
    // So is one that has been used, when it is idle.
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::sends(&host, request).await;
    client.sees("</html>").await;
    let seen = client.text();
    assert_eq!(client.end().await, seen);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_responses_is_cut_off() {
    let host = host(&["--write-timeout", "200ms"]).await;
    // Many responses, until they fill all that lies between the component and a client that does not read.
    let mut client = Client::connect(&host).await;
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10);
    let is_cut_off = async { while client.stream.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(Duration::from_secs(20), is_cut_off)
        .await
        .expect("it still waits");
}

#[tokio::test]
async fn more_connections_than_the_limit_wait() {
    let host = host(&["--max-connections", "2"]).await;
    let request = "GET /events/door HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = Client::sends(&host, request).await;
    first.sees("\"generation\":0}").await;
    let mut second = Client::sends(&host, request).await;
    second.sees("\"generation\":0}").await;
    let mut third = Client::sends(&host, request).await;
    // The host does other things meanwhile.
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

// Requests that make no sense.

#[tokio::test]
async fn a_request_of_http_1_1_names_its_host_once() {
    let host = host(&[]).await;
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n"] {
        let request = format!("GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let answer = Client::sends(&host, request).await.end().await;
        let (_, detail) = problem(&answer, 400);
        assert!(detail.contains("Host"), "{detail}");
    }
    // HTTP/1.0 needs none.
    let answer = Client::sends(&host, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(parts(&answer.end().await).0, 200);
}

#[tokio::test]
async fn what_is_no_http_and_what_breaks_off_is_nobody_elses_trouble() {
    let host = host(&["--head-timeout", "500ms", "--body-timeout", "500ms"]).await;
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
        let mut client = Client::connect(&host).await;
        // The host need not read it to its end.
        _ = client.stream.write_all(request.as_bytes()).await;
        let answer = client.end().await;
        let start: String = request.chars().take(80).collect();
        assert!(
            answer.is_empty() || answer[9..].starts_with(status),
            "{start:?}: {answer:?}"
        );
    }
    // Truncated: gone after any byte.
    let request = "POST /change_event HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nTru";
    for length in 0..request.len() {
        drop(Client::sends(&host, &request[..length]).await);
    }
    // A half of a connection is none.
    let mut half = Client::sends(&host, get("/events/door/wait")).await;
    half.stream.shutdown().await.unwrap();
    half.end().await;

    let (status, page) = host.send("GET", "/", "", false).await;
    assert_eq!(status, 200);
    assert!(page.contains(">Set<"), "nothing was changed: {page}");
    host.signal(Signal::TERM);
    let (status, errors) = host.ended().await;
    assert!(status.success());
    assert!(!errors.contains("panic"), "{errors}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let host = host(&[]).await;
    let names: Vec<_> = (0..50).map(|number| format!("event-{number}")).collect();
    let requests: String = names
        .iter()
        .map(|name| format!("GET /events/{name} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    let client = Client::sends(&host, requests + &get("/events/last")).await;
    let answers = client.end().await;
    let places: Vec<_> = names
        .iter()
        .map(|name| answers.find(&format!("\"{name}\"")).expect(name))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 51);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_flood_of_streams_that_are_reset_at_once_does_not_keep_others_from_being_served() {
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    let host = host(&[]).await;
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    flood.extend(frame(SETTINGS, 0, 0, &[]));
    // GET, http, and the names that HPACK's static table has for them; the path and the authority are literals.
    let mut head = vec![0x82, 0x86, 0x04];
    let path = b"/events/door/wait";
    head.push(u8::try_from(path.len()).unwrap());
    head.extend(path);
    head.extend([0x01, 1, b'a']);
    for number in 0..20_000 {
        let stream = number * 2 + 1;
        flood.extend(frame(HEADERS, 5, stream, &head));
        flood.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
    }
    let mut floods = JoinSet::new();
    for _ in 0..4 {
        let mut client = Client::connect(&host).await;
        let flood = flood.clone();
        floods.spawn(async move {
            let (mut read, mut write) = client.stream.split();
            let mut seen = Vec::new();
            // The host may close before it has read all of it.
            let (_, read) = tokio::join!(write.write_all(&flood), read.read_to_end(&mut seen));
            (seen, read.is_err())
        });
    }
    let mut served = 0;
    while let Ok((status, _)) = timeout(
        Duration::from_secs(5),
        host.send("GET", "/events/other", "", served % 2 == 0),
    )
    .await
    {
        assert_eq!(status, 200);
        served += 1;
        if served >= 200 && floods.try_join_next().is_some() {
            break;
        }
    }
    assert!(served >= 200, "{served} were served, then none for 5 s");
    for (seen, was_reset) in soon(floods.join_all()).await {
        // GOAWAY, or the connection is gone.
        let goes_away = seen.windows(2).any(|bytes| bytes == [7, 0]);
        assert!(goes_away || was_reset, "{seen:?}");
    }
}

// Guests.

#[tokio::test]
async fn a_guest_that_computes_for_ever_is_ended_and_the_others_go_on() {
    let host = Host::wait_for(unruly(&["--cpu-timeout", "500ms"])).await;
    // More of them than there are threads.
    let mut loops = Vec::new();
    for _ in 0..8 {
        loops.push(Client::sends(&host, get("/loop")).await);
    }
    let (status, _) = soon(host.send("GET", "/", "", false)).await;
    assert_eq!(status, 204);
    for client in loops {
        problem(&client.end().await, 500);
    }
    let (status, _) = host.send("GET", "/", "", false).await;
    assert_eq!(status, 204);
    host.signal(Signal::TERM);
    let (_, errors) = host.ended().await;
    assert!(errors.contains("--cpu-timeout"), "{errors}");
}

#[tokio::test]
async fn a_guest_gets_as_much_memory_as_it_may_have() {
    for (size, status) in [("128MiB", 500), ("256MiB", 204)] {
        let arguments = ["--max-instance-memory", size];
        let host = Host::wait_for(unruly(&arguments)).await;
        assert_eq!(host.send("GET", "/memory", "", false).await.0, status);
        assert_eq!(host.send("GET", "/", "", false).await.0, 204);
    }
    let host = Host::wait_for(unruly(&[])).await;
    let (status, _) = host.send("GET", "/memory", "", false).await;
    assert_eq!(status, 500, "128 MiB, if nothing else is said");
}

#[tokio::test]
async fn an_answer_that_is_an_error_is_said_with_its_cause() {
    let host = Host::wait_for(unruly(&[])).await;
    let (status, answer) = host.send("GET", "/error", "", false).await;
    assert_eq!(status, 500, "{answer}");
    host.signal(Signal::TERM);
    let (_, errors) = host.ended().await;
    assert!(errors.contains("nobody is at home"), "{errors}");

    let startup = unruly(&["--variable", "operator_token=unruly"]);
    let output = { startup }.output().await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("nobody is at home") && errors.contains("/lifespan/startup"),
        "{errors}"
    );
}

// The log.

#[tokio::test]
async fn each_request_is_a_line_with_the_identifier_that_its_response_has() {
    let host = host(&["--log-format", "json"]).await;
    let request = "GET /nothing?secret=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\nConnection: close\r\n\r\n";
    let answer = Client::sends(&host, request).await.end().await;
    assert!(
        parts(&answer).1.contains("x-request-id: mine-1"),
        "{answer}"
    );
    let answer = Client::sends(&host, get("/nothing")).await.end().await;
    let (_, head, _) = parts(&answer);
    let id = head
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    let id = id.expect(head).to_owned();
    // A refusal has one, too.
    let refused = "GET / HTTP/1.1\r\nX-Request-Id: mine-2\r\nConnection: close\r\n\r\n";
    let answer = Client::sends(&host, refused).await.end().await;
    assert!(
        parts(&answer).1.contains("x-request-id: mine-2"),
        "{answer}"
    );
    drop(Client::sends(&host, get("/events/door/wait")).await);
    host.signal(Signal::TERM);
    let (_, errors) = host.ended().await;
    let lines: Vec<Value> = errors
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let line = |id: &str| {
        let line = lines.iter().find(|line| line["request_id"] == id);
        line.unwrap_or_else(|| panic!("{id}: {errors}"))
    };
    let first = line("mine-1");
    assert_eq!(first["method"], "GET");
    assert_eq!(first["path"], "/nothing", "without its query");
    assert_eq!(first["status"], 404);
    assert_eq!(first["is_whole"], true);
    assert!(first["bytes"].as_u64() > Some(0), "{first}");
    assert!(first["milliseconds"].is_u64(), "{first}");
    assert_eq!(line(&id)["status"], 404);
    assert_eq!(line("mine-2")["status"], 400);
}

#[tokio::test]
async fn without_being_asked_the_host_logs_nothing_of_requests() {
    let host = host(&[]).await;
    let answer = Client::sends(&host, get("/nothing")).await.end().await;
    assert_eq!(parts(&answer).0, 404);
    host.signal(Signal::TERM);
    let (_, errors) = host.ended().await;
    assert_eq!(errors, "Stopping: running requests have 5 s to finish\n");

    let directory = tempdir().unwrap();
    let component = component();
    let arguments = ["--listen", "127.0.0.1:0", "--store", "memory"];
    let mut asked = command(directory.path(), &arguments);
    asked
        .arg("--component")
        .arg(component)
        .env("RUST_LOG", "info");
    let host = Host::wait_for(asked).await;
    Client::sends(&host, get("/nothing")).await.end().await;
    host.signal(Signal::TERM);
    let (_, errors) = host.ended().await;
    assert!(errors.contains("path=\"/nothing\""), "{errors}");
}
