//! HTTP in front of a [`Harness`](crate::Harness), or of several: hyper, HTTP/1.1 and HTTP/2 without TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
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

/// Threads for a [`Server`], each with a runtime of its own.
///
/// A connection stays on the thread that it was given to, and so do the instances that serve its requests: no request wakes
/// another thread. A `GET` costs a quarter less processor time than on a runtime whose threads share their work. In exchange, one
/// connection has one processor, whatever it asks for at the same time.
///
/// Dropping this ends all that runs on the threads, and what requests have left behind in instances.
#[derive(Debug)]
pub struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// `None` while it is being dropped. Dropped, it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    running: Option<thread::JoinHandle<()>>,
}

impl Threads {
    /// Starts so many threads.
    ///
    /// # Errors
    ///
    /// If the operating system gives no thread.
    pub fn start(number: NonZeroUsize) -> io::Result<Self> {
        let threads = (1..=number.get()).map(|number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (stop, stopped) = oneshot::channel();
            Ok(Thread {
                runtime: runtime.handle().clone(),
                stop: Some(stop),
                running: Some(
                    thread::Builder::new()
                        .name(format!("server {number}"))
                        .spawn(move || {
                            _ = runtime.block_on(stopped);
                            runtime.shutdown_background();
                        })?,
                ),
            })
        });
        threads.collect::<io::Result<_>>().map(Self)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            // It has said what it panicked with.
            _ = running.join();
        }
    }
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
        let workers = vec![Worker::new(Handle::current(), routes.into())];
        Self::start_with(workers, bounds, listener)
    }

    /// The same, with each connection on one of these threads: on the one that has the fewest.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_on(
        threads: &Threads,
        bounds: Bounds,
        listener: TcpListener,
        routes: impl Into<Routes>,
    ) -> anyhow::Result<Self> {
        let routes = routes.into();
        let workers = threads.0.iter();
        let workers = workers.map(|thread| Worker::new(thread.runtime.clone(), routes.apart()));
        Self::start_with(workers.collect(), bounds, listener)
    }

    fn start_with(
        workers: Vec<Worker>,
        bounds: Bounds,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("the socket has no address")?;
        let (stop, stopped) = oneshot::channel();
        let open = Arc::new(());
        let running = tokio::spawn(serve(listener, workers, bounds, open.clone(), stopped));
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

/// A runtime that serves connections.
struct Worker {
    runtime: Handle,
    routes: Routes,
    /// Each of its connections has a clone.
    connections: Arc<()>,
}

impl Worker {
    fn new(runtime: Handle, routes: Routes) -> Self {
        Self {
            runtime,
            routes,
            connections: Arc::new(()),
        }
    }

    /// Moves a connection from the runtime that has accepted it to this one.
    fn takes(&self, tcp: TcpStream) -> io::Result<TcpStream> {
        let tcp = tcp.into_std()?;
        let _here = self.runtime.enter();
        TcpStream::from_std(tcp)
    }
}

async fn serve(
    listener: TcpListener,
    workers: Vec<Worker>,
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
        let least = |worker: &&Worker| Arc::strong_count(&worker.connections);
        let Some(worker) = workers.iter().min_by_key(least) else {
            break;
        };
        let moved = accepted.and_then(|(tcp, peer)| Ok((worker.takes(tcp)?, peer)));
        let (tcp, peer) = match moved {
            Ok(moved) => moved,
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
            let (routes, connection) = (worker.routes.clone(), connection.clone());
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
        let held = (place, open.clone(), worker.connections.clone());
        worker.runtime.spawn(async move {
            let _held = held;
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
