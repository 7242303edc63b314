//! Manifests, and the builds of this project for each host.

use loopless_host::store::{Sqlite, Store};
use rustix::process::Signal;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{fails, run};
use crate::support::{Host, command, component};

/// A manifest of this project's component, which says how long waits may be, and hands no operator's token on.
fn manifest(longest: &str, build: &str) -> String {
    let component = component();
    format!(
        r#"
spin_manifest_version = 2
application = {{ name = "a" }}
variables.longest = {{ {longest} }}
[[trigger.http]]
route = "/..."
component = "c"
[component.c]
source = {component:?}
key_value_stores = ["default"]
variables.wait_max_seconds = "{{{{ longest }}}}"
{build}
"#
    )
}

/// Checks that this many seconds are the longest wait that a client may ask for.
async fn longest_wait_is(host: &Host, seconds: u32) {
    let path = "/events/door/wait?timeout=99999";
    let (status, problem) = host.send("GET", path, "", false).await;
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem.contains(&format!("from 0 to {seconds},")),
        "{problem}"
    );
}

#[tokio::test]
async fn a_manifest_is_built_and_served_with_its_variables_and_those_that_are_given() {
    let directory = tempdir().unwrap();
    let built = "build.command = \"touch built\"";
    for (build, given, expected) in [("", None, 7), ("", Some("longest=9"), 9), (built, None, 7)] {
        let manifest = manifest("default = \"7\"", build);
        std::fs::write(directory.path().join("spin.toml"), manifest).unwrap();
        let mut arguments = vec!["--from", "spin.toml", "--store", "memory"];
        arguments.extend(["--listen", "127.0.0.1:0"]);
        arguments.extend(given.iter().flat_map(|given| ["--variable", given]));
        let host = Host::wait_for(command(directory.path(), &arguments)).await;
        longest_wait_is(&host, expected).await;
        host.signal(Signal::TERM);
        let (status, errors) = host.ended().await;
        assert_eq!(status.code(), Some(0));
        let says_so = errors.contains("Building the component");
        assert_eq!(says_so, !build.is_empty(), "{errors}");
        let is_built = directory.path().join("built").exists();
        assert_eq!(is_built, !build.is_empty());
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_served_is_one_clear_line_before_anything_is_built() {
    let directory = tempdir().unwrap();
    let build = "build.command = \"touch built\"";
    let valid = manifest("default = \"7\"", build);
    let old = "spin_manifest_version = \"1\"\nname = \"a\"\n[[component]]\nid = \"c\"\n";
    let elsewhere = valid.replace("source = ", "source = \"nowhere.wasm\" #");
    let elsewhere = elsewhere.replace(build, "");
    for (name, manifest) in [
        ("valid.toml", &valid),
        ("required.toml", &manifest("required = true", build)),
        ("old.toml", &old.to_owned()),
        ("garbage.toml", &"spin_manifest_version = 2\n[".to_owned()),
        ("elsewhere.toml", &elsewhere),
    ] {
        std::fs::write(directory.path().join(name), manifest).unwrap();
    }
    for (from, more, says) in [
        ("missing.toml", None, "No such file"),
        ("old.toml", None, "version 1"),
        ("garbage.toml", None, "line 2"),
        ("required.toml", None, "--variable longest=VALUE"),
        ("valid.toml", Some("longes=9"), "no variable \"longes\""),
        ("elsewhere.toml", None, "nowhere.wasm"),
    ] {
        let mut arguments = vec!["--from", from, "--store", "memory"];
        arguments.extend(["--listen", "127.0.0.1:0"]);
        arguments.extend(more.iter().flat_map(|given| ["--variable", given]));
        let error = fails(directory.path(), &arguments).await;
        assert!(error.contains(from) && error.contains(says), "{error}");
    }
    assert!(!directory.path().join("built").exists());
}

#[tokio::test]
async fn a_build_that_fails_ends_with_a_line_that_names_its_command() {
    let directory = tempdir().unwrap();
    let manifest = manifest("default = \"7\"", "build.command = \"exit 3\"");
    std::fs::write(directory.path().join("spin.toml"), manifest).unwrap();
    let arguments = ["--from", "spin.toml", "--listen", "127.0.0.1:0"];
    let (code, stdout, stderr) = run(directory.path(), &arguments).await;
    assert_eq!((code, &*stdout), (1, ""), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: `exit 3` failed"), "{stderr}");
}

/// Sends a whole request in HTTP/1.1, and returns the whole answer.
async fn exchange(host: &Host, request: &str) -> String {
    let address = host.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_host_like_a_cloud_serves_this_projects_build_for_it() {
    let directory = tempdir().unwrap();
    // What the build for Spin has written, this one could not read: it has a store of its own.
    let spin = Host::start(directory.path(), &[]).await;
    spin.send("PUT", "/events/door", "{\"set\": true}", false)
        .await;
    drop(spin);
    for (name, wasi) in [("akamai-functions", "0.3"), ("fermyon-cloud", "0.2")] {
        let host = Host::of_build(directory.path(), name, &[]).await;
        let (_, document) = host.send("GET", "/openapi.json", "", false).await;
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let build = &document["info"]["x-loopless"];
        assert_eq!(build["wasi"], wasi, "{name}");
        assert_eq!(build["strategy"], "plain", "{name}");
        // From its manifest.
        longest_wait_is(&host, 25).await;

        let request = "PUT /events/door HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
            If-Match: \"0\"\r\nContent-Length: 13\r\n\r\n{\"set\": true}";
        let answer = exchange(&host, request).await;
        assert!(answer.starts_with("HTTP/1.1 501 "), "{name}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains("compare-and-swap"), "{answer}");
        let (_, state) = host.send("GET", "/events/door", "", false).await;
        assert!(state.contains("\"set\":false"), "{name}: {state}");
        let store = format!(".loopless/{name}.db");
        assert!(directory.path().join(store).is_file());
    }
}

#[tokio::test]
async fn what_goes_beyond_a_quota_is_503_with_a_problem_document() {
    let directory = tempdir().unwrap();
    let store = Sqlite::open(directory.path().join("store.db")).unwrap();
    for number in 0..1024 {
        store.set(&format!("other/{number}"), b"1").await.unwrap();
    }
    let arguments = ["--store", "sqlite:store.db"];
    let host = Host::of_build(directory.path(), "fermyon-cloud", &arguments).await;
    let request = "PUT /events/door HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Content-Length: 13\r\n\r\n{\"set\": true}";
    let answer = exchange(&host, request).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let head = answer.to_ascii_lowercase();
    assert!(head.contains("application/problem+json"), "{answer}");
    assert!(head.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("there are 1024 keys"), "{answer}");

    store.delete("other/0").await.unwrap();
    let answer = exchange(&host, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
