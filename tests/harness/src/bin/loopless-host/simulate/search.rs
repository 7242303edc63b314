//! The search: runs many seeds on several threads, and reports those that break a promise.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anstream::{eprintln, println};
use indicatif::ProgressBar;
use loopless_host::simulation::Simulation;

use super::Arguments;
use super::scenario::{self, Counts, Report, Weather};
use crate::contract::Contract;
use crate::style::{BOLD, DIM, RED, progress};

/// How many failing seeds are printed. The others are counted.
const MOST_PRINTED: usize = 10;

/// Runs the seeds. The exit code is 1 if a seed breaks a promise.
pub fn run(
    simulation: Simulation,
    arguments: &Arguments,
    contract: Contract,
) -> anyhow::Result<ExitCode> {
    let search = Search {
        simulation,
        arguments,
        contract,
        next: AtomicU64::new(arguments.from),
        end: arguments.from.saturating_add(arguments.seeds),
        is_over: AtomicBool::new(false),
        progress: progress(
            arguments.seeds,
            "{bar:30} {pos}/{len} seeds, {per_sec}, {elapsed} elapsed, {eta} left{msg}",
        ),
        found: Mutex::default(),
    };
    let threads = match arguments.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?,
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.get() {
            scope.spawn(|| search.work());
        }
    });
    search.progress.finish_and_clear();
    let found = search.found.into_inner();
    let found = found.unwrap_or_else(PoisonError::into_inner);
    Ok(summarize(found, began.elapsed()))
}

/// The shared state of the threads.
struct Search<'a> {
    simulation: Simulation,
    arguments: &'a Arguments,
    contract: Contract,
    next: AtomicU64,
    end: u64,
    is_over: AtomicBool,
    progress: ProgressBar,
    found: Mutex<Found>,
}

/// The results so far.
#[derive(Default)]
struct Found {
    seeds: u64,
    weathers: [u64; Weather::ALL.len()],
    counts: Counts,
    /// The seeds that broke a promise.
    broken: Vec<u64>,
}

impl Search<'_> {
    /// Runs seeds until none is left.
    fn work(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            let report = self.run_seed(seed);
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
            if found.broken.len() <= MOST_PRINTED {
                self.progress.suspend(|| self.print(seed, &report));
            }
            if self.arguments.fail_fast {
                self.is_over.store(true, Ordering::Relaxed);
            }
        }
    }

    fn run_seed(&self, seed: u64) -> Report {
        let Arguments { about, twice, .. } = *self.arguments;
        let play = async |world| scenario::play(world, about, &self.contract).await;
        let run = || {
            if !twice {
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
            Ok(Err(error)) => Report::failed(format!("the world did not start: {error}")),
            Err(_) => Report::failed("the simulation itself panicked".into()),
        }
    }

    fn print(&self, seed: u64, report: &Report) {
        eprintln!("{RED}seed {seed}{RED:#}: {}", report.setting);
        for violation in &report.violations {
            eprintln!("  {violation}");
        }
        let command = self.arguments.replay(seed);
        eprintln!("  {DIM}to replay it:{DIM:#} {command}");
    }
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
        "{RED}broken{RED:#} by {} seeds, the first is {}",
        found.broken.len(),
        found.broken[0]
    );
    ExitCode::FAILURE
}
