//! Shutdown: requests that are under way may finish, within a time.

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::support::Host;
use crate::support::connection::Connection;

/// A request that has reached the component, which waits for the rest of its body.
async fn half_a_request(host: &Host) -> Connection {
    let head = "POST /change_event HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut connection = Connection::sends(host, head).await;
    // The host asks for the body when the component reads it.
    connection.sees("HTTP/1.1 100 Continue\r\n\r\n").await;
    connection.seen.clear();
    connection
}

#[tokio::test]
async fn a_running_request_may_finish_after_ctrl_c_and_sigterm() {
    for signal in [Signal::INT, Signal::TERM] {
        let host = Host::in_memory(&[]).await;
        let mut request = half_a_request(&host).await;
        host.signal(signal);
        // The socket closes when the shutdown has begun.
        while TcpStream::connect(host.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        request.send("True").await;
        let answer = request.end().await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        let (status, _) = host.ended().await;
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_off_and_reported() {
    let host = Host::in_memory(&[]).await;
    let _request = half_a_request(&host).await;
    let errors = host.stop().await;
    assert!(errors.contains("cut off"), "{errors}");
}

#[tokio::test]
async fn a_stream_of_events_ends_cleanly_at_the_shutdown() {
    let host = Host::in_memory(&[]).await;
    let request = "GET /events/door/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut stream = Connection::sends(&host, request).await;
    stream.sees("\"generation\":0}\n\n").await;
    let (answer, errors) = tokio::join!(stream.end(), host.stop());
    let last_chunk = "\r\n0\r\n\r\n";
    assert!(answer.ends_with(last_chunk), "{answer:?}");
    assert!(!errors.contains("cut off"), "{errors}");
}

#[tokio::test]
async fn a_connection_without_a_request_does_not_delay_the_shutdown() {
    let host = Host::in_memory(&[]).await;
    let _idle = Connection::open(&host).await;
    host.get("/").await;
    let errors = host.stop().await;
    assert!(!errors.contains("cut off"), "{errors}");
}
