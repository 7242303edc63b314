//! Manifests, and the builds of this project for each host.

use loopless_host::store::{Sqlite, Store};
use tempfile::tempdir;

use crate::support::connection::{Connection, parts, problem};
use crate::support::{Host, Outcome, component, serve};

/// A manifest of this project's component. Its variable `longest` is the longest wait, and it passes no operator's token on.
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

/// Checks that a client may wait for at most this many seconds.
async fn longest_wait_is(host: &Host, seconds: u32) {
    let path = "/events/door/wait?timeout=99999";
    let (status, problem) = host.get(path).await;
    assert_eq!(status, 400, "{problem}");
    let range = format!("from 0 to {seconds},");
    assert!(problem.contains(&range), "{problem}");
}

#[tokio::test]
async fn a_manifest_is_built_and_served_with_its_variables_and_those_of_the_command_line() {
    let directory = tempdir().unwrap();
    let built = "build.command = \"touch built\"";
    for (build, given, expected) in [("", None, 7), ("", Some("longest=9"), 9), (built, None, 7)] {
        let manifest = manifest("default = \"7\"", build);
        std::fs::write(directory.path().join("spin.toml"), manifest).unwrap();
        let mut arguments = vec!["--from", "spin.toml", "--store", "memory"];
        arguments.extend(given.iter().flat_map(|given| ["--variable", given]));
        let host = Host::wait_for(serve(directory.path(), &arguments)).await;
        longest_wait_is(&host, expected).await;
        let errors = host.stop().await;
        let says_so = errors.contains("Building the component");
        assert_eq!(says_so, !build.is_empty(), "{errors}");
        let is_built = directory.path().join("built").exists();
        assert_eq!(is_built, !build.is_empty());
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_served_is_one_line_and_nothing_is_built() {
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
        arguments.extend(more.iter().flat_map(|given| ["--variable", given]));
        let outcome = Outcome::of_command(serve(directory.path(), &arguments)).await;
        outcome.is_error(&[from, says]);
    }
    assert!(!directory.path().join("built").exists());
}

#[tokio::test]
async fn after_a_build_that_fails_the_last_line_names_its_command() {
    let directory = tempdir().unwrap();
    let manifest = manifest("default = \"7\"", "build.command = \"exit 3\"");
    std::fs::write(directory.path().join("spin.toml"), manifest).unwrap();
    let command = serve(directory.path(), &["--from", "spin.toml"]);
    let outcome = Outcome::of_command(command).await;
    assert_eq!((outcome.code, &*outcome.stdout), (1, ""));
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: `exit 3` failed"), "{last}");
}

#[tokio::test]
async fn a_host_that_imitates_a_cloud_serves_the_build_for_it() {
    let directory = tempdir().unwrap();
    // The other builds cannot read what the build for Spin writes. They have stores of their own.
    let spin = Host::start(directory.path(), &[]).await;
    spin.set("door", true).await;
    drop(spin);
    for (name, wasi) in [("akamai-functions", "0.3"), ("fermyon-cloud", "0.2")] {
        let host = Host::of_build(directory.path(), name, &[]).await;
        let (_, document) = host.get("/openapi.json").await;
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let build = &document["info"]["x-loopless"];
        assert_eq!(build["wasi"], wasi, "{name}");
        assert_eq!(build["strategy"], "plain", "{name}");
        // As in its manifest.
        longest_wait_is(&host, 25).await;

        let request = "PUT /events/door HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
            If-Match: \"0\"\r\nContent-Length: 13\r\n\r\n{\"set\": true}";
        let answer = Connection::sends(&host, request).await.end().await;
        let (_, detail) = problem(&answer, 501);
        assert!(detail.contains("compare-and-swap"), "{detail}");
        let (_, state) = host.get("/events/door").await;
        assert!(state.contains("\"set\":false"), "{name}: {state}");
        let store = format!(".loopless/{name}.db");
        assert!(directory.path().join(store).is_file());
    }
}

#[tokio::test]
async fn a_change_that_exceeds_a_quota_is_503_with_a_problem_document() {
    let directory = tempdir().unwrap();
    let store = Sqlite::open(directory.path().join("store.db")).unwrap();
    for number in 0..1024 {
        store.set(&format!("other/{number}"), b"1").await.unwrap();
    }
    let arguments = ["--store", "sqlite:store.db"];
    let host = Host::of_build(directory.path(), "fermyon-cloud", &arguments).await;
    let request = "PUT /events/door HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Content-Length: 13\r\n\r\n{\"set\": true}";
    let answer = Connection::sends(&host, request).await.end().await;
    let (head, detail) = problem(&answer, 503);
    assert!(head.contains("retry-after: 1"), "{head}");
    assert!(detail.contains("there are 1024 keys"), "{detail}");

    store.delete("other/0").await.unwrap();
    let answer = Connection::sends(&host, request).await.end().await;
    assert_eq!(parts(&answer).0, 200, "{answer}");
}
