//! `loopless-host` on the command line.

use std::path::Path;

use crate::support::{Host, command, component};
use loopless_host::store::{Sqlite, Store};
use rustix::process::Signal;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Runs it to its end: exit code, standard output, standard error.
async fn run(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = command(directory, arguments).output().await.unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Runs what must fail: exit code 1 and one line on standard error, which comes back.
async fn fails(directory: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(directory, arguments).await;
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(!stderr.contains('\x1b'), "no colours in a pipe");
    stderr
}

#[tokio::test]
async fn help_says_what_it_does_and_names_every_option() {
    let (code, help, _) = run(Path::new("."), &["--help"]).await;
    assert_eq!(code, 0);
    for option in [
        "--listen",
        "--store",
        "--component",
        "--from",
        "--host",
        "--without",
        "--quirks",
        "--variable",
        "--request-timeout",
        "--gotcha",
    ] {
        assert!(help.contains(option), "{help}");
    }
    assert!(help.contains("127.0.0.1:9009"), "{help}");
    let (code, simulate, _) = run(Path::new("."), &["simulate", "--help"]).await;
    assert_eq!(code, 0);
    for help in [help, simulate] {
        for host in ["spin", "akamai-functions", "fermyon-cloud"] {
            assert!(help.contains(&format!("- {host}:")), "{help}");
        }
    }
    let (code, soak, _) = run(Path::new("."), &["soak", "--help"]).await;
    assert_eq!(code, 0);
    for told in [
        "--url",
        "--token",
        "--minutes",
        "--clients",
        "--seed",
        "--store",
        "--component",
        "--host",
        "--quirks",
        "sqlite:PATH",
        "redis://",
        "Exit code: 0",
    ] {
        assert!(soak.contains(told), "{told}: {soak}");
    }
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_usage_errors() {
    for arguments in [
        &["--store", "redis"][..],
        &["--store", "sqlite:"],
        &["--store", "redis:"],
        &["--store", "redis://"],
        &["--store", "redis://localhost:port"],
        &["--store", "redis://localhost/first"],
        &["--store", "rediss://"],
        &["--quirks", "none"],
        &["--listen", "9009"],
        &["--variable", "Name=value"],
        &["--variable", "name"],
        &["--max-instance-reuse-count", "0"],
        &["--idle-instance-timeout", "soon"],
        &["--without", "nonsense"],
        &["--host", "nonsense"],
        &["--from", "spin.toml", "--component", "component.wasm"],
        &["simulate", "--host", "nonsense"],
        &[
            "simulate",
            "--host",
            "fermyon-cloud",
            "--component",
            "component.wasm",
        ],
        &["--host", "fermyon-cloud", "simulate"],
        &["serve"],
    ] {
        let (code, _, stderr) = run(Path::new("."), arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        assert!(stderr.contains("--help"), "{stderr}");
    }
}

#[tokio::test]
async fn without_a_component_it_builds_this_projects_own() {
    let directory = tempdir().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--store", "memory"];
    let host = Host::wait_for(command(directory.path(), &arguments)).await;
    let (status, page) = host.send("GET", "/", "", false).await;
    assert_eq!(status, 200);
    assert!(page.contains(">Set<"), "{page}");
    host.signal(Signal::INT);
    let (_, errors) = host.ended().await;
    assert!(errors.contains("Building the component"), "{errors}");
}

#[tokio::test]
async fn it_serves_http_1_and_http_2() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    for http2 in [false, true] {
        let (status, _) = host.send("POST", "/change_event", "True", http2).await;
        assert_eq!(status, 204);
        let (status, page) = host.send("GET", "/", "", http2).await;
        assert_eq!(status, 200);
        assert!(page.contains(">Clear<"), "{page}");
        let (status, problem) = host.send("GET", "/nothing", "", http2).await;
        assert_eq!(status, 404, "{problem}");
    }
    let files: Vec<_> = directory.path().read_dir().unwrap().collect();
    assert!(files.is_empty(), "memory leaves no files: {files:?}");
}

#[tokio::test]
async fn the_state_survives_a_restart_in_a_file_of_the_working_directory() {
    let directory = tempdir().unwrap();
    let first = Host::start(directory.path(), &[]).await;
    first.send("POST", "/change_event", "True", false).await;
    first.signal(Signal::TERM);
    let (status, _) = first.ended().await;
    assert!(status.success());
    assert!(directory.path().join(".loopless/store.db").is_file());

    let second = Host::start(directory.path(), &[]).await;
    let (_, page) = second.send("GET", "/", "", false).await;
    assert!(page.contains(">Clear<"), "{page}");
}

#[tokio::test]
async fn an_acknowledged_change_survives_a_kill() {
    let directory = tempdir().unwrap();
    for (body, expected) in [("True", ">Clear<"), ("False", ">Set<"), ("True", ">Clear<")] {
        let host = Host::start(directory.path(), &[]).await;
        let (status, _) = host.send("POST", "/change_event", body, false).await;
        assert_eq!(status, 204);
        host.signal(Signal::KILL);
        assert!(!host.ended().await.0.success());

        let host = Host::start(directory.path(), &[]).await;
        let (_, page) = host.send("GET", "/", "", false).await;
        assert!(page.contains(expected), "{page}");
    }
}

#[tokio::test]
async fn a_taken_port_is_one_clear_line() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let address = host.url.strip_prefix("http://").unwrap();
    let component = component();
    let component = component.to_str().unwrap();
    let arguments = [
        "--store",
        "memory",
        "--listen",
        address,
        "--component",
        component,
    ];
    let error = fails(directory.path(), &arguments).await;
    assert!(error.contains(address), "{error}");
    assert!(
        error.contains("taken") && error.contains("--listen"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_one_clear_line() {
    let directory = tempdir().unwrap();
    std::fs::write(
        directory.path().join("notes.txt"),
        "no database\n".repeat(200),
    )
    .unwrap();
    std::fs::create_dir(directory.path().join("folder")).unwrap();
    for store in [
        "sqlite:notes.txt",
        "sqlite:folder",
        "sqlite:notes.txt/store.db",
    ] {
        let error = fails(directory.path(), &["--store", store]).await;
        assert!(error.contains(&store["sqlite:".len()..]), "{error}");
    }
}

#[tokio::test]
async fn a_redis_that_nobody_runs_is_one_clear_line_without_its_password() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let store = format!("redis://somebody:secret@{address}/1");
    let error = fails(Path::new("."), &["--store", &store]).await;
    assert!(error.contains(&address), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn a_component_that_does_not_load_is_one_clear_line() {
    let directory = tempdir().unwrap();
    let foreign = importing("foreign:host/interface@1.0.0");
    std::fs::write(directory.path().join("foreign.wasm"), foreign).unwrap();
    std::fs::write(directory.path().join("garbage.wasm"), "garbage").unwrap();
    for (component, says) in [
        ("missing.wasm", "No such file"),
        ("garbage.wasm", "magic"),
        ("foreign.wasm", "foreign:host/interface@1.0.0"),
    ] {
        let arguments = [
            "--store",
            "memory",
            "--listen",
            "127.0.0.1:0",
            "--component",
            component,
        ];
        let error = fails(directory.path(), &arguments).await;
        assert!(error.contains(component), "{error}");
        assert!(error.contains(says), "{error}");
    }
}

/// A component that imports an interface, with one function `f`, and does nothing.
fn importing(interface: &str) -> Vec<u8> {
    // https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
    let preamble = *b"\0asm\x0d\0\x01\0";
    // An instance type: a function type without parameters and results, and an export of it.
    let instance = b"\x01\x42\x02\x01\x40\0\x01\0\x04\0\x01f\x01\0";
    let mut import = vec![1, 0, u8::try_from(interface.len()).unwrap()];
    import.extend(interface.as_bytes());
    import.extend([5, 0]);
    let mut component = preamble.to_vec();
    for (id, section) in [(7, &instance[..]), (10, &import)] {
        component.extend([id, u8::try_from(section.len()).unwrap()]);
        component.extend(section);
    }
    component
}

#[tokio::test]
async fn an_interface_that_is_left_out_is_one_clear_line_with_the_build_that_needs_none() {
    let directory = tempdir().unwrap();
    let batch = importing("wasi:keyvalue/batch@0.2.0-draft2");
    std::fs::write(directory.path().join("batch.wasm"), batch).unwrap();
    let component = component();
    let component = component.to_str().unwrap();
    let atomics = "wasi:keyvalue/atomics@0.2.0-draft2, which";
    for (arguments, component, lacking, advice) in [
        (
            &["--without", "atomics"][..],
            component,
            &[atomics, "this host does not have"][..],
            "the one of deploy/akamai-functions.toml works there: --host akamai-functions",
        ),
        (
            &["--without", "wasi-0.3"],
            component,
            &["@0.3.0, which this host does not have"],
            "the one of deploy/fermyon-cloud.toml works there: --host fermyon-cloud",
        ),
        (
            &["--without", "wasi-0.3", "--without", "atomics"],
            component,
            &["this host does not have"],
            "the one of deploy/fermyon-cloud.toml works there: --host fermyon-cloud",
        ),
        (
            &["--without", "batch"],
            "batch.wasm",
            &["wasi:keyvalue/batch@0.2.0-draft2, which this host does not have"],
            "all work there",
        ),
        (
            &["--host", "akamai-functions"],
            component,
            &[atomics, "Akamai Functions does not have"],
            "the one of deploy/akamai-functions.toml works there: --host akamai-functions",
        ),
        (
            &["--host", "fermyon-cloud"],
            component,
            &["Fermyon Cloud does not have"],
            "the one of deploy/fermyon-cloud.toml works there: --host fermyon-cloud",
        ),
    ] {
        let mut all = vec!["--store", "memory", "--listen", "127.0.0.1:0"];
        all.extend(["--component", component]);
        all.extend(arguments);
        let error = fails(directory.path(), &all).await;
        for part in lacking {
            assert!(error.contains(part), "{part}: {error}");
        }
        let advice = format!("; of this project's builds, {advice}\n");
        assert!(error.ends_with(&advice), "{error}");
    }
}

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

/// A request that has reached the component and waits for the rest of its body.
async fn half_a_request(host: &Host) -> TcpStream {
    let address = host.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /change_event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The host asks for the body when the component reads it.
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn a_running_request_may_finish_after_ctrl_c_and_sigterm() {
    for signal in [Signal::INT, Signal::TERM] {
        let directory = tempdir().unwrap();
        let host = Host::start(directory.path(), &["--store", "memory"]).await;
        let mut stream = half_a_request(&host).await;
        host.signal(signal);
        // The socket closes when the shutdown has begun.
        let address = host.url.strip_prefix("http://").unwrap();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        stream.write_all(b"True").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        let (status, _) = host.ended().await;
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_off_and_said() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let _stream = half_a_request(&host).await;
    host.signal(Signal::TERM);
    let (status, errors) = host.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(errors.contains("cut off"), "{errors}");
}

#[tokio::test]
async fn a_stream_of_events_ends_cleanly_at_the_shutdown() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let address = host.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /events/door/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"generation\":0}\n\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    host.signal(Signal::TERM);
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.ends_with("\r\n0\r\n\r\n"),
        "the last chunk: {answer:?}"
    );
    let (status, errors) = host.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(!errors.contains("cut off"), "{errors}");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_stream() {
    let directory = tempdir().unwrap();
    let store = directory.path().join("store.db");
    let host = loopless_host::store::Observed::new(Sqlite::open(&store).unwrap());
    let harness = loopless_host::Harness::builder().store(host.clone());
    let harness = harness.component(component()).start().await.unwrap();
    let server = harness.serve().await.unwrap();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = "GET /events/door/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 12]).await.unwrap();
    drop(stream);
    // It reads until it has noticed. A second without a read says that it has.
    let reads = || host.count(loopless_host::store::Operation::Get);
    let mut quiet = tokio::time::interval(std::time::Duration::from_secs(1));
    let mut before = None;
    for _ in 0..5 {
        quiet.tick().await;
        if before == Some(reads()) {
            return;
        }
        before = Some(reads());
    }
    panic!("the stream went on reading");
}

#[tokio::test]
async fn a_connection_without_a_request_does_not_hold_up_the_end() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let address = host.url.strip_prefix("http://").unwrap();
    let _idle = TcpStream::connect(address).await.unwrap();
    host.send("GET", "/", "", false).await;
    host.signal(Signal::TERM);
    let (status, errors) = host.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(!errors.contains("cut off"), "{errors}");
}

#[tokio::test]
async fn what_is_no_http_hurts_nobody() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let address = host.url.strip_prefix("http://").unwrap();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\n\r\n", "200"),
        (
            "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
            "4",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "4"),
        ("\x16\x03\x01 hello\r\n\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer[9..].starts_with(status), "{request:?}: {answer:?}");
    }
    let (status, _) = host.send("GET", "/", "", false).await;
    assert_eq!(status, 200);
}
