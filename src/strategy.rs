//! How a transition is made, on what a host's store can do.
//!
//! [`Event`] is the same on every host: its waits, its readings, what it says. Two things depend on the store: how a
//! value is to be read, and how a change is written so that nobody misses it. These are a [`Strategy`], one file each:
//!
//! | strategy | needs | promises |
//! | --- | --- | --- |
//! | [`Exact`] | compare-and-swap, and a counter | one event, as if in one process; every change is counted |
//! | [`Plain`] | registers: `get`, `set`, `delete` | the same, but a wait may also end on a clear that was under way when it began, and changes that race may share a count |
//!
//! A component is built with one of them. A store belongs to one of them too: each recognises the values of the other,
//! and leaves them alone.

mod exact;
mod plain;

use std::future::Future;

use crate::clock::Clock;
use crate::event::{Changed, Error, Event};
use crate::state::State;
use crate::store::Store;

pub use exact::Exact;
#[cfg(test)]
pub(crate) use exact::state;
pub(crate) use exact::{ATTEMPTS, changed, was_set};
pub use plain::Plain;

/// A state from which alone a change may be made.
pub type Condition<'a> = &'a (dyn Fn(State) -> bool + Send + Sync);

/// A value that a strategy cannot read: whose it is, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign(pub Option<&'static str>);

/// What became of an event between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was set, if it was not before. It may be clear again.
    Set,
    /// It was forgotten, and nothing says that it had been set before.
    Forgotten,
    /// The store went back: it was wiped or restored, or has lost writes. Only what it holds now is true.
    Older,
}

/// How the events of a store are kept and changed.
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
    /// The store that they are kept in.
    type Store: Store;

    /// The store that they are kept in.
    fn store(&self) -> &Self::Store;

    /// The state that a value stands for.
    ///
    /// # Errors
    ///
    /// If no event of this strategy wrote that.
    fn parse(value: Option<&[u8]>) -> Result<State, Foreign>;

    /// What became of an event that was read in the state `start`, and later in another state.
    fn became(start: State, later: State) -> Became;

    /// The states that somebody who saw `known` last has missed, in order, up to `now`: of more than `most`, the newest.
    ///
    /// `None` if `known` is not a state that the event can have had.
    fn since(known: State, now: State, most: u64) -> Option<Vec<State>>;

    /// Sets the event, or clears it: [`Event::change`].
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
