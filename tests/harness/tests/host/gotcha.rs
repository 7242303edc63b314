//! `loopless-host --gotcha`: an event in a `static` beside the real one.

use crate::support::Host;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends `GET path` over a connection of its own, whose answer is still to come.
async fn connect(host: &Host, path: &str) -> TcpStream {
    let address = host.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads on until this has come.
async fn reads(stream: &mut TcpStream, text: &str) {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(text) {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{text}");
    }
}

/// The status of an answer, and the answer.
async fn end(mut stream: TcpStream) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[tokio::test]
async fn the_gotcha_takes_its_own_requests_along_and_no_others() {
    let directory = tempdir().unwrap();
    let mut host = Host::start(directory.path(), &["--store", "memory", "--gotcha"]).await;
    let gotcha = host.prints("gotcha").await;
    assert!(
        gotcha.ends_with(&format!("{}/gotcha/", host.url)),
        "{gotcha}"
    );
    let (status, page) = host.send("GET", "/gotcha/", "", false).await;
    assert_eq!(status, 200);
    assert!(page.contains("<h1>The gotcha</h1>"), "{page}");

    let mut watch = connect(&host, "/events/door/stream").await;
    reads(&mut watch, "\"generation\":0").await;

    // The host gives a set that comes at the very moment when the wait falls asleep to another instance: once more then.
    let mut trapped = false;
    for _ in 0..5 {
        let waiting = connect(&host, "/gotcha/wait").await;
        host.prints("] GET /wait").await;
        let (set, answer) = host.send("POST", "/gotcha/set", "", false).await;
        let (waited, _) = end(waiting).await;
        if set == 500 {
            assert_eq!(waited, 500);
            assert!(answer.contains("The host's log says how."), "{answer}");
            trapped = true;
            break;
        }
        assert_eq!((set, waited), (200, 408), "{answer}");
        host.send("POST", "/gotcha/clear", "", false).await;
    }
    assert!(trapped, "five sets in a row went to other instances");

    let (status, after) = host.send("GET", "/gotcha/event", "", false).await;
    assert_eq!(status, 200);
    assert!(after.contains("\"set\":false"), "a new instance: {after}");

    let (status, _) = host
        .send("PUT", "/events/door", "{\"set\": true}", false)
        .await;
    assert_eq!(status, 200);
    // A watch of the real event, begun before, goes on.
    reads(&mut watch, "\"generation\":1").await;

    host.signal(rustix::process::Signal::INT);
    let (status, log) = host.ended().await;
    assert!(status.success());
    assert!(
        log.contains("Cannot support cross-component-model-task wakeup"),
        "{log}"
    );
}

#[tokio::test]
async fn without_the_option_there_is_no_gotcha() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    let (status, _) = host.send("GET", "/gotcha/", "", false).await;
    assert_eq!(status, 404);
    host.signal(rustix::process::Signal::INT);
    let (_, log) = host.ended().await;
    assert!(!log.contains("Building"), "{log}");
}
