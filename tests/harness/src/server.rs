//! [`Server`]: HTTP/1.1 and HTTP/2 without TLS, for one or several [`Harness`](crate::Harness)es.

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

/// The largest head of an HTTP/1.1 request, in bytes. hyper limits that of HTTP/2 to 16 KiB.
const LARGEST_HEAD: usize = 64 << 10;

/// How long requests may take to finish after a shutdown begins.
pub const GRACE: Duration = Duration::from_secs(5);

/// A listening socket that gives requests to [`Routes`], until it is shut down or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// For each [`Worker`], its `connections`.
    connections: Vec<Arc<()>>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<bool>,
}

/// Threads for a [`Server`], each with a runtime of its own.
///
/// A connection and the instances that serve its requests stay on one thread, so no request wakes another thread. A `GET` costs a
/// quarter less processor time than on a runtime whose threads share work. In exchange, all requests of a connection share one
/// processor.
///
/// Dropping this ends the threads and everything that runs on them, including the work that requests have left behind.
#[derive(Debug)]
pub struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Ends the thread when it is dropped. `None` while the `Thread` is being dropped.
    stop: Option<oneshot::Sender<()>>,
    running: Option<thread::JoinHandle<()>>,
}

impl Threads {
    /// Starts this many threads.
    ///
    /// # Errors
    ///
    /// If the operating system cannot start a thread.
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

    /// How many tasks there are on the threads: those of connections and of instances.
    pub fn tasks(&self) -> usize {
        let tasks = |thread: &Thread| thread.runtime.metrics().num_alive_tasks();
        self.0.iter().map(tasks).sum()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            // If the thread panicked, it has printed why.
            _ = running.join();
        }
    }
}

/// Binds a socket to an address. Clients can connect from now on. They are served when a [`Server`] is started.
///
/// # Errors
///
/// If the address is in use, or is not this machine's.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "cannot listen on {address}: the port is in use; stop the program that uses it, or choose another with --listen"
            ),
            _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
        })
}

impl Server {
    /// Serves `routes`, which may be a single [`Harness`](crate::Harness), with the default [`Bounds`].
    ///
    /// # Errors
    ///
    /// If the socket has no address.
    pub fn start(listener: TcpListener, routes: impl Into<Routes>) -> anyhow::Result<Self> {
        Self::start_within(Bounds::default(), listener, routes)
    }

    /// Serves `routes` within these bounds.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start).
    pub fn start_within(
        bounds: Bounds,
        listener: TcpListener,
        routes: impl Into<Routes>,
    ) -> anyhow::Result<Self> {
        let workers = vec![Worker::new(Handle::current(), routes.into())];
        Self::start_with(workers, bounds, listener)
    }

    /// Serves `routes` within these bounds, each connection on the one of these threads that has the fewest.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start).
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
        let connections = workers.iter().map(|worker| worker.connections.clone());
        let connections = connections.collect();
        let running = tokio::spawn(serve(listener, workers, bounds, stopped));
        Ok(Self {
            address,
            connections,
            stop,
            running,
        })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        // Without the server's own clone and the worker's.
        let of_worker = |connections| Arc::strong_count(connections).saturating_sub(2);
        self.connections.iter().map(of_worker).sum()
    }

    /// Stops taking requests, and waits at most [`GRACE`] for those under way. Returns whether all of them finished.
    pub async fn shut_down(self) -> bool {
        _ = self.stop.send(());
        self.running.await.unwrap_or(false)
    }
}

/// A runtime that serves connections.
struct Worker {
    runtime: Handle,
    routes: Routes,
    /// Each of its connections holds a clone.
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

    /// Moves a connection to this runtime, from the one that has accepted it.
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
    mut stopped: oneshot::Receiver<()>,
) -> bool {
    let (shutdown, is_shutdown) = watch::channel(false);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // `Connection::until_idle` does this, for both versions and from the connection's start.
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
                    "{most} connections are open: further ones wait until one ends (--max-connections)"
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
                // The client is gone, or there are no file descriptors left. The next connection may succeed.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Without this, a body that is sent a moment after its head waits up to 40 ms for an acknowledgement.
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
        let held = (place, worker.connections.clone());
        worker.runtime.spawn(async move {
            let _held = held;
            tokio::select! {
                // An error is the client's: it has disconnected, or does not speak HTTP.
                _ = serving => {}
                () = connection.until_idle() => {}
            }
        });
    }
    drop(listener);
    _ = shutdown.send(true);
    tokio::time::timeout(GRACE, connections.shutdown())
        .await
        .is_ok()
}
