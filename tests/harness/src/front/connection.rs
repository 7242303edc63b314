//! [`Connection`]: when a client's connection is idle, or stalled.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Bounds;
use crate::harness::problem;

/// The state of a connection, which its [`Stream`] and its requests share.
#[derive(Debug)]
pub struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) bounds: Bounds,
    /// How many of its requests are under way.
    under_way: AtomicUsize,
    opened: Instant,
    /// When the last request ended, in milliseconds since `opened`.
    idle_since: AtomicU64,
    /// Whether bytes have arrived since a request last began or ended. If none is under way, they are part of a head.
    has_part: AtomicBool,
    is_http2: AtomicBool,
}

impl Connection {
    pub fn new(peer: SocketAddr, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            peer,
            bounds,
            under_way: AtomicUsize::new(0),
            opened: Instant::now(),
            idle_since: AtomicU64::new(0),
            has_part: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
        })
    }

    /// Waits until the connection has been idle for [`Bounds::head_timeout`].
    ///
    /// Requests do not notify this: it sleeps until the connection can have been idle for that long, and checks again.
    ///
    /// # Cancel safety
    ///
    /// This is cancel safe.
    pub async fn until_idle(&self) {
        let timeout = self.bounds.head_timeout;
        loop {
            let idle = match self.under_way.load(Ordering::Acquire) {
                0 => {
                    let since = Duration::from_millis(self.idle_since.load(Ordering::Acquire));
                    self.opened.elapsed().saturating_sub(since)
                }
                _ => Duration::ZERO,
            };
            let Some(left) = timeout.checked_sub(idle).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::time::sleep(left).await;
        }
    }

    pub(super) fn begins_request(&self) {
        self.has_part.store(false, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn ends_request(&self) {
        self.has_part.store(false, Ordering::Relaxed);
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(now, Ordering::Release);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The byte stream of a connection.
///
/// A write that makes no progress for [`Bounds::write_timeout`] fails. If the stream is dropped after part of an HTTP/1.1
/// request's head has arrived, the client gets a 408.
pub struct Stream {
    tcp: TcpStream,
    connection: Arc<Connection>,
    /// Runs while a write is pending.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub fn new(tcp: TcpStream, connection: Arc<Connection>) -> Self {
        Self {
            tcp,
            connection,
            stalled: None,
        }
    }

    /// The result of a write, or an error if it has been pending for too long.
    fn unless_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.connection.bounds.write_timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer));
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            let connection = &self.connection;
            connection.has_part.store(true, Ordering::Relaxed);
            // The connection preface of HTTP/2 begins with this, and no HTTP/1.1 request does.
            if new.starts_with(b"PRI ") {
                connection.is_http2.store(true, Ordering::Relaxed);
            }
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper has answered the client.
        self.connection.has_part.store(false, Ordering::Relaxed);
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Connection {
            has_part,
            is_http2,
            under_way,
            ..
        } = &*self.connection;
        let is_idle = under_way.load(Ordering::Acquire) == 0;
        if is_idle && has_part.load(Ordering::Relaxed) && !is_http2.load(Ordering::Relaxed) {
            let answer = problem(
                StatusCode::REQUEST_TIMEOUT,
                "The head of the request did not arrive in time (--head-timeout).",
            );
            let body = answer.body();
            let head = format!(
                "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
                 connection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            // This fails if the client is gone.
            _ = self.tcp.try_write(format!("{head}{body}").as_bytes());
        }
    }
}
