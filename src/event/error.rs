use std::fmt;

use crate::store;
use crate::strategy::ATTEMPTS;

/// Why an operation on an event failed.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use loopless::event::Error;
/// use loopless::store::{Memory, Store};
///
/// # let store: &Memory = events.store();
/// store.set("event/door", b"something else").await?;
/// assert!(matches!(door.set().await, Err(Error::Foreign { .. })));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed. The event may have changed nevertheless; trying again is safe.
    Store(store::Error),
    /// The store answered, but no attempt changed the event. Try again later.
    Contended,
    /// The event's key holds a value that no event of this build wrote. It is left as it is; an operator has to look at
    /// it.
    Foreign {
        /// The key in the store.
        key: String,
        /// Which kind of build wrote it, if that is known.
        writer: Option<&'static str>,
    },
    /// A change had a condition, but the store has no compare-and-swap.
    Unconditional,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "The key-value store failed: {error}"),
            Self::Contended => write!(
                f,
                "The event did not change in {ATTEMPTS} attempts, though the store answered each of them"
            ),
            Self::Foreign { key, writer: None } => write!(
                f,
                "The key {key:?} of the key-value store holds a value that no event wrote"
            ),
            Self::Foreign {
                key,
                writer: Some(writer),
            } => write!(
                f,
                "The key {key:?} of the key-value store holds an event of {writer}, which this build cannot use. Give each build a store of its own"
            ),
            Self::Unconditional => f.write_str(
                "A conditional change needs compare-and-swap, which this build does not have. Nothing was changed",
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Contended | Self::Foreign { .. } | Self::Unconditional => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}
