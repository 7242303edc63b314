//! HTTP in front of a [`Harness`]: hyper, HTTP/1.1 and HTTP/2 without TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Harness;

/// How long requests may go on after a shutdown has begun.
pub const GRACE: Duration = Duration::from_secs(5);

/// A listening socket that hands requests to a [`Harness`], until it is shut down or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<bool>,
}

impl Server {
    /// Listens on `address` and serves what `harness` answers.
    ///
    /// # Errors
    ///
    /// Where the address cannot be had: taken, or not this machine's.
    pub async fn bind(address: SocketAddr, harness: Harness) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => anyhow::anyhow!(
                    "cannot listen on {address}: the port is taken; stop what uses it, or choose another with --listen"
                ),
                _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
            })?;
        let address = listener.local_addr().context("the socket has no address")?;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serve(listener, harness, stopped));
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

async fn serve(
    listener: TcpListener,
    harness: Harness,
    mut stopped: oneshot::Receiver<()>,
) -> bool {
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
        let harness = harness.clone();
        let service = service_fn(move |request| {
            let harness = harness.clone();
            async move { Ok::<_, Infallible>(harness.handle(request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection.into_owned());
        tokio::spawn(async move {
            // A client that goes away or speaks no HTTP is its own affair.
            _ = connection.await;
        });
    }
    drop(listener);
    tokio::time::timeout(GRACE, connections.shutdown())
        .await
        .is_ok()
}
