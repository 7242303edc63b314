//! A host in a process of its own, which can be killed and restarted, takes [commands](control), and reports what it has in use.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::param::clock_ticks_per_second;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::lock;
use crate::conformance::client::Base;
use crate::control::{self, ANSWER, InUse};

/// How long a host may take to start, or to answer a command. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command line of a host.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    /// All but the address to listen on.
    pub arguments: Vec<String>,
}

/// A host. It keeps its address when it is restarted.
#[derive(Debug)]
pub struct Host {
    launch: Launch,
    pub base: Base,
    process: Process,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: ChildStdin,
    answers: mpsc::UnboundedReceiver<InUse>,
    /// The lines of standard error that [`Host::errors`] has not returned yet.
    errors: Arc<Mutex<Vec<String>>>,
}

impl Host {
    /// Starts a host, and waits until it serves.
    pub async fn start(launch: Launch) -> anyhow::Result<Self> {
        let (process, base) = Process::start(&launch, "127.0.0.1:0").await?;
        Ok(Self {
            launch,
            base,
            process,
        })
    }

    /// Kills the process.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.process.child.kill().await?)
    }

    /// Starts the host again at the same address after a [`kill`](Self::kill), and waits until it serves.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let base = self.base.to_string();
        let address = base.trim_start_matches("http://");
        let errors = self.errors();
        (self.process, _) = Process::start(&self.launch, address).await?;
        lock(&self.process.errors).splice(0..0, errors);
        Ok(())
    }

    /// Sends a command, and returns what the host has in use.
    pub async fn tell(&mut self, command: control::Command) -> anyhow::Result<InUse> {
        let Process { stdin, answers, .. } = &mut self.process;
        let line = serde_json::to_string(&command)? + "\n";
        let answer = async {
            stdin.write_all(line.as_bytes()).await?;
            answers.recv().await.context("the process has exited")
        };
        let answer = timeout(PATIENCE, answer).await.map_err(anyhow::Error::from);
        let answer = answer.and_then(|answer| answer);
        answer.with_context(|| format!("the host {} does not answer {command:?}", self.base))
    }

    /// The resident memory of the process, in bytes. `None` if the system does not report it.
    pub fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes << 10)
    }

    /// The processor time of the process so far. `None` if the system does not report it.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()?)).ok()?;
        // The name of the program comes before the fields, and may contain spaces.
        let (_, after) = stat.rsplit_once(')')?;
        let mut fields = after.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        Some(Duration::from_secs_f64(
            ticks / clock_ticks_per_second() as f64,
        ))
    }

    /// The number of open files. `None` if the system does not report it.
    pub fn files(&self) -> Option<usize> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.id()?)).ok()?;
        Some(files.count())
    }

    fn id(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// Returns the lines of standard error since the last call.
    pub fn errors(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.process.errors))
    }
}

impl Process {
    async fn start(launch: &Launch, address: &str) -> anyhow::Result<(Self, Base)> {
        let mut child = Command::new(&launch.program)
            .args(&launch.arguments)
            .args(["--controlled", "--listen", address])
            // Every logged line is a finding, so the default filter has to apply.
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", launch.program.display()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            bail!("a host has no pipes");
        };
        let errors: Arc<Mutex<Vec<String>>> = Arc::default();
        let taken = errors.clone();
        let reading = tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                lock(&taken).push(line);
            }
        });
        let (serving, mut is_serving) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        tokio::spawn(read(stdout, serving, answered));
        let base = match timeout(PATIENCE, is_serving.recv()).await {
            Ok(Some(url)) => url.parse().map_err(|error| anyhow!("{url}: {error}"))?,
            Ok(None) => {
                _ = reading.await;
                bail!("a host did not start: {}", lock(&errors).join(" "));
            }
            Err(_) => bail!("a host did not start within {} s", PATIENCE.as_secs()),
        };
        let process = Self {
            child,
            stdin,
            answers,
            errors,
        };
        Ok((process, base))
    }
}

/// Reads the standard output of a host: its URL, and its answers.
async fn read(
    stdout: ChildStdout,
    serving: mpsc::UnboundedSender<String>,
    answered: mpsc::UnboundedSender<InUse>,
) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // After the soak, nobody receives.
        if let Some(answer) = line.strip_prefix(ANSWER) {
            if let Ok(answer) = serde_json::from_str(answer) {
                _ = answered.send(answer);
            }
        } else if let Some(url) = control::url(&line) {
            _ = serving.send(url.to_owned());
        }
    }
}
