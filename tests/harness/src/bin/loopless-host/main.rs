//! `loopless-host`: serves a Spin HTTP component on this machine.

#![cfg_attr(target_family = "wasm", no_main)]
#![cfg(not(target_family = "wasm"))]

mod bench;
mod conformance;
mod contract;
mod control;
mod lifespan;
mod log;
mod project;
mod serve;
mod simulate;
mod soak;
mod style;

use std::process::ExitCode;

use anstream::eprintln;
use anyhow::Context;
use clap::{Parser, Subcommand};
use style::RED;

/// A request allocates a few hundred times. The system's allocator takes a seventh of its time for that, this one half as much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves the component over HTTP. Without options: builds it first, and keeps its store in .loopless/.
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
    /// Each seed is a world of its own: a few hosts with many instances of the component, one store, clients, and what
    /// goes wrong for them. Time is virtual.
    Simulate(simulate::Arguments),
    /// Checks over HTTP that a running server keeps what the guides promise
    ///
    /// The server may be this host, Spin, a cloud, or the Python original (with `--profile seed`). The checks use events
    /// with names of their own, which they forget afterwards, and the demo's event, which is left as it was found.
    /// While they run, nobody else should click.
    ///
    /// Exit code: 0 if all promises are kept, 1 if not, or if the server cannot be reached.
    Conformance(conformance::Arguments),
    /// Keeps hosts under mixed traffic for minutes while they are killed and their store fails, and says how they bore it
    ///
    /// Without --url, it starts two hosts of its own on one store, kills one of them and instances of both again and again,
    /// and lets the store fail at 1, 10 and 100 % of its calls. Then it also checks what cannot be seen from outside: that
    /// memory stays flat, and that no connection, instance, handle of the store, task or file is left open.
    ///
    /// With --url, a running server gets the same traffic. The soak uses events with names of its own, and forgets them
    /// afterwards.
    ///
    /// Each event has one writer, who knows what it was told: no acknowledged change may be lost, whatever fails. Ctrl-C
    /// ends the soak early, with a verdict. Exit code: 0 if it passed, 1 if not, or if the server cannot be reached.
    Soak(soak::Arguments),
    /// Measures how fast hosts are, beside baselines in the same run, and prints one table
    ///
    /// Without --url, it starts hosts of its own. Four sections: requests/s and their times, from a change to the answer of a
    /// wait, what many waits cost, and starts. Only ratios say something of another machine: to hyper with the same bytes, to a
    /// route that does not read the store, and, with --original, to another program that serves the page.
    Bench(bench::Arguments),
    /// Answers all requests alike: the baseline of `bench`, which starts it
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
        // Each of its worlds has a runtime of its own.
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
            // What instances still do in the background ends here.
            runtime.shutdown_background();
            result.map(|()| ExitCode::SUCCESS)
        }
    }
}

/// An error and its causes, on one line.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
