//! A Redis of a test's own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A `redis-server` on a free port. What it acknowledges is on the disk, and there again when it is started again.
pub struct RedisServer {
    program: PathBuf,
    directory: TempDir,
    /// `--port` and the like.
    options: Vec<String>,
    port: u16,
    running: Option<Running>,
}

/// A certificate of `localhost`, and its key, in files.
pub struct Certificate<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
}

struct Running {
    child: Child,
    /// Kept open: a server whose output nobody takes would fail to print.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl RedisServer {
    /// Starts it, and waits until it is ready. `None` where there is no `redis-server`.
    pub async fn start() -> Option<Self> {
        Self::start_with(|port| vec!["--port".into(), port.to_string()]).await
    }

    /// As [`start`](Self::start), for clients with TLS only.
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
            // Somebody else may have taken it meanwhile.
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

    /// Its URL, with a database.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/1", self.port)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many values have been read from it.
    pub async fn reads(&self) -> u64 {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut info = redis::cmd("INFO");
        let info: String = info
            .arg("commandstats")
            .query_async(&mut connection)
            .await
            .unwrap();
        let gets = info.split_once("cmdstat_get:calls=").map_or("0", |it| it.1);
        gets.split(',').next().unwrap().parse().unwrap()
    }

    /// Waits until somebody reads from it again and again, as a wait that is under way does.
    pub async fn is_watched(&self) {
        let before = self.reads().await;
        while self.reads().await < before + 3 {
            tokio::task::yield_now().await;
        }
    }

    /// Forgets all that it holds.
    pub async fn wipe(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let wiped = redis::cmd("FLUSHALL").exec_async(&mut connection).await;
        wiped.unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().unwrap();
        let id = running.child.id().unwrap().try_into().unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Stops it as its operator does, and waits until it is gone.
    pub async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut running = self.running.take().unwrap();
        assert!(running.child.wait().await.unwrap().success());
    }

    /// Starts it again, where it was and with what it had.
    pub async fn start_again(&mut self) {
        let running = run(&self.program, &self.directory, &self.options).await;
        self.running = Some(running.expect("redis-server starts again"));
    }
}

/// Starts a server and waits until it says that it is ready. `None` if it ends instead.
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
