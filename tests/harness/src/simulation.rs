//! Simulation: a component on many hosts and one store, in one thread, from one seed.
//!
//! A [`Simulation`] runs a scenario, which is an async function of a [`World`]. Time is virtual in a world: it jumps when all
//! tasks sleep, so an hour of waiting takes only as long as the work in it. All randomness comes from the seed: how long each
//! call of the store takes and whether it fails ([`Faults`]), when instances die, what the scenario picks ([`World::chance`] and
//! similar methods), and the guests' random numbers. So a seed always gives the same run and, byte for byte, the same trace.
//!
//! A world has:
//! - a [`Database`]: the store, and an SQLite database. It records each [`Call`], so that a test can compare what clients saw
//!   with what happened. It can [hang](Database::hang), [go back](Database::go_back) to an earlier state or to nothing, and
//!   [count twice](Faults::doubled).
//! - [`Host`]s, which run the component on the database, like a [`Harness`](crate::Harness). They can crash and restart.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use http::Request;
//! use loopless_host::simulation::{Database, Faults, Settings, Simulation};
//!
//! let simulation = Simulation::load("target/wasm32-wasip2/release/app.wasm")?;
//! for seed in 0..100 {
//!     simulation.run(seed, async |world| {
//!         let database = Database::new(&world, Faults { failing: 0.1, ..Faults::default() });
//!         let host = world.host("A", &database, Settings::default()).unwrap();
//!         let exchange = host.send("client", Request::get("/").body("").unwrap()).await;
//!         assert!(exchange.result.is_ok(), "seed {seed}");
//!     })?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [FoundationDB] made this kind of testing known.
//!
//! [FoundationDB]: https://apple.github.io/foundationdb/testing.html

mod database;
mod host;
mod tables;

use std::fmt::{self, Display, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::guest::{Limits, Program};
use crate::harness::{Source, program};
use crate::platform::Platform;

pub use database::{Call, Database, Faults, Outcome};
pub use host::{Acceptance, Exchange, Host, Lost, Settings};

/// The date at which every world begins, as the time since 1970: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// A component that runs in any number of worlds, one after another or in several threads.
#[derive(Clone)]
pub struct Simulation {
    program: Program,
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulation")
    }
}

impl Simulation {
    /// Loads a built component.
    ///
    /// # Errors
    ///
    /// If the component does not load, or imports something that the host does not have.
    pub fn load(component: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let source = Source::Component(component.into());
        let program = program(source, &Platform::default(), &Limits::default())?;
        Ok(Self { program })
    }

    /// Runs a scenario in the world of this seed.
    ///
    /// # Errors
    ///
    /// If the runtime cannot be created.
    pub fn run<T>(&self, seed: u64, scenario: impl AsyncFnOnce(World) -> T) -> std::io::Result<T> {
        self.run_in(seed, None, scenario)
    }

    /// Runs a scenario like [`run`](Self::run), and returns its trace too: a line for everything that happened.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub fn trace<T>(
        &self,
        seed: u64,
        scenario: impl AsyncFnOnce(World) -> T,
    ) -> std::io::Result<(T, String)> {
        let story = Arc::new(Mutex::new(String::new()));
        let result = self.run_in(seed, Some(story.clone()), scenario)?;
        let story = std::mem::take(&mut *lock(&story));
        Ok((result, story))
    }

    fn run_in<T>(
        &self,
        seed: u64,
        story: Option<Arc<Mutex<String>>>,
        scenario: impl AsyncFnOnce(World) -> T,
    ) -> std::io::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        Ok(runtime.block_on(async {
            let world = World(Arc::new(Inner {
                program: self.program.clone(),
                seed,
                random: Mutex::new(StdRng::seed_from_u64(seed)),
                story,
                is_over: AtomicBool::new(false),
                started: tokio::time::Instant::now(),
                moments: AtomicU64::new(0),
                requests: AtomicU64::new(0),
            }));
            let result = scenario(world.clone()).await;
            // The order in which the rest of the world is dropped is not deterministic.
            world.0.is_over.store(true, Ordering::Relaxed);
            result
        }))
    }
}

/// A moment in a world. Moments are ordered, even those at the same virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The moment's position in the order of all moments.
    pub order: u64,
    /// The virtual time since the world began.
    pub at: Duration,
}

/// The world in which a scenario runs. Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    program: Program,
    seed: u64,
    random: Mutex<StdRng>,
    story: Option<Arc<Mutex<String>>>,
    is_over: AtomicBool,
    started: tokio::time::Instant,
    moments: AtomicU64,
    requests: AtomicU64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({})", self.seed())
    }
}

impl World {
    /// The seed of all randomness in the world.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The current moment. No two calls return the same one.
    pub fn moment(&self) -> Moment {
        Moment {
            order: self.0.moments.fetch_add(1, Ordering::Relaxed),
            at: self.0.started.elapsed(),
        }
    }

    /// Sleeps, to the millisecond.
    pub async fn sleep(&self, duration: Duration) {
        if !duration.is_zero() {
            tokio::time::sleep(duration).await;
        }
    }

    /// `true` with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.random().random_bool(probability.min(1.0))
    }

    /// A random number in this range.
    pub fn number(&self, range: RangeInclusive<u64>) -> u64 {
        self.random().random_range(range)
    }

    /// A random duration in this range, in whole milliseconds.
    pub fn time(&self, range: RangeInclusive<Duration>) -> Duration {
        let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (start, end) = (milliseconds(range.start()), milliseconds(range.end()));
        Duration::from_millis(self.number(start..=end))
    }

    /// A random element of `choices`.
    ///
    /// # Panics
    ///
    /// If `choices` is empty.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        let index = self.random().random_range(0..choices.len());
        &choices[index]
    }

    /// Adds a line to the trace: who did what. `what` is called only if there is a trace.
    pub fn tell(&self, who: impl Display, what: impl FnOnce() -> String) {
        if let Some(story) = &self.0.story
            && !self.0.is_over.load(Ordering::Relaxed)
        {
            let at = self.0.started.elapsed();
            // Writing into a string cannot fail.
            _ = writeln!(
                lock(story),
                "{:>6}.{:03}  {:<10} {}",
                at.as_secs(),
                at.subsec_millis(),
                who.to_string(),
                what()
            );
        }
    }

    /// Starts a host called `name` on this database.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`](crate::Builder::start).
    pub fn host(
        &self,
        name: impl Into<String>,
        database: &Database,
        settings: Settings,
    ) -> anyhow::Result<Host> {
        Host::start(self.clone(), name.into(), database.clone(), settings)
    }

    fn random(&self) -> MutexGuard<'_, StdRng> {
        lock(&self.0.random)
    }

    fn next_request(&self) -> u64 {
        self.0.requests.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Locks a mutex of a world. What these hold changes in single steps, so a panic leaves it consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
