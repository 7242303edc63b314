//! Runs checks and prints their results, line by line.

use std::fmt::{Debug, Display};
use std::process::ExitCode;
use std::time::Duration;

use anstream::println;

use crate::style::{BOLD, GREEN, RED};

/// The time limit of a check. The longest wait in a check is some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many characters of a server's response are shown.
const SHOWN: usize = 160;

/// A broken promise: what was expected, and what the server did.
#[derive(Debug)]
pub struct Failure(String);

/// The result of a check.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The texts continue the sentences "expected …" and "got …".
    pub fn new(expected: impl Display, got: impl Display) -> Self {
        Self(format!("expected {expected}, got {}", short(got)))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new("an answer", format!("{error:#}"))
    }
}

/// Fails unless `got` equals `expected`. `what` is the name of the value.
pub fn equal<T: PartialEq + Debug>(what: impl Display, expected: T, got: T) -> Outcome {
    if got == expected {
        Ok(())
    } else {
        Err(Failure::new(
            format_args!("{what} {expected:?}"),
            format_args!("{got:?}"),
        ))
    }
}

/// Shortens a text to one line of at most [`SHOWN`] characters.
fn short(text: impl Display) -> String {
    let text = text.to_string();
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(SHOWN) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Prints the heading of the checks that follow.
pub fn heading(name: &str) {
    println!("{BOLD}{name}{BOLD:#}");
}

/// The numbers of checks so far.
#[derive(Debug, Default)]
pub struct Report {
    kept: usize,
    broken: usize,
}

impl Report {
    /// Runs a check of `promise`, and prints its result.
    pub async fn check(&mut self, promise: &str, check: impl Future<Output = Outcome>) {
        let outcome = tokio::time::timeout(PATIENCE, check).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Failure::new(
                "the check to end",
                format_args!("no end within {} s", PATIENCE.as_secs()),
            ))
        });
        match outcome {
            Ok(()) => {
                self.kept += 1;
                println!("  {GREEN}ok{GREEN:#}      {promise}");
            }
            Err(Failure(what)) => {
                self.broken += 1;
                println!("  {RED}FAILED{RED:#}  {promise}: {what}");
            }
        }
    }

    /// Prints the totals.
    pub fn finish(self) -> ExitCode {
        let Self { kept, broken } = self;
        let all = kept + broken;
        println!("{all} promises checked: {kept} kept, {broken} broken");
        if broken == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
