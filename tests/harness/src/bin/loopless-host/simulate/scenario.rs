//! The world of a seed: its hosts, its store, and the faults that it injects.

use std::fmt;
use std::ops::{AddAssign, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use http::Request;
use loopless_host::Reuse;
use loopless_host::simulation::{Call, Database, Faults, Host, Outcome, Settings, World};
use loopless_host::store::Quirks;

use super::{events, service};
use crate::contract::{Contract, Promise};

/// The kind of faults in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing fails. Calls of the store take time.
    Healthy,
    /// Calls fail, answers are lost, and the store is down at times.
    Flaky,
    /// Like `Flaky`. Besides, instances and hosts die.
    Deadly,
    /// Some hosts read a replica that lags.
    Lagging,
    /// The store hangs at times.
    Silent,
    /// The store goes back to an earlier state, or becomes empty.
    Forgetful,
    /// An increment is applied twice at times.
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

    /// Picks the weather of a world.
    pub fn pick(world: &World, contract: &Contract) -> Self {
        // A build without compare-and-swap has no counters that could count twice.
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

/// The numbers of what happened in a run.
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

/// The result of a seed.
pub struct Report {
    pub weather: Weather,
    /// A description of the world.
    pub setting: String,
    pub counts: Counts,
    /// The broken promises.
    pub violations: Vec<String>,
}

impl Report {
    /// The report of a run that did not begin or did not end.
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

/// Picks how long the store's calls take, and how often they fail.
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

/// Picks how instances are reused. No request has a time limit.
pub fn reuse(world: &World) -> Reuse {
    Reuse {
        requests: *world.pick(&[1, 3, 128]),
        concurrent_requests: *world.pick(&[1, 2, 16]),
        idle: *world.pick(&[ms(50), ms(1000)]),
        request_timeout: None,
    }
}

/// What a world is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Events
    Events,
    /// The long-running service
    Service,
}

/// Runs a world to its end. If no subject is given, every fourth world is about the service, if the build has one. All others
/// are about events.
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

/// Reads what the component promises.
pub async fn contract(world: World) -> anyhow::Result<Contract> {
    let database = Database::new(&world, Faults::default());
    let host = world.host("A", &database, Settings::default())?;
    let request = Request::get("/openapi.json").body("")?;
    let response = host.send("client", request).await.result;
    let document = response.context("the component does not answer GET /openapi.json")?;
    Contract::read(&serde_json::from_slice(document.body()).unwrap_or_default())
}

/// The hosts and the store of a world, and the faults that they will have.
#[derive(Clone)]
pub struct Stage {
    world: World,
    weather: Weather,
    pub database: Database,
    pub hosts: Vec<Host>,
    clients: u64,
    setting: String,
    /// The number of deaths of instances and hosts so far.
    deaths: Arc<AtomicU64>,
}

/// What the clients of a world did.
pub struct Lived<T> {
    pub done: Vec<T>,
    deaths: u64,
    /// The hosts that did not start again after the faults.
    pub violations: Vec<String>,
}

impl Stage {
    /// Starts one to three hosts, each with its own `settings()`, and picks a number of `clients`. `about` begins the
    /// description of the world.
    ///
    /// # Errors
    ///
    /// A report, if a host does not start.
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
            deaths: Arc::default(),
        })
    }

    /// Runs all clients to their end, and injects faults within the time `hardship`. Then ends all faults: from now on,
    /// everything has to work.
    pub async fn live<T, L>(&self, hardship: Duration, life: impl Fn(u64) -> L) -> Lived<T>
    where
        T: Send + 'static,
        L: Future<Output = Vec<T>> + Send + 'static,
    {
        let lives = (1..=self.clients).map(|client| tokio::spawn(life(client)));
        let lives: Vec<_> = lives.collect();
        let disturbance = tokio::spawn(self.clone().disturb(hardship));
        let mut done = Vec::new();
        for life in lives {
            match life.await {
                Ok(its) => done.extend(its),
                // A client that panics fails the seed.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        disturbance.abort();
        Lived {
            done,
            deaths: self.deaths.load(Ordering::Relaxed),
            violations: self.clear_up(),
        }
    }

    /// Ends all faults, and returns which hosts did not start again.
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
    /// The numbers of the run, from the store's calls and the time of its end. No operation is counted as a wait.
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

/// The faults.
impl Stage {
    async fn disturb(self, time: Duration) {
        let world = &self.world;
        for _ in 0..world.number(0..=6) {
            world.sleep(world.time(ms(0)..=time / 4)).await;
            match self.weather {
                Weather::Silent => self.hang(ms(4000)).await,
                Weather::Forgetful => self.go_back().await,
                Weather::Deadly => {
                    let host = world.pick(&self.hosts);
                    match world.number(0..=3) {
                        0 => self.go_down(time / 8).await,
                        1 => {
                            self.deaths.fetch_add(1, Ordering::Relaxed);
                            host.crash();
                            world.sleep(world.time(ms(0)..=time / 8)).await;
                            // If this fails, the restart at the end of the run reports it.
                            _ = host.restart();
                        }
                        _ => {
                            let has_died = host.kill_an_instance();
                            self.deaths.fetch_add(has_died.into(), Ordering::Relaxed);
                        }
                    }
                }
                Weather::Flaky if world.chance(0.25) => self.go_down(time / 8).await,
                Weather::Flaky | Weather::Healthy | Weather::Lagging | Weather::Doubling => {}
            }
        }
    }

    /// Makes every call of the store fail for up to this time.
    async fn go_down(&self, most: Duration) {
        self.world.tell("store", || "is down".into());
        self.database.set_outage(Some("the store is down"));
        self.world.sleep(self.world.time(ms(0)..=most)).await;
        self.database.set_outage(None);
        self.world.tell("store", || "is up again".into());
    }

    /// Makes the store hang for up to this time.
    async fn hang(&self, most: Duration) {
        self.world.tell("store", || "hangs".into());
        self.database.hang();
        self.world.sleep(self.world.time(ms(0)..=most)).await;
        self.world.tell("store", || "goes on".into());
        self.database.go_on();
    }

    /// Makes the store go back to an earlier state, or to nothing: at once, or in a failover during which it hangs.
    async fn go_back(&self) {
        let world = &self.world;
        let is_failover = world.chance(0.3);
        if is_failover {
            world.tell("store", || "hangs".into());
            self.database.hang();
            world.sleep(world.time(ms(0)..=ms(1000))).await;
        }
        let now = world.moment().at;
        let to = *world.pick(&[ms(0), world.time(ms(0)..=now)]);
        world.tell("store", || {
            format!("goes back to what it held at {:.3}", to.as_secs_f64())
        });
        self.database.go_back(to);
        if is_failover {
            world.tell("store", || "goes on".into());
            self.database.go_on();
        }
    }
}
