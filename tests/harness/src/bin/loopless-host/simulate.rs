//! `loopless-host simulate`: searches for a seed that makes the component break a promise.
//!
//! Each seed is a world, in virtual time. The [`scenario`] builds its hosts and its store, and injects faults. Then clients act,
//! and what they saw is compared with what the store held:
//!
//! | worlds of | the clients | the promises |
//! | --- | --- | --- |
//! | events | [`events`] | [`events::promises`], and [`events::linearizability`] |
//! | the service | [`service`] | [`service::promises`] |
//! | both | | [`synchronous`] |
//!
//! [`search`] runs many seeds. [`crate::contract`] says which promises a build makes.

mod events;
mod scenario;
mod search;
mod service;
mod synchronous;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anstream::{print, println};
use anyhow::ensure;
use clap::{Args, ValueEnum};
use loopless_host::simulation::Simulation;

use crate::contract::{Contract, Promise};
use crate::project;
use crate::style::{BOLD, RED};
use scenario::{Subject, ms};

/// The inaccuracy of timers. tokio's count milliseconds, and a wait may need several timers in sequence.
const TIMERS: Duration = ms(5);

/// Parses a number as `increment` writes it: text, or eight little-endian bytes.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.or_else(|| value.try_into().ok().map(i64::from_le_bytes))
}

/// Which seeds to run, on which component.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many seeds to run
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,

    /// The first seed to run
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,

    /// Runs only this seed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,

    /// Runs only worlds of this; without it, every fourth is about the service, if the component has one
    #[arg(long, value_enum, value_name = "SUBJECT")]
    about: Option<Subject>,

    /// Prints every request and every call of the store, with its time
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Runs each seed twice, and checks that the traces are the same
    #[arg(long)]
    twice: bool,

    /// Stops at the first seed that breaks a promise
    #[arg(long)]
    fail_fast: bool,

    /// A built component to run, instead of building this project's
    #[arg(long, value_name = "PATH", conflicts_with = "host")]
    component: Option<PathBuf>,

    /// A Spin manifest whose component to build and run
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["component", "host"])]
    manifest: Option<PathBuf>,

    /// The host whose build of this project's component to run
    #[arg(long, value_enum, value_name = "HOST", default_value_t)]
    host: project::Host,

    /// How many seeds to run at once; without this, one per processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

/// Runs the seeds. The exit code is 1 if a seed breaks a promise.
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
    match arguments.seed {
        Some(seed) => run_seed(&simulation, seed, &arguments, &contract),
        None => search::run(simulation, &arguments, contract),
    }
}

impl Arguments {
    /// The command that runs one of the seeds again.
    fn replay(&self, seed: u64) -> String {
        let component = match (&self.component, &self.manifest) {
            (Some(path), _) => format!(" --component {}", path.display()),
            (None, Some(manifest)) => format!(" --manifest {}", manifest.display()),
            (None, None) => self.host.argument(),
        };
        let about = match self.about.and_then(|about| about.to_possible_value()) {
            Some(about) => format!(" --about {}", about.get_name()),
            None => String::new(),
        };
        format!("cargo run -p loopless-host -- simulate{component}{about} --seed {seed} --trace")
    }
}

fn run_seed(
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
