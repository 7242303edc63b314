//! The application's lifespan, and the service that lives in it.

use loopless_host::store::{Sqlite, Store};
use rustix::process::Signal;
use tempfile::tempdir;

use crate::support::{Host, command, component};

/// What the service has said, without what marks the lines as the component's.
fn said(lines: &[String]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| line.split_once("] "))
        .map(|(_, text)| text)
        .collect()
}

#[tokio::test]
async fn the_service_starts_before_the_first_request_and_stops_after_the_last_one() {
    for signal in [Signal::INT, Signal::TERM] {
        let directory = tempdir().unwrap();
        let arguments = ["--store", "memory", "--variable", "service_autostart=true"];
        let mut host = Host::start(directory.path(), &arguments).await;
        let (status, service) = host.send("GET", "/service", "", false).await;
        assert_eq!(status, 200);
        assert!(service.contains("\"state\":\"running\""), "{service}");
        host.has_printed("Service did something").await;
        host.signal(signal);
        let (status, lines, errors) = host.finished().await;
        assert_eq!(status.code(), Some(0), "{errors}");
        let lines = said(&lines);
        let (first, rest) = lines.split_first().unwrap();
        assert_eq!(*first, "Service started");
        let (ticks, end) = rest.split_at(rest.len() - 2);
        assert!(
            ticks.iter().all(|line| *line == "Service did something"),
            "{lines:?}"
        );
        assert_eq!(end, ["Stopping service", "Service stopped"]);
        assert!(!errors.contains("did not stop"), "{errors}");
    }
}

#[tokio::test]
async fn a_service_that_a_client_started_stops_with_the_host_too() {
    let directory = tempdir().unwrap();
    let mut host = Host::start(directory.path(), &["--store", "memory"]).await;
    let (_, service) = host.send("GET", "/service", "", false).await;
    assert_eq!(service, "{\"state\":\"stopped\",\"ticks\":0}");
    let (status, _) = host.send("POST", "/service/start", "", false).await;
    assert_eq!(status, 202);
    host.has_printed("Service started").await;
    host.signal(Signal::TERM);
    let (_, lines, _) = host.finished().await;
    assert!(
        said(&lines).ends_with(&["Stopping service", "Service stopped"]),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_host_without_a_running_service_says_nothing_about_one() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    host.signal(Signal::TERM);
    let (_, lines, _) = host.finished().await;
    assert_eq!(said(&lines), [""; 0]);
}

#[tokio::test]
async fn the_operators_token_is_the_variable_or_nobody_elses() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let (status, _) = host.send("POST", "/lifespan/shutdown", "", false).await;
    assert_eq!(status, 401);

    let arguments = ["--store", "memory", "--variable", "operator_token=secret"];
    let host = Host::start(directory.path(), &arguments).await;
    host.signal(Signal::TERM);
    let (status, _, errors) = host.finished().await;
    assert_eq!(status.code(), Some(0));
    assert!(!errors.contains("did not stop"), "{errors}");
}

#[tokio::test]
async fn a_startup_that_fails_is_one_clear_line() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = Sqlite::open(&path).unwrap();
    store.set("service/lease", b"no lease").await.unwrap();
    drop(store);
    let component = component();
    let arguments = [
        "--store",
        "sqlite:store.db",
        "--listen",
        "127.0.0.1:0",
        "--component",
        component.to_str().unwrap(),
    ];
    let output = command(directory.path(), &arguments).output().await;
    let output = output.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.starts_with("error: ") && errors.contains("service/lease"),
        "{errors}"
    );
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn a_startup_with_a_setting_that_cannot_be_used_names_it() {
    let directory = tempdir().unwrap();
    let component = component();
    let arguments = [
        "--store",
        "memory",
        "--variable",
        "service_autostart=perhaps",
        "--listen",
        "127.0.0.1:0",
        "--component",
        component.to_str().unwrap(),
    ];
    let output = command(directory.path(), &arguments).output().await;
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("service_autostart"), "{errors}");
}
