//! The fuzzing itself is tested: it finds a server that breaks.

use std::cell::RefCell;
use std::time::Duration;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::arbitrary::runner;
use super::http1::broken_http1;
use super::trial::{Trial, input};
use crate::support::PATIENCE;

/// A server that breaks.
#[derive(Clone, Copy, Debug)]
enum Fragile {
    /// It accepts a connection only when the previous one has ended.
    Hangs,
    /// It accepts no more connections after it has read a byte that is 0.
    Ends,
}

impl Fragile {
    async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (end, mut ended) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = ended.recv() => return,
                };
                let serving = self.serve(stream, end.clone());
                match self {
                    Self::Hangs => serving.await,
                    Self::Ends => drop(tokio::spawn(serving)),
                }
            }
        });
        address
    }

    async fn serve(self, mut stream: TcpStream, end: mpsc::Sender<()>) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                return;
            }
            if matches!(self, Self::Ends) && seen.contains(&0) {
                _ = end.try_send(());
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"name\":\"other\"}";
        _ = stream.write_all(answer).await;
    }
}

#[test]
fn a_server_that_ends_or_hangs_is_found() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    for (fragile, patience, expected) in [
        (Fragile::Hangs, Duration::from_millis(500), "within 500ms"),
        (Fragile::Ends, PATIENCE, "an ordinary request gets \"\""),
    ] {
        let address = runtime.block_on(fragile.start());
        let trial = Trial::new(&address, patience, None);
        runtime.block_on(trial.serves()).unwrap();
        let trial = RefCell::new(trial);
        // After the first failure, every case fails, so shrinking finds nothing.
        let mut runner = TestRunner::new(Config {
            max_shrink_iters: 0,
            ..runner(500).config().clone()
        });
        let tried = runner.run(&vec(input(broken_http1()), 1..8), |inputs| {
            let tried = runtime.block_on(trial.borrow_mut().tries(inputs));
            tried.map_err(TestCaseError::fail)
        });
        let found = tried.expect_err("it is found").to_string();
        assert!(found.contains(expected), "{fragile:?}: {found}");
    }
}
