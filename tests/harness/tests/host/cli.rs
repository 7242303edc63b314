//! `loopless-host` on the command line.

use std::path::Path;

use crate::support::{Host, command};
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
        "--quirks",
        "--variable",
        "--request-timeout",
        "--gotcha",
    ] {
        assert!(help.contains(option), "{help}");
    }
    assert!(help.contains("127.0.0.1:9009"), "{help}");
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
    let component = crate::support::component();
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
    let foreign = "(component (import \"foreign:host/interface@1.0.0\" (instance)))";
    std::fs::write(directory.path().join("foreign.wat"), foreign).unwrap();
    std::fs::write(directory.path().join("garbage.wasm"), "garbage").unwrap();
    for component in ["missing.wasm", "garbage.wasm", "foreign.wat"] {
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
    }
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
    let host =
        loopless_host::store::Observed::new(loopless_host::store::Sqlite::open(&store).unwrap());
    let harness = loopless_host::Harness::builder().store(host.clone());
    let harness = harness
        .component(crate::support::component())
        .start()
        .await
        .unwrap();
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
