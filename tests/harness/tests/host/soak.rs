//! `loopless-host soak`: it passes if nothing is lost, and fails if something is.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use loopless_host::store::{Sqlite, Store};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::ChildStdout;

use crate::conformance::{Answer, Fault, Server, proxy, whole};
use crate::shared::redis_server::RedisServer;
use crate::support::{Host, Outcome, command, component, free_address};

/// Runs a soak. `--minutes 0.01` is 600 ms.
async fn soak(arguments: &[&str]) -> Outcome {
    Outcome::of(&[&["soak"], arguments].concat()).await
}

/// Runs a soak with hosts of its own, of this project's component.
async fn soak_component(arguments: &[&str]) -> Outcome {
    let component = component();
    let arguments = [&["--component", component.to_str().unwrap()], arguments].concat();
    soak(&arguments).await
}

fn passed(outcome: &Outcome) {
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    let verdict = outcome.stdout.lines().last().unwrap();
    let begins = "passed: no acknowledged change lost; ";
    assert!(verdict.starts_with(begins), "{}", outcome.stdout);
    assert!(!outcome.stderr.contains("wrong:"), "{}", outcome.stderr);
    assert!(!outcome.stdout.contains('\x1b'), "no colours in a pipe");
}

/// Checks that the soak failed, with these parts in its verdict.
fn failed(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, 1, "{}{}", outcome.stdout, outcome.stderr);
    let verdict = outcome.stdout.lines().last().unwrap();
    assert!(verdict.starts_with("failed: "), "{}", outcome.stdout);
    for part in parts {
        assert!(verdict.contains(part), "{part}: {verdict}");
    }
    assert!(outcome.stderr.contains("wrong: "), "{}", outcome.stderr);
}

/// The number before this unit in the output of a soak.
fn number(outcome: &Outcome, unit: &str) -> u64 {
    let (before, _) = outcome.stdout.split_once(unit).expect(unit);
    let number = before.split_whitespace().last().unwrap();
    number.parse().expect(&outcome.stdout)
}

#[tokio::test]
async fn hosts_that_are_killed_on_a_store_that_fails_lose_nothing() {
    let outcome = soak_component(&["--minutes", "0.1"]).await;
    passed(&outcome);
    for unit in [
        " acknowledged changes",
        " waits and polls",
        " messages of streams",
        " rejected",
        " cancelled",
    ] {
        assert!(number(&outcome, unit) > 0, "{unit}: {}", outcome.stdout);
    }
}

#[tokio::test]
async fn hosts_that_are_killed_on_a_redis_lose_nothing() {
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    let (store, quirks) = (redis.url(), "spin-redis");
    let arguments = ["--minutes", "0.05", "--store", &store, "--quirks", quirks];
    passed(&soak_component(&arguments).await);
}

#[tokio::test]
async fn a_soak_of_a_running_server_passes_and_leaves_no_trace() {
    let directory = tempdir().unwrap();
    let host = Host::of_build(directory.path(), "akamai-functions", &[]).await;
    host.set("mine", true).await;
    let outcome = soak(&["--url", &host.url, "--minutes", "0.05"]).await;
    passed(&outcome);
    assert!(outcome.stdout.contains(&host.url), "{}", outcome.stdout);
    let verdict = outcome.stdout.lines().last().unwrap();
    let unchecked = "cannot be checked from outside";
    assert!(verdict.contains(unchecked), "{verdict}");
    let (_, list) = host.get("/events").await;
    assert_eq!(list.matches("\"name\"").count(), 1, "{list}");
}

/// A proxy that acknowledges every tenth change without making it.
async fn drops_changes(
    count: Arc<AtomicU64>,
    upstream: Arc<str>,
    request: Request<Incoming>,
) -> Answer {
    let is_dropped =
        request.method() == Method::PUT && count.fetch_add(1, Ordering::Relaxed) % 10 == 9;
    if !is_dropped {
        return proxy(Fault::Nothing, upstream, request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(wanted) = body.collect().await else {
        // The client has hung up.
        return whole(400, "text/plain", "");
    };
    let wanted: Value = serde_json::from_slice(&wanted.to_bytes()).unwrap_or_default();
    let client = Client::builder(TokioExecutor::new()).build_http::<String>();
    let uri = format!("{upstream}{}", parts.uri.path());
    let state = client.get(uri.try_into().unwrap()).await.unwrap();
    let state = state.into_body().collect().await.unwrap();
    let Ok(state) = serde_json::from_slice::<Value>(&state.to_bytes()) else {
        return whole(400, "text/plain", "");
    };
    let is_change = state["set"] != wanted["set"];
    let generation = state["generation"].as_u64().unwrap_or_default() + u64::from(is_change);
    let state = json!({
        "name": state["name"], "set": wanted["set"], "generation": generation, "changed": is_change,
    });
    whole(200, "application/json", &state.to_string())
}

#[tokio::test]
async fn a_change_that_is_acknowledged_and_not_made_is_found() {
    for build in ["spin", "akamai-functions"] {
        let directory = tempdir().unwrap();
        let host = Host::of_build(directory.path(), build, &["--store", "memory"]).await;
        let upstream: Arc<str> = host.url.as_str().into();
        let count = Arc::default();
        let server = Server::start(move |request| {
            drops_changes(Arc::clone(&count), upstream.clone(), request)
        })
        .await;
        let outcome = soak(&["--url", &server.url, "--minutes", "0.03"]).await;
        failed(&outcome, &["states that contradict what was acknowledged"]);
    }
}

#[tokio::test]
async fn a_wait_that_ends_without_a_set_is_found() {
    let host = Host::in_memory(&[]).await;
    let server = Server::proxy(&host, Fault::EndsWaitsAtOnce).await;
    let outcome = soak(&["--url", &server.url, "--minutes", "0.03"]).await;
    failed(&outcome, &["waits, polls and streams with a wrong result"]);
}

#[tokio::test]
async fn a_server_that_rejects_all_changes_fails() {
    let host = Host::in_memory(&[]).await;
    let upstream: Arc<str> = host.url.as_str().into();
    let server = Server::start(move |request: Request<Incoming>| {
        let upstream = upstream.clone();
        async move {
            if request.method() == Method::PUT {
                return whole(503, "application/problem+json", "{}");
            }
            proxy(Fault::Nothing, upstream, request).await
        }
    })
    .await;
    let outcome = soak(&["--url", &server.url, "--minutes", "0.01"]).await;
    failed(&outcome, &["requests rejected or cut off"]);
}

/// A running soak with hosts of its own, on a store in which a test injects a fault that the soak does not expect.
struct Own {
    soak: tokio::process::Child,
    stdout: Lines<BufReader<ChildStdout>>,
    printed: String,
}

impl Own {
    async fn start(directory: &Path) -> (Self, Sqlite) {
        let path = directory.join("store.db");
        let store = format!("sqlite:{}", path.display());
        let component = component();
        let component = component.to_str().unwrap();
        let arguments = ["soak", "--minutes", "0.05", "--component", component];
        let mut soak = command(directory, &arguments);
        let mut soak = soak.args(["--store", &store]).spawn().unwrap();
        let mut stdout = BufReader::new(soak.stdout.take().unwrap()).lines();
        let printed = stdout.next_line().await.unwrap().expect("it begins") + "\n";
        let store = Sqlite::open(path).unwrap();
        let soak = Self {
            soak,
            stdout,
            printed,
        };
        (soak, store)
    }

    /// The address of the host that the soak kills last.
    fn address(&self) -> String {
        let mut words = self.printed.split_whitespace();
        let address = words.find_map(|word| word.strip_prefix("http://"));
        address.expect(&self.printed).to_owned()
    }

    /// Waits until it ends.
    async fn ends(mut self) -> Outcome {
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            self.printed += &(line + "\n");
        }
        let output = self.soak.wait_with_output().await.unwrap();
        Outcome {
            code: output.status.code().unwrap(),
            stdout: self.printed,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The time between two injections of a fault, which goes on until the soak ends.
const AGAIN: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_store_that_loses_changes_is_found() {
    let directory = tempdir().unwrap();
    let (soak, store) = Own::start(directory.path()).await;
    let goes_back = async {
        // The first value of each key.
        let mut old = HashMap::new();
        loop {
            for key in store.keys().await.unwrap() {
                if let Some(value) = store.get(&key).await.unwrap() {
                    let old: &Vec<u8> = old.entry(key.clone()).or_insert(value);
                    store.set(&key, old).await.unwrap();
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let outcome = tokio::select! {
        outcome = soak.ends() => outcome,
        () = goes_back => unreachable!(),
    };
    failed(&outcome, &["states that contradict what was acknowledged"]);
}

#[tokio::test]
async fn a_connection_that_stays_open_is_found() {
    /// The number of events before the traffic. Until then, the soak measures what its hosts have open without any.
    const BEFORE: usize = 2;

    let directory = tempdir().unwrap();
    let (soak, store) = Own::start(directory.path()).await;
    let address = soak.address();
    let stays = async {
        while store.keys().await.unwrap().len() <= BEFORE {
            tokio::time::sleep(AGAIN).await;
        }
        // The host closes idle connections. No instance sees this request, because it names no host.
        while let Ok(mut connection) = TcpStream::connect(&address).await {
            let mut answer = [0; 1024];
            while connection
                .write_all(b"GET / HTTP/1.1\r\n\r\n")
                .await
                .is_ok()
                && matches!(connection.read(&mut answer).await, Ok(1..))
            {
                tokio::time::sleep(AGAIN).await;
            }
        }
        // The host was killed, so the soak has measured it.
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = soak.ends() => outcome,
        () = stays => unreachable!(),
    };
    failed(&outcome, &[" leaks"]);
    let found = "has 1 connections 10 s after the traffic, and had 0";
    assert!(outcome.stderr.contains(found), "{}", outcome.stderr);
}

#[tokio::test]
async fn an_interrupted_soak_ends_with_a_verdict() {
    let component = component();
    let component = component.to_str().unwrap();
    let arguments = ["soak", "--minutes", "10", "--component", component];
    let mut soak = command(Path::new("."), &arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(soak.stdout.take().unwrap());
    let mut printed = String::new();
    stdout.read_line(&mut printed).await.unwrap();
    let id = soak.id().unwrap().try_into().unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
    stdout.read_to_string(&mut printed).await.unwrap();
    let status = soak.wait().await.unwrap();
    // It has passed only if a change was acknowledged.
    let verdict = printed.lines().last().unwrap();
    let is_verdict = verdict.starts_with("passed: ") || verdict.starts_with("failed: ");
    assert!(is_verdict, "{printed}");
    assert_eq!(status.success(), verdict.starts_with("passed: "));
}

#[tokio::test]
async fn a_soak_that_cannot_start_is_one_line() {
    let nowhere = format!("http://{}", free_address().await);
    let other = Server::start(async |_| whole(200, "text/plain", "hello")).await;
    for (arguments, part) in [
        (["--url", &nowhere], nowhere.as_str()),
        (
            ["--url", &other.url],
            "does not say what the component promises",
        ),
        (["--component", "no.wasm"], "no.wasm"),
    ] {
        soak(&arguments).await.is_error(&[part]);
    }
    let in_memory = soak_component(&["--store", "memory"]).await;
    in_memory.is_error(&["--store"]);
}

#[tokio::test]
async fn invalid_arguments_are_usage_errors() {
    for arguments in [
        &["--minutes", "0"][..],
        &["--minutes", "soon"],
        &["--minutes", "NaN"],
        &["--minutes", "1000000"],
        &["--clients", "1"],
        &["--url", "localhost"],
        &["--url", "http://localhost", "--store", "sqlite:a"],
        &["--url", "http://localhost", "--component", "a.wasm"],
    ] {
        soak(arguments).await.is_usage_error();
    }
}
