//! The harness runs a component for Spin 2 and 3, which is a core module for WASI 0.2, and imitates other platforms.

use std::path::Path;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use loopless_host::console::Output;
use loopless_host::manifest::Manifest;
use loopless_host::platform::{Interface, Platform};
use loopless_host::store::{Memory, Observed, Store};
use loopless_host::{Builder, Harness, component};
use tokio::time::Instant;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spin2/spin.toml");

fn guestbook() -> Builder {
    Harness::builder().manifest(MANIFEST)
}

fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_request_has_an_instance_of_its_own_on_one_store() {
    let host = guestbook().start().await.unwrap();
    for name in ["ann", "ben"] {
        let signed = host.post(&format!("/{name}"), "hi").await;
        assert_eq!(signed.status(), StatusCode::OK);
    }
    let page = host.get("/").await;
    assert_eq!(text(page.body()), "Hello, guests\nann: hi\nben: hi\n");
    assert_eq!(host.instances(), 3);
    let printed = host.printed(Output::Stdout);
    assert_eq!(
        printed,
        ["request 1: /ann", "request 1: /ben", "request 1: /"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_is_streamed_as_the_guest_writes_it() {
    let store = Memory::default();
    store.set("ann", b"hi").await.unwrap();
    let host = guestbook().store(store).start().await.unwrap();
    let began = Instant::now();
    let request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
    let mut body = host.handle(request).await.into_body();
    let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(
        (text(&line), began.elapsed().as_secs()),
        ("Hello, guests\n", 0)
    );
    let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((text(&line), began.elapsed().as_secs()), ("ann: hi\n", 1));
}

#[tokio::test(start_paused = true)]
async fn variables_come_from_the_manifest_or_from_the_test() {
    let host = guestbook().variable("name", "you").start().await.unwrap();
    assert_eq!(text(host.get("/").await.body()), "Hello, you\n");
    // The component has only the variables that the manifest gives it.
    let host = guestbook()
        .variable("greeting", "Hi")
        .start()
        .await
        .unwrap();
    assert_eq!(text(host.get("/").await.body()), "Hello, guests\n");
}

#[tokio::test(start_paused = true)]
async fn the_request_timeout_ends_a_response_in_the_middle_of_its_body() {
    let store = Memory::default();
    for name in 0..60 {
        store.set(&name.to_string(), b"hi").await.unwrap();
    }
    let platform = Platform::fermyon_cloud();
    let host = guestbook()
        .store(store)
        .platform(platform)
        .start()
        .await
        .unwrap();
    let began = Instant::now();
    let page = host.get("/").await;
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(text(page.body()).lines().count(), 31, "a line a second");
    let died = host.printed(Output::Stderr);
    assert!(
        died.iter().any(|line| line.contains("timed out")),
        "{died:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_guest_has_as_much_memory_as_on_the_platform() {
    let host = guestbook().start().await.unwrap();
    assert_eq!(text(host.get("/memory").await.body()), "209715200\n");
    let platform = Platform {
        // The guestbook imports SQLite too.
        lacks: Vec::new(),
        ..Platform::akamai_functions()
    };
    let host = guestbook().platform(platform).start().await.unwrap();
    let trapped = host.get("/memory").await;
    assert_eq!(trapped.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(host.get("/").await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_exceeds_a_quota_is_an_error_of_the_store() {
    let store = Observed::new(Memory::default());
    let mut platform = Platform::fermyon_cloud();
    platform.quotas.keys = Some(1);
    let builder = guestbook().store(store.clone()).platform(platform);
    let host = builder.start().await.unwrap();
    assert_eq!(host.post("/ann", "hi").await.status(), StatusCode::OK);
    let refused = host.post("/ben", "hi").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(refused.body()).contains("1 keys"), "{refused:?}");
    let long = format!("/{}", "x".repeat(256));
    assert!(text(host.post(&long, "").await.body()).contains("255 bytes"));
    assert_eq!(store.keys().await.unwrap(), ["ann"]);
}

#[tokio::test]
async fn a_component_does_not_start_on_a_platform_that_lacks_its_import_and_the_error_names_it() {
    let mut platform = Platform::spin();
    platform.lacks.push(Interface::Atomics);
    let error = Harness::builder()
        .platform(platform)
        .start()
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    let lacking = "it imports wasi:keyvalue/atomics@0.2.0-draft2, which this host does not have";
    assert!(error.ends_with(lacking), "{error}");

    let platform = Platform::fermyon_cloud();
    let guests = Harness::builder()
        .package("tests/guestbook")
        .platform(platform);
    let error = format!("{:#}", guests.start().await.unwrap_err());
    assert!(
        error.contains("@0.3.0, which Fermyon Cloud does not have"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_is_no_http_component_does_not_start_and_the_error_says_why() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes, says) in [
        (&b"\0asm\x01\0\0\0"[..], "exports neither wasi:http/handler"),
        (b"\0asm\x0d\0\x01\0", "exports neither wasi:http/handler"),
        (b"no wasm", "no wasm.wasm"),
    ] {
        let path = directory.path().join("no wasm.wasm");
        std::fs::write(&path, bytes).unwrap();
        let error = Harness::builder().component(&path).start().await;
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_module_is_encoded_as_a_component_and_a_component_is_not_changed() {
    let module = Manifest::read(Path::new(MANIFEST))
        .unwrap()
        .build()
        .unwrap();
    let module = std::fs::read(module).unwrap();
    let encoded = component::encode(&module).unwrap();
    assert_ne!(*encoded, module);
    assert_eq!(component::encode(&encoded).unwrap(), encoded);
}
