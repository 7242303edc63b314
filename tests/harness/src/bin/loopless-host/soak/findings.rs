//! What a soak finds wrong, and whether memory is flat.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anstream::eprintln;
use indicatif::ProgressBar;

use crate::style::RED;

/// How many findings are told in full. The others are counted.
const MOST_TOLD: usize = 20;

/// How much more memory a host may have at the end than after the warm-up: this share, or so much, whichever is more.
const TOLERANCE: (f64, u64) = (0.1, 8 << 20);

/// How many measurements it takes to judge, half of them for the warm-up.
const LEAST_MEASUREMENTS: usize = 4;

/// What kind of thing was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A state was read in which an acknowledged change is missing, or there is one that nobody made.
    Lost,
    /// A wait, a poll or a stream missed a change, or told of one that was none.
    Missed,
    /// A request was refused, or had no answer, while all was well.
    Refused,
    /// An answer, or a line in a host's log, that there must not be, whatever fails.
    Wrong,
    /// Something that was left open.
    Leaked,
    /// Memory that grows.
    Grown,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Lost,
        Self::Missed,
        Self::Refused,
        Self::Wrong,
        Self::Leaked,
        Self::Grown,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "states that contradict what was acknowledged",
            Self::Missed => "watchers that were told too much or too little",
            Self::Refused => "requests refused or broken off while all was well",
            Self::Wrong => "answers and messages that must not be",
            Self::Leaked => "leaks",
            Self::Grown => "memory that grows",
        })
    }
}

/// All that was found.
#[derive(Debug)]
pub struct Findings {
    progress: ProgressBar,
    counts: Mutex<[usize; Kind::ALL.len()]>,
}

impl Findings {
    /// None yet. They are told above this bar.
    pub fn new(progress: ProgressBar) -> Self {
        Self {
            progress,
            counts: Mutex::default(),
        }
    }

    /// Adds one.
    pub fn add(&self, kind: Kind, what: impl fmt::Display) {
        let total = {
            let mut counts = self.counts();
            counts[kind as usize] += 1;
            counts.iter().sum::<usize>()
        };
        if total <= MOST_TOLD {
            self.progress
                .suspend(|| eprintln!("{RED}wrong:{RED:#} {what}"));
        }
    }

    /// How many there are of each kind, in words. `None` if there are none.
    pub fn summary(&self) -> Option<String> {
        let counts = *self.counts();
        let found = Kind::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let found: Vec<_> = found
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    fn counts(&self) -> MutexGuard<'_, [usize; Kind::ALL.len()]> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a host's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// After the warm-up.
    pub before: u64,
    pub after: u64,
}

impl Memory {
    /// Judges measurements that were made at even intervals, each while the host had nothing to do. `None` if there are too
    /// few.
    ///
    /// The first half is the warm-up: allocators and caches take what they keep. Of the other half, the medians of its two
    /// halves are compared.
    pub fn of(measurements: &[u64]) -> Option<Self> {
        let (_, warm) = measurements.split_at(measurements.len() / 2);
        let (before, after) = warm.split_at(warm.len() / 2);
        (measurements.len() >= LEAST_MEASUREMENTS).then(|| Self {
            before: median(before),
            after: median(after),
        })
    }

    /// Whether it grew by no more than is tolerated.
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
