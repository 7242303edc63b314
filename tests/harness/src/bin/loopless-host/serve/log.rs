//! The host's own log, on standard error. The output of components is not part of it.

use std::io;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people
    Text,
    /// A JSON object per line
    Json,
}

/// Starts logging, as `RUST_LOG` says. If that is not set, logs the host's own warnings, and requests if there is a `format`.
/// Warnings of libraries are left out, because most are about faults of clients.
///
/// # Errors
///
/// If `RUST_LOG` is invalid.
pub fn start(format: Option<Format>) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => {
            EnvFilter::try_new(filter).context("RUST_LOG is invalid")?
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
