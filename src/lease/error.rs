use std::fmt;

use super::ATTEMPTS;
use crate::store;

/// Why an operation on a lease failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed. The operation may have taken effect nevertheless; trying again is safe.
    Store(store::Error),
    /// Others changed the lease during every attempt. Try again later.
    Contended,
    /// A key of the lease holds a value that no holder wrote. It is left as it is; an operator has to look at it.
    Foreign {
        /// The key in the store.
        key: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "The key-value store failed: {error}"),
            Self::Contended => write!(f, "Others changed the lease at each of {ATTEMPTS} attempts"),
            Self::Foreign { key } => write!(
                f,
                "The key {key:?} of the key-value store holds a value that no holder of a lease wrote"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Contended | Self::Foreign { .. } => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// The holder's term is over. As text, the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(pub(super) String);

impl Lost {
    pub(super) fn taken_over() -> Self {
        Self("another holder has taken over".into())
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lost {}
