//! How it ends: what is under way may finish, for a time.

use rustix::process::Signal;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Host;

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
