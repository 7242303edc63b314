//! What the host logs about itself, on standard error. What components print is not part of it.

use std::io;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs: an object in JSON
    Json,
}

/// Starts to log: what `RUST_LOG` says, in this format. Without it: warnings, and, where there is a format, requests.
///
/// # Errors
///
/// Where `RUST_LOG` cannot be used.
pub fn start(format: Option<Format>) -> anyhow::Result<()> {
    let usual = match format {
        None => LevelFilter::WARN,
        Some(_) => LevelFilter::INFO,
    };
    let filter = EnvFilter::builder().with_default_directive(usual.into());
    let filter = filter.from_env().context("RUST_LOG cannot be used")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        Some(Format::Json) => lines.json().flatten_event(true).init(),
        Some(Format::Text) | None => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            lines.with_ansi(is_terminal).init();
        }
    }
    Ok(())
}
