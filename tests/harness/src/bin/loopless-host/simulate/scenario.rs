//! One seed: hosts, clients and hardship, all as the seed has it.

use std::fmt;
use std::ops::{AddAssign, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use http::Request;
use loopless_host::simulation::{Call, Database, Faults, Host, Outcome, Settings, World};
use loopless_host::store::Quirks;
use tokio::task::JoinHandle;

use super::{events, service};
use crate::contract::{Contract, Promise};

/// What a run has to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing fails. Calls take their time.
    Healthy,
    /// Calls fail, answers are lost, the store is down at times.
    Flaky,
    /// The same, and instances and hosts die.
    Deadly,
    /// Some hosts read a replica that lags behind.
    Lagging,
    /// The store gives no answers at times.
    Silent,
    /// The store goes back to what it held earlier, or to nothing.
    Forgetful,
    /// Counters count twice at times.
    Doubling,
}

impl Weather {
    pub const ALL: [Self; 7] = [
        Self::Healthy,
        Self::Flaky,
        Self::Deadly,
        Self::Lagging,
        Self::Silent,
        Self::Forgetful,
        Self::Doubling,
    ];

    /// A weather for a world of this component.
    pub fn pick(world: &World, contract: &Contract) -> Self {
        // Without compare-and-swap, nothing counts.
        let kinds = Self::ALL.len() - usize::from(!contract.is_exact());
        *world.pick(&Self::ALL[..kinds])
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Flaky => "with a store that fails",
            Self::Deadly => "with a store that fails, and instances and hosts that die",
            Self::Lagging => "with replicas that lag",
            Self::Silent => "with a store that hangs at times",
            Self::Forgetful => "with a store that goes back",
            Self::Doubling => "with a store that counts twice at times",
        })
    }
}

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub operations: u64,
    pub waits: u64,
    pub calls: u64,
    pub failures: u64,
    pub deaths: u64,
    pub virtual_time: Duration,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.waits += other.waits;
        self.calls += other.calls;
        self.failures += other.failures;
        self.deaths += other.deaths;
        self.virtual_time += other.virtual_time;
    }
}

/// What became of a seed.
pub struct Report {
    pub weather: Weather,
    /// Where it happened, in words.
    pub setting: String,
    pub counts: Counts,
    /// The promises that were broken.
    pub violations: Vec<String>,
}

impl Report {
    /// There was no run.
    pub fn failed(what: String) -> Self {
        Self {
            weather: Weather::Healthy,
            setting: "no run".into(),
            counts: Counts::default(),
            violations: vec![what],
        }
    }
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn faults(world: &World, weather: Weather) -> Faults {
    let mut faults = Faults {
        latency: *world.pick(&[ms(0), ms(1), ms(2), ms(10), ms(40)]),
        ..Faults::default()
    };
    match weather {
        Weather::Healthy | Weather::Silent | Weather::Forgetful => {}
        Weather::Flaky | Weather::Deadly => {
            faults.slow = *world.pick(&[0.0, 0.01, 0.1]);
            faults.slow_latency = ms(400);
            faults.failing = *world.pick(&[0.0, 0.02, 0.2]);
            faults.lost_answers = *world.pick(&[0.0, 0.02, 0.2]);
        }
        Weather::Lagging => faults.failing = *world.pick(&[0.0, 0.02]),
        Weather::Doubling => {
            faults.slow = *world.pick(&[0.0, 0.1]);
            faults.slow_latency = ms(400);
            faults.doubled = *world.pick(&[0.1, 0.5]);
        }
    }
    if weather == Weather::Deadly {
        faults.deaths = *world.pick(&[0.0, 0.01, 0.05]);
    }
    faults
}

/// What a world is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Events
    Events,
    /// The long-running service
    Service,
}

/// The world of a seed, from its beginning to its end. Without a subject, every fourth is about the service, the others
/// about events; where there is no service, all are.
pub async fn play(world: World, subject: Option<Subject>, contract: &Contract) -> Report {
    let by_seed = match world.seed() % 4 {
        3 if contract.keeps(Promise::Service) => Subject::Service,
        _ => Subject::Events,
    };
    match subject.unwrap_or(by_seed) {
        Subject::Events => events::play(world, contract).await,
        Subject::Service => service::play(world, contract).await,
    }
}

/// What the component of this world says that it promises.
pub async fn contract(world: World) -> anyhow::Result<Contract> {
    let database = Database::new(&world, Faults::default());
    let host = world.host("A", &database, Settings::default())?;
    let request = Request::get("/openapi.json").body("")?;
    let response = host.send("client", request).await.result;
    let document = response.context("the component does not answer GET /openapi.json")?;
    Contract::read(&serde_json::from_slice(document.body()).unwrap_or_default())
}

/// A world before its clients come: hosts on one database, and what they are going to suffer.
pub struct Stage {
    world: World,
    weather: Weather,
    pub database: Database,
    pub hosts: Vec<Host>,
    clients: u64,
    setting: String,
}

/// What the clients of a world did, and what became of it.
pub struct Lived<T> {
    pub done: Vec<T>,
    deaths: u64,
    /// What went wrong when all was well again.
    pub violations: Vec<String>,
}

impl Stage {
    /// Up to three hosts, each set up like this, and so many clients. `about` is what is told of the world first.
    ///
    /// # Errors
    ///
    /// A report, where one of the hosts did not start.
    pub fn set(
        world: &World,
        about: &str,
        weather: Weather,
        quirks: Quirks,
        faults: Faults,
        clients: RangeInclusive<u64>,
        settings: impl Fn() -> Settings,
    ) -> Result<Self, Report> {
        let database = Database::new(world, faults);
        let names = &["A", "B", "C"][..=world.number(0..=2) as usize];
        let start = |name: &&str| world.host(*name, &database, settings());
        let hosts: anyhow::Result<Vec<_>> = names.iter().map(start).collect();
        let hosts =
            hosts.map_err(|error| Report::failed(format!("a host did not start: {error:#}")))?;
        let clients = world.number(clients);
        let setting = format!(
            "{about}; hosts: {}, quirks: {quirks}; {clients} clients; store calls of up to {} ms",
            hosts.len(),
            faults.longest().as_millis()
        );
        world.tell("world", || setting.clone());
        Ok(Self {
            world: world.clone(),
            weather,
            database,
            hosts,
            clients,
            setting,
        })
    }

    /// All clients live their lives, and for this time hosts and database suffer what the weather has. At the end, all is well
    /// again: from now on, everything has to work.
    pub async fn live<T, L>(&self, hardship: Duration, life: impl Fn(u64) -> L) -> Lived<T>
    where
        T: Send + 'static,
        L: Future<Output = Vec<T>> + Send + 'static,
    {
        let lives = (1..=self.clients).map(|client| tokio::spawn(life(client)));
        let lives: Vec<_> = lives.collect();
        let hardship = Hardship::begin(
            &self.world,
            self.weather,
            &self.hosts,
            &self.database,
            hardship,
        );
        let mut done = Vec::new();
        for life in lives {
            match life.await {
                Ok(its) => done.extend(its),
                // A client that panics takes the seed with it.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        Lived {
            done,
            deaths: hardship.end(),
            violations: self.clear_up(),
        }
    }

    /// Ends what the database and the hosts suffer. Returns what went wrong with that.
    fn clear_up(&self) -> Vec<String> {
        self.world.tell("world", || "all is well again".into());
        self.database.set_faults(Faults {
            latency: ms(1),
            ..Faults::default()
        });
        self.database.set_outage(None);
        self.database.go_on();
        let restarts = self.hosts.iter().filter_map(|host| {
            let error = host.restart().err()?;
            Some(format!(
                "host {} did not start again: {error:#}",
                host.name()
            ))
        });
        restarts.collect()
    }

    /// What became of this world.
    pub fn report(self, counts: Counts, violations: Vec<String>) -> Report {
        Report {
            weather: self.weather,
            setting: self.setting,
            counts,
            violations,
        }
    }
}

impl<T> Lived<T> {
    /// It in numbers, with the store's calls, at the end of the world.
    pub fn counts(&self, calls: &[Call], end: Duration) -> Counts {
        let of = |outcome: Outcome| calls.iter().filter(move |call| call.outcome == outcome);
        Counts {
            operations: self.done.len() as u64,
            waits: 0,
            calls: calls.len() as u64,
            failures: of(Outcome::Failed).count() as u64,
            deaths: of(Outcome::Died).count() as u64 + self.deaths,
            virtual_time: end,
        }
    }
}

/// The longest time for which the store gives no answer.
const LONGEST_SILENCE: Duration = ms(4000);

/// The hosts and their clients, to be disturbed until it is dropped.
struct Hardship {
    task: JoinHandle<()>,
    deaths: Arc<AtomicU64>,
}

impl Hardship {
    /// Outages, and deaths of instances and hosts, in the course of `time`.
    fn begin(
        world: &World,
        weather: Weather,
        hosts: &[Host],
        database: &Database,
        time: Duration,
    ) -> Self {
        let deaths = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(disturb(
            world.clone(),
            weather,
            hosts.to_vec(),
            database.clone(),
            time,
            deaths.clone(),
        ));
        Self { task, deaths }
    }

    /// Ends it. Returns how many deaths there were.
    fn end(self) -> u64 {
        self.task.abort();
        self.deaths.load(Ordering::Relaxed)
    }
}

async fn disturb(
    world: World,
    weather: Weather,
    hosts: Vec<Host>,
    database: Database,
    time: Duration,
    deaths: Arc<AtomicU64>,
) {
    for _ in 0..world.number(0..=6) {
        world.sleep(world.time(ms(0)..=time / 4)).await;
        match weather {
            Weather::Silent => hang(&world, &database, LONGEST_SILENCE).await,
            Weather::Forgetful => go_back(&world, &database).await,
            Weather::Deadly => {
                let host = world.pick(&hosts);
                match world.number(0..=3) {
                    0 => go_down(&world, &database, time / 8).await,
                    1 => {
                        deaths.fetch_add(1, Ordering::Relaxed);
                        host.crash();
                        world.sleep(world.time(ms(0)..=time / 8)).await;
                        // What keeps a host from starting is found at the end of the run.
                        _ = host.restart();
                    }
                    _ => {
                        let has_died = host.kill_an_instance();
                        deaths.fetch_add(has_died.into(), Ordering::Relaxed);
                    }
                }
            }
            Weather::Flaky if world.chance(0.25) => {
                go_down(&world, &database, time / 8).await;
            }
            Weather::Flaky | Weather::Healthy | Weather::Lagging | Weather::Doubling => {}
        }
    }
}

/// The store is down for this time, at most.
async fn go_down(world: &World, database: &Database, most: Duration) {
    world.tell("store", || "is down".into());
    database.set_outage(Some("the store is down"));
    world.sleep(world.time(ms(0)..=most)).await;
    database.set_outage(None);
    world.tell("store", || "is up again".into());
}

/// The store gives no answer for this time, at most.
async fn hang(world: &World, database: &Database, most: Duration) {
    world.tell("store", || "hangs".into());
    database.hang();
    world.sleep(world.time(ms(0)..=most)).await;
    world.tell("store", || "goes on".into());
    database.go_on();
}

/// The store goes back to what it held at some time, or to nothing: at once, or by a failover that takes a moment.
async fn go_back(world: &World, database: &Database) {
    let is_failover = world.chance(0.3);
    if is_failover {
        world.tell("store", || "hangs".into());
        database.hang();
        world.sleep(world.time(ms(0)..=ms(1000))).await;
    }
    let now = world.moment().at;
    let to = *world.pick(&[ms(0), world.time(ms(0)..=now)]);
    world.tell("store", || {
        format!("goes back to what it held at {:.3}", to.as_secs_f64())
    });
    database.go_back(to);
    if is_failover {
        world.tell("store", || "goes on".into());
        database.go_on();
    }
}
