//! The lifespan of the application, and the service that runs in it.

use loopless_host::store::{Sqlite, Store};
use rustix::process::Signal;
use tempfile::tempdir;

use crate::support::{Host, Outcome, serve_component};

/// The lines that the component printed, without the host's prefix.
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
        let mut host = Host::in_memory(&["--variable", "service_autostart=true"]).await;
        let (status, service) = host.get("/service").await;
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
        let mut ticks = ticks.iter();
        assert!(
            ticks.all(|line| *line == "Service did something"),
            "{lines:?}"
        );
        assert_eq!(end, ["Stopping service", "Service stopped"]);
        assert!(!errors.contains("did not stop"), "{errors}");
    }
}

#[tokio::test]
async fn a_service_that_a_client_started_stops_with_the_host() {
    let mut host = Host::in_memory(&[]).await;
    let (_, service) = host.get("/service").await;
    assert_eq!(service, "{\"state\":\"stopped\",\"ticks\":0}");
    let (status, _) = host.send("POST", "/service/start", "").await;
    assert_eq!(status, 202);
    host.has_printed("Service started").await;
    host.signal(Signal::TERM);
    let (_, lines, _) = host.finished().await;
    let end = ["Stopping service", "Service stopped"];
    assert!(said(&lines).ends_with(&end), "{lines:?}");
}

#[tokio::test]
async fn a_host_without_a_running_service_prints_nothing_about_it() {
    let host = Host::in_memory(&[]).await;
    host.signal(Signal::TERM);
    let (_, lines, _) = host.finished().await;
    assert_eq!(said(&lines), [""; 0]);
}

#[tokio::test]
async fn the_operators_token_is_a_secret_of_the_host_or_the_variable() {
    let host = Host::in_memory(&[]).await;
    let (status, _) = host.send("POST", "/lifespan/shutdown", "").await;
    assert_eq!(status, 401);

    let host = Host::in_memory(&["--variable", "operator_token=secret"]).await;
    let errors = host.stop().await;
    assert!(!errors.contains("did not stop"), "{errors}");
}

#[tokio::test]
async fn a_startup_that_fails_is_one_line() {
    let directory = tempdir().unwrap();
    let store = Sqlite::open(directory.path().join("store.db")).unwrap();
    store.set("service/lease", b"no lease").await.unwrap();
    drop(store);
    let command = serve_component(directory.path(), &["--store", "sqlite:store.db"]);
    let outcome = Outcome::of_command(command).await;
    outcome.is_error(&["service/lease"]);
}

#[tokio::test]
async fn a_startup_with_an_invalid_variable_names_it() {
    let directory = tempdir().unwrap();
    let variable = ["--variable", "service_autostart=perhaps"];
    let arguments = [&["--store", "memory"], &variable[..]].concat();
    let command = serve_component(directory.path(), &arguments);
    let outcome = Outcome::of_command(command).await;
    outcome.is_error(&["service_autostart"]);
}
