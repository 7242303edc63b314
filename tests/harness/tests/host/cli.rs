//! `loopless-host` on the command line.

mod builds;
mod shutdown;

use std::path::Path;

use crate::support::{Host, command, component};
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
        error.contains("in use") && error.contains("--listen"),
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
            "this project's build for such a host is deploy/akamai-functions.toml: use --host akamai-functions",
        ),
        (
            &["--without", "wasi-0.3"],
            component,
            &["@0.3.0, which this host does not have"],
            "this project's build for such a host is deploy/fermyon-cloud.toml: use --host fermyon-cloud",
        ),
        (
            &["--without", "wasi-0.3", "--without", "atomics"],
            component,
            &["this host does not have"],
            "this project's build for such a host is deploy/fermyon-cloud.toml: use --host fermyon-cloud",
        ),
        (
            &["--without", "batch"],
            "batch.wasm",
            &["wasi:keyvalue/batch@0.2.0-draft2, which this host does not have"],
            "all of this project's builds work on such a host",
        ),
        (
            &["--host", "akamai-functions"],
            component,
            &[atomics, "Akamai Functions does not have"],
            "this project's build for such a host is deploy/akamai-functions.toml: use --host akamai-functions",
        ),
        (
            &["--host", "fermyon-cloud"],
            component,
            &["Fermyon Cloud does not have"],
            "this project's build for such a host is deploy/fermyon-cloud.toml: use --host fermyon-cloud",
        ),
    ] {
        let mut all = vec!["--store", "memory", "--listen", "127.0.0.1:0"];
        all.extend(["--component", component]);
        all.extend(arguments);
        let error = fails(directory.path(), &all).await;
        for part in lacking {
            assert!(error.contains(part), "{part}: {error}");
        }
        let advice = format!("; {advice}\n");
        assert!(error.ends_with(&advice), "{error}");
    }
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
