//! `loopless-host bench`: how fast hosts are, with ratios to baselines that are measured in the same run.
//!
//! A machine's figures say little about another machine's, and its load changes while a bench runs. So all servers are measured
//! in turn, several times, and each row has the ratio of its requests/s to those of up to three baselines at as many
//! connections: hyper with the same bytes, a route of the same component that does not read the store, and, with `--original`, a
//! program that serves the same page.
//!
//! # Where the time goes
//!
//! `GET /` of a set event, with the profile `host`, the store in memory and 32 connections (`perf record`): 37 % are this host and
//! Wasmtime, 28 % the kernel, 24 % the component, 10 % the allocator and copies. No function has more than 1 % of it, but for
//! those of the kernel that switch tasks and send.
//!
//! An instance serves 128 requests, as on Spin. To start the next one takes 1.1 ms of a processor, which is a fifth of each
//! request's time: a third of it is the component's, which makes its router, and up to a half the kernel's, for the memory.
//!
//! Optimizing the component for size (`opt-level = "s"` for all of it) takes a tenth off its size, and adds a sixth to the
//! processor time of a request.
//!
//! Waits that come together are spread over instances, because Wasmtime's handler starts one where none can take a request at
//! once. To let no more requests be taken than there are threads, until each pauses, halves the reads of 100 waits. It
//! was tried and left out: it also packs changes, each of which stops its instance until it is on the disk, and more than half of the
//! changes/s on SQLite went with it.

mod load;
pub mod plain;
mod plots;
mod report;
mod requests;
mod servers;
mod starts;
mod timer;
mod waits;
mod wakes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anstream::{eprintln, print};
use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::conformance::client::{Access, Base};
use crate::project;
use crate::serve::{self, Backend};
use report::{Report, Section};

/// What to measure, and for how long.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A running server to measure, such as http://127.0.0.1:3000, instead of hosts of its own. The event of its page is set
    /// afterwards; others that the bench makes are forgotten
    #[arg(long, value_name = "URL", conflicts_with_all = ["stores", "component"])]
    url: Option<Base>,

    #[command(flatten)]
    access: Access,

    /// A shell command that starts a server of the same page, to compare with; it is ended afterwards
    #[arg(long, value_name = "COMMAND")]
    original: Option<String>,

    /// Where the original serves
    #[arg(
        long,
        value_name = "URL",
        requires = "original",
        default_value = "http://127.0.0.1:9009"
    )]
    original_url: Base,

    /// A store to measure, as without `bench`; may be repeated. Without this, `memory` and an SQLite file that is deleted
    /// afterwards. Beside SQLite and Redis as key-value stores, this project's build that uses the same itself is measured
    #[arg(long = "store", value_name = "STORE")]
    stores: Vec<Backend>,

    /// A built component to measure, instead of building this project's
    #[arg(long, value_name = "PATH")]
    component: Option<PathBuf>,

    /// What to measure; may be repeated. Without this, all, or with --url, requests and wakes
    #[arg(long = "section", value_name = "SECTION", value_enum)]
    sections: Vec<Section>,

    /// How many connections there are at the same time
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,32,256"
    )]
    connections: Vec<usize>,

    /// How many waits there are at the same time
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,100,1000,10000"
    )]
    waits: Vec<usize>,

    /// How old waits are when they are woken
    #[arg(
        long,
        value_name = "DURATION",
        value_delimiter = ',',
        default_value = "100ms,1s,20s",
        value_parser = humantime::parse_duration
    )]
    ages: Vec<Duration>,

    /// How often everything is measured. Medians are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long each measurement takes
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    time: Duration,

    /// Writes all figures to this file too, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,

    /// Draws requests/s against connections, and reads/s against waits, in SVG files in this directory
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
}

/// What all measurements need.
struct Bench {
    arguments: Arguments,
    /// `None` with `--url`.
    component: Option<PathBuf>,
    /// Where stores of its own are.
    directory: TempDir,
    progress: ProgressBar,
}

/// A host's component, and where that keeps its events.
struct Kept {
    /// In the table.
    name: &'static str,
    /// Options of the host.
    options: Vec<String>,
}

/// The store in the memory of a host.
const MEMORY: &str = "memory";

impl Kept {
    fn new(name: &'static str, component: &Path, kept: Vec<String>) -> anyhow::Result<Self> {
        let component = component.to_str();
        let component = component.context("the component has a name that is no text")?;
        let mut options = vec!["--component".into(), component.into()];
        options.extend(kept);
        Ok(Self { name, options })
    }
}

/// Measures, and prints the table.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!(
            "This program is hardly optimized, which takes two thirds of its speed: see `cargo run --profile host -p loopless-host -- bench`"
        );
    }
    // Each wait of a bench is a connection.
    serve::allow_open_files();
    let component = match (&arguments.url, &arguments.component) {
        (Some(_), _) => None,
        (None, Some(path)) => Some(path.clone()),
        (None, None) => Some(project::build_manifest(
            &project::Host::default().manifest()?,
        )?),
    };
    let sections = match &*arguments.sections {
        [] if component.is_none() => vec![Section::Requests, Section::Wakes],
        [] => Section::ALL.to_vec(),
        some => some.to_vec(),
    };
    let progress = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:30} {elapsed} {msg}");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let bench = Bench {
        component,
        directory: TempDir::with_prefix("loopless-bench-")?,
        progress,
        arguments,
    };
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        is_optimized: !cfg!(debug_assertions),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        rounds: bench.arguments.rounds,
        rows: Vec::new(),
    };
    for section in sections {
        report.rows.extend(match section {
            Section::Requests => requests::measure(&bench).await?,
            Section::Wakes => wakes::measure(&bench).await?,
            Section::Waits => waits::measure(&bench).await?,
            Section::Starts => starts::measure(&bench).await?,
        });
    }
    bench.progress.finish_and_clear();
    print!("{}", report.table());
    if let Some(path) = &bench.arguments.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(directory) = &bench.arguments.plots {
        plots::draw(&report.rows, directory)
            .with_context(|| format!("cannot draw into {}", directory.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    /// The component, for a section that needs hosts of its own.
    fn component(&self) -> anyhow::Result<&Path> {
        let component = self.component.as_deref();
        component.context("this needs hosts of the bench's own: leave --url out, or choose --section requests or wakes")
    }

    /// The stores to measure. `purpose` tells files of its own apart.
    fn stores(&self, purpose: &str) -> anyhow::Result<Vec<Kept>> {
        let file = |kind: &str| {
            Backend::Sqlite(self.directory.path().join(format!("{purpose}-{kind}.db")))
        };
        let stores = match &*self.arguments.stores {
            [] => vec![Backend::Memory, file("store")],
            some => some.to_vec(),
        };
        let component = self.component()?;
        let manifest = project::Host::default().manifest()?;
        let mut kept = Vec::new();
        for store in stores {
            let (name, build) = match store {
                Backend::Memory => (MEMORY, None),
                Backend::Sqlite(_) => (
                    "SQLite",
                    Some(("SQLite database", project::SQLITE, file("database"))),
                ),
                Backend::Redis { .. } => (
                    "Redis",
                    Some(("Redis itself", project::REDIS, store.clone())),
                ),
            };
            kept.push(Kept::new(
                name,
                component,
                project::kept(&manifest, &store)?,
            )?);
            // Another component is the caller's affair.
            if let (Some((name, manifest, store)), None) = (build, &self.arguments.component) {
                let manifest = project::manifest(manifest)?;
                let component = project::build_manifest(&manifest)?;
                kept.push(Kept::new(
                    name,
                    &component,
                    project::kept(&manifest, &store)?,
                )?);
            }
        }
        Ok(kept)
    }

    /// Says what is measured now.
    fn says(&self, what: impl Into<std::borrow::Cow<'static, str>>) {
        self.progress.set_message(what);
    }
}

/// The median, of at least one number.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
