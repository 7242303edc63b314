//! What is stored of an event: a [`Generation`], in a number.
//!
//! One value an event, under `event/<name>`: a number. No value means generation 0. A number can be written in two ways,
//! and the value keeps the one that it was born with: decimal text, or eight little-endian bytes.
//!
//! The reason is the birth of the value. On Spin's SQLite store, a compare-and-swap from *no value* is a blind write: a
//! writer that was held up between its look and its swap would set a much newer generation back to 1. The one
//! operation that creates a value atomically on every backend is `increment`, by 0. It leaves a value that exists as
//! it is, so it may arrive as late as it likes. SQLite's host writes it as eight bytes (and panics where it finds a
//! value of any other length, so the length has to stay), Redis and DynamoDB as decimal text. From then on, each swap
//! starts from a value that is present, where every backend is exact.
//!
//! A number below 0 is what is left of an event that was [forgotten](crate::event::Event::forget): its generation, which
//! a new event of that name goes on from, so that no generation is ever used twice.
//!
//! | from | `set` | `clear` | `forget` |
//! | --- | --- | --- | --- |
//! | g, even: clear | g + 1 | | -(g + 2) |
//! | g, odd: set | | g + 1 | -(g + 3) |
//! | -g, even: forgotten | g + 1 | | |
//!
//! With forgetting there are two ways from a clear g. They stay apart: -(g + 2) can be reached from g without a set,
//! and every other number beyond g cannot. So a writer that reads more than g still knows whether its set happened, and
//! so does a waiter.

use std::fmt;

use crate::number;

/// How many times an event has changed. Even: clear. Odd: set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(i64);

impl Generation {
    /// The generation after this many changes, or `None` if there cannot have been so many.
    pub fn new(changes: u64) -> Option<Self> {
        let is_possible = changes <= number::LAST;
        is_possible.then(|| i64::try_from(changes).ok().map(Self))?
    }

    /// How many changes that are.
    pub fn changes(self) -> u64 {
        self.0.unsigned_abs()
    }

    /// Whether the event is set in this generation.
    pub fn is_set(self) -> bool {
        self.0 % 2 == 1
    }

    /// The generation after one transition.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event as one reading of the store shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Its generation.
    pub generation: Generation,
    /// Whether it was forgotten in this generation. It is clear then, as one that was never set.
    pub is_forgotten: bool,
}

impl State {
    /// Whether the event is set.
    pub fn is_set(self) -> bool {
        self.generation.is_set()
    }

    /// Whether there is an event: one that was set at some time, and not forgotten since.
    pub fn exists(self) -> bool {
        !self.is_forgotten && self.generation > Generation::default()
    }

    /// The state that a stored number stands for.
    pub(crate) fn of(number: i64) -> Option<Self> {
        let generation = Generation::new(number.unsigned_abs())?;
        let is_forgotten = number < 0;
        (!is_forgotten || !generation.is_set()).then_some(Self {
            generation,
            is_forgotten,
        })
    }

    /// The number that stands for it in the store.
    pub(crate) fn number(self) -> i64 {
        if self.is_forgotten {
            -self.generation.0
        } else {
            self.generation.0
        }
    }

    /// The state after a transition.
    pub(crate) fn changed(self) -> Self {
        Self {
            generation: self.generation.next(),
            is_forgotten: false,
        }
    }

    /// The state after it was forgotten.
    pub(crate) fn forgotten(self) -> Self {
        let next = self.generation.next().next();
        Self {
            generation: if next.is_set() { next.next() } else { next },
            is_forgotten: true,
        }
    }

    /// Whether a set has happened between `clear`, an earlier state, and this one.
    pub(crate) fn is_after_a_set(self, clear: Self) -> bool {
        self.generation > clear.generation && self != clear.forgotten()
    }
}

/// An event's value as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) state: State,
}

impl Stored {
    /// Reads a value. `None` for one that no event wrote.
    pub(crate) fn parse(value: Option<Vec<u8>>) -> Option<Self> {
        let number = value.as_deref().map_or(Some(0), number::read)?;
        let state = State::of(number)?;
        Some(Self { value, state })
    }

    /// The value for `state`, written as this one is.
    pub(crate) fn encode(&self, state: State) -> Vec<u8> {
        number::write(self.value.as_deref(), state.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_the_way_in_which_it_was_written() {
        let text = Stored::parse(Some(b"12345678".to_vec())).unwrap();
        assert_eq!(text.state, State::of(12_345_678).unwrap());
        assert_eq!(text.encode(text.state.changed()), b"12345679");
        let bytes = Stored::parse(Some(255_i64.to_le_bytes().to_vec())).unwrap();
        assert_eq!(bytes.state, State::of(255).unwrap());
        assert_eq!(
            bytes.encode(bytes.state.forgotten()),
            (-258_i64).to_le_bytes()
        );
    }

    #[test]
    fn every_step_leads_to_a_number_that_was_never_there() {
        for number in 0..9 {
            let state = State::of(number).unwrap();
            assert_eq!(state.number(), number);
            assert_eq!(state.changed().number(), number + 1);
            let forgotten = state.forgotten();
            assert!(forgotten.generation > state.changed().generation);
            assert!(!forgotten.is_set() && !forgotten.exists());
            assert_eq!(State::of(forgotten.number()), Some(forgotten));
            assert!(forgotten.changed().is_set());
        }
        for number in [-1, -3, i64::MIN, i64::MAX] {
            assert_eq!(State::of(number), None, "{number}");
        }
    }

    #[test]
    fn forgetting_a_clear_event_is_no_set_and_all_else_beyond_it_is_after_one() {
        let clear = State::of(4).unwrap();
        for (number, is_after_a_set) in [
            (4, false),
            (-6, false),
            (5, true),
            (6, true),
            (-8, true),
            (7, true),
        ] {
            let later = State::of(number).unwrap();
            assert_eq!(later.is_after_a_set(clear), is_after_a_set, "{number}");
        }
    }
}
