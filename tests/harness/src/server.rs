//! HTTP in front of a [`Harness`](crate::Harness), or of several: hyper, HTTP/1.1 and HTTP/2 without TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::Routes;
use crate::front::{self, Bounds, Connection, Stream};

/// The largest head of an HTTP/1.1 request, in bytes. hyper bounds HTTP/2's at 16 KiB.
const LARGEST_HEAD: usize = 64 << 10;

/// How long requests may go on after a shutdown has begun.
pub const GRACE: Duration = Duration::from_secs(5);

/// A listening socket that hands requests to [`Routes`], until it is shut down or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Each connection has a clone.
    open: Arc<()>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<bool>,
}

/// Takes an address to listen on. Clients may connect from now on; they are served when a [`Server`] is started.
///
/// # Errors
///
/// If the address cannot be had: taken, or not this machine's.
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
    /// Serves what `routes` answer: one [`Harness`](crate::Harness), or several. Clients keep within the usual [`Bounds`].
    ///
    /// # Errors
    ///
    /// If the socket has no address.
    pub fn start(listener: TcpListener, routes: impl Into<Routes>) -> anyhow::Result<Self> {
        Self::start_within(Bounds::default(), listener, routes)
    }

    /// The same, within these bounds.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_within(
        bounds: Bounds,
        listener: TcpListener,
        routes: impl Into<Routes>,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("the socket has no address")?;
        let (stop, stopped) = oneshot::channel();
        let open = Arc::new(());
        let running = serve(listener, routes.into(), bounds, open.clone(), stopped);
        let running = tokio::spawn(running);
        Ok(Self {
            address,
            open,
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

    /// How many connections are served now.
    pub fn connections(&self) -> usize {
        // This one's own, and the one that is cloned for connections to come.
        Arc::strong_count(&self.open).saturating_sub(2)
    }

    /// Takes no more requests and lets those that run finish, for at most [`GRACE`].
    ///
    /// Returns whether all of them finished.
    pub async fn shut_down(self) -> bool {
        _ = self.stop.send(());
        self.running.await.unwrap_or(false)
    }
}

async fn serve(
    listener: TcpListener,
    routes: Routes,
    bounds: Bounds,
    open: Arc<()>,
    mut stopped: oneshot::Receiver<()>,
) -> bool {
    let (shutdown, is_shutdown) = watch::channel(false);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // The connection itself watches over that, for both versions and from its first byte.
        .header_read_timeout(None)
        .max_buf_size(LARGEST_HEAD);
    http.http2().timer(TokioTimer::new());
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(
        bounds.connections.min(Semaphore::MAX_PERMITS),
    ));
    let accept = async || {
        if places.available_permits() == 0 {
            static SAID: Once = Once::new();
            let most = bounds.connections;
            SAID.call_once(|| {
                tracing::warn!(
                    "{most} connections: further ones wait until one ends (--max-connections)"
                );
            });
        }
        let place = places.clone().acquire_owned().await;
        (listener.accept().await, place)
    };
    loop {
        let (accepted, place) = tokio::select! {
            accepted = accept() => accepted,
            _ = &mut stopped => break,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(_) => {
                // A connection that broke off at once, or no file descriptor left: others may still do well.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Without this, a response that follows its head a moment later waits 40 ms for an acknowledgement.
        _ = tcp.set_nodelay(true);
        let connection = Connection::new(peer, bounds);
        let service = service_fn({
            let (routes, connection) = (routes.clone(), connection.clone());
            let is_shutdown = is_shutdown.clone();
            move |request| {
                let (routes, connection) = (routes.clone(), connection.clone());
                let is_shutdown = is_shutdown.clone();
                async move {
                    let response = front::answer(&routes, &connection, is_shutdown, request).await;
                    Ok::<_, Infallible>(response)
                }
            }
        });
        let stream = TokioIo::new(Stream::new(tcp, connection.clone()));
        let serving = connections.watch(http.serve_connection(stream, service).into_owned());
        let open = open.clone();
        tokio::spawn(async move {
            let (_place, _open) = (place, open);
            tokio::select! {
                // A client that goes away or speaks no HTTP is its own affair.
                _ = serving => {}
                () = connection.is_idle() => {}
            }
        });
    }
    drop(listener);
    _ = shutdown.send(true);
    tokio::time::timeout(GRACE, connections.shutdown())
        .await
        .is_ok()
}
