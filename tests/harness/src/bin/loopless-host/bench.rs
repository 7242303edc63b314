//! `loopless-host bench`: measures the speed of hosts, and of baselines in the same run.
//!
//! Absolute figures depend on the machine, and its load changes during a run. So all servers are measured in turn, several times,
//! and each row has the ratio of its requests/s to those of up to three baselines with as many connections: hyper with the same
//! bytes, a route of the same component that does not read the store, and, with `--original`, a program that serves the same page.
//!
//! # Where the time goes
//!
//! `GET /` of a set event, with the profile `host`, the store in memory, 32 connections and glibc's allocator (`perf record`), takes
//! 28 µs of processor time: 42 % in this host and Wasmtime, 21 % in the kernel, 19 % in the component, 17 % in the allocator and
//! copies. No function takes more than 1 %, except the kernel's sends and the allocator, which is mimalloc now: it saves 2 µs.
//!
//! - *Threads.* Each thread that serves has a runtime of its own ([`loopless_host::Threads`]). On one runtime with two threads,
//!   requests move between them: 34 % more processor time, and 0.4 task switches a request instead of 0.2.
//! - *Instances.* Starting an instance takes 0.4 ms of processor time with the first requests that it serves: page faults, 0.07 ms for
//!   Wasmtime, and 0.05 ms for the component's router. An instance serves 1,024 requests, so that this is 1 % of each. With Spin's 128,
//!   it is a tenth.
//!
//! # What bounds it
//!
//! - *One connection.* A request takes three system calls (`epoll_wait`, `recvfrom`, `writev`) and wakes no other thread. The rest is
//!   computed, in Wasmtime for the most part. A route of the component that reads nothing does not reach the original either: 0.95 times
//!   its requests/s, and 0.9 for `GET /`.
//! - *The 99th percentile.* On two cores that it shares with the load generator, hyper alone answers half of its requests/s with a p99 of
//!   4 to 6 times its p50. Under full load (`wrk`), the component's p99 is 3 to 4 times its p50.
//! - *Processor time of many waits.* 10,000 old waits wake up 12 times a second each, to see a set within 100 ms. One wake-up takes 7 µs:
//!   a timer of tokio's, Wasmtime's event loop, a call of the component, and a new timer. Fewer wake-ups would need a wait that wakes
//!   others, which nothing here does: futures never cross requests.
//! - *Memory of many waits.* A wait takes 53 to 56 KiB: 32 for its connection, of which 16 are hyper's two buffers, and the rest in its
//!   instance and in what Wasmtime keeps of it.
//!
//! Concurrent waits are spread over instances, because Wasmtime's handler starts an instance when none can take a request at
//! once. A host that takes no more requests than it has threads, until each pauses, halves the reads of 100 waits. This is not
//! done, because it also packs changes into fewer instances. A change blocks its instance until it is on disk, so the changes/s
//! on SQLite drop by more than half.
//!
//! # The component's size
//!
//! The functions of the core module, by the crate that their names begin with:
//!
//! | part | of the code |
//! | --- | --- |
//! | event, lease, service and store | 25 % |
//! | handlers of routes, with what is inlined into them | 12 % |
//! | axum, matchit and tower | 10 % |
//! | http, http-body-util, bytes and hashbrown | 11 % |
//! | bindings: wasip3, wit-bindgen and spin-sdk | 12 % |
//! | serde and serde_json | 5 % |
//! | the standard library, of which 2 % print floating-point numbers for serde | 23 % |
//! | dlmalloc and all else | 2 % |
//!
//! The code is 606 KB. Another 128 KB are data: texts, the page, the API's description. The component has 752 KB, with
//! `opt-level = "s"` and `lto = true`. Other settings, and the processor time of a request:
//!
//! | `opt-level` | `lto` | size | time |
//! | --- | --- | --- | --- |
//! | `"s"` | yes | 752 KB | 1 |
//! | 2 | yes | 867 KB | 0.96 |
//! | 3 | yes | 884 KB | 0.97 |
//! | 3 | no | 897 KB | 1 |

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
use indicatif::ProgressBar;
use tempfile::TempDir;

use crate::conformance::client::{Access, Base};
use crate::project;
use crate::serve;
use crate::storage::Backend;
use crate::style::progress;
use report::{Report, Section};

/// What to measure and for how long.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A running server to measure, such as http://127.0.0.1:3000, instead of starting hosts. The event of its page is left set;
    /// events that the bench creates are forgotten
    #[arg(long, value_name = "URL", conflicts_with_all = ["stores", "component"])]
    url: Option<Base>,

    #[command(flatten)]
    access: Access,

    /// A shell command that starts another server of the same page, to compare with; it is killed afterwards
    #[arg(long, value_name = "COMMAND")]
    original: Option<String>,

    /// The address of the original
    #[arg(
        long,
        value_name = "URL",
        requires = "original",
        default_value = "http://127.0.0.1:9009"
    )]
    original_url: Base,

    /// A store to measure, as without `bench`; may be repeated. Without this, `memory` and a temporary SQLite file. For SQLite
    /// and Redis, this project's build that uses them itself is measured too
    #[arg(long = "store", value_name = "STORE")]
    stores: Vec<Backend>,

    /// A built component to measure, instead of building this project's
    #[arg(long, value_name = "PATH")]
    component: Option<PathBuf>,

    /// What to measure; may be repeated. Without this, everything, or with --url, requests and wakes
    #[arg(long = "section", value_name = "SECTION", value_enum)]
    sections: Vec<Section>,

    /// How many connections there are at once
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,32,256"
    )]
    connections: Vec<usize>,

    /// How many waits there are at once
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

    /// How often everything is measured. The tables have medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long each measurement takes
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    time: Duration,

    /// Also writes all figures to this file, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,

    /// Plots requests/s against connections, and reads/s against waits, as SVG files in this directory
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
}

/// The shared state of all measurements.
struct Bench {
    arguments: Arguments,
    /// `None` with `--url`.
    component: Option<PathBuf>,
    /// The directory of temporary stores.
    directory: TempDir,
    progress: ProgressBar,
}

/// A host's component, and where the component keeps its events.
struct Kept {
    /// The name in the table.
    name: &'static str,
    /// The options of the host.
    options: Vec<String>,
}

/// The name of the store in a host's memory.
const MEMORY: &str = "memory";

impl Kept {
    fn new(name: &'static str, component: &Path, kept: Vec<String>) -> anyhow::Result<Self> {
        let component = component.to_str();
        let component = component.context("the component's path is not UTF-8")?;
        let mut options = vec!["--component".into(), component.into()];
        options.extend(kept);
        Ok(Self { name, options })
    }
}

/// Measures, and prints the tables.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!(
            "This program is not fully optimized, and has two thirds of its full speed. Use `cargo run --profile host -p loopless-host -- bench`"
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
    let bench = Bench {
        component,
        directory: TempDir::with_prefix("loopless-bench-")?,
        progress: progress(0, "{bar:30} {elapsed} {msg}"),
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
            .with_context(|| format!("cannot draw plots in {}", directory.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    /// The component, for a section that needs hosts of its own.
    fn component(&self) -> anyhow::Result<&Path> {
        let component = self.component.as_deref();
        component.context("this section needs hosts that the bench starts: omit --url, or choose --section requests or wakes")
    }

    /// The stores to measure. The names of temporary files begin with `purpose`.
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
            // A given component has no other build.
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

    /// Shows what is being measured.
    fn show(&self, what: impl Into<std::borrow::Cow<'static, str>>) {
        self.progress.set_message(what);
    }
}

/// The median of at least one number.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
