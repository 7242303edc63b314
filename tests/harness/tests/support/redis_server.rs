//! A Redis of the test's own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A `redis-server` on a free port. It writes each change to disk before it acknowledges it, so that a restart loses none.
pub struct RedisServer {
    program: PathBuf,
    directory: TempDir,
    /// `--port` and the like.
    options: Vec<String>,
    port: u16,
    running: Option<Running>,
}

/// The files of a certificate for `localhost` and of its key.
pub struct Certificate<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
}

struct Running {
    child: Child,
    /// Kept open, because the server fails to print if the pipe is closed.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl RedisServer {
    /// Starts the server, and waits until it is ready. `None` if there is no `redis-server`.
    pub async fn start() -> Option<Self> {
        Self::start_with(|port| vec!["--port".into(), port.to_string()]).await
    }

    /// Starts the server as [`start`](Self::start) does, but with TLS.
    pub async fn start_with_tls(Certificate { certificate, key }: Certificate<'_>) -> Option<Self> {
        Self::start_with(|port| {
            let port = port.to_string();
            [
                ["--port", "0"],
                ["--tls-port", &port],
                ["--tls-cert-file", certificate],
                ["--tls-key-file", key],
                ["--tls-ca-cert-file", certificate],
                ["--tls-auth-clients", "no"],
            ]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
        })
        .await
    }

    async fn start_with(options: impl Fn(u16) -> Vec<String>) -> Option<Self> {
        let program = super::programs::program(&["redis-server"])?;
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let options = options(port);
            // Another process may have taken the port meanwhile.
            if let Some(running) = run(&program, &directory, &options).await {
                return Some(Self {
                    program,
                    directory,
                    options,
                    port,
                    running: Some(running),
                });
            }
        }
        panic!("redis-server does not start");
    }

    /// The URL of one of its databases.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/1", self.port)
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new connection.
    pub async fn client(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// The number of `GET` commands so far.
    async fn reads(client: &mut MultiplexedConnection) -> u64 {
        let mut info = redis::cmd("INFO");
        let info: String = info.arg("commandstats").query_async(client).await.unwrap();
        let gets = info.split_once("cmdstat_get:calls=").map_or("0", |it| it.1);
        gets.split(',').next().unwrap().parse().unwrap()
    }

    /// Waits until somebody reads from it again and again, as a wait that is under way does.
    pub async fn is_watched(&self) {
        let client = &mut self.client().await;
        let before = Self::reads(client).await;
        while Self::reads(client).await < before + 3 {
            tokio::task::yield_now().await;
        }
    }

    /// Deletes all keys.
    pub async fn wipe(&self) {
        let flush = redis::cmd("FLUSHALL");
        flush.exec_async(&mut self.client().await).await.unwrap();
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().unwrap();
        let id = running.child.id().unwrap().try_into().unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Stops the server as its operator does, and waits until it has ended.
    pub async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut running = self.running.take().unwrap();
        assert!(running.child.wait().await.unwrap().success());
    }

    /// Starts the server again, on the same port and with its data.
    pub async fn start_again(&mut self) {
        let running = run(&self.program, &self.directory, &self.options).await;
        self.running = Some(running.expect("redis-server starts again"));
    }
}

/// Starts a server, and waits until it prints that it is ready. `None` if it ends instead.
async fn run(program: &PathBuf, directory: &TempDir, options: &[String]) -> Option<Running> {
    let mut child = Command::new(program)
        .args(["--bind", "127.0.0.1"])
        .args(options)
        .args(["--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = stdout.next_line().await.unwrap() {
        if line.contains("Ready to accept connections") {
            return Some(Running {
                child,
                _stdout: stdout,
            });
        }
    }
    None
}
