//! `loopless-host`: serves a Spin HTTP component on this machine.

#![cfg_attr(target_family = "wasm", no_main)]
#![cfg(not(target_family = "wasm"))]

mod bench;
mod conformance;
mod contract;
mod control;
mod project;
mod serve;
mod simulate;
mod soak;
mod storage;
mod style;

use std::process::ExitCode;

use anstream::eprintln;
use anyhow::Context;
use clap::{Parser, Subcommand};
use style::RED;

/// A request allocates a few hundred times. The system's allocator takes a seventh of its time for that, this one half as much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves a component over HTTP. Without options, it builds this project's component and keeps the store in .loopless/.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: serve::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Searches for a seed that makes the component break a promise
    ///
    /// Each seed is a simulated world: a few hosts with many instances of the component, one store, clients, and faults.
    /// Time is virtual.
    Simulate(simulate::Arguments),
    /// Checks over HTTP that a running server keeps the promises of the guides
    ///
    /// The server may be this host, Spin, a cloud, or the Python original (with `--profile seed`). The checks create events
    /// with unique names and forget them afterwards. They also change the demo's event and restore it. Nobody else should
    /// use the demo meanwhile.
    ///
    /// Exit code: 0 if all promises are kept, 1 if one is broken or the server cannot be reached.
    Conformance(conformance::Arguments),
    /// Runs mixed traffic for minutes while hosts are killed and their store fails, and checks that nothing is lost or leaked
    ///
    /// Without --url, it starts two hosts on one store. It kills one of them and instances of both repeatedly, and makes
    /// 1, 10 and 100 % of the store's calls fail. It also checks what is not visible from outside: that memory stays flat,
    /// and that no connection, instance, store handle, task or file is left open.
    ///
    /// With --url, it sends the same traffic to a running server. It creates events with unique names and forgets them
    /// afterwards.
    ///
    /// Each event has one writer, which records what was acknowledged: no acknowledged change may be lost, whatever fails.
    /// Ctrl-C ends the soak early, with a verdict. Exit code: 0 if it passed, 1 if it failed or the server cannot be reached.
    Soak(soak::Arguments),
    /// Measures the speed of hosts and of baselines in the same run, and prints tables
    ///
    /// Without --url, it starts hosts. There are four sections: requests/s and response times, the time from a change to the
    /// end of a wait, the cost of many waits, and start times. Absolute figures depend on the machine, so each rate is also
    /// given as a ratio: to hyper with the same bytes, to a route that does not read the store, and, with --original, to
    /// another program that serves the same page.
    Bench(bench::Arguments),
    /// Sends the same response to every request: the baseline of `bench`, which starts it
    #[command(hide = true)]
    Plain(bench::plain::Arguments),
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match run(line) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{RED}error:{RED:#} {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(line: CommandLine) -> anyhow::Result<ExitCode> {
    let runtime = || tokio::runtime::Runtime::new().context("cannot start the runtime");
    match line.command {
        // Each world has its own runtime.
        Some(Command::Simulate(arguments)) => simulate::run(arguments),
        Some(Command::Conformance(arguments)) => runtime()?.block_on(conformance::run(arguments)),
        Some(Command::Soak(arguments)) => runtime()?.block_on(soak::run(arguments)),
        Some(Command::Bench(arguments)) => runtime()?.block_on(bench::run(arguments)),
        Some(Command::Plain(arguments)) => runtime()?
            .block_on(bench::plain::run(arguments))
            .map(|()| ExitCode::SUCCESS),
        None => {
            let runtime = runtime()?;
            let result = runtime.block_on(serve::run(line.serve));
            // Ends the background tasks of instances.
            runtime.shutdown_background();
            result.map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Formats an error and its causes on one line.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
