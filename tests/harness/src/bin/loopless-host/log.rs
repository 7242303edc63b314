//! What the host logs about itself, on standard error. What components print is not part of it.

use std::io;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs: an object in JSON
    Json,
}

/// Starts to log: what `RUST_LOG` says, in this format. Without it: warnings of this host, and, where there is a format,
/// requests. (What libraries warn of is mostly what clients do wrong.)
///
/// # Errors
///
/// If `RUST_LOG` cannot be used.
pub fn start(format: Option<Format>) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => {
            EnvFilter::try_new(filter).context("RUST_LOG cannot be used")?
        }
        _ if format.is_some() => EnvFilter::new("error,loopless_host=info"),
        _ => EnvFilter::new("error,loopless_host=warn"),
    };
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
