//! The true history of an event, from the history of its value in the store.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use loopless_host::simulation::{Database, Moment};

use crate::contract::Contract;
use crate::simulate::number;

/// What distinguishes the states of an event: `7.1f9c2b` with compare-and-swap, `7.3f9c2b8a11d04e55` without, and `0` if the
/// event was never set. This does not use the component's code, so that it does not repeat the component's mistakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    pub generation: u64,
    pub tag: Option<u64>,
    /// The number of digits of the tag.
    digits: usize,
}

impl Version {
    /// Parses a version.
    pub fn parse(text: &str) -> Option<Self> {
        let (generation, tag) = match text.split_once('.') {
            None => (text, ""),
            Some((generation, tag)) => (generation, tag),
        };
        let bits = u64::from_str_radix(tag, 16).ok();
        (bits.is_some() == text.contains('.')).then_some(Self {
            generation: generation.parse().ok()?,
            tag: bits,
            digits: tag.len(),
        })
    }

    /// Parses a value of a build without compare-and-swap: a version with a tag, or no value.
    pub fn of_value(value: Option<&[u8]>) -> Option<Self> {
        let Some(value) = value else {
            return Some(Self::default());
        };
        let version = Self::parse(std::str::from_utf8(value).ok()?)?;
        (version.tag.is_some() && version.generation > 0).then_some(version)
    }

    /// A version of a build with compare-and-swap. Tag 0 means no tag.
    fn counted(generation: u64, tag: u64) -> Self {
        let tag = (tag > 0).then_some(tag);
        Self {
            generation,
            tag,
            digits: if tag.is_some() { 6 } else { 0 },
        }
    }

    pub fn is_set(self) -> bool {
        self.generation % 2 == 1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.generation.fmt(f)?;
        let digits = self.digits;
        self.tag.map_or(Ok(()), |tag| write!(f, ".{tag:0digits$x}"))
    }
}

/// A state of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub version: Version,
    pub is_forgotten: bool,
}

impl State {
    /// Parses a value of a build with compare-and-swap: a number with the generation in the lower 40 bits and the tag above.
    /// A negative number means that the event was forgotten.
    fn of_number(value: &[u8]) -> Option<Self> {
        let number = number(value)?;
        let bits = number.unsigned_abs();
        Some(Self {
            is_forgotten: number < 0,
            version: Version::counted(bits % (1 << 40), bits >> 40),
        })
    }

    /// Parses a value. Without compare-and-swap, a forgotten event has no value.
    pub fn of(value: Option<&[u8]>, contract: &Contract) -> Option<Self> {
        if contract.is_exact() {
            return value.map_or(Some(Self::default()), Self::of_number);
        }
        Version::of_value(value).map(|version| Self {
            version,
            is_forgotten: value.is_none(),
        })
    }

    pub fn is_set(self) -> bool {
        self.version.is_set()
    }

    pub fn exists(self) -> bool {
        !self.is_forgotten && self.version.generation > 0
    }

    /// The state after a change, without its tag. Only with compare-and-swap.
    pub fn changed(self) -> Self {
        self.after(1, false)
    }

    /// The state after the event is forgotten, without its tag. Only with compare-and-swap.
    pub fn forgotten(self) -> Self {
        self.after(2 + self.version.generation % 2, true)
    }

    fn after(self, steps: u64, is_forgotten: bool) -> Self {
        Self {
            version: Version::counted(self.version.generation + steps, 0),
            is_forgotten,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forgotten = if self.is_forgotten {
            " (forgotten)"
        } else {
            ""
        };
        write!(f, "{}{forgotten}", self.version)
    }
}

/// The history of an event.
pub struct Truth {
    /// The states in order, and when each began. The first has no beginning.
    states: Vec<(Option<Moment>, State)>,
    /// When the store went back, if that changed the event.
    reverts: Vec<Moment>,
}

impl Truth {
    /// Reads the history of a key from the store.
    ///
    /// # Errors
    ///
    /// If a value is invalid, or a transition is not allowed.
    pub fn read(database: &Database, key: &str, contract: &Contract) -> Result<Self, String> {
        let mut truth = Self {
            states: vec![(None, State::default())],
            reverts: Vec::new(),
        };
        let (mut tags, mut versions) = (HashSet::new(), HashSet::new());
        let reverted = database.reverted();
        for (moment, value) in database.history(key) {
            let last = truth.last();
            let is_reverted = reverted.contains(&moment);
            truth.reverts.extend(is_reverted.then_some(moment));
            let next = match &value {
                None if contract.is_exact() => is_reverted.then(State::default),
                _ => State::of(value.as_deref(), contract),
            };
            let at = moment.at.as_secs_f64();
            let next = next.ok_or_else(|| format!("{key} was given {value:?} at {at:.3} s"))?;
            let is_legal = if contract.is_exact() {
                let is_birth = next == State::default() && last == State::default();
                let is_step = |step: State| {
                    let generation = next.version.generation;
                    next.is_forgotten == step.is_forgotten && generation == step.version.generation
                };
                let is_next =
                    is_step(last.changed()) || (last.exists() && is_step(last.forgotten()));
                // Tags are short here, so only the pair of generation and tag is unique.
                let mut is_new = || next.version.tag.is_some() && versions.insert(next.version);
                is_birth || (is_next && is_new())
            } else {
                // A writer has read the generation before at some time, and its tag is new.
                value.is_none()
                    || (truth.had(next.version.generation - 1) && tags.insert(next.version.tag))
            };
            if !is_legal && !is_reverted {
                return Err(format!("{key} went from {last} to {next} at {at:.3} s"));
            }
            // To delete a key again changes nothing.
            if next.exists() || contract.is_exact() || last.exists() {
                truth.states.push((Some(moment), next));
            }
        }
        Ok(truth)
    }

    fn last(&self) -> State {
        self.states
            .last()
            .map_or(State::default(), |(_, state)| *state)
    }

    fn had(&self, generation: u64) -> bool {
        let mut states = self.states.iter();
        states.any(|(_, state)| state.version.generation == generation)
    }

    /// The states between two moments, and when each began. States that ended up to `lag` before are included.
    pub fn between(
        &self,
        from: Moment,
        to: Moment,
        lag: Duration,
    ) -> impl Iterator<Item = (Option<Moment>, State)> {
        let is_over = move |until: Moment| {
            if lag.is_zero() {
                until.order < from.order
            } else {
                until.at + lag < from.at
            }
        };
        self.until(is_over)
            .filter(move |(since, _)| since.is_none_or(|since| since.order < to.order))
    }

    /// The states at this time and later.
    pub fn from(&self, time: Duration) -> impl Iterator<Item = State> {
        self.until(move |until| until.at < time)
            .map(|(_, state)| state)
    }

    /// The states, except those for whose end `is_over` returns true.
    fn until(
        &self,
        is_over: impl Fn(Moment) -> bool,
    ) -> impl Iterator<Item = (Option<Moment>, State)> {
        let ends = self.states.iter().skip(1).map(|(since, _)| *since);
        let states = self.states.iter().zip(ends.chain([None]));
        states
            .filter(move |(_, until)| !until.is_some_and(&is_over))
            .map(|(state, _)| *state)
    }

    /// The changes and their times. The creation of the value is not a change.
    pub fn changes(&self) -> impl Iterator<Item = (Moment, State)> {
        self.states
            .iter()
            .filter_map(|(moment, state)| Some(((*moment)?, *state)))
            .filter(|(_, state)| *state != State::default())
    }

    /// When the store went back and changed the event.
    pub fn reverts(&self) -> impl Iterator<Item = Moment> {
        self.reverts.iter().copied()
    }

    /// Whether the store went back at this moment and changed the event.
    pub fn is_revert(&self, moment: Moment) -> bool {
        self.reverts.contains(&moment)
    }

    /// Whether the event was forgotten after `from` and by `to`.
    pub fn is_forgotten_between(&self, from: Moment, to: Duration) -> bool {
        let mut changes = self.changes();
        changes.any(|(moment, state)| {
            state.is_forgotten && moment.order > from.order && moment.at <= to
        })
    }
}
