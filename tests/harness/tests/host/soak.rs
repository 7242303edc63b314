//! `loopless-host soak`: it passes where nothing is lost, and fails where something is.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request};
use hyper::body::Incoming;
use loopless_host::store::{Sqlite, Store};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::ChildStdout;

use crate::conformance::{Answer, Fault, Outcome, Server, proxy, whole};
use crate::shared::redis_server::RedisServer;
use crate::support::{Host, command, component};

/// Soaks for some seconds: a hundredth of a minute is 600 ms.
async fn soak(arguments: &[&str]) -> Outcome {
    let mut all = vec!["soak"];
    all.extend(arguments);
    Outcome::of(command(Path::new("."), &all)).await
}

fn passed(outcome: &Outcome) {
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    let verdict = outcome.stdout.lines().last().unwrap();
    let begins = "passed: no acknowledged change lost; ";
    assert!(verdict.starts_with(begins), "{}", outcome.stdout);
    assert!(!outcome.stderr.contains("wrong:"), "{}", outcome.stderr);
    assert!(!outcome.stdout.contains('\x1b'), "no colours in a pipe");
}

/// Asserts that it failed, with these parts of the verdict, and all of what it found.
fn failed(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, 1, "{}{}", outcome.stdout, outcome.stderr);
    let verdict = outcome.stdout.lines().last().unwrap();
    assert!(verdict.starts_with("failed: "), "{}", outcome.stdout);
    for part in parts {
        assert!(verdict.contains(part), "{part}: {verdict}");
    }
    assert!(outcome.stderr.contains("wrong: "), "{}", outcome.stderr);
}

/// The number before this in what a soak printed.
fn number(outcome: &Outcome, unit: &str) -> u64 {
    let (before, _) = outcome.stdout.split_once(unit).expect(unit);
    let number = before.split_whitespace().last().unwrap();
    number.parse().expect(&outcome.stdout)
}

#[tokio::test]
async fn hosts_that_are_killed_and_whose_store_fails_lose_nothing() {
    let component = component();
    let component = component.to_str().unwrap();
    let outcome = soak(&["--minutes", "0.1", "--component", component]).await;
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
async fn hosts_on_one_redis_lose_nothing_either() {
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    let component = component();
    let component = component.to_str().unwrap();
    let store = ["--store", &redis.url(), "--quirks", "spin-redis"];
    let arguments = ["--minutes", "0.05", "--component", component];
    passed(&soak(&[&arguments[..], &store].concat()).await);
}

#[tokio::test]
async fn a_server_that_runs_is_soaked_from_outside_and_left_as_it_was() {
    let directory = tempdir().unwrap();
    let host = Host::of_build(
        directory.path(),
        "akamai-functions",
        &["--without", "batch"],
    )
    .await;
    host.send("PUT", "/events/mine", "{\"set\": true}", false)
        .await;
    let outcome = soak(&["--url", &host.url, "--minutes", "0.05"]).await;
    passed(&outcome);
    assert!(outcome.stdout.contains(&host.url), "{}", outcome.stdout);
    let verdict = outcome.stdout.lines().last().unwrap();
    assert!(
        verdict.contains("cannot be checked from outside"),
        "{verdict}"
    );
    let (_, list) = host.send("GET", "/events", "", false).await;
    assert_eq!(list.matches("\"name\"").count(), 1, "{list}");
}

/// A proxy that acknowledges every tenth change, and does not make it.
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
    let (mut parts, body) = request.into_parts();
    let Ok(wanted) = http_body_util::BodyExt::collect(body).await else {
        // Its client has hung up.
        return whole(400, "text/plain", "");
    };
    let wanted: Value = serde_json::from_slice(&wanted.to_bytes()).unwrap_or_default();
    parts.method = Method::GET;
    parts.headers.clear();
    let host = upstream.strip_prefix("http://").unwrap().to_owned();
    parts.headers.insert("host", host.try_into().unwrap());
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let uri = format!("{upstream}{}", parts.uri.path())
        .try_into()
        .unwrap();
    let state = client.build_http::<String>().get(uri).await.unwrap();
    let state = http_body_util::BodyExt::collect(state.into_body())
        .await
        .unwrap();
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
async fn changes_that_are_acknowledged_and_not_made_are_found() {
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
async fn waits_that_end_too_early_are_found() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let upstream: Arc<str> = host.url.as_str().into();
    let server =
        Server::start(move |request| proxy(Fault::EndsWaitsAtOnce, upstream.clone(), request))
            .await;
    let outcome = soak(&["--url", &server.url, "--minutes", "0.03"]).await;
    failed(&outcome, &["waits, polls and streams with a wrong result"]);
}

#[tokio::test]
async fn a_server_that_refuses_all_changes_does_not_pass() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
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

/// A soak with hosts of its own on a store in this directory, which meet something that the soak does not expect.
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

    /// The address of the host that is not killed before the last look.
    fn address(&self) -> String {
        let mut words = self.printed.split_whitespace();
        let address = words.find_map(|word| word.strip_prefix("http://"));
        address.expect(&self.printed).to_owned()
    }

    /// Waits until it ends. What it met goes on until then.
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

/// How often a fault strikes, for as long as the soak goes on.
const AGAIN: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_store_that_goes_back_behind_its_hosts_is_found() {
    let directory = tempdir().unwrap();
    let (soak, store) = Own::start(directory.path()).await;
    let goes_back = async {
        // What each key had when it was first seen.
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
    /// The soak looks at two events before the traffic, and sees then what its hosts have open without any.
    const BEFORE: usize = 2;

    let directory = tempdir().unwrap();
    let (soak, store) = Own::start(directory.path()).await;
    let address = soak.address();
    let stays = async {
        while store.keys().await.unwrap().len() <= BEFORE {
            tokio::time::sleep(AGAIN).await;
        }
        // A connection is closed if nothing comes for long. No instance sees this request, which names no host.
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
        // The host was killed: the look is over.
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
async fn an_interrupt_ends_it_early_with_a_verdict() {
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
    // With no change acknowledged yet, it has not passed.
    let verdict = printed.lines().last().unwrap();
    let is_verdict = verdict.starts_with("passed: ") || verdict.starts_with("failed: ");
    assert!(is_verdict, "{printed}");
    assert_eq!(status.success(), verdict.starts_with("passed: "));
}

#[tokio::test]
async fn what_cannot_be_soaked_is_one_line_and_exit_code_1() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let other = Server::start(async |_| whole(200, "text/plain", "hello")).await;
    let component = component();
    let component = component.to_str().unwrap();
    for (arguments, what) in [
        (&["--url", &nobody][..], nobody.as_str()),
        (
            &["--url", &other.url],
            "does not say what the component promises",
        ),
        (&["--component", "no.wasm"], "no.wasm"),
        (&["--component", component, "--store", "memory"], "--store"),
    ] {
        let outcome = soak(arguments).await;
        assert_eq!(outcome.code, 1, "{arguments:?}");
        assert_eq!(outcome.stdout, "");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(what), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_usage_errors() {
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
        let outcome = soak(arguments).await;
        assert_eq!(outcome.code, 2, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("--help"), "{}", outcome.stderr);
    }
}
