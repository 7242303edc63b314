//! The [`State`] of an event: its generation and the tag of its last change.

use std::fmt;
use std::str::FromStr;

/// The number of bits of a [`Generation`]: enough for 8,000 changes a second for four years.
pub(crate) const GENERATION_BITS: u32 = 40;

/// How many times an event has changed. Even: clear. Odd: set.
///
/// The number is exact with [`Exact`](crate::strategy::Exact), and best effort with [`Plain`](crate::strategy::Plain).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// Returns the generation after this many changes, or `None` if the number does not fit.
    ///
    /// ```
    /// # use loopless::state::Generation;
    /// assert!(Generation::new(7).is_some_and(Generation::is_set));
    /// ```
    pub fn new(changes: u64) -> Option<Self> {
        (changes >> GENERATION_BITS == 0).then_some(Self(changes))
    }

    /// Returns the number of changes.
    ///
    /// ```
    /// # use loopless::state::Generation;
    /// assert_eq!(Generation::default().changes(), 0);
    /// ```
    pub fn changes(self) -> u64 {
        self.0
    }

    /// Returns whether the event is set in this generation.
    pub fn is_set(self) -> bool {
        self.0 % 2 == 1
    }

    /// Returns the generation after one more change.
    ///
    /// ```
    /// # use loopless::state::Generation;
    /// assert_eq!(Generation::default().next().changes(), 1);
    /// ```
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random bits that distinguish a change from others of the same generation.
///
/// ```
/// use loopless::state::{State, Tag};
///
/// let state: State = "7.1f9c2b".parse()?;
/// assert_eq!(state.tag, Some(Tag::Narrow(0x1f9c2b)));
/// # Ok::<(), loopless::state::NoState>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// 64 bits, or 16 hexadecimal digits as text: the tag of [`Plain`](crate::strategy::Plain), unique among all changes.
    Wide(u64),
    /// 21 bits, or 6 hexadecimal digits as text: the tag of [`Exact`](crate::strategy::Exact).
    Narrow(u32),
}

/// The state of an event, as read from the store.
///
/// As text, such as `7.1f9c2b` or `7.3f9c2b8a11d04e55`, it is the event's entity tag, and the id of a stream's message.
/// If the store has no value, it is `0`.
///
/// ```
/// use loopless::state::State;
///
/// let state: State = "7.1f9c2b".parse()?;
/// assert!(state.is_set() && state.exists());
/// assert_eq!(state.to_string(), "7.1f9c2b");
/// # Ok::<(), loopless::state::NoState>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The generation.
    pub generation: Generation,
    /// The tag of the change that led to this state. `None` in generation 0, and for a change that a stream reports late.
    pub tag: Option<Tag>,
    /// Whether the event was forgotten. If so, it is clear.
    pub is_forgotten: bool,
}

impl State {
    /// Returns whether the event is set.
    pub fn is_set(self) -> bool {
        self.generation.is_set()
    }

    /// Returns whether the event exists: it was set at some time, and not forgotten since.
    pub fn exists(self) -> bool {
        !self.is_forgotten && self.generation > Generation::default()
    }

    /// Returns whether both states came from the same change.
    ///
    /// ```
    /// # use loopless::state::State;
    /// let (one, other): (State, State) = ("7.1f9c2b".parse()?, "7.07d6e0".parse()?);
    /// assert!(!one.is_version_of(other));
    /// # Ok::<(), loopless::state::NoState>(())
    /// ```
    pub fn is_version_of(self, other: Self) -> bool {
        (self.generation, self.tag) == (other.generation, other.tag)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.generation.fmt(f)?;
        match self.tag {
            Some(Tag::Wide(bits)) => write!(f, ".{bits:016x}"),
            Some(Tag::Narrow(bits)) => write!(f, ".{bits:06x}"),
            None => Ok(()),
        }
    }
}

/// The error for a text that is not a [`State`].
///
/// ```
/// # use loopless::state::{NoState, State};
/// assert_eq!("seven".parse::<State>(), Err(NoState));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoState;

impl FromStr for State {
    type Err = NoState;

    fn from_str(text: &str) -> Result<Self, NoState> {
        let (generation, tag) = match text.split_once('.') {
            Some((generation, tag)) => (generation, Some(tag)),
            None => (text, None),
        };
        let tag = tag.map(|tag| match tag.len() {
            6 => u32::from_str_radix(tag, 16).map(Tag::Narrow),
            _ => u64::from_str_radix(tag, 16).map(Tag::Wide),
        });
        let state = Self {
            generation: generation
                .parse()
                .ok()
                .and_then(Generation::new)
                .ok_or(NoState)?,
            tag: tag.transpose().map_err(|_| NoState)?,
            is_forgotten: false,
        };
        // Each state has exactly one text: `03` is not one.
        (state.to_string() == text).then_some(state).ok_or(NoState)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_text() {
        for text in [
            "0",
            "7",
            "7.1f9c2b",
            "8.0000ff",
            "7.3f9c2b8a11d04e55",
            "12.00000000000000ff",
            "1099511627775",
        ] {
            let state: State = text.parse().unwrap();
            assert_eq!(state.to_string(), text);
        }
        for text in [
            "",
            "x",
            "-1",
            "+1",
            "03",
            "7.",
            ".7",
            "7.ff",
            "7.3F9C2B8A11D04E55",
            "7.3f9c2b8a11d04e55.",
            "1e3",
            "99999999999999999999",
            "1099511627776",
        ] {
            assert_eq!(text.parse::<State>(), Err(NoState), "{text:?}");
        }
    }
}
