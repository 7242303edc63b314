//! Running `loopless-host`, and clients of it.

pub mod connection;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::shared::redis_server::RedisServer;

/// The manifests of the builds that keep their events in a Redis: with WASI 0.3, and with 0.2.
pub const REDIS_BUILDS: [&str; 2] = [
    "deploy/akamai-functions-redis.toml",
    "deploy/spin-3-redis.toml",
];

/// Longer than anything takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits a future that must complete within [`PATIENCE`].
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// The directory of this project.
pub fn project() -> &'static Path {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.nth(2).unwrap()
}

/// The component of this project, built once in a test process.
pub fn component() -> PathBuf {
    crate::worlds::search_ahead();
    loopless_host::component::build(project()).unwrap()
}

/// An address of this machine on which nothing listens.
pub async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// `loopless-host` with these arguments, in this directory.
pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loopless-host"));
    command
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// `loopless-host` on a free port, with these arguments, in this directory.
pub fn serve(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = command(directory, &["--listen", "127.0.0.1:0"]);
    command.args(arguments);
    command
}

/// The same, with the component of this project.
pub fn serve_component(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = serve(directory, arguments);
    command.arg("--component").arg(component());
    command
}

/// How a command ended, and what it printed.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Runs `loopless-host` with these arguments to its end.
    pub async fn of(arguments: &[&str]) -> Self {
        Self::of_command(command(Path::new("."), arguments)).await
    }

    pub async fn of_command(mut command: Command) -> Self {
        let output = command.output().await.unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks that the command printed one line on standard error, with these parts, and nothing else, and ended with code 1.
    pub fn is_error(&self, parts: &[&str]) {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        assert_eq!((*code, &**stdout), (1, ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(!stderr.contains('\x1b'), "no colours in a pipe");
        for part in parts {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
    }

    /// Checks that the command rejected its arguments.
    pub fn is_usage_error(&self) {
        assert_eq!(self.code, 2, "{}", self.stderr);
        assert!(self.stderr.contains("--help"), "{}", self.stderr);
    }
}

/// A running `loopless-host`.
pub struct Host {
    child: Child,
    /// Kept open, because the host fails to print if the pipe is closed.
    stdout: Lines<BufReader<ChildStdout>>,
    pub url: String,
    /// The lines on standard output so far, except the one with the URL.
    printed: Vec<String>,
}

impl Host {
    /// Starts a host on a free port with the component of this project, and waits until it serves.
    pub async fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::wait_for(serve_component(directory, arguments)).await
    }

    /// As [`start`](Self::start), with a store in memory.
    pub async fn in_memory(arguments: &[&str]) -> Self {
        let arguments = [&["--store", "memory"], arguments].concat();
        Self::start(&std::env::temp_dir(), &arguments).await
    }

    /// Starts a host on a free port that imitates this platform, with the build for it, and waits until it serves.
    pub async fn of_build(directory: &Path, platform: &str, arguments: &[&str]) -> Self {
        let mut command = serve(directory, &["--host", platform]);
        command.args(arguments);
        Self::wait_for(command).await
    }

    /// Starts a host on a free port with a manifest of this project, and waits until it serves.
    pub async fn of_manifest(directory: &Path, manifest: &str, arguments: &[&str]) -> Self {
        let mut command = serve(directory, arguments);
        command.arg("--from").arg(project().join(manifest));
        Self::wait_for(command).await
    }

    /// Starts a host on a free port with a build that keeps its events in this Redis, and waits until it serves.
    pub async fn of_redis_build(directory: &Path, build: &str, redis: &RedisServer) -> Self {
        let url = format!("redis_url={}", redis.url());
        let address = format!("redis_host=127.0.0.1:{}", redis.port());
        let variables = ["--variable", &url, "--variable", &address];
        let arguments = [&["--store", "memory"], &variables[..]].concat();
        Self::of_manifest(directory, build, &arguments).await
    }

    /// Starts this command, and waits until it prints its URL.
    pub async fn wait_for(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = Vec::new();
        let url = loop {
            let Some(line) = stdout.next_line().await.unwrap() else {
                let mut errors = String::new();
                let mut stderr = child.stderr.take().unwrap();
                stderr.read_to_string(&mut errors).await.unwrap();
                panic!("the host ended: {errors}");
            };
            let mut words = line.split_whitespace();
            let url = words.find(|word| word.starts_with("http://"));
            if let Some(url) = url.filter(|_| line.starts_with("Serving")) {
                break url.to_owned();
            }
            printed.push(line);
        };
        Self {
            child,
            stdout,
            url,
            printed,
        }
    }

    /// The address and port on which it listens.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Waits until the host prints one more line that contains `text`, and returns the line.
    pub async fn prints(&mut self, text: &str) -> String {
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            self.printed.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("the host ended, and has not printed {text:?}");
    }

    /// Waits until the host has printed a line that contains `text`, which may be an earlier one.
    pub async fn has_printed(&mut self, text: &str) {
        if !self.printed.iter().any(|line| line.contains(text)) {
            self.prints(text).await;
        }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().unwrap().try_into().unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Sends SIGTERM, checks that the host exits with code 0, and returns what it printed to standard error.
    pub async fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (status, errors) = self.ended().await;
        assert_eq!(status.code(), Some(0), "{errors}");
        errors
    }

    /// Waits until the host has ended, and returns its status and its standard error.
    pub async fn ended(self) -> (ExitStatus, String) {
        let (status, _, errors) = self.finished().await;
        (status, errors)
    }

    /// As [`ended`](Self::ended), with all lines on standard output too.
    pub async fn finished(mut self) -> (ExitStatus, Vec<String>, String) {
        let mut errors = String::new();
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            self.printed.push(line);
        }
        // The test may have given it a file instead.
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).await.unwrap();
        }
        (self.child.wait().await.unwrap(), self.printed, errors)
    }

    /// Sends `GET path`, and returns the status and the body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.send("GET", path, "").await
    }

    /// Sets or clears the event of this name, checks that this succeeds, and returns the body.
    pub async fn set(&self, name: &str, is_set: bool) -> String {
        let body = format!("{{\"set\": {is_set}}}");
        let (status, state) = self.send("PUT", &format!("/events/{name}"), &body).await;
        assert_eq!(status, 200, "{state}");
        state
    }

    /// Sends a request, and returns the status and the body of the response.
    pub async fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        whole(self.request(method, path, body).await.unwrap()).await
    }

    /// As [`send`](Self::send), with HTTP/2 or with HTTP/1.1.
    pub async fn send_over(
        &self,
        http2: bool,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, String) {
        whole(self.respond(http2, method, path, body).await.unwrap()).await
    }

    /// Sends a request, and returns when the head of the response has arrived.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Response<Incoming>, Error> {
        self.respond(false, method, path, body).await
    }

    /// Sends a request over a connection of its own.
    async fn respond(
        &self,
        http2: bool,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Response<Incoming>, Error> {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build_http();
        let request: Request<Full<Bytes>> = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(Full::from(body.to_owned()))
            .unwrap();
        client.request(request).await
    }
}

/// The status and the whole body of a response.
async fn whole(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}
