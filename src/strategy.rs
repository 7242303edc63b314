//! How events are stored and changed, depending on what the host's store can do.
//!
//! [`Event`] is the same on every host, except for two things: how a value is read, and how a change is written so that no
//! wait misses it. These two are its [`Strategy`]:
//!
//! | strategy | needs | promises |
//! | --- | --- | --- |
//! | [`Exact`] | compare-and-swap and a counter | an event behaves as in one process; every change is counted |
//! | [`Plain`] | registers: `get`, `set`, `delete` | the same, but a wait may also end on a clear that was under way when it began, and concurrent changes may have the same generation |
//!
//! A component is built with one strategy, and a store belongs to one strategy. Each recognises the values of the other,
//! and does not change them.

mod exact;
mod plain;

use crate::clock::Clock;
use crate::event::{Changed, Error, Event};
use crate::state::State;
use crate::store::Store;

pub use exact::Exact;
#[cfg(test)]
pub(crate) use exact::state;
pub(crate) use exact::{ATTEMPTS, changed, was_set};
pub use plain::Plain;

/// Whether a change may be made from this state.
pub type Condition<'a> = &'a (dyn Fn(State) -> bool + Send + Sync);

/// A value that a strategy cannot read, and which kind of build wrote it, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign(pub Option<&'static str>);

/// What happened to an event between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was set in between, or was set already. It may be clear again.
    Set,
    /// It was forgotten, as far as is known without having been set.
    Forgotten,
    /// The store went back: it was wiped or restored, or lost writes. Only what it holds now is valid.
    Older,
}

/// How the events of a store are stored and changed.
///
/// ```
/// use loopless::store::Memory;
/// use loopless::strategy::{Exact, Foreign, Strategy};
///
/// let state = Exact::<Memory>::parse(Some(b"3"));
/// assert!(state.is_ok_and(|state| state.is_set()));
/// assert_eq!(Exact::<Memory>::parse(Some(b"x")), Err(Foreign(None)));
/// ```
pub trait Strategy: Send + Sync + Sized {
    /// The store that holds the events.
    type Store: Store;

    /// Returns the store that holds the events.
    fn store(&self) -> &Self::Store;

    /// Reads the state from a value of the store.
    ///
    /// # Errors
    ///
    /// If no event of this strategy wrote the value.
    fn parse(value: Option<&[u8]>) -> Result<State, Foreign>;

    /// Returns what happened between the state `start` and a different state `later`.
    fn became(start: State, later: State) -> Became;

    /// Returns the states after `known` up to `now`, in order, and at most the `most` newest of them.
    ///
    /// `None` if `known` cannot have been a state of this event.
    fn since(known: State, now: State, most: u64) -> Option<Vec<State>>;

    /// Sets or clears the event: [`Event::change`].
    fn change<C: Clock>(
        event: &Event<'_, Self, C>,
        set: bool,
        condition: Option<Condition<'_>>,
    ) -> impl Future<Output = Result<Changed, Error>> + Send;

    /// Forgets the event: [`Event::forget`].
    fn forget<C: Clock>(
        event: &Event<'_, Self, C>,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
}
