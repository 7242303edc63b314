//! `loopless-host conformance`: it passes where the promises are kept, and fails where one is not.

mod proxy;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use futures_util::future::join_all;
use http::{Method, Request};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertifiedKey, KeyPair};
use rustix::process::Signal;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::shared::programs::program;
use crate::shared::redis_server::RedisServer;
use crate::support::{Host, REDIS_BUILDS, command};

pub use proxy::{Answer, Fault, Server, proxy, whole};

/// What the suite said, or another command.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub async fn of(mut command: Command) -> Self {
        let output = command.output().await.unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The promises whose lines begin like this.
    fn promises(&self, verdict: &str) -> Vec<&str> {
        let lines = self.stdout.lines();
        lines
            .filter_map(|line| Some(line.trim_start().strip_prefix(verdict)?.trim_start()))
            .collect()
    }

    fn passes(&self) {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.promises("FAILED"), [""; 0]);
        let summary = self.stdout.lines().last().unwrap();
        let kept = self.promises("ok").len();
        assert_eq!(
            summary,
            format!("{kept} promises checked: {kept} kept, 0 broken")
        );
    }
}

async fn suite(url: &str, more: &[&str]) -> Outcome {
    let mut arguments = vec!["conformance", "--url", url];
    arguments.extend(more);
    Outcome::of(command(Path::new("."), &arguments)).await
}

#[tokio::test]
async fn this_project_keeps_every_promise_on_every_store_and_is_left_as_it_was() {
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
        host.send("POST", "/change_event", "True", false).await;
        let before = host.send("GET", "/events/mine", "", false).await;

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
        assert_eq!(outcome.stderr, "");

        let (_, page) = host.send("GET", "/", "", false).await;
        assert!(page.contains("value=\"False\""), "it is set: {page}");
        let after = host.send("GET", "/events/mine", "", false).await;
        assert_eq!(before, after);
        let (_, list) = host.send("GET", "/events", "", false).await;
        assert_eq!(list.matches("\"name\"").count(), 1, "{list}");
        assert!(list.contains("\"name\":\"event\""), "{list}");
        outcome.stdout
    });
    let lines: BTreeSet<_> = join_all(checks).await.into_iter().collect();
    assert_eq!(
        lines.len(),
        1,
        "the same lines in the same order: {lines:?}"
    );
}

#[tokio::test]
async fn the_builds_with_sqlite_keep_the_exact_contract() {
    let counts = join_all(["spin", "fermyon-cloud"].map(|host| async move {
        let directory = tempdir().unwrap();
        let manifest = format!("deploy/{host}-sqlite.toml");
        let arguments = ["--host", host, "--store", "memory"];
        let host = Host::of_manifest(directory.path(), &manifest, &arguments).await;
        let outcome = suite(&host.url, &[]).await;
        outcome.passes();
        assert_eq!(outcome.stderr, "");
        assert!(directory.path().join(".loopless/database.db").exists());
        outcome.promises("ok").len()
    }));
    // Without a service, two that concern it are one.
    assert_eq!(counts.await, [50, 49]);
}

#[tokio::test]
async fn the_builds_with_redis_keep_the_exact_contract() {
    let counts = join_all(REDIS_BUILDS.map(async |build| {
        let redis = RedisServer::start().await?;
        let directory = tempdir().unwrap();
        let host = Host::of_redis_build(directory.path(), build, &redis).await;
        let outcome = suite(&host.url, &[]).await;
        outcome.passes();
        assert_eq!(outcome.stderr, "");
        Some(outcome.promises("ok").len())
    }));
    let counts = counts.await;
    // Both are on the same machine: it has a Redis, or none.
    assert!(
        [[Some(50), Some(49)], [None, None]].contains(&[counts[0], counts[1]]),
        "{counts:?}"
    );
}

#[tokio::test]
async fn the_builds_without_compare_and_swap_keep_what_they_promise_and_refuse_the_rest() {
    let counts = join_all(
        ["akamai-functions", "fermyon-cloud"].map(|host| async move {
            let directory = tempdir().unwrap();
            let host = Host::of_build(directory.path(), host, &["--store", "memory"]).await;
            let outcome = suite(&host.url, &[]).await;
            outcome.passes();
            assert_eq!(outcome.stderr, "");
            for refused in ["If-Match is rejected", "/service and the routes below"] {
                let lines = outcome.promises("ok").into_iter();
                assert_eq!(lines.filter(|line| line.starts_with(refused)).count(), 1);
            }
            outcome.promises("ok").len()
        }),
    );
    // Two that concern If-Match are one here, and two that concern the service.
    assert_eq!(counts.await, [48, 48]);
}

#[tokio::test]
async fn a_server_that_wants_a_token_is_checked_with_it() {
    let directory = tempdir().unwrap();
    let variables = ["write_token=w1ite", "read_token=re4d"];
    let variables = variables.iter().flat_map(|it| ["--variable", it]);
    let arguments: Vec<_> = ["--store", "memory"].into_iter().chain(variables).collect();
    let host = Host::start(directory.path(), &arguments).await;
    for token in [&[][..], &["--token", "wrong"]] {
        let outcome = suite(&host.url, token).await;
        assert_eq!((outcome.code, &*outcome.stdout), (1, ""));
        assert!(outcome.stderr.contains("--token"), "{}", outcome.stderr);
    }
    suite(&host.url, &["--token", "w1ite"]).await.passes();
}

#[tokio::test]
async fn a_server_that_promises_more_than_it_keeps_is_found_out() {
    let directory = tempdir().unwrap();
    let host = Host::of_build(directory.path(), "akamai-functions", &["--store", "memory"]).await;
    let upstream: Arc<str> = host.url.as_str().into();
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
        let upstream = upstream.clone();
        let server = Server::start(move |request| proxy(fault, upstream.clone(), request)).await;
        let outcome = suite(&server.url, &[]).await;
        assert_eq!(outcome.code, 1, "{fault:?}");
        let broken = outcome.promises("FAILED").join("\n");
        for part in expected {
            assert!(
                broken.contains(part),
                "{fault:?}: {part} is not in {broken}"
            );
        }
    }
}

#[tokio::test]
async fn the_original_passes_the_profile_that_both_have_in_common() {
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
async fn where_nobody_answers_it_is_one_line_and_exit_code_1() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let outcome = suite(&url, &[]).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stdout, "");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&url), "{}", outcome.stderr);
}

#[tokio::test]
async fn what_is_no_url_of_a_server_is_a_usage_error() {
    for arguments in [
        &["conformance"][..],
        &["conformance", "--url", "127.0.0.1:9009"],
        &["conformance", "--url", "ftp://127.0.0.1"],
        &["conformance", "--url", "http://127.0.0.1/path"],
        &["conformance", "--url", "http://127.0.0.1", "--profile", "x"],
        &["--store", "memory", "conformance", "--url", "http://a"],
    ] {
        let output = command(Path::new("."), arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("--help"), "{stderr}");
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

/// Each fault, and a part of each promise that it breaks. All others are kept.
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
async fn each_fault_on_the_way_is_found_and_nothing_else() {
    let mut checks = JoinSet::new();
    for (fault, expected) in FAULTS {
        checks.spawn(async move {
            let directory = tempdir().unwrap();
            let arguments = ["--store", "memory", "--variable", "wait_max_seconds=3"];
            let host = Host::start(directory.path(), &arguments).await;
            let upstream: Arc<str> = host.url.as_str().into();
            let server =
                Server::start(move |request| proxy(fault, upstream.clone(), request)).await;
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

/// Serves HTTP/2 over TLS, with a certificate of `localhost`.
async fn https(pair: CertifiedKey<KeyPair>, upstream: Arc<str>) -> String {
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request| {
                    let answer = proxy(Fault::Nothing, upstream.clone(), request);
                    async { Ok::<_, Infallible>(answer.await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
                // A client that goes away does not concern this server.
                _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    url
}

#[tokio::test]
async fn it_speaks_https_and_http_2_and_trusts_whom_the_machine_trusts() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = directory.path().join("certificate.pem");
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    let url = https(pair, host.url.as_str().into()).await;

    let wary = suite(&url, &[]).await;
    assert_eq!(wary.code, 1);
    assert!(wary.stderr.contains("ertificate"), "{}", wary.stderr);

    let mut trusting = command(Path::new("."), &["conformance", "--url", &url]);
    trusting.env("SSL_CERT_FILE", certificate);
    Outcome::of(trusting).await.passes();
}
