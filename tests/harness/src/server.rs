//! HTTP in front of a [`Harness`](crate::Harness), or of several: hyper, HTTP/1.1 and HTTP/2 without TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::{Body, Routes};

/// How long requests may go on after a shutdown has begun.
pub const GRACE: Duration = Duration::from_secs(5);

/// A listening socket that hands requests to [`Routes`], until it is shut down or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<bool>,
}

/// Takes an address to listen on. Clients may connect from now on; they are served when a [`Server`] is started.
///
/// # Errors
///
/// Where the address cannot be had: taken, or not this machine's.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "cannot listen on {address}: the port is taken; stop what uses it, or choose another with --listen"
            ),
            _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
        })
}

impl Server {
    /// Serves what `routes` answer: one [`Harness`](crate::Harness), or several.
    ///
    /// # Errors
    ///
    /// Where the socket has no address.
    pub fn start(listener: TcpListener, routes: impl Into<Routes>) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("the socket has no address")?;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serve(listener, routes.into(), stopped));
        Ok(Self {
            address,
            stop,
            running,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Takes no more requests and lets those that run finish, for [`GRACE`] at the longest.
    ///
    /// Returns whether all of them finished.
    pub async fn shut_down(self) -> bool {
        _ = self.stop.send(());
        self.running.await.unwrap_or(false)
    }
}

/// A stream of server-sent events that ends when the server is shut down.
///
/// Such a stream may go on for ever. Its clients come back by themselves, so that an end, unlike a broken connection,
/// costs them nothing.
struct UntilShutdown {
    body: Body,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for UntilShutdown {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.shutdown.as_mut().poll(cx).map(|()| None),
            ready => ready,
        }
    }
}

/// The response, with a body that ends at the shutdown if it is a stream of events.
fn until_shutdown(response: Response<Body>, mut shutdown: watch::Receiver<bool>) -> Response<Body> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        return response;
    }
    let shutdown = Box::pin(async move {
        // An error says that the server is gone: the same.
        _ = shutdown.wait_for(|is_shutdown| *is_shutdown).await;
    });
    response.map(|body| UntilShutdown { body, shutdown }.boxed_unsync())
}

async fn serve(listener: TcpListener, routes: Routes, mut stopped: oneshot::Receiver<()>) -> bool {
    let (shutdown, is_shutdown) = watch::channel(false);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new());
    http.http2().timer(TokioTimer::new());
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(_) => {
                // A connection that broke off at once, or no file descriptor left: others may still do well.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Without this, a response that follows its head a moment later waits 40 ms for an acknowledgement.
        _ = stream.set_nodelay(true);
        let (routes, is_shutdown) = (routes.clone(), is_shutdown.clone());
        let service = service_fn(move |request| {
            let (routes, is_shutdown) = (routes.clone(), is_shutdown.clone());
            async move {
                let response = routes.handle(request).await;
                Ok::<_, Infallible>(until_shutdown(response, is_shutdown))
            }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection.into_owned());
        tokio::spawn(async move {
            // A client that goes away or speaks no HTTP is its own affair.
            _ = connection.await;
        });
    }
    drop(listener);
    _ = shutdown.send(true);
    tokio::time::timeout(GRACE, connections.shutdown())
        .await
        .is_ok()
}
