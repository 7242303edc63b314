//! The findings of a soak, and the judgement of memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use anstream::eprintln;
use indicatif::ProgressBar;

use super::lock;
use crate::style::RED;

/// How many findings are printed. The others are counted.
const MOST_PRINTED: usize = 20;

/// How much a host's memory may grow after the warm-up: by this share or this number of bytes, whichever is more.
const TOLERANCE: (f64, u64) = (0.1, 8 << 20);

/// The least number of measurements for a judgement. Half of them are the warm-up.
const LEAST_MEASUREMENTS: usize = 4;

/// The kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A state that lacks an acknowledged change, or has a change that no client made.
    Lost,
    /// A wait, poll or stream that missed a change, or reported one that did not happen.
    Missed,
    /// A request that was rejected or cut off without a fault.
    Refused,
    /// A response or a log line that no fault explains.
    Wrong,
    /// Something that is left open.
    Leaked,
    /// A host whose memory grows.
    Grown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "states that contradict what was acknowledged",
            Self::Missed => "waits, polls and streams with a wrong result",
            Self::Refused => "requests rejected or cut off without a fault",
            Self::Wrong => "invalid responses and log lines",
            Self::Leaked => "leaks",
            Self::Grown => "hosts whose memory grows",
        })
    }
}

/// The findings of a soak.
#[derive(Debug)]
pub struct Findings {
    progress: ProgressBar,
    counts: Mutex<BTreeMap<Kind, usize>>,
}

impl Findings {
    /// No findings. New ones are printed above this progress bar.
    pub fn new(progress: ProgressBar) -> Self {
        Self {
            progress,
            counts: Mutex::default(),
        }
    }

    /// Adds a finding, and prints it.
    pub fn add(&self, kind: Kind, what: impl fmt::Display) {
        let total = {
            let mut counts = lock(&self.counts);
            *counts.entry(kind).or_default() += 1;
            counts.values().sum::<usize>()
        };
        if total <= MOST_PRINTED {
            self.progress
                .suspend(|| eprintln!("{RED}wrong:{RED:#} {what}"));
        }
    }

    /// The number of findings of each kind, as text. `None` if there are none.
    pub fn summary(&self) -> Option<String> {
        let counts = lock(&self.counts);
        let found = counts.iter().map(|(kind, count)| format!("{count} {kind}"));
        let found: Vec<_> = found.collect();
        (!found.is_empty()).then(|| found.join(", "))
    }
}

/// The memory of a host, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// After the warm-up.
    pub before: u64,
    pub after: u64,
}

impl Memory {
    /// Evaluates measurements at even intervals, each of an idle host. Returns `None` if there are too few.
    ///
    /// The first half is the warm-up, in which allocators and caches grow. The medians of the third and of the fourth quarter
    /// are compared.
    pub fn of(measurements: &[u64]) -> Option<Self> {
        let (_, warm) = measurements.split_at(measurements.len() / 2);
        let (before, after) = warm.split_at(warm.len() / 2);
        (measurements.len() >= LEAST_MEASUREMENTS).then(|| Self {
            before: median(before),
            after: median(after),
        })
    }

    /// Whether the memory grew by no more than [`TOLERANCE`].
    pub fn is_flat(self) -> bool {
        let Self { before, after } = self;
        let (share, least) = TOLERANCE;
        let tolerated = ((before as f64 * share) as u64).max(least);
        after <= before + tolerated
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (before, after) = (mebibytes(self.before), mebibytes(self.after));
        write!(
            f,
            "{before:.1} MiB after the warm-up, {after:.1} MiB at the end"
        )
    }
}

fn median(measurements: &[u64]) -> u64 {
    let mut sorted = measurements.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_that_grows_on_is_not_flat() {
        let growing: Vec<_> = (0..20).map(|n| (60 + 3 * n) * MIB).collect();
        let memory = Memory::of(&growing).unwrap();
        assert!(!memory.is_flat(), "{memory}");
    }

    #[test]
    fn memory_that_grows_in_the_warm_up_and_wavers_then_is_flat() {
        let wavering = [40, 70, 80, 78, 90, 81, 79, 140, 80, 82].map(|n| n * MIB);
        let memory = Memory::of(&wavering).unwrap();
        assert!(memory.is_flat(), "{memory}");
        assert_eq!(memory.before, 81 * MIB);
    }

    #[test]
    fn three_measurements_are_too_few() {
        assert_eq!(Memory::of(&[MIB; 3]), None);
        assert!(Memory::of(&[MIB; 4]).unwrap().is_flat());
    }

    #[test]
    fn findings_are_counted_by_their_kinds() {
        let findings = Findings::new(ProgressBar::hidden());
        assert_eq!(findings.summary(), None);
        findings.add(Kind::Lost, "door");
        findings.add(Kind::Lost, "window");
        findings.add(Kind::Leaked, "a task");
        let summary = findings.summary().unwrap();
        assert_eq!(
            summary,
            "2 states that contradict what was acknowledged, 1 leaks"
        );
    }
}
