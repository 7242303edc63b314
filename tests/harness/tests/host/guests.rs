//! Guests that misbehave: they are ended, and the host goes on.

use crate::support::connection::{Connection, problem};
use crate::support::{Host, Outcome, project, serve, soon};

/// `loopless-host` with a component that misbehaves.
fn unruly(arguments: &[&str]) -> tokio::process::Command {
    let component = loopless_host::component::build(&project().join("tests/unruly")).unwrap();
    let mut command = serve(&std::env::temp_dir(), &["--store", "memory"]);
    command.arg("--component").arg(component).args(arguments);
    command
}

#[tokio::test]
async fn a_guest_that_computes_forever_is_ended_and_others_go_on() {
    let host = Host::wait_for(unruly(&["--cpu-timeout", "500ms"])).await;
    // More of them than the host has threads.
    let mut loops = Vec::new();
    for _ in 0..8 {
        loops.push(Connection::gets(&host, "/loop").await);
    }
    let (status, _) = soon(host.get("/")).await;
    assert_eq!(status, 204);
    for client in loops {
        problem(&client.end().await, 500);
    }
    let (status, _) = host.get("/").await;
    assert_eq!(status, 204);
    let errors = host.stop().await;
    assert!(errors.contains("--cpu-timeout"), "{errors}");
}

#[tokio::test]
async fn a_guest_gets_at_most_the_memory_of_the_option() {
    for (size, status) in [("128MiB", 500), ("256MiB", 204)] {
        let arguments = ["--max-instance-memory", size];
        let host = Host::wait_for(unruly(&arguments)).await;
        assert_eq!(host.get("/memory").await.0, status);
        assert_eq!(host.get("/").await.0, 204);
    }
    let host = Host::wait_for(unruly(&[])).await;
    let (status, _) = host.get("/memory").await;
    assert_eq!(status, 500, "the default is 128 MiB");
}

#[tokio::test]
async fn an_error_instead_of_a_response_is_logged_with_its_cause() {
    let host = Host::wait_for(unruly(&[])).await;
    let (status, answer) = host.get("/error").await;
    assert_eq!(status, 500, "{answer}");
    let errors = host.stop().await;
    assert!(errors.contains("nobody is at home"), "{errors}");

    let startup = unruly(&["--variable", "operator_token=unruly"]);
    let outcome = Outcome::of_command(startup).await;
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    for part in ["nobody is at home", "/lifespan/startup"] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
}
