//! What an event that has one writer may show, from what that writer was told.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a change is remembered for those who watch. They watch for less.
const REMEMBERED: Duration = Duration::from_secs(10);

/// An event with one writer, from its birth.
///
/// Its version is how many changes it has had: odd is set. A change that was not answered may have happened or not: until
/// somebody has seen which, the event has one of two versions.
#[derive(Debug)]
pub struct Truth {
    pub name: String,
    /// Whether the generation counts every change. It is the version then.
    is_counted: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    versions: Versions,
    /// The last changes that were acknowledged.
    changes: VecDeque<Change>,
}

/// The versions that an event may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub least: u64,
    pub most: u64,
}

impl Versions {
    /// The state, if there is no doubt.
    pub fn is_set(self) -> Option<bool> {
        (self.least == self.most).then_some(self.least % 2 == 1)
    }
}

/// A change that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub version: u64,
    pub sent: Instant,
    pub acknowledged: Instant,
}

/// What a server says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub set: bool,
    pub generation: u64,
}

impl Reading {
    /// Reads an event in JSON.
    pub fn parse(json: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(json).ok()?;
        Some(Self {
            set: event["set"].as_bool()?,
            generation: event["generation"].as_u64()?,
        })
    }
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.set { "set" } else { "clear" };
        write!(f, "{state} in generation {}", self.generation)
    }
}

impl Truth {
    /// An event that nobody has set yet.
    pub fn new(name: String, is_counted: bool) -> Self {
        Self {
            name,
            is_counted,
            state: Mutex::default(),
        }
    }

    /// The versions that it may have now.
    pub fn versions(&self) -> Versions {
        self.state().versions
    }

    /// Its writer is about to change it, and knows which version it has. Returns the one that it will have.
    pub fn begins(&self) -> u64 {
        let versions = &mut self.state().versions;
        versions.most += 1;
        versions.most
    }

    /// That change was not made.
    pub fn is_not_made(&self) {
        let versions = &mut self.state().versions;
        versions.most = versions.least;
    }

    /// That change, sent at this time, was acknowledged with this state.
    ///
    /// # Errors
    ///
    /// If the state is not the one that it had to become.
    pub fn is_acknowledged(&self, sent: Instant, reading: Reading) -> Result<(), String> {
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

    /// The event's version is known again: this was read while nobody changed it.
    ///
    /// # Errors
    ///
    /// If it is none of those that were possible.
    pub fn is_seen(&self, reading: Reading) -> Result<(), String> {
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

    /// Whether somebody may have read this who asked when the event had at least the version `least`, and had the answer
    /// when it had at most the version `most`.
    ///
    /// # Errors
    ///
    /// One that says what was acknowledged and what was read.
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
            format!("was {state} by change {least} and had no more than {most}")
        };
        Err(format!("{name} {expected}, and is {reading}"))
    }

    /// A change to an `is_wanted` version that was sent and acknowledged in this time.
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            assert_eq!(truth.begins(), version);
            truth
                .is_acknowledged(Instant::now(), reading(version))
                .unwrap();
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
            // Where changes are counted, this one is lost too, and the other one was nobody's.
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
                truth.begins();
                let versions = truth.versions();
                assert_eq!(versions.is_set(), None);
                assert_eq!(truth.check(versions, reading(3)), Ok(()));
                assert_eq!(truth.check(versions, reading(4)), Ok(()));
                assert_eq!(truth.check(versions, reading(2)).is_ok(), !is_counted);
                truth.is_seen(reading(seen)).unwrap();
                assert_eq!(truth.versions().is_set(), Some(seen == 3));
                assert!(truth.is_seen(reading(7 - seen)).is_err());
            }
        }
    }

    #[test]
    fn an_acknowledgement_with_another_state_is_wrong() {
        let truth = truth(true);
        truth.begins();
        assert!(truth.is_acknowledged(Instant::now(), reading(3)).is_err());
    }

    #[test]
    fn a_change_that_was_not_made_is_none() {
        let truth = truth(true);
        truth.begins();
        truth.is_not_made();
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
