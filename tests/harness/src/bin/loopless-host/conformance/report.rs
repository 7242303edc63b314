//! What the checks found, line by line.

use std::fmt::{Debug, Display};
use std::process::ExitCode;
use std::time::Duration;

use anstream::println;

use crate::style::{BOLD, GREEN, RED};

/// How long one check may take. The longest wait in it is some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much is shown of what a server sent.
const SHOWN: usize = 160;

/// A promise that was not kept: what was expected, and what there was.
#[derive(Debug)]
pub struct Failure(String);

/// What a check returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// `expected` and `got` as sentences go on after "expected" and "got".
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

/// Fails unless `got`, which is `what`, is what was expected.
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

/// One line, not too long.
fn short(text: impl Display) -> String {
    let text = text.to_string();
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(SHOWN) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The lines so far.
#[derive(Debug, Default)]
pub struct Report {
    kept: usize,
    broken: usize,
}

impl Report {
    /// The checks that follow are about this.
    #[expect(
        clippy::unused_self,
        reason = "lines come in order, through the report"
    )]
    pub fn capability(&mut self, name: &str) {
        println!("{BOLD}{name}{BOLD:#}");
    }

    /// Runs a check of `promise`, and prints what came of it.
    pub async fn check(&mut self, promise: &str, check: impl Future<Output = Outcome>) {
        let outcome = tokio::time::timeout(PATIENCE, check).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Failure::new(
                "an end",
                format_args!("none in {} s", PATIENCE.as_secs()),
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

    /// Prints the sum of it.
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
