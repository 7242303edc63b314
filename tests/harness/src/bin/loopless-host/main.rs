//! `loopless-host`: serves a Spin HTTP component of WASI 0.3 on this machine.

mod lifespan;
mod serve;
mod style;

use std::process::ExitCode;

use anstream::eprintln;
use anyhow::Context;
use clap::Parser;
use style::RED;

/// Serves the component over HTTP. Without options: builds it first, and keeps its store in .loopless/.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    serve: serve::Arguments,
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
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let result = runtime.block_on(serve::run(line.serve));
    // What instances still do in the background ends here.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

/// An error and its causes, on one line.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
