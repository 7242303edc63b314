//! HTTP/1.1, byte for byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Host, soon};

/// A connection on which a test writes and reads bytes.
pub struct Connection {
    pub stream: TcpStream,
    pub seen: Vec<u8>,
}

impl Connection {
    pub async fn open(host: &Host) -> Self {
        Self {
            stream: TcpStream::connect(host.address()).await.unwrap(),
            seen: Vec::new(),
        }
    }

    /// A new connection on which this has been sent.
    pub async fn sends(host: &Host, bytes: impl AsRef<[u8]>) -> Self {
        let mut connection = Self::open(host).await;
        connection.send(bytes).await;
        connection
    }

    /// A new connection on which a `GET` has been sent, and which the host closes after the response.
    pub async fn gets(host: &Host, path: &str) -> Self {
        Self::sends(host, get(path)).await
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until this text has arrived.
    pub async fn sees(&mut self, text: &str) {
        while !self.text().contains(text) {
            let read = soon(self.stream.read_buf(&mut self.seen)).await.unwrap();
            assert_ne!(read, 0, "no {text:?} in {:?}", self.text());
        }
    }

    /// Reads to the end of the connection, and returns everything that has arrived.
    pub async fn end(mut self) -> String {
        // A connection that was reset has ended too.
        _ = soon(self.stream.read_to_end(&mut self.seen)).await;
        self.text()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}

/// A `GET` request, after whose response the host closes the connection.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// The status, the head and the body of a response of HTTP/1.1.
pub fn parts(response: &str) -> (u16, &str, &str) {
    let (head, body) = response.split_once("\r\n\r\n").expect(response);
    (head[9..12].parse().expect(head), head, body)
}

/// Checks that a response of HTTP/1.1 is a problem document with this status, and returns its head and its detail.
pub fn problem(response: &str, status: u16) -> (&str, String) {
    let (actual, head, body) = parts(response);
    assert_eq!(actual, status, "{response}");
    let kind = "content-type: application/problem+json";
    assert!(head.contains(kind), "{head}");
    let document: serde_json::Value = serde_json::from_str(body).expect(body);
    assert_eq!(document["status"], status, "{body}");
    (head, document["detail"].as_str().unwrap().to_owned())
}
