//! `loopless-host simulate`: this project's promises, searched for a seed that breaks them.
//!
//! A seed is a world: [`scenario`] makes its hosts, its store and its weather. [`events`] and [`service`] say what its clients do,
//! and [`promises`] and the second half of [`service`] what has to be true of all that they saw, whatever happened: that is the
//! list of what is checked. [`crate::contract`] says which of it a build need not keep.

mod clients;
mod events;
mod linearizability;
mod promises;
mod scenario;
mod service;
mod truth;

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstream::{eprintln, print, println};
use anyhow::ensure;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use loopless_host::simulation::Simulation;

use crate::contract::{Contract, Promise};
use crate::project;
use crate::style::{BOLD, DIM, RED};
use scenario::{Counts, Report, Subject, Weather};

/// How many failing seeds are told in full.
const MOST_TOLD: usize = 10;

/// Which seeds to try, on what.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many seeds to try
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,

    /// The first seed to try
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,

    /// Tries this seed only
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,

    /// Tries only worlds of this; without it, every fourth is about the service, if the component has one
    #[arg(long, value_enum, value_name = "SUBJECT")]
    about: Option<Subject>,

    /// Prints who did what, when
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Runs each seed twice, and compares the two traces
    #[arg(long)]
    twice: bool,

    /// Stops at the first seed that breaks a promise
    #[arg(long)]
    fail_fast: bool,

    /// A built component to try, instead of building this project's
    #[arg(long, value_name = "PATH", conflicts_with = "host")]
    component: Option<PathBuf>,

    /// A Spin manifest whose component to build and try
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["component", "host"])]
    manifest: Option<PathBuf>,

    /// The host whose build of this project's component to try
    #[arg(long, value_enum, value_name = "HOST", default_value_t)]
    host: project::Host,

    /// How many seeds to try at the same time; without this, one a processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

/// Tries the seeds. The exit code is 1 if one of them broke a promise.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let component = match (&arguments.component, &arguments.manifest) {
        (Some(path), _) => path.clone(),
        (None, Some(manifest)) => project::build_manifest(manifest)?,
        (None, None) => project::build_manifest(&arguments.host.manifest()?)?,
    };
    let simulation = Simulation::load(component)?;
    let contract = simulation.run(0, scenario::contract)??;
    ensure!(
        arguments.about != Some(Subject::Service) || contract.keeps(Promise::Service),
        "this component has no service: it is a build for {contract}"
    );
    let replay = |seed| command(&arguments, seed);
    if let Some(seed) = arguments.seed {
        return one(&simulation, seed, &arguments, &contract);
    }

    let search = Search {
        simulation,
        contract,
        next: AtomicU64::new(arguments.from),
        end: arguments.from.saturating_add(arguments.seeds),
        is_over: AtomicBool::new(false),
        about: arguments.about,
        twice: arguments.twice,
        fail_fast: arguments.fail_fast,
        progress: progress(arguments.seeds),
        found: Mutex::default(),
    };
    let threads = match arguments.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?,
    };
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.get() {
            scope.spawn(|| search.work(&replay));
        }
    });
    search.progress.finish_and_clear();
    let found = search
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(summarize(found, started.elapsed()))
}

/// What replays a seed.
fn command(arguments: &Arguments, seed: u64) -> String {
    let component = match (&arguments.component, &arguments.manifest) {
        (Some(path), _) => format!(" --component {}", path.display()),
        (None, Some(manifest)) => format!(" --manifest {}", manifest.display()),
        (None, None) => arguments.host.argument(),
    };
    let about = match arguments.about.and_then(|about| about.to_possible_value()) {
        Some(about) => format!(" --about {}", about.get_name()),
        None => String::new(),
    };
    format!("cargo run -p loopless-host -- simulate{component}{about} --seed {seed} --trace")
}

fn one(
    simulation: &Simulation,
    seed: u64,
    arguments: &Arguments,
    contract: &Contract,
) -> anyhow::Result<ExitCode> {
    let play = async |world| scenario::play(world, arguments.about, contract).await;
    let report = if arguments.trace {
        let (report, trace) = simulation.trace(seed, play)?;
        print!("{trace}");
        report
    } else {
        simulation.run(seed, play)?
    };
    println!("{BOLD}seed {seed}{BOLD:#}: {}", report.setting);
    for violation in &report.violations {
        println!("{RED}broken:{RED:#} {violation}");
    }
    if report.violations.is_empty() {
        println!("all promises kept");
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

fn progress(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {pos}/{len} seeds, {per_sec}, {elapsed} gone, {eta} to go{msg}",
    );
    let bar = ProgressBar::new(seeds);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A search under way.
struct Search {
    simulation: Simulation,
    contract: Contract,
    next: AtomicU64,
    end: u64,
    is_over: AtomicBool,
    about: Option<Subject>,
    twice: bool,
    fail_fast: bool,
    progress: ProgressBar,
    found: Mutex<Found>,
}

/// What a search has found.
#[derive(Default)]
struct Found {
    seeds: u64,
    weathers: [u64; Weather::ALL.len()],
    counts: Counts,
    /// The seeds that broke a promise.
    broken: Vec<u64>,
}

impl Search {
    fn work(&self, replay: &(impl Fn(u64) -> String + Sync)) {
        while !self.is_over.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            let report = self.try_seed(seed);
            self.progress.inc(1);
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.seeds += 1;
            found.weathers[report.weather as usize] += 1;
            found.counts += report.counts;
            if report.violations.is_empty() {
                continue;
            }
            found.broken.push(seed);
            self.progress
                .set_message(format!(", {} broken", found.broken.len()));
            if found.broken.len() <= MOST_TOLD {
                self.progress.suspend(|| tell(seed, &report, &replay(seed)));
            }
            if self.fail_fast {
                self.is_over.store(true, Ordering::Relaxed);
            }
        }
    }

    fn try_seed(&self, seed: u64) -> Report {
        let play = async |world| scenario::play(world, self.about, &self.contract).await;
        let run = || {
            if !self.twice {
                return self.simulation.run(seed, play);
            }
            let (mut report, first) = self.simulation.trace(seed, play)?;
            let (_, second) = self.simulation.trace(seed, play)?;
            let differs = |(one, other): &(&str, &str)| one != other;
            if let Some((one, other)) = first.lines().zip(second.lines()).find(differs) {
                let what = format!("a second run differs: {one:?} became {other:?}");
                report.violations.push(what);
            }
            Ok(report)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => Report::failed(format!("the world did not begin: {error}")),
            Err(_) => Report::failed("the simulation itself panicked".into()),
        }
    }
}

fn tell(seed: u64, report: &Report, replay: &str) {
    eprintln!("{RED}seed {seed}{RED:#}: {}", report.setting);
    for violation in &report.violations {
        eprintln!("  {violation}");
    }
    eprintln!("  {DIM}to replay it:{DIM:#} {replay}");
}

fn summarize(mut found: Found, elapsed: Duration) -> ExitCode {
    let Counts {
        operations,
        waits,
        calls,
        failures,
        deaths,
        virtual_time,
    } = found.counts;
    let seeds = found.seeds;
    let seconds = elapsed.as_secs_f64();
    println!(
        "{BOLD}{seeds} seeds{BOLD:#} in {seconds:.1} s ({:.0} a second)",
        seeds as f64 / seconds
    );
    for (weather, count) in Weather::ALL.iter().zip(found.weathers) {
        println!("  {count} {weather}");
    }
    println!(
        "  {operations} requests, {waits} of them waits; {calls} calls of the store, {failures} of which failed; \
         {deaths} deaths of instances and hosts"
    );
    println!(
        "  {} of virtual time",
        humantime::format_duration(Duration::from_secs(virtual_time.as_secs()))
    );
    if found.broken.is_empty() {
        println!("all promises kept");
        return ExitCode::SUCCESS;
    }
    found.broken.sort_unstable();
    println!(
        "{RED}broken{RED:#} by {} seeds, {} the first",
        found.broken.len(),
        found.broken[0]
    );
    ExitCode::FAILURE
}
