use std::time::Duration;

use super::stored::{Beats, Record};

/// A lease and its last run, as the store had them at one time.
#[derive(Clone, Debug)]
pub struct Look {
    /// When the look began, by this process's clock.
    pub(super) began: Duration,
    /// The current term, or 0 if there was none yet.
    pub(super) term: u64,
    /// The value that holds the current term.
    pub(super) lease: Option<Vec<u8>>,
    pub(super) beats: Beats,
    /// The value that holds the beats.
    pub(super) sealable: Vec<u8>,
    pub(super) record: Record,
}

impl Look {
    /// The run's number: the term in which it began, or 0 if there was no run yet. Later runs have higher numbers.
    pub fn run(&self) -> u64 {
        self.record.run
    }

    /// The term of the run's last holder. `None` if there was no run yet.
    pub fn term(&self) -> Option<u64> {
        (self.term > 0).then_some(self.term)
    }

    /// The number of beats of the run, in all its terms.
    pub fn beats(&self) -> u64 {
        self.record.carried + self.beats.count()
    }

    /// When the run began, as the time since 1970.
    pub fn started(&self) -> Duration {
        Duration::from_millis(self.record.started_ms)
    }

    /// The last heartbeat of the run's last holder, as the time since 1970.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.record.heartbeat_ms)
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        matches!(self.beats, Beats::Released(_))
    }

    /// Whether the run is in a later term than the one in which it began.
    pub fn is_resumed(&self) -> bool {
        self.record.run != self.term
    }

    /// How many beats `run` had, if it is the run before this one.
    pub fn previous(&self, run: u64) -> Option<u64> {
        let (previous, beats) = self.record.previous?;
        (previous == run).then_some(beats)
    }
}
