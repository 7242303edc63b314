//! The servers of a bench: processes that it starts, or one that runs already.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Response};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::load::{Connection, To};
use super::plain::Answer;
use crate::conformance::client::{Base, Target};
use crate::control::url;

/// How long a server may take to start. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server to measure. A process that the bench started is killed when this is dropped.
pub struct Server {
    pub name: String,
    pub to: To,
    _child: Option<Child>,
}

impl Server {
    /// A server that runs already.
    pub fn running(name: impl Into<String>, base: Base, token: Option<String>) -> Self {
        let prefix = Target::new(base.clone(), "bench", None).prefix().to_owned();
        Self {
            name: name.into(),
            to: To {
                base,
                token,
                prefix,
            },
            _child: None,
        }
    }

    /// Starts this program as a host with these options.
    pub async fn host(name: impl Into<String>, options: &[String]) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command.args(["--listen", "127.0.0.1:0"]).args(options);
        Self::serving(name, command).await
    }

    /// Starts hyper with this response to every request.
    pub async fn plain(answer: &Answer) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command.arg("plain").arg(serde_json::to_string(answer)?);
        Self::serving("hyper", command).await
    }

    /// Runs a shell command that starts a server at this address.
    pub async fn original(command: &str, base: Base) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh");
        // With `exec`, the server replaces the shell, so killing the child ends the server.
        shell.args(["-c", &format!("exec {command}")]);
        let mut child = shell
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a shell")?;
        let mut server = Self::running("original", base, None);
        let began = Instant::now();
        while Connection::open(&server.to).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "{command:?} has exited ({status}) and does not serve {}",
                    server.to.base
                );
            }
            if began.elapsed() > PATIENCE {
                bail!("{command:?} does not serve {}", server.to.base);
            }
            sleep(Duration::from_millis(50)).await;
        }
        server._child = Some(child);
        Ok(server)
    }

    async fn serving(name: impl Into<String>, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start this program again")?;
        let stdout = child
            .stdout
            .take()
            .context("a server has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let serves = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(url) = url(&line) {
                    return url.parse().map_err(|error| anyhow!("{url}: {error}"));
                }
            }
            bail!("a server exited before it printed its address")
        };
        let base: Base = timeout(PATIENCE, serves)
            .await
            .context("a server did not start in time")??;
        // A server whose output is not read blocks when the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut server = Self::running(name, base, None);
        server._child = Some(child);
        Ok(server)
    }

    /// Sets the event of the page through the route that the original has too.
    pub async fn set_page(&self) -> anyhow::Result<()> {
        self.send(Method::POST, "/change_event", "True")
            .await
            .map(drop)
    }

    /// Sends a request, and checks that the response is a success.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: &'static str,
    ) -> anyhow::Result<Response<Bytes>> {
        let request = self.to.request(method.clone(), path, body.into())?;
        let answer = Connection::open(&self.to).await?.send(request).await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{} answered {method} {path} with {status}", self.to.base);
        }
        Ok(answer)
    }
}

/// A command that runs this program.
pub fn this_program() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program cannot be found")?;
    let mut command = Command::new(program);
    // Logging would distort the measurements.
    command.env_remove("RUST_LOG");
    Ok(command)
}
