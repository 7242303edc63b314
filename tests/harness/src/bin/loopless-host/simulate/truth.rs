//! What an event really was, as the store's history tells it.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use loopless_host::simulation::{Database, Moment};

use crate::contract::Contract;

/// What tells one state of an event from another: `7.1f9c2b` with compare-and-swap, `7.3f9c2b8a11d04e55` without, and `0`
/// of an event that was never set. Written down anew here, so that a mistake in the component is not made twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    pub generation: u64,
    pub tag: Option<u64>,
    /// How many digits the tag has.
    digits: usize,
}

impl Version {
    /// The version that this text is of.
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

    /// What the store of an event without compare-and-swap holds: a version with a tag, or nothing.
    pub fn of_value(value: Option<&[u8]>) -> Option<Self> {
        let Some(value) = value else {
            return Some(Self::default());
        };
        let version = Self::parse(std::str::from_utf8(value).ok()?)?;
        (version.tag.is_some() && version.generation > 0).then_some(version)
    }

    /// The version of a generation and a tag, with compare-and-swap. Tag 0 is none.
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

/// What an event was for a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub version: Version,
    pub is_forgotten: bool,
}

impl State {
    /// With compare-and-swap, a value is a number: the generation, and above its 40 bits the tag. Below 0: it was forgotten in
    /// the generation without the sign.
    fn of_number(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok();
        let number = text.and_then(|text| text.parse().ok());
        let number: i64 = match number {
            Some(number) => number,
            None => i64::from_le_bytes(value.try_into().ok()?),
        };
        Some(Self {
            is_forgotten: number < 0,
            version: Version::counted(
                number.unsigned_abs() % (1 << 40),
                number.unsigned_abs() >> 40,
            ),
        })
    }

    /// What a value stands for. Without compare-and-swap, it is a version, and nothing is left of what was forgotten.
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

    /// With compare-and-swap, the state after a set or a clear that changes something, but for its tag.
    pub fn changed(self) -> Self {
        self.after(1, false)
    }

    /// With compare-and-swap, the state after it was forgotten, but for its tag.
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

/// An event's history.
pub struct Truth {
    /// The first state, from before all time, and each change.
    states: Vec<(Option<Moment>, State)>,
    /// When it went back with the store.
    reverts: Vec<Moment>,
}

impl Truth {
    /// Reads it from the store.
    ///
    /// # Errors
    ///
    /// Where the key was given something that no event of this build may write.
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
                // Tags are short here: they tell apart what has the same generation.
                let mut is_new = || next.version.tag.is_some() && versions.insert(next.version);
                is_birth || (is_next && is_new())
            } else {
                // Whoever writes has read a state that there was, at some time; and nobody had the tag before.
                value.is_none()
                    || (truth.had(next.version.generation - 1) && tags.insert(next.version.tag))
            };
            if !is_legal && !is_reverted {
                return Err(format!("{key} went from {last} to {next} at {at:.3} s"));
            }
            // What is not there can be deleted once more.
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

    /// The states that the event had between two moments, for who may see it up to `lag` late, and since when.
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

    /// The states that the event had at this time and later.
    pub fn from(&self, time: Duration) -> impl Iterator<Item = State> {
        self.until(move |until| until.at < time)
            .map(|(_, state)| state)
    }

    /// The states that did not end at a moment that `is_over`.
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

    /// The changes, when they were. That the value was created is none.
    pub fn changes(&self) -> impl Iterator<Item = (Moment, State)> {
        self.states
            .iter()
            .filter_map(|(moment, state)| Some(((*moment)?, *state)))
            .filter(|(_, state)| *state != State::default())
    }

    /// When the event went back with the store.
    pub fn reverts(&self) -> impl Iterator<Item = Moment> {
        self.reverts.iter().copied()
    }

    /// Whether the event went back at this moment.
    pub fn is_revert(&self, moment: Moment) -> bool {
        self.reverts.contains(&moment)
    }

    /// Whether the event was forgotten after this moment, and not after this time.
    pub fn is_forgotten_between(&self, from: Moment, to: Duration) -> bool {
        let mut changes = self.changes();
        changes.any(|(moment, state)| {
            state.is_forgotten && moment.order > from.order && moment.at <= to
        })
    }
}
