//! Several hosts on one store: a change on one is seen on the others, and no change is lost with the host that acknowledged it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::tempdir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::shared::redis_server::{Certificate, RedisServer};
use crate::support::{Host, Outcome, REDIS_BUILDS, project, serve, serve_component, soon};

/// A call of the store is given up after 1.5 s. The rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(3);

async fn set(host: &Host, name: &str, is_set: bool) -> u64 {
    generation_of(&host.set(name, is_set).await)
}

async fn generation(host: &Host, name: &str) -> u64 {
    let (status, state) = host.get(&format!("/events/{name}")).await;
    assert_eq!(status, 200, "{state}");
    generation_of(&state)
}

fn generation_of(state: &str) -> u64 {
    let state: Value = serde_json::from_str(state).unwrap();
    state["generation"].as_u64().unwrap()
}

/// The stream of an event, as far as it has been read.
struct Stream {
    body: Incoming,
    text: String,
}

impl Stream {
    async fn open(host: &Host, name: &str) -> Self {
        let path = format!("/events/{name}/stream");
        let response = host.request("GET", &path, "").await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// Reads until the message of this generation has arrived.
    async fn reaches(&mut self, generation: u64) {
        let message = format!("\"generation\":{generation}}}\n\n");
        while !self.text.contains(&message) {
            let frame = self.body.frame().await.expect("it goes on").unwrap();
            let data = frame.into_data().unwrap_or_default();
            self.text += std::str::from_utf8(&data).unwrap();
        }
    }

    /// The generations of all messages so far.
    fn generations(&self) -> Vec<u64> {
        let lines = self.text.lines();
        lines
            .filter_map(|line| line.strip_prefix("data: "))
            .map(generation_of)
            .collect()
    }
}

#[tokio::test]
async fn two_hosts_on_one_database_share_every_change() {
    for manifest in [
        "deploy/spin-sqlite.toml",
        "deploy/fermyon-cloud-sqlite.toml",
    ] {
        let directory = tempdir().unwrap();
        let arguments = ["--store", "memory", "--database", "default=database.db"];
        let host = || Host::of_manifest(directory.path(), manifest, &arguments);
        share_every_change(host().await, host().await).await;
    }
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    for build in REDIS_BUILDS {
        let directory = tempdir().unwrap();
        let host = || Host::of_redis_build(directory.path(), build, &redis);
        share_every_change(host().await, host().await).await;
        redis.wipe().await;
    }
}

/// Checks that two hosts on an empty store share changes and waits, and that the change of one is not lost with it.
async fn share_every_change(one: Host, two: Host) {
    let sets = (0..64).map(|number| set([&one, &two][number % 2], "door", true));
    let generations = soon(join_all(sets)).await;
    assert_eq!(generations, [1; 64]);

    // A set on one host ends a wait on the other, and survives the first one.
    let wait = two.get("/events/gate/wait");
    let change = set(&one, "gate", true);
    let ((status, state), _) = soon(async { tokio::join!(wait, change) }).await;
    assert_eq!(status, 200, "{state}");
    one.signal(Signal::KILL);
    soon(one.ended()).await;
    assert_eq!(generation(&two, "gate").await, 1);
    assert_eq!(set(&two, "gate", false).await, 2);
}

#[tokio::test]
async fn two_hosts_on_one_redis_share_changes_waits_and_pulses() {
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    let directory = tempdir().unwrap();
    for quirks in ["exact", "spin-redis"] {
        let arguments = ["--store", &redis.url(), "--quirks", quirks];
        let one = Host::start(directory.path(), &arguments).await;
        let two = Host::start(directory.path(), &arguments).await;

        // A set on one host ends a wait on the other.
        let path = format!("/events/{quirks}/wait");
        let wait = one.get(&path);
        let change = async {
            redis.is_watched().await;
            set(&two, quirks, true).await
        };
        let ((status, state), generation) = soon(async { tokio::join!(wait, change) }).await;
        assert_eq!((status, generation), (200, 1), "{state}");
        assert!(state.contains("\"set\":true"), "{state}");

        // A pulse does too.
        assert_eq!(set(&one, quirks, false).await, 2);
        let wait = two.get(&path);
        let pulse = async {
            redis.is_watched().await;
            set(&one, quirks, true).await;
            set(&one, quirks, false).await;
        };
        let ((status, state), ()) = soon(async { tokio::join!(wait, pulse) }).await;
        assert_eq!(status, 200, "{state}");

        // A stream misses no change of either host.
        let mut stream = Stream::open(&one, quirks).await;
        soon(stream.reaches(4)).await;
        for (host, is_set) in [(&two, true), (&two, false), (&one, true), (&two, false)] {
            set(host, quirks, is_set).await;
        }
        soon(stream.reaches(8)).await;
        assert_eq!(stream.generations(), [4, 5, 6, 7, 8]);
    }
}

#[tokio::test]
async fn a_redis_with_tls_is_used_if_its_certificate_is_trusted() {
    let directory = tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = directory.path().join("certificate.pem");
    let key = directory.path().join("key.pem");
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let Some(redis) = RedisServer::start_with_tls(Certificate {
        certificate: certificate.to_str().unwrap(),
        key: key.to_str().unwrap(),
    })
    .await
    else {
        return;
    };
    let store = format!("rediss://localhost:{}/1", redis.port());
    let arguments = ["--store", &store];
    let mut trusting = serve_component(directory.path(), &arguments);
    trusting.env("SSL_CERT_FILE", &certificate);
    let host = Host::wait_for(trusting).await;
    assert_eq!(set(&host, "door", true).await, 1);
    assert_eq!(generation(&host, "door").await, 1);

    // A component that connects to Redis itself trusts the same certificates, and has the same events.
    let url = format!("redis_url={store}");
    let address = format!("redis_host=localhost:{}", redis.port());
    let mut trusting = serve(directory.path(), &["--store", "memory"]);
    trusting
        .arg("--from")
        .arg(project().join(REDIS_BUILDS[0]))
        .args(["--variable", &url, "--variable", &address])
        .env("SSL_CERT_FILE", &certificate);
    let host = Host::wait_for(trusting).await;
    assert_eq!(set(&host, "door", false).await, 2);

    let wary = serve_component(directory.path(), &arguments);
    let outcome = Outcome::of_command(wary).await;
    outcome.is_error(&["localhost", "ertificate"]);
}

/// The last change of a client that a host acknowledged before it was killed.
struct Acknowledged {
    name: String,
    generation: u64,
}

/// Changes an event again and again until the host is killed. Adds a permit to `count` for each acknowledged change.
async fn change_until_it_dies(
    host: Arc<Host>,
    name: String,
    count: Arc<Semaphore>,
) -> Acknowledged {
    let path = format!("/events/{name}");
    let mut generation = 0;
    loop {
        let body = format!("{{\"set\": {}}}", generation % 2 == 0);
        let Ok(response) = host.request("PUT", &path, &body).await else {
            break;
        };
        let status = response.status();
        let Ok(body) = response.into_body().collect().await else {
            break;
        };
        let state = String::from_utf8(body.to_bytes().into()).unwrap();
        match status.as_u16() {
            200 => generation = generation_of(&state),
            // Too many writers of one event. Nothing is acknowledged.
            503 => continue,
            _ => panic!("{state}"),
        }
        count.add_permits(1);
    }
    Acknowledged { name, generation }
}

async fn loses_nothing_acknowledged_when_killed(store: &str) {
    let directory = tempdir().unwrap();
    let victim = Arc::new(Host::start(directory.path(), &["--store", store]).await);
    let other = Host::start(directory.path(), &["--store", store]).await;
    let count = Arc::new(Semaphore::new(0));
    let mut clients = JoinSet::new();
    for client in 0..8 {
        // Half of the clients have events of their own. The others share one.
        let name = if client % 2 == 0 {
            format!("own-{client}")
        } else {
            "shared".to_owned()
        };
        clients.spawn(change_until_it_dies(victim.clone(), name, count.clone()));
    }
    // The clients are still writing when the host is killed.
    drop(soon(count.acquire_many(200)).await.unwrap());
    victim.signal(Signal::KILL);
    let results = soon(clients.join_all()).await;
    assert_eq!(results.len(), 8);

    let restarted = Host::start(directory.path(), &["--store", store]).await;
    for Acknowledged {
        name,
        generation: acknowledged,
    } in results
    {
        for host in [&other, &restarted] {
            let now = generation(host, &name).await;
            assert!(acknowledged > 0, "{name}");
            assert!(now >= acknowledged, "{name}: {acknowledged}, now {now}");
            // The last change may have been made and not acknowledged.
            let is_own = name != "shared";
            assert!(!is_own || now <= acknowledged + 1, "{name}: {now}");
        }
    }
    // Both hosts go on.
    let before = generation(&other, "shared").await;
    let after = set(&other, "shared", before % 2 == 0).await;
    assert_eq!(after, before + 1);
    assert_eq!(generation(&restarted, "shared").await, after);
}

#[tokio::test]
async fn a_host_that_is_killed_while_it_writes_to_sqlite_loses_nothing_acknowledged() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("store.db");
    loses_nothing_acknowledged_when_killed(&format!("sqlite:{}", path.display())).await;
}

#[tokio::test]
async fn a_host_that_is_killed_while_it_writes_to_redis_loses_nothing_acknowledged() {
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    loses_nothing_acknowledged_when_killed(&redis.url()).await;
}

/// Checks that all requests are 503 with Retry-After while the store is away.
async fn is_unavailable(host: &Host) {
    let requests = [
        ("GET", "/", ""),
        ("POST", "/change_event", "True"),
        ("GET", "/events", ""),
        ("GET", "/events/kept", ""),
        ("PUT", "/events/kept", "{\"set\": false}"),
        ("DELETE", "/events/kept", ""),
        ("GET", "/events/kept/wait?timeout=0.1", ""),
        ("GET", "/events/kept/stream", ""),
    ];
    let answers = requests.map(async |(method, path, body)| {
        let response = host.request(method, path, body).await.unwrap();
        assert_eq!(response.status(), 503, "{method} {path}");
        let headers = response.headers();
        assert!(headers.contains_key("retry-after"), "{method} {path}");
        assert_eq!(headers["content-type"], "application/problem+json");
    });
    join_all(answers).await;
}

#[tokio::test]
async fn while_redis_is_down_requests_are_503_and_waits_and_streams_go_on() {
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", &redis.url()]).await;
    survives_an_outage(host, redis).await;
    for build in REDIS_BUILDS {
        let Some(redis) = RedisServer::start().await else {
            return;
        };
        let host = Host::of_redis_build(directory.path(), build, &redis).await;
        survives_an_outage(host, redis).await;
    }
}

async fn survives_an_outage(host: Host, mut redis: RedisServer) {
    assert_eq!(set(&host, "kept", true).await, 1);

    let wait = host.get("/events/door/wait");
    let outage = async {
        redis.is_watched().await;
        let mut stream = Stream::open(&host, "door").await;
        stream.reaches(0).await;
        redis.stop().await;
        is_unavailable(&host).await;
        redis.start_again().await;
        // The first request after the restart succeeds.
        assert_eq!(generation(&host, "kept").await, 1);
        assert_eq!(set(&host, "door", true).await, 1);
        assert_eq!(set(&host, "door", false).await, 2);
        stream
    };
    let ((status, state), mut stream) = soon(async { tokio::join!(wait, outage) }).await;
    assert_eq!(status, 200, "{state}");
    soon(stream.reaches(2)).await;
    assert_eq!(stream.generations(), [0, 1, 2]);
}

#[tokio::test]
async fn a_redis_that_hangs_is_503_in_time_and_is_used_again_when_it_answers() {
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    let directory = tempdir().unwrap();
    // Not the build with WASI 0.2, in which no call can be given up.
    let host = Host::of_redis_build(directory.path(), REDIS_BUILDS[0], &redis).await;
    assert_eq!(set(&host, "kept", true).await, 1);
    let wait = host.get("/events/door/wait");
    let outage = async {
        redis.is_watched().await;
        redis.signal(Signal::STOP);
        // First over open connections, then over new ones.
        for _ in 0..2 {
            let began = Instant::now();
            is_unavailable(&host).await;
            println!("503 after {:?}", began.elapsed());
            assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
        }
        redis.signal(Signal::CONT);
        let began = Instant::now();
        assert_eq!(generation(&host, "kept").await, 1);
        assert_eq!(set(&host, "door", true).await, 1);
        assert_eq!(set(&host, "kept", false).await, 2);
        println!("full service after {:?}", began.elapsed());
        assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    };
    let ((status, state), ()) = soon(async { tokio::join!(wait, outage) }).await;
    assert_eq!(status, 200, "{state}");
}
