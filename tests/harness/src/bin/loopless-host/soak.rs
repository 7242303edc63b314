//! `loopless-host soak`: minutes of mixed traffic, with hosts that are killed and a store that fails, and a verdict.
//!
//! | module | contents |
//! | --- | --- |
//! | [`own`], [`host`] | The hosts that a soak starts, and the faults that it injects |
//! | [`clients`] | The traffic: writers and watchers |
//! | [`world`] | The shared state of the clients: servers, events, current faults, counts |
//! | [`truth`] | What an event may show, by what its writer was told |
//! | [`findings`] | What is wrong, and the judgement of memory |

mod clients;
mod findings;
pub mod host;
mod own;
mod truth;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anstream::println;
use anyhow::Context;
use clap::Args;
use http::Method;
use indicatif::ProgressBar;
use loopless_host::store::Quirks;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::conformance::client::{Access, Base};
use crate::conformance::report::Failure;
use crate::contract::Contract;
use crate::project;
use crate::serve;
use crate::storage::Backend;
use crate::style::{BOLD, GREEN, RED, progress};
use clients::Visitor;
use findings::{Findings, Kind};
use own::Cluster;
use truth::{Reading, Truth};
use world::{Client, Counts, Outcome, Server, World};

/// The length of a round. At its end, the traffic stops, and everything is checked.
const ROUND: Duration = Duration::from_secs(30);

/// How long a server may take to answer a read after the traffic has stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to soak and for how long.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A running server to soak, such as http://127.0.0.1:9009, instead of starting hosts
    #[arg(long, value_name = "URL", conflicts_with_all = ["store", "component", "host", "quirks"])]
    url: Option<Base>,

    #[command(flatten)]
    access: Access,

    /// How many minutes the traffic lasts; may be a fraction, such as 0.5
    #[arg(long, value_name = "MINUTES", default_value = "10", value_parser = minutes)]
    minutes: Duration,

    /// How many clients there are; half of them write, the others watch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=1000))]
    clients: u16,

    /// The seed of the clients' choices, the kills, and the failing calls of the store; timing still depends on the machine
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,

    /// The store that the hosts share: `sqlite:PATH` or `redis://…`, as without `soak`; without this, a temporary SQLite file
    #[arg(long, value_name = "STORE")]
    store: Option<Backend>,

    /// A built component to soak, instead of building this project's
    #[arg(long, value_name = "PATH", conflicts_with = "host")]
    component: Option<PathBuf>,

    /// A Spin manifest whose component to build and soak. If the component itself uses SQLite or a Redis, `--store` sets that
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["host", "component"])]
    from: Option<PathBuf>,

    /// The host whose build of this project's component to soak; its limits are not imitated
    #[arg(long, value_enum, value_name = "HOST", default_value_t)]
    host: project::Host,

    /// Which compare-and-swap the component gets: an exact one, or one with the faults of Spin's (spin-sqlite or spin-redis)
    #[arg(long, value_name = "QUIRKS", default_value_t)]
    quirks: Quirks,
}

/// Parses a time in minutes, of at most a week.
fn minutes(text: &str) -> Result<Duration, String> {
    const MOST: f64 = 7.0 * 24.0 * 60.0;

    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= MOST => {
            Ok(Duration::from_secs_f64(minutes * 60.0))
        }
        _ => Err(format!(
            "expected a number of minutes, above 0 and at most {MOST}"
        )),
    }
}

/// Runs the soak. The exit code is 1 if anything was wrong.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.url {
        Some(url) => {
            let soak = Soak::begin(&arguments, vec![url.clone()], false).await?;
            soak.run().await
        }
        None => {
            let cluster = Cluster::start(&arguments).await?;
            let soak = Soak::begin(&arguments, cluster.bases(), true).await?;
            cluster.run(soak).await
        }
    }
}

/// A running soak.
struct Soak {
    world: Arc<World>,
    progress: ProgressBar,
    began: Instant,
    length: Duration,
    seed: u64,
    clients: usize,
    rounds: u32,
}

impl Soak {
    async fn begin(arguments: &Arguments, bases: Vec<Base>, is_own: bool) -> anyhow::Result<Self> {
        let shown: Vec<_> = bases.iter().map(Base::to_string).collect();
        let shown = shown.join(" and ");
        let token = &arguments.access.token;
        let servers = bases.into_iter();
        let servers: Vec<_> = servers
            .map(|base| Server::new(base, token.clone()))
            .collect();
        let target = servers[0].target();
        let base = target.base();
        let document = target.send(Method::GET, "/openapi.json", &[], "").await;
        let document =
            document.with_context(|| format!("cannot reach {base}; is the server running?"))?;
        let document = serde_json::from_str(&document.body).unwrap_or_default();
        let contract = Contract::read(&document).with_context(|| format!("cannot soak {base}"))?;
        let stopped = serve::stop_signal()?;
        println!("{BOLD}Soaking{BOLD:#} {shown} (a build for {contract})");

        let length = arguments.minutes;
        let seconds = length.as_secs();
        let all = humantime::format_duration(Duration::from_secs(seconds));
        let progress = progress(seconds, &format!("{{bar:30}} {{elapsed}} of {all}{{msg}}"));

        let clients = usize::from(arguments.clients);
        let world = Arc::new(World::new(
            servers,
            is_own,
            contract,
            target.prefix().to_owned(),
            clients / 2,
            Findings::new(progress.clone()),
        ));
        let (stopping, shown) = (world.clone(), progress.clone());
        tokio::spawn(async move {
            stopped.await;
            shown.println("Stopping: checking all events once more");
            stopping.end();
        });
        Ok(Self {
            world,
            progress,
            began: Instant::now(),
            length,
            seed: arguments.seed,
            clients,
            rounds: rounds(length),
        })
    }

    /// Soaks a server that runs already.
    async fn run(self) -> anyhow::Result<ExitCode> {
        for round in 0..self.rounds {
            let until = self.end_of(round);
            let traffic = self.traffic(round, until);
            self.show_until("", until).await;
            self.join(traffic).await;
            self.verify(0).await;
            if self.world.is_over() {
                break;
            }
        }
        self.check_service(0).await;
        self.forget_all(0).await;
        let more = "full service afterwards (kills, store failures, memory and leaks cannot be checked from outside)";
        Ok(self.verdict(more))
    }

    /// When a round ends.
    fn end_of(&self, round: u32) -> Instant {
        self.began + self.length * (round + 1) / self.rounds
    }

    /// Starts all clients. They stop at `until`.
    fn traffic(&self, round: u32, until: Instant) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let seed = self.seed ^ (u64::from(round) << 32) ^ ((number as u64) << 48);
            let visitor = Visitor::new(self.world.clone(), seed);
            if number < self.world.writers() {
                clients.spawn(visitor.write(number, until));
            } else {
                clients.spawn(visitor.watch(until));
            }
        }
        clients
    }

    /// Shows the progress until a time, or until the soak is over.
    async fn show_until(&self, what: &str, until: Instant) {
        while Instant::now() < until && !self.world.is_over() {
            self.show(what);
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn show(&self, what: &str) {
        let Counts {
            requests, changes, ..
        } = &self.world.counts;
        let (requests, changes) = (Counts::of(requests), Counts::of(changes));
        self.progress.set_position(self.began.elapsed().as_secs());
        self.progress
            .set_message(format!(": {what}{requests} requests, {changes} changes"));
    }

    /// Waits until all clients have stopped.
    async fn join(&self, mut clients: JoinSet<()>) {
        let all = async {
            while let Some(ended) = clients.join_next().await {
                if let Err(error) = ended {
                    let what = format!("a client of the soak failed: {error}");
                    self.world.findings.add(Kind::Wrong, what);
                }
            }
        };
        // A client waits for a response for longer than `PATIENCE`.
        if timeout(PATIENCE * 2, all).await.is_err() {
            let what = "clients still wait for responses long after the traffic";
            self.world.findings.add(Kind::Refused, what);
        }
    }

    /// Checks every event through this server, while nothing changes it.
    async fn verify(&self, server: usize) {
        self.show("checking all events; ");
        let client = self.client(server);
        for writer in 0..self.world.writers() {
            let truth = self.world.owned(writer);
            if !self.check_event(&client, &truth).await {
                self.world.give_up(writer);
            }
        }
        for truth in self.world.take_retired() {
            self.check_event(&client, &truth).await;
            // A change of its writer may still be applied. That creates a new event.
            self.forget(&client, &truth.name).await;
        }
    }

    fn client(&self, server: usize) -> Client {
        Client {
            server,
            target: self.world.servers[server].target(),
        }
    }

    /// Whether an event agrees with what its writer was told. If not, adds a finding.
    async fn check_event(&self, client: &Client, truth: &Truth) -> bool {
        let path = format!("/events/{}", truth.name);
        let Some(answer) = self.insist(client, Method::GET, &path).await else {
            return false;
        };
        let judged = match Reading::parse(&answer) {
            Some(reading) => truth.observe(reading),
            None => Err(format!("GET {path}: {answer}")),
        };
        let is_right = judged.is_ok();
        if let Err(what) = judged {
            let what = format!("after the traffic: {what}");
            self.world.findings.add(Kind::Lost, what);
        }
        is_right
    }

    /// Repeats a request until it succeeds, and returns the body. Adds a finding if it does not succeed in time.
    async fn insist(&self, client: &Client, method: Method, path: &str) -> Option<String> {
        let began = Instant::now();
        let shown = format!("{method} {path}");
        while began.elapsed() < PATIENCE {
            let asked = self
                .world
                .ask(client, method.clone(), path, &[], "", false)
                .await;
            match asked {
                Outcome::Answer(answer) if answer.status.is_success() => return Some(answer.body),
                Outcome::Answer(answer) => {
                    self.world.unexpected(&shown, &answer);
                    return None;
                }
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
        let what = format!("{shown}: no response within {} s", PATIENCE.as_secs());
        self.world.findings.add(Kind::Refused, what);
        None
    }

    async fn forget(&self, client: &Client, name: &str) {
        let path = format!("/events/{name}");
        self.insist(client, Method::DELETE, &path).await;
    }

    /// Forgets all events of the soak. Reads the list of events, twice, because a change that its client cancelled may create an
    /// event again.
    async fn forget_all(&self, server: usize) {
        let client = self.client(server);
        let prefix = self.world.prefix();
        for _ in 0..2 {
            let mut path = format!("/events?after={prefix}&limit=200");
            while let Some(page) = self.insist(&client, Method::GET, &path).await {
                let page: Value = serde_json::from_str(&page).unwrap_or_default();
                let events = page["events"].as_array().into_iter().flatten();
                let names = events.filter_map(|event| event["name"].as_str());
                let names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
                let Some(last) = names.last() else {
                    break;
                };
                path = format!("/events?after={last}&limit=200");
                for name in names {
                    self.forget(&client, name).await;
                }
            }
        }
    }

    /// Checks that every kind of request works on a server: changes, reads, a wait, a stream, and forgetting.
    async fn check_service(&self, server: usize) {
        let target = self.client(server).target;
        let name = self.world.name();
        let path = format!("/events/{name}");
        let all = async {
            for set in [true, false, true] {
                target.put(&name, set).await?.status(200)?;
            }
            for path in [&path, &format!("{path}/wait"), "/events"] {
                target.get(path).await?.status(200)?;
            }
            let mut stream = target.stream(&name, &[]).await?;
            if stream.next().await?.is_none() {
                return Err(Failure::new(
                    "a message of a stream",
                    "the end of the stream",
                ));
            }
            target.delete(&name).await?.status(204).map(drop)
        };
        let all = timeout(PATIENCE, all).await;
        let all = all.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(Failure::new(
                "all responses",
                format_args!("no end within {seconds} s"),
            ))
        });
        if let Err(what) = all {
            let base = &self.world.servers[server].base;
            let what = format!("{base} does not work without traffic: {what}");
            self.world.findings.add(Kind::Refused, what);
        }
    }

    /// Prints the counts and the verdict. `more` completes the verdict of a soak that passed.
    fn verdict(self, more: &str) -> ExitCode {
        self.progress.finish_and_clear();
        let counts = &self.world.counts;
        let changes = Counts::of(&counts.changes);
        println!(
            "  {} requests in {} (seed {}): {changes} acknowledged changes, {} waits and polls that a change ended, {} messages of \
             streams; {} rejected, {} without a response, {} cancelled by their clients",
            Counts::of(&counts.requests),
            humantime::format_duration(Duration::from_secs(self.began.elapsed().as_secs())),
            self.seed,
            Counts::of(&counts.woken),
            Counts::of(&counts.messages),
            Counts::of(&counts.refused),
            Counts::of(&counts.broken),
            Counts::of(&counts.hang_ups),
        );
        if changes == 0 {
            let what = "no change was acknowledged: the server rejects them all";
            self.world.findings.add(Kind::Refused, what);
        }
        match self.world.findings.summary() {
            None => {
                println!("{GREEN}passed:{GREEN:#} no acknowledged change lost; {more}");
                ExitCode::SUCCESS
            }
            Some(wrong) => {
                println!("{RED}failed:{RED:#} {wrong}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Divides a time into rounds of about [`ROUND`].
fn rounds(length: Duration) -> u32 {
    let rounds = (length.as_secs_f64() / ROUND.as_secs_f64()).round();
    (rounds as u32).max(1)
}

/// Locks data that a panic cannot leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
