//! The binary, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::shared::redis_server::RedisServer;

/// The manifests of the builds that keep their events in a Redis: with WASI 0.3, and with 0.2.
pub const REDIS_BUILDS: [&str; 2] = [
    "deploy/akamai-functions-redis.toml",
    "deploy/spin-3-redis.toml",
];

/// This project's directory.
pub fn project() -> &'static Path {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.nth(2).unwrap()
}

/// This project's component, built once in a test process.
pub fn component() -> PathBuf {
    crate::worlds::build_mutants_ahead();
    loopless_host::component::build(project()).unwrap()
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

/// A running `loopless-host`.
pub struct Host {
    child: Child,
    /// Kept open: a host whose output nobody takes would fail to print.
    stdout: Lines<BufReader<ChildStdout>>,
    pub url: String,
    /// The lines of standard output so far, but for the one that says where it serves.
    printed: Vec<String>,
}

impl Host {
    /// Starts it on a free port with this project's component, and waits until it says where it serves.
    pub async fn start(directory: &Path, arguments: &[&str]) -> Self {
        let component = component();
        let mut all = vec!["--listen", "127.0.0.1:0", "--component"];
        all.push(component.to_str().unwrap());
        all.extend(arguments);
        Self::wait_for(command(directory, &all)).await
    }

    /// Starts it on a free port like this host, with this project's build for it, and waits until it says where it serves.
    pub async fn of_build(directory: &Path, host: &str, arguments: &[&str]) -> Self {
        let mut all = vec!["--listen", "127.0.0.1:0", "--host", host];
        all.extend(arguments);
        Self::wait_for(command(directory, &all)).await
    }

    /// Starts it on a free port with a manifest of this project, and waits until it says where it serves.
    pub async fn of_manifest(directory: &Path, manifest: &str, arguments: &[&str]) -> Self {
        let manifest = project().join(manifest);
        let mut all = vec!["--listen", "127.0.0.1:0", "--from"];
        all.push(manifest.to_str().unwrap());
        all.extend(arguments);
        Self::wait_for(command(directory, &all)).await
    }

    /// Starts it on a free port with this project's build for a Redis, and waits until it says where it serves.
    pub async fn of_redis_build(directory: &Path, build: &str, redis: &RedisServer) -> Self {
        let url = format!("redis_url={}", redis.url());
        let address = format!("redis_host=127.0.0.1:{}", redis.port());
        let arguments = [
            "--store",
            "memory",
            "--variable",
            &url,
            "--variable",
            &address,
        ];
        Self::of_manifest(directory, build, &arguments).await
    }

    /// Starts this command, and waits until it says where it serves.
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

    /// Waits until it prints one more line with this in it, and returns the line.
    pub async fn prints(&mut self, text: &str) -> String {
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            self.printed.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("the host ended, and has not printed {text:?}");
    }

    /// Waits until it has printed a line with this in it at some time.
    pub async fn has_printed(&mut self, text: &str) {
        if !self.printed.iter().any(|line| line.contains(text)) {
            self.prints(text).await;
        }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().unwrap().try_into().unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Waits for the end, and returns how it ended and what was printed meanwhile.
    pub async fn ended(self) -> (ExitStatus, String) {
        let (status, _, errors) = self.finished().await;
        (status, errors)
    }

    /// The same, with the lines of standard output from the beginning.
    pub async fn finished(mut self) -> (ExitStatus, Vec<String>, String) {
        let mut errors = String::new();
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            self.printed.push(line);
        }
        // It may have been given a file instead.
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).await.unwrap();
        }
        (self.child.wait().await.unwrap(), self.printed, errors)
    }

    /// Sends a request over a connection of its own, and returns status and body.
    pub async fn send(&self, method: &str, path: &str, body: &str, http2: bool) -> (u16, String) {
        let response = self.request(method, path, body, http2).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.into()).unwrap())
    }

    /// Sends a request over a connection of its own, and waits for the head of the response.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        body: &str,
        http2: bool,
    ) -> Result<Response<Incoming>, Error> {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build_http();
        let request: http::Request<Full<bytes::Bytes>> = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(Full::from(body.to_owned()))
            .unwrap();
        client.request(request).await
    }
}
