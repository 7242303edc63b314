//! `loopless-host conformance`: it passes if the promises are kept, and fails if one is not.

mod proxy;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use futures_util::future::join_all;
use http::{Method, Request};
use rustix::process::Signal;
use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::shared::programs::program;
use crate::shared::redis_server::RedisServer;
use crate::support::{Host, Outcome, REDIS_BUILDS, command, free_address};

pub use proxy::{Answer, Fault, Server, proxy, whole};

impl Outcome {
    /// The promises with this verdict.
    fn promises(&self, verdict: &str) -> Vec<&str> {
        let lines = self.stdout.lines();
        lines
            .filter_map(|line| Some(line.trim_start().strip_prefix(verdict)?.trim_start()))
            .collect()
    }

    /// Checks that all promises are kept, and returns how many there are.
    fn passes(&self) -> usize {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stderr, "");
        assert_eq!(self.promises("FAILED"), [""; 0]);
        let kept = self.promises("ok").len();
        let summary = format!("{kept} promises checked: {kept} kept, 0 broken");
        assert_eq!(self.stdout.lines().last(), Some(&*summary));
        kept
    }
}

async fn suite(url: &str, more: &[&str]) -> Outcome {
    let mut arguments = vec!["conformance", "--url", url];
    arguments.extend(more);
    Outcome::of(&arguments).await
}

#[tokio::test]
async fn the_component_keeps_every_promise_on_every_store_and_the_suite_leaves_no_trace() {
    let redis = RedisServer::start().await;
    let mut stores = vec![
        vec!["--store", "memory"],
        vec!["--store", "memory", "--quirks", "spin-sqlite"],
        vec!["--store", "memory", "--quirks", "spin-redis"],
        vec!["--store", "sqlite:store.db"],
    ];
    let url = redis.as_ref().map(RedisServer::url);
    if let Some(url) = &url {
        stores.push(vec!["--store", url, "--quirks", "spin-redis"]);
    }
    let checks = stores.into_iter().map(|arguments| async move {
        let directory = tempdir().unwrap();
        let host = Host::start(directory.path(), &arguments).await;
        host.send("POST", "/change_event", "True").await;
        let before = host.get("/events/mine").await;

        let outcome = suite(&host.url, &[]).await;
        if outcome.code != 0 {
            host.signal(Signal::TERM);
            let (_, printed, errors) = host.finished().await;
            let host = printed.join("\n");
            panic!(
                "{}{}\nthe host:\n{host}\n{errors}",
                outcome.stdout, outcome.stderr
            );
        }
        outcome.passes();

        let (_, page) = host.get("/").await;
        assert!(page.contains("value=\"False\""), "it is set: {page}");
        let after = host.get("/events/mine").await;
        assert_eq!(before, after);
        let (_, list) = host.get("/events").await;
        assert_eq!(list.matches("\"name\"").count(), 1, "{list}");
        assert!(list.contains("\"name\":\"event\""), "{list}");
        outcome.stdout
    });
    // The same lines in the same order.
    let lines: BTreeSet<_> = join_all(checks).await.into_iter().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[tokio::test]
async fn the_builds_with_sqlite_keep_the_exact_contract() {
    let counts = join_all(["spin", "fermyon-cloud"].map(|host| async move {
        let directory = tempdir().unwrap();
        let manifest = format!("deploy/{host}-sqlite.toml");
        let arguments = ["--host", host, "--store", "memory"];
        let host = Host::of_manifest(directory.path(), &manifest, &arguments).await;
        let kept = suite(&host.url, &[]).await.passes();
        assert!(directory.path().join(".loopless/database.db").exists());
        kept
    }));
    // One check replaces the two of the service.
    assert_eq!(counts.await, [50, 49]);
}

#[tokio::test]
async fn the_builds_with_redis_keep_the_exact_contract() {
    let counts = join_all(REDIS_BUILDS.map(async |build| {
        let redis = RedisServer::start().await?;
        let directory = tempdir().unwrap();
        let host = Host::of_redis_build(directory.path(), build, &redis).await;
        Some(suite(&host.url, &[]).await.passes())
    }));
    let counts = counts.await;
    // Without a redis-server, both are skipped.
    let is_expected = counts == [Some(50), Some(49)] || counts == [None, None];
    assert!(is_expected, "{counts:?}");
}

#[tokio::test]
async fn the_builds_without_compare_and_swap_keep_what_they_promise_and_reject_the_rest() {
    let counts = join_all(
        ["akamai-functions", "fermyon-cloud"].map(|host| async move {
            let directory = tempdir().unwrap();
            let host = Host::of_build(directory.path(), host, &["--store", "memory"]).await;
            let outcome = suite(&host.url, &[]).await;
            for rejected in ["If-Match is rejected", "/service and the routes below"] {
                let lines = outcome.promises("ok").into_iter();
                assert_eq!(lines.filter(|line| line.starts_with(rejected)).count(), 1);
            }
            outcome.passes()
        }),
    );
    // One check replaces the two of If-Match, and one the two of the service.
    assert_eq!(counts.await, [48, 48]);
}

#[tokio::test]
async fn a_server_that_requires_a_token_is_checked_with_it() {
    let (write, read) = ("write_token=w1ite", "read_token=re4d");
    let host = Host::in_memory(&["--variable", write, "--variable", read]).await;
    for token in [&[][..], &["--token", "wrong"]] {
        suite(&host.url, token).await.is_error(&["--token"]);
    }
    suite(&host.url, &["--token", "w1ite"]).await.passes();
}

#[tokio::test]
async fn a_server_that_promises_more_than_it_keeps_fails() {
    let directory = tempdir().unwrap();
    let host = Host::of_build(directory.path(), "akamai-functions", &["--store", "memory"]).await;
    for (fault, expected) in [
        (
            Fault::ClaimsMore,
            &[
                "current generation changes",
                "rejected with 412",
                "/service returns",
                "/service/stop rejects",
            ][..],
        ),
        (Fault::DropsConditions, &["If-Match is rejected"]),
        (
            Fault::SaysNothing,
            &["current generation changes", "/service returns"],
        ),
        (Fault::CutsTags, &["has a different ETag"]),
    ] {
        let server = Server::proxy(&host, fault).await;
        let outcome = suite(&server.url, &[]).await;
        assert_eq!(outcome.code, 1, "{fault:?}");
        let broken = outcome.promises("FAILED").join("\n");
        for part in expected {
            assert!(broken.contains(part), "{fault:?}: {part}: {broken}");
        }
    }
}

#[tokio::test]
async fn the_original_passes_the_profile_seed_and_fails_the_full_one() {
    let Some(python) = program(&["python3"]) else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/original.py");
    let mut original = Command::new(python)
        .arg(script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(original.stdout.take().unwrap()).lines();
    let url = lines.next_line().await.unwrap().expect("it serves");
    suite(&url, &["--profile", "seed"]).await.passes();
    let full = suite(&url, &["--profile", "full"]).await;
    assert_eq!(full.code, 1, "{}", full.stdout);
}

#[tokio::test]
async fn without_a_server_at_the_url_there_is_one_line() {
    let url = format!("http://{}", free_address().await);
    suite(&url, &[]).await.is_error(&[&url]);
}

#[tokio::test]
async fn an_invalid_url_is_a_usage_error() {
    for arguments in [
        &["conformance"][..],
        &["conformance", "--url", "127.0.0.1:9009"],
        &["conformance", "--url", "ftp://127.0.0.1"],
        &["conformance", "--url", "http://127.0.0.1/path"],
        &["conformance", "--url", "http://127.0.0.1", "--profile", "x"],
        &["--store", "memory", "conformance", "--url", "http://a"],
    ] {
        Outcome::of(arguments).await.is_usage_error();
    }
}

#[tokio::test]
async fn no_check_passes_on_a_server_that_always_says_hello() {
    let server = Server::start(async |_| whole(200, "text/plain", "hello")).await;
    let outcome = suite(&server.url, &[]).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.promises("ok"), [""; 0]);
    let broken = outcome.promises("FAILED").len();
    assert!(broken > 40, "{}", outcome.stdout);
    let summary = format!("{broken} promises checked: 0 kept, {broken} broken");
    assert_eq!(outcome.stdout.lines().last(), Some(&*summary));
}

#[tokio::test]
async fn a_page_whose_button_never_changes_fails() {
    let server = Server::start(async |request: Request<_>| {
        if request.method() == Method::POST {
            return whole(204, "text/plain", "");
        }
        let page = "<button onclick=\"changeEvent('True')\">Set</button>";
        whole(200, "text/html", page)
    })
    .await;
    let outcome = suite(&server.url, &["--profile", "seed"]).await;
    assert_eq!(outcome.code, 1);
    let broken = outcome.promises("FAILED").join("\n");
    assert!(broken.contains("the button offers False: expected a button that offers Clear, got"));
    for promise in ["twice", "every client", "waits 100 ms", "does not wait"] {
        assert!(broken.contains(promise), "{promise}: {broken}");
    }
}

/// Each fault, with a part of the sentence of each promise that it breaks. All other promises are kept.
const FAULTS: [(Fault, &[&str]); 12] = [
    (
        Fault::DropsConditions,
        &[
            "current generation returns 304",
            "another generation is rejected with 412",
            "returns 304 at its end",
            "Prefer: wait= ends",
        ],
    ),
    (Fault::DropsLastEventId, &["Last-Event-ID"]),
    (Fault::StripsAllow, &["Allow lists"]),
    (Fault::StripsOrigin, &["a page of another site"]),
    (Fault::StripsPolicy, &["security headers"]),
    (Fault::AlwaysWaits, &["does not wait while"]),
    (
        Fault::CachesThePage,
        &[
            "button offers False",
            "twice",
            "every client",
            "waits 100 ms",
            "does not wait",
            "security headers",
        ],
    ),
    (
        Fault::EndsWaitsAtOnce,
        &[
            "a wait ends when",
            "a pulse, a set",
            "not before its timeout",
            "an invalid timeout is",
            "returns 410",
        ],
    ),
    (
        Fault::EndsStreamsEarly,
        &[
            "each change, pulses included",
            "Last-Event-ID",
            "a stream ends",
        ],
    ),
    (
        Fault::KeepsEvents,
        &[
            "a stream ends",
            "a new event with a forgotten name",
            "returns 410",
            "is not listed",
            "can be forgotten",
        ],
    ),
    (
        Fault::CallsProblemsJson,
        &[
            "neither True nor False",
            "1 KiB is rejected with 413:",
            "413 here too",
            "rejected with 412",
            "ends with 408",
            "an invalid timeout is",
            "returns 410",
            "a limit outside",
            "/service/stop rejects",
            "operator's token",
            "a page of another site",
            "an invalid name is",
            "a body that is not",
            "an unknown query parameter",
            "returns 404",
            "returns 405",
        ],
    ),
    (
        Fault::StripsCacheControl,
        &[
            "the page is not cached",
            "neither True nor False",
            "1 KiB is rejected with 413:",
            "413 here too",
            "never set is clear",
            "HEAD",
            "rejected with 412",
            "ends with 408",
            "an invalid timeout is",
            "each change, pulses included",
            "returns 410",
            "listed in order",
            "is not listed",
            "a limit outside",
            "/service returns",
            "/service/stop rejects",
            "operator's token",
            "/healthz makes",
            "a page of another site",
            "an invalid name is",
            "a body that is not",
            "an unknown query parameter",
            "returns 404",
            "returns 405",
            "openapi.json",
            "can be forgotten",
        ],
    ),
];

#[tokio::test]
async fn the_suite_finds_the_promises_that_a_fault_breaks_and_no_others() {
    let mut checks = JoinSet::new();
    for (fault, expected) in FAULTS {
        checks.spawn(async move {
            let host = Host::in_memory(&["--variable", "wait_max_seconds=3"]).await;
            let server = Server::proxy(&host, fault).await;
            let outcome = suite(&server.url, &[]).await;
            assert_eq!(outcome.code, 1, "{fault:?}");
            let broken = outcome.promises("FAILED");
            let is_expected = |line: &&str| expected.iter().any(|part| line.contains(part));
            let unexpected: Vec<_> = broken.iter().filter(|line| !is_expected(line)).collect();
            let is_broken = |part: &&&str| broken.iter().any(|line| line.contains(**part));
            let missed: Vec<_> = expected.iter().filter(|part| !is_broken(part)).collect();
            (format!("{fault:?}"), format!("{unexpected:#?} {missed:#?}"))
        });
    }
    for (fault, wrong) in checks.join_all().await {
        assert_eq!(wrong, "[] []", "{fault}: unexpected, and missed");
    }
}

#[tokio::test]
async fn the_suite_uses_https_and_http_2_and_trusts_the_machines_certificates() {
    let directory = tempdir().unwrap();
    let host = Host::in_memory(&[]).await;
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = directory.path().join("certificate.pem");
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    let server = Server::proxy_with_tls(&host, &pair).await;

    let wary = suite(&server.url, &[]).await;
    assert_eq!(wary.code, 1);
    assert!(wary.stderr.contains("ertificate"), "{}", wary.stderr);

    let mut trusting = command(Path::new("."), &["conformance", "--url", &server.url]);
    trusting.env("SSL_CERT_FILE", certificate);
    Outcome::of_command(trusting).await.passes();
}
