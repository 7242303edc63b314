//! Another component uses events through `loopless:event/events`, without HTTP: Spin composes the two if that one has loopless
//! as a component dependency. Here, the test does.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, Once};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Request, StatusCode};
use loopless_host::console::Output;
use loopless_host::store::{self, Memory, Numbers, Observed, Operation, Quirks, Store};
use loopless_host::{Builder, Harness, component};
use support::{Build, send, text};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeError, PackageId};

/// A component that uses events, and the build that it has as a dependency.
#[derive(Clone, Copy)]
struct Pair {
    name: &'static str,
    package: &'static str,
    build: Build,
}

/// Those of WASI 0.3, whose calls are asynchronous.
const ASYNC: [Pair; 2] = [
    Pair {
        name: "doorbell-exact",
        package: "tests/doorbell",
        build: Build::SPIN,
    },
    Pair {
        name: "doorbell-plain",
        package: "tests/doorbell",
        build: Build::AKAMAI_FUNCTIONS,
    },
];

/// All of them: that of WASI 0.2 blocks.
const ALL: [Pair; 3] = [
    ASYNC[0],
    ASYNC[1],
    Pair {
        name: "doorbell-blocking",
        package: "tests/doorbell-blocking",
        build: Build::FERMYON_CLOUD,
    },
];

/// The longest poll interval, and what timers are late.
const READING: Duration = Duration::from_millis(110);

const SET: &str = "{\"set\": true}";
const CLEAR: &str = "{\"set\": false}";

/// What Spin lets a dependency use if it inherits the component's stores.
const STORES: [&str; 3] = [
    "fermyon:spin/key-value@2.0.0",
    "spin:key-value/key-value@3.0.0",
    "wasi:keyvalue/store@0.2.0-draft2",
];

/// A component, composed with a build of loopless as Spin composes a component with its dependency: what that one exports
/// and this one imports is joined, and the host provides what else they import. Its exports are those of the component.
fn compose(component: &Path, build: Build) -> Vec<u8> {
    plug(&read(component), &read(&build.path()))
}

/// The same, if the dependency inherits nothing but what is `inherited`.
///
/// Spin 4.1 gives the dependency an adapter for the rest first (`apply_deny_adapter` in its crate `spin-capabilities`).
fn compose_without(
    component: &Path,
    build: Build,
    inherited: &[&str],
) -> Result<Vec<u8>, EncodeError> {
    let adapter = component::build("tests/deny-adapter".as_ref()).unwrap();
    let (loopless, adapter) = (read(&build.path()), read(&adapter));
    let mut graph = CompositionGraph::new();
    let loopless = register(&mut graph, "loopless", &loopless);
    let adapter = register(&mut graph, "adapter", &adapter);
    let world = |package: PackageId| &graph.types()[graph[package].ty()];
    let imports = &world(loopless).imports;
    let denied: Vec<String> = world(adapter)
        .exports
        .keys()
        .filter(|name| imports.contains_key(*name) && !inherited.contains(&name.as_str()))
        .cloned()
        .collect();
    let exports: Vec<String> = world(loopless).exports.keys().cloned().collect();

    let (instance, adapter) = (graph.instantiate(loopless), graph.instantiate(adapter));
    for name in denied {
        let denial = graph.alias_instance_export(adapter, &name).unwrap();
        graph
            .set_instantiation_argument(instance, &name, denial)
            .unwrap();
    }
    for name in exports {
        let export = graph.alias_instance_export(instance, &name).unwrap();
        graph.export(export, &name).unwrap();
    }
    let loopless = graph.encode(Default::default())?;
    Ok(plug(&read(component), &loopless))
}

fn plug(component: &[u8], loopless: &[u8]) -> Vec<u8> {
    let mut graph = CompositionGraph::new();
    let component = register(&mut graph, "component", component);
    let loopless = register(&mut graph, "loopless", loopless);
    wac_graph::plug(&mut graph, vec![loopless], component).unwrap();
    graph.encode(Default::default()).unwrap()
}

fn register(graph: &mut CompositionGraph, name: &str, component: &[u8]) -> PackageId {
    let package = Package::from_bytes(name, None, component, graph.types_mut()).unwrap();
    graph.register_package(package).unwrap()
}

/// A built component.
fn read(path: &Path) -> Vec<u8> {
    let built = std::fs::read(path).unwrap();
    component::encode(&built).unwrap().into_owned()
}

/// Starts to build what is composed here. Those builds that have a target directory of their own do not wait for the others.
fn build_side_by_side() {
    static STARTED: Once = Once::new();

    STARTED.call_once(|| {
        for Pair { build, .. } in ALL {
            std::thread::spawn(move || build.path());
        }
    });
}

impl Pair {
    /// The two, composed once.
    fn composed(self) -> PathBuf {
        static COMPOSED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

        build_side_by_side();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.wasm", self.name));
        let mut composed = COMPOSED.lock().unwrap();
        if !composed.contains(&path) {
            let doorbell = component::build(self.package.as_ref()).unwrap();
            std::fs::write(&path, compose(&doorbell, self.build)).unwrap();
            composed.push(path.clone());
        }
        path
    }

    /// A host of the two. It has all that Spin has.
    fn builder(self) -> Builder {
        Harness::builder().component(self.composed())
    }

    /// Such a host, and one of loopless itself, on one store.
    async fn both(self) -> (Harness, Harness, Observed) {
        let store = Observed::new(Memory::default());
        let doorbell = self.builder().store(store.clone()).start();
        let loopless = self.build.builder().store(store.clone()).start();
        (doorbell.await.unwrap(), loopless.await.unwrap(), store)
    }
}

/// What the interface returned.
async fn ask(host: &Harness, method: &str, path: &str) -> String {
    let response = send(host, method, path, &[], "").await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "{path}: {}",
        text(&response)
    );
    text(&response).to_owned()
}

/// The error that the interface returned.
async fn error(host: &Harness, method: &str, path: &str) -> String {
    let response = send(host, method, path, &[], "").await;
    let status = response.status();
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    assert!(host.printed(Output::Stderr).is_empty(), "it trapped");
    text(&response).to_owned()
}

async fn put(host: &Harness, body: &str) {
    let changed = send(host, "PUT", "/events/door", &[], body).await;
    assert_eq!(changed.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn events_are_those_of_the_http_api() {
    for pair in ALL {
        let (doorbell, loopless, _) = pair.both().await;
        assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
        assert_eq!(ask(&doorbell, "GET", "/door").await, "true");
        let seen = loopless.get("/events/door").await;
        assert_eq!(support::json(&seen)["set"], true);

        put(&loopless, CLEAR).await;
        assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
        put(&loopless, SET).await;
        assert_eq!(ask(&doorbell, "DELETE", "/door").await, "done");
        let seen = loopless.get("/events/door").await;
        assert_eq!(support::json(&seen)["set"], false);
        assert_eq!(ask(&doorbell, "GET", "/window").await, "false");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_set_on_another_host_even_if_a_clear_follows_at_once() {
    for pair in ALL {
        let (doorbell, loopless, _) = pair.both().await;
        let began = Instant::now();
        let (waited, ()) = tokio::join!(ask(&doorbell, "GET", "/door/wait/60000"), async {
            sleep(Duration::from_secs(3)).await;
            put(&loopless, SET).await;
            put(&loopless, CLEAR).await;
        });
        assert_eq!(waited, "set");
        let took = began.elapsed();
        let set = Duration::from_secs(3);
        assert!(
            (set..set + READING).contains(&took),
            "{}: {took:?}",
            pair.name
        );
        assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_a_set_event_returns_at_once_after_one_read() {
    for pair in ALL {
        let (doorbell, loopless, store) = pair.both().await;
        put(&loopless, SET).await;
        let (began, read) = (Instant::now(), store.count(Operation::Get));
        assert_eq!(ask(&doorbell, "GET", "/door/wait/60000").await, "set");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(store.count(Operation::Get), read + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_nobody_ends_times_out() {
    for pair in ALL {
        let (doorbell, _, _) = pair.both().await;
        for timeout in [0, 20, 5000] {
            let began = Instant::now();
            let waited = ask(&doorbell, "GET", &format!("/door/wait/{timeout}")).await;
            assert_eq!(waited, "timed-out");
            let took = began.elapsed();
            let timeout = Duration::from_millis(timeout);
            assert!(
                (timeout..=timeout + READING).contains(&took),
                "{timeout:?}: {took:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_an_event_that_is_deleted_says_so() {
    for pair in ALL {
        let (doorbell, loopless, _) = pair.both().await;
        put(&loopless, SET).await;
        put(&loopless, CLEAR).await;
        let (waited, ()) = tokio::join!(ask(&doorbell, "GET", "/door/wait/60000"), async {
            sleep(Duration::from_secs(1)).await;
            let deleted = send(&loopless, "DELETE", "/events/door", &[], "").await;
            assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
        });
        assert_eq!(waited, "forgotten");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_of_many_requests_and_some_that_are_given_up_go_on_side_by_side() {
    for pair in ASYNC {
        let (doorbell, _, _) = pair.both().await;
        let mut waits = JoinSet::new();
        for _ in 0..8 {
            let doorbell = doorbell.clone();
            waits.spawn(async move { ask(&doorbell, "GET", "/door/wait/60000").await });
        }
        for ms in [1, 30, 700, 1500] {
            assert_eq!(
                ask(&doorbell, "GET", &format!("/door/leave/{ms}")).await,
                "done"
            );
        }
        // A client that is gone takes its request along.
        let abandoned = doorbell.handle(request("/door/wait/60000"));
        assert!(
            tokio::time::timeout(Duration::from_secs(1), abandoned)
                .await
                .is_err()
        );

        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
        for waited in waits.join_all().await {
            assert_eq!(waited, "set");
        }
        assert!(doorbell.printed(Output::Stderr).is_empty(), "it trapped");
    }
}

fn request(path: &str) -> Request<http_body_util::Empty<bytes::Bytes>> {
    let request = Request::builder().method(Method::GET).uri(path);
    request.body(http_body_util::Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_and_sets_at_the_same_time() {
    for pair in ASYNC {
        let quirks = pair.build.quirks().iter().map(|(_, quirks)| *quirks);
        for quirks in quirks.chain([Quirks::default()]) {
            let doorbell = pair.builder().quirks(quirks).start().await.unwrap();
            assert_eq!(ask(&doorbell, "POST", "/door/meet/5000").await, "set");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waits_read_as_often_as_the_variables_say() {
    for pair in ALL {
        let store = Observed::new(Memory::default());
        let doorbell = pair.builder().store(store.clone());
        let doorbell = doorbell
            .variable("poll_first_ms", "2000")
            .variable("poll_last_ms", "2000");
        let doorbell = doorbell.start().await.unwrap();
        assert_eq!(ask(&doorbell, "GET", "/door/wait/20000").await, "timed-out");
        let reads = store.count(Operation::Get);
        assert!((9..=14).contains(&reads), "{}: {reads} reads", pair.name);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_say_what_is_wrong_and_the_component_goes_on() {
    for pair in ALL {
        let (doorbell, _, store) = pair.both().await;
        for name in ["no%20spaces", "front@door", &"n".repeat(65)] {
            let error = error(&doorbell, "GET", &format!("/{name}")).await;
            assert!(error.contains("BadName") && error.contains(name), "{error}");
        }
        assert_eq!(
            store.count(Operation::Get),
            0,
            "a bad name is not looked for"
        );

        store.fail("the disk is on fire");
        for (method, path) in [
            ("GET", "/door"),
            ("PUT", "/door"),
            ("DELETE", "/door"),
            ("GET", "/door/wait/50"),
        ] {
            let error = error(&doorbell, method, path).await;
            assert!(
                error.contains("Store") && error.contains("the disk is on fire"),
                "{method} {path}: {error}"
            );
        }
        store.recover();
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");

        store.set("event/door", b"a doormat").await.unwrap();
        for (method, path) in [("GET", "/door"), ("PUT", "/door"), ("GET", "/door/wait/50")] {
            let error = error(&doorbell, method, path).await;
            assert!(
                error.contains("Foreign") && error.contains("event/door"),
                "{method} {path}: {error}"
            );
        }
        let kept = store.get("event/door").await.unwrap();
        assert_eq!(kept.as_deref(), Some(&b"a doormat"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_cannot_be_used_is_an_error_of_waits() {
    for pair in ALL {
        let doorbell = pair.builder().variable("poll_first_ms", "soon");
        let doorbell = doorbell.start().await.unwrap();
        let error = error(&doorbell, "GET", "/door/wait/50").await;
        assert!(
            error.contains("BadSetting") && error.contains("poll_first_ms"),
            "{error}"
        );
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
    }
}

/// A store whose swaps never come through.
#[derive(Debug)]
struct Stuck(Memory);

#[async_trait]
impl Store for Stuck {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, store::Error> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), store::Error> {
        self.0.set(key, value).await
    }

    async fn delete(&self, key: &str) -> Result<(), store::Error> {
        self.0.delete(key).await
    }

    async fn keys(&self) -> Result<Vec<String>, store::Error> {
        self.0.keys().await
    }

    async fn swap(&self, _: &str, _: Option<&[u8]>, _: &[u8]) -> Result<bool, store::Error> {
        Ok(false)
    }

    async fn increment(
        &self,
        key: &str,
        delta: i64,
        numbers: Numbers,
    ) -> Result<i64, store::Error> {
        self.0.increment(key, delta, numbers).await
    }

    fn numbers(&self) -> Numbers {
        self.0.numbers()
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_never_comes_through_is_contended() {
    let [exact, _] = ASYNC;
    let doorbell = exact.builder().store(Stuck(Memory::default()));
    let doorbell = doorbell.start().await.unwrap();
    assert_eq!(error(&doorbell, "PUT", "/door").await, "Error::Contended");
    assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
}

/// A host of the pair, whose dependency inherits nothing but what is `inherited`.
async fn without(pair: Pair, inherited: &[&str]) -> Harness {
    build_side_by_side();
    let doorbell = component::build(pair.package.as_ref()).unwrap();
    let composed = compose_without(&doorbell, pair.build, inherited).unwrap();
    let path = format!("{}-{}-inherited.wasm", pair.name, inherited.len());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path);
    std::fs::write(&path, composed).unwrap();
    Harness::builder().component(path).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn without_the_inherited_store_each_call_is_an_error_that_names_the_setting() {
    let [exact, without_atomics @ ..] = ALL;
    // Spin would give it a store of the adapter's and the host's compare-and-swap, which do not fit: it does not start.
    let doorbell = component::build(exact.package.as_ref()).unwrap();
    let mismatch = compose_without(&doorbell, exact.build, &[]).unwrap_err();
    let mismatch = format!("{mismatch:?}");
    assert!(
        mismatch.contains("type mismatch for import `wasi:keyvalue/atomics@"),
        "{mismatch}"
    );

    for pair in without_atomics {
        let doorbell = without(pair, &[]).await;
        for (method, path) in [
            ("GET", "/door"),
            ("PUT", "/door"),
            ("DELETE", "/door"),
            ("GET", "/door/wait/50"),
        ] {
            let error = error(&doorbell, method, path).await;
            assert!(
                error.contains("Store") && error.contains("inherit_configuration"),
                "{}: {method} {path}: {error}",
                pair.name
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_inherited_variables_waits_use_the_defaults() {
    for pair in ALL {
        let doorbell = without(pair, &STORES).await;
        assert_eq!(ask(&doorbell, "GET", "/door/wait/50").await, "timed-out");
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
        assert_eq!(ask(&doorbell, "GET", "/door/wait/50").await, "set");
    }
}

/// The doorbell in Python, as a component. `None` without componentize-py, which is said, and in CI a failure.
fn in_python() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = project.join("target/python");
    let componentize = python.join("bin/componentize-py");
    if !componentize.is_file() {
        assert!(std::env::var_os("CI").is_none(), "CI must have it");
        eprintln!(
            "SKIPPED: no componentize-py; python3 -m venv target/python && target/python/bin/pip install componentize-py==0.25.1 spin-sdk==5.0.0"
        );
        return None;
    }
    let component = Path::new(env!("CARGO_TARGET_TMPDIR")).join("doorbell-python.wasm");
    let output = Command::new(componentize)
        .env("VIRTUAL_ENV", &python)
        .current_dir(project.join("tests/doorbell"))
        .args(["-d", "../../wit/events.wit"])
        .args(["-w", "loopless:event/imports@0.1.0"])
        .args(["componentize", "doorbell", "-o"])
        .arg(&component)
        // Not `-w spin:up/http-trigger`, which imports all that Spin has, and this host has not.
        .args(["-m", "spin_sdk=wasi:http/service@0.3.0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(component)
}

#[tokio::test(start_paused = true)]
async fn python_uses_events_too() {
    let Some(python) = in_python() else { return };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("doorbell-python-spin.wasm");
    std::fs::write(&path, compose(&python, Build::SPIN)).unwrap();
    let store = Observed::new(Memory::default());
    let doorbell = Build::SPIN.builder().component(path).store(store.clone());
    let doorbell = doorbell.start().await.unwrap();
    let loopless = Build::SPIN.builder().store(store).start().await.unwrap();

    assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
    assert_eq!(ask(&doorbell, "GET", "/door/wait/20").await, "timed-out");
    let (waited, ()) = tokio::join!(ask(&doorbell, "GET", "/door/wait/60000"), async {
        sleep(Duration::from_secs(3)).await;
        put(&loopless, SET).await;
    });
    assert_eq!(waited, "set");
    assert_eq!(ask(&doorbell, "GET", "/door").await, "true");
    assert_eq!(ask(&doorbell, "DELETE", "/door").await, "done");
    assert_eq!(ask(&doorbell, "POST", "/door/meet/5000").await, "set");
    let error = error(&doorbell, "GET", "/front@door").await;
    assert!(
        error.contains("BadName") && error.contains("front@door"),
        "{error}"
    );
}
