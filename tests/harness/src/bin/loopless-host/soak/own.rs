//! The hosts that a soak starts: the faults that it injects, and the checks that are not possible from outside.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstream::println;
use anyhow::{Context, bail};
use loopless_host::platform::Interface;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::time::sleep;

use super::findings::{Kind, Memory};
use super::host::{Host, Launch};
use super::{Arguments, Soak};
use crate::conformance::client::Base;
use crate::control::{Command, InUse};
use crate::project;
use crate::storage::Backend;

/// How long after the traffic everything must have ended. An idle instance is kept for a second, and a request may continue after
/// its client has cancelled it.
const SETTLED: Duration = Duration::from_secs(10);

/// How many store handles an instance may have open: one of each of two interfaces, and for each of its requests a
/// compare-and-swap and its successor.
const MOST_HANDLES: usize = 2 + 2 * 16;

/// The phases of a round, and the fraction of the round at which each ends.
const PHASES: [(f64, Phase); 5] = [
    (0.30, Phase::Kills),
    (0.45, Phase::Failing(0.01)),
    (0.60, Phase::Failing(0.1)),
    (0.70, Phase::Failing(1.0)),
    (0.85, Phase::Recovered),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Hosts and instances are killed.
    Kills,
    /// Besides, this share of the store's calls fails.
    Failing(f64),
    /// No faults.
    Recovered,
}

/// The two hosts of a soak. The first runs until the end, and the second is killed repeatedly.
pub struct Cluster {
    hosts: Vec<Host>,
    /// What each host has in use when it is idle, and its number of open files. Measured before the traffic.
    idle: Vec<(InUse, Option<usize>)>,
    random: StdRng,
    /// The memory of the first host after each round.
    memory: Vec<u64>,
    kills: u32,
    instance_kills: u32,
    /// The directory of a temporary store.
    _directory: Option<TempDir>,
}

/// The host that is killed.
const MORTAL: usize = 1;

impl Cluster {
    /// Starts two hosts on one store.
    pub async fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let manifest = match &arguments.from {
            Some(path) => path.clone(),
            None => arguments.host.manifest()?,
        };
        let component = match &arguments.component {
            Some(path) => path.clone(),
            None => project::build_manifest(&manifest)?,
        };
        let component = component
            .to_str()
            .context("the component's path is not UTF-8")?;
        let (store, directory) = match &arguments.store {
            Some(Backend::Memory) => {
                bail!("the hosts cannot share a store in memory: choose another --store")
            }
            Some(store) => (store.clone(), None),
            None => {
                let directory = TempDir::with_prefix("loopless-soak-")?;
                let path = directory.path().join("store.db");
                (Backend::Sqlite(path), Some(directory))
            }
        };
        let kept = project::kept(&manifest, &store)?;
        let mut options = vec!["--component", component];
        options.extend(kept.iter().map(String::as_str));
        let quirks = arguments.quirks.to_string();
        options.extend(["--quirks", &quirks]);
        let lacks = arguments.host.platform().lacks;
        for (name, interface) in Interface::ALL {
            if lacks.contains(&interface) {
                options.extend(["--without", name]);
            }
        }
        let launch = Launch {
            program: std::env::current_exe().context("this program cannot be found")?,
            arguments: options.into_iter().map(str::to_owned).collect(),
        };
        let mut hosts = Vec::new();
        for _ in 0..2 {
            hosts.push(Host::start(launch.clone()).await?);
        }
        Ok(Self {
            hosts,
            idle: Vec::new(),
            random: StdRng::seed_from_u64(arguments.seed),
            memory: Vec::new(),
            kills: 0,
            instance_kills: 0,
            _directory: directory,
        })
    }

    /// The addresses of the hosts.
    pub fn bases(&self) -> Vec<Base> {
        self.hosts.iter().map(|host| host.base.clone()).collect()
    }

    /// Soaks the hosts.
    pub async fn run(mut self, mut soak: Soak) -> anyhow::Result<ExitCode> {
        for number in 0..self.hosts.len() {
            // Something that is opened once, for the first request that needs it, is not a leak.
            soak.check_service(number).await;
            let idle = self.settles(number, None).await?;
            self.idle.push((idle, self.hosts[number].files()));
        }
        soak.began = Instant::now();
        for round in 0..soak.rounds {
            self.round(&soak, round).await?;
            if soak.world.is_over() {
                break;
            }
        }
        // All acknowledged changes survive when all hosts are killed.
        for number in 0..self.hosts.len() {
            self.kill(&soak, number).await?;
        }
        for number in 0..self.hosts.len() {
            self.restart(&soak, number).await?;
        }
        soak.verify(0).await;
        for number in 0..self.hosts.len() {
            soak.check_service(number).await;
        }
        soak.forget_all(0).await;
        Ok(self.verdict(soak))
    }

    /// Runs traffic through all phases, and checks everything when it has ended.
    async fn round(&mut self, soak: &Soak, round: u32) -> anyhow::Result<()> {
        let begin = Instant::now();
        let length = soak.end_of(round).saturating_duration_since(begin);
        let traffic = soak.traffic(round, begin + length.mul_f64(PHASES[PHASES.len() - 1].0));
        for (end, phase) in PHASES {
            let until = begin + length.mul_f64(end);
            let what = format!("round {} of {}, {phase}; ", round + 1, soak.rounds);
            for number in 0..self.hosts.len() {
                self.let_fail(soak, phase, number).await?;
            }
            while Instant::now() < until && !soak.world.is_over() {
                let left = until.saturating_duration_since(Instant::now());
                let pause = length
                    .mul_f64(self.random.random_range(0.02..0.08))
                    .min(left);
                soak.show_until(&what, Instant::now() + pause).await;
                if phase != Phase::Recovered {
                    self.strike(soak, phase).await?;
                }
            }
            if matches!(phase, Phase::Failing(_)) {
                for (host, server) in self.hosts.iter_mut().zip(&soak.world.servers) {
                    host.tell(Command::Recover).await?;
                    server.store.end();
                }
            }
        }
        soak.join(traffic).await;
        for number in 0..self.hosts.len() {
            soak.verify(number).await;
        }
        for number in 0..self.hosts.len() {
            self.check_leaks(soak, number).await?;
        }
        self.memory.extend(self.hosts[0].memory());
        Ok(())
    }

    /// Makes the store of a host fail as in this phase.
    async fn let_fail(&mut self, soak: &Soak, phase: Phase, number: usize) -> anyhow::Result<()> {
        if let Phase::Failing(share) = phase {
            soak.world.servers[number].store.begin();
            let seed = self.random.random();
            self.hosts[number]
                .tell(Command::Fail { share, seed })
                .await?;
        }
        Ok(())
    }

    /// Kills a host or the instances of a host.
    async fn strike(&mut self, soak: &Soak, phase: Phase) -> anyhow::Result<()> {
        match self.random.random_range(0..3) {
            0 => {
                self.kill(soak, MORTAL).await?;
                self.restart(soak, MORTAL).await?;
                self.let_fail(soak, phase, MORTAL).await?;
            }
            _ => {
                let number = self.random.random_range(0..self.hosts.len());
                let instances = &soak.world.servers[number].instances;
                instances.begin();
                self.hosts[number].tell(Command::KillInstances).await?;
                instances.end();
                self.instance_kills += 1;
            }
        }
        Ok(())
    }

    async fn kill(&mut self, soak: &Soak, number: usize) -> anyhow::Result<()> {
        soak.world.servers[number].down.begin();
        self.hosts[number].kill().await?;
        self.kills += 1;
        Ok(())
    }

    async fn restart(&mut self, soak: &Soak, number: usize) -> anyhow::Result<()> {
        self.hosts[number].restart().await?;
        soak.world.servers[number].down.end();
        Ok(())
    }

    /// Waits until a host has ended all work, and has no more tasks than when it was `idle`. Returns what it has in use then, or
    /// after [`SETTLED`].
    async fn settles(&mut self, number: usize, idle: Option<InUse>) -> anyhow::Result<InUse> {
        let began = Instant::now();
        loop {
            let in_use = self.hosts[number].tell(Command::Look).await?;
            let has_settled = in_use.connections == 0
                && in_use.requests == 0
                && in_use.instances == 0
                && in_use.handles == 0
                && idle.is_none_or(|idle| in_use.tasks <= idle.tasks);
            if has_settled || began.elapsed() > SETTLED {
                return Ok(in_use);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Checks that a host has left nothing open after the traffic, and has logged nothing.
    async fn check_leaks(&mut self, soak: &Soak, number: usize) -> anyhow::Result<()> {
        let findings = &soak.world.findings;
        let (idle, idle_files) = self.idle[number];
        let in_use = self.settles(number, Some(idle)).await?;
        let host = &self.hosts[number];
        let base = &host.base;
        for (what, now, before) in [
            ("connections", in_use.connections, 0),
            ("requests", in_use.requests, 0),
            ("instances", in_use.instances, 0),
            ("handles of the store", in_use.handles, 0),
            ("tasks", in_use.tasks, idle.tasks),
        ] {
            if now > before {
                let seconds = SETTLED.as_secs();
                let what = format!(
                    "{base} has {now} {what} {seconds} s after the traffic, and had {before}"
                );
                findings.add(Kind::Leaked, what);
            }
        }
        if in_use.most_handles > MOST_HANDLES {
            let most = in_use.most_handles;
            let what =
                format!("an instance of {base} had {most} handles of the store open at once");
            findings.add(Kind::Leaked, what);
        }
        if let (Some(now), Some(before)) = (host.files(), idle_files)
            && now > before
        {
            let what = format!("{base} has {now} files open after the traffic, and had {before}");
            findings.add(Kind::Leaked, what);
        }
        for line in host.errors() {
            findings.add(Kind::Wrong, format!("{base} logged: {line}"));
        }
        Ok(())
    }

    fn verdict(self, soak: Soak) -> ExitCode {
        let memory = match Memory::of(&self.memory) {
            Some(memory) => {
                if !memory.is_flat() {
                    let what = format!("the memory of a host grew: {memory}");
                    soak.world.findings.add(Kind::Grown, what);
                }
                format!("memory flat ({memory})")
            }
            None => "memory not judged (the soak is too short, or the system does not report it)"
                .to_owned(),
        };
        let Self {
            kills,
            instance_kills,
            ..
        } = self;
        println!(
            "  hosts killed {kills} times, their instances {instance_kills} times; in each of {} rounds, 1, 10 and 100 % of the \
             store's calls failed",
            soak.rounds
        );
        soak.verdict(&format!(
            "{memory}; nothing left open; full service within 1 s of every recovery"
        ))
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kills => f.write_str("hosts die"),
            Self::Failing(share) => write!(f, "{} % of the store's calls fail", share * 100.0),
            Self::Recovered => f.write_str("no faults"),
        }
    }
}
