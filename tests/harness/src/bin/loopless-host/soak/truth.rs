//! What an event with one writer may show, by what that writer was told.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::lock;

/// How long a change is remembered for watchers. A watch is shorter.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What is known of an event with one writer.
///
/// The version of an event is its number of changes: it is set if the version is odd. A change without a response may or may not
/// have happened, so until a read shows which, the event has one of two versions.
#[derive(Debug)]
pub struct Truth {
    pub name: String,
    /// Whether the generation counts every change, and so equals the version.
    is_counted: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    versions: Versions,
    /// The recent acknowledged changes.
    changes: VecDeque<Change>,
}

/// The range of versions that an event may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub least: u64,
    pub most: u64,
}

impl Versions {
    /// Whether the event is set. `None` if that is unknown.
    pub fn is_set(self) -> Option<bool> {
        (self.least == self.most).then_some(self.least % 2 == 1)
    }
}

/// An acknowledged change.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub version: u64,
    pub sent: Instant,
    pub acknowledged: Instant,
}

/// The state of an event in a response.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Reading {
    pub set: bool,
    pub generation: u64,
}

impl Reading {
    /// Parses an event in JSON.
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.set { "set" } else { "clear" };
        write!(f, "{state} in generation {}", self.generation)
    }
}

impl Truth {
    /// An event that has not been set yet.
    pub fn new(name: String, is_counted: bool) -> Self {
        Self {
            name,
            is_counted,
            state: Mutex::default(),
        }
    }

    /// The versions that the event may have now.
    pub fn versions(&self) -> Versions {
        self.state().versions
    }

    /// Records that the writer is about to change the event, whose version is known. Returns the version after the change.
    pub fn begin_change(&self) -> u64 {
        let versions = &mut self.state().versions;
        versions.most += 1;
        versions.most
    }

    /// Records that the last change was not made.
    pub fn abandon_change(&self) {
        let versions = &mut self.state().versions;
        versions.most = versions.least;
    }

    /// Records that the last change, sent at this time, was acknowledged with this state.
    ///
    /// # Errors
    ///
    /// If the state is not the one after the change.
    pub fn acknowledge(&self, sent: Instant, reading: Reading) -> Result<(), String> {
        let mut state = self.state();
        let now = Instant::now();
        let version = state.versions.most;
        state.versions.least = version;
        while let Some(first) = state.changes.front()
            && now.duration_since(first.acknowledged) > REMEMBERED
        {
            state.changes.pop_front();
        }
        state.changes.push_back(Change {
            version,
            sent,
            acknowledged: now,
        });
        drop(state);
        let versions = Versions {
            least: version,
            most: version,
        };
        self.check(versions, reading)
    }

    /// Records a state that was read while nobody changed the event. The version is known again.
    ///
    /// # Errors
    ///
    /// If the state contradicts the possible versions.
    pub fn observe(&self, reading: Reading) -> Result<(), String> {
        let versions = self.versions();
        self.check(versions, reading)?;
        let is_least = reading.set == (versions.least % 2 == 1);
        let version = if is_least {
            versions.least
        } else {
            versions.most
        };
        self.state().versions = Versions {
            least: version,
            most: version,
        };
        Ok(())
    }

    /// Checks that a reading agrees with one of these versions.
    ///
    /// # Errors
    ///
    /// A description of what was acknowledged and what was read.
    pub fn check(&self, versions: Versions, reading: Reading) -> Result<(), String> {
        let Versions { least, most } = versions;
        let is_possible = if self.is_counted {
            (least..=most).contains(&reading.generation)
                && reading.set == (reading.generation % 2 == 1)
        } else {
            versions.is_set().is_none_or(|is_set| is_set == reading.set)
        };
        if is_possible {
            return Ok(());
        }
        let name = &self.name;
        let state = if least % 2 == 1 { "set" } else { "clear" };
        let expected = if least == most {
            format!("was {state} by change {least}, the last one")
        } else {
            format!("was {state} by change {least} and had at most {most} changes")
        };
        Err(format!("{name} {expected}, but is {reading}"))
    }

    /// Returns a change to an `is_wanted` version that was sent after `from` and acknowledged before `to`.
    pub fn changed(
        &self,
        from: Instant,
        to: Instant,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Option<Change> {
        let state = self.state();
        let mut changes = state.changes.iter();
        let is_within = |change: &&Change| change.sent >= from && change.acknowledged <= to;
        changes
            .find(|change| is_within(change) && is_wanted(change.version))
            .copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(generation: u64) -> Reading {
        Reading {
            set: generation % 2 == 1,
            generation,
        }
    }

    /// An event with three acknowledged changes.
    fn truth(is_counted: bool) -> Truth {
        let truth = Truth::new("door".into(), is_counted);
        for version in 1..=3 {
            assert_eq!(truth.begin_change(), version);
            truth.acknowledge(Instant::now(), reading(version)).unwrap();
        }
        truth
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        for is_counted in [false, true] {
            let truth = truth(is_counted);
            let versions = truth.versions();
            assert_eq!(versions.is_set(), Some(true));
            assert_eq!(truth.check(versions, reading(3)), Ok(()));
            for lost in [0, 2] {
                let error = truth.check(versions, reading(lost)).unwrap_err();
                assert!(error.contains("door was set by change 3"), "{error}");
            }
            // If changes are counted, 1 lacks two changes, and 5 has two that nobody made.
            for other in [1, 5] {
                let is_possible = truth.check(versions, reading(other)).is_ok();
                assert_eq!(is_possible, !is_counted, "{other}");
            }
        }
    }

    #[test]
    fn what_was_not_answered_may_have_happened_or_not() {
        for is_counted in [false, true] {
            for seen in [3, 4] {
                let truth = truth(is_counted);
                truth.begin_change();
                let versions = truth.versions();
                assert_eq!(versions.is_set(), None);
                assert_eq!(truth.check(versions, reading(3)), Ok(()));
                assert_eq!(truth.check(versions, reading(4)), Ok(()));
                assert_eq!(truth.check(versions, reading(2)).is_ok(), !is_counted);
                truth.observe(reading(seen)).unwrap();
                assert_eq!(truth.versions().is_set(), Some(seen == 3));
                assert!(truth.observe(reading(7 - seen)).is_err());
            }
        }
    }

    #[test]
    fn an_acknowledgement_with_another_state_is_wrong() {
        let truth = truth(true);
        truth.begin_change();
        assert!(truth.acknowledge(Instant::now(), reading(3)).is_err());
    }

    #[test]
    fn a_change_that_was_not_made_is_none() {
        let truth = truth(true);
        truth.begin_change();
        truth.abandon_change();
        assert!(truth.check(truth.versions(), reading(4)).is_err());
    }

    #[test]
    fn changes_are_found_by_their_time() {
        let truth = truth(true);
        let now = Instant::now();
        let long_ago = now - Duration::from_secs(5);
        let is_set = |version| version % 2 == 1;
        assert_eq!(truth.changed(long_ago, now, is_set).unwrap().version, 1);
        assert!(truth.changed(now, now, is_set).is_none());
        assert!(truth.changed(long_ago, long_ago, is_set).is_none());
    }
}
