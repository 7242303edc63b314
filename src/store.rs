//! What an event needs of a key-value store, and nothing more.

mod bounded;
#[cfg(test)]
pub(crate) mod host;
#[cfg(not(target_family = "wasm"))]
mod memory;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use bounded::{Bounded, PATIENCE, Patient};
#[cfg(not(target_family = "wasm"))]
pub use memory::Memory;

/// The label of the store in Spin's manifests.
pub const LABEL: &str = "default";

/// A host's key-value store: what every host has.
///
/// A key is a register. What a `get` sees of a `set` under way, and of one that has returned, is the host's to promise.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
///
/// use loopless::store::{Error, Store};
///
/// #[derive(Default)]
/// struct Map(Mutex<HashMap<String, Vec<u8>>>);
///
/// impl Store for Map {
///     async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
///         let values = self.0.lock().map_err(|error| Error::new(error.to_string()))?;
///         Ok(values.get(key).cloned())
///     }
///     // ...
/// #     async fn set(&self, _: &str, _: &[u8]) -> Result<(), Error> { Ok(()) }
/// #     async fn delete(&self, _: &str) -> Result<(), Error> { Ok(()) }
/// #     async fn keys(&self) -> Result<Vec<String>, Error> { Ok(vec![]) }
/// }
/// ```
///
/// # Cancel safety
///
/// A dropped future may or may not have reached the store. Nothing here depends on which.
pub trait Store: Send + Sync {
    /// The value of `key`, or `None` if it has none.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send;

    /// Gives `key` this value, whatever it had.
    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes `key` away.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// All keys that have a value, in any order.
    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send;
}

/// A store that also compares and counts: what [`Exact`](crate::strategy::Exact) and the
/// [service](crate::service) need.
///
/// ```
/// use loopless::store::{Atomics, Memory, Store};
///
/// # fn check(_: impl Atomics) {}
/// check(Memory::default());
/// ```
pub trait Atomics: Store {
    /// Adds `delta` to the number under `key`, which is 0 if there is no value, and returns the sum.
    ///
    /// The one write whose answer is true on every backend. After an error, the number may have been added or not.
    fn increment(&self, key: &str, delta: i64) -> impl Future<Output = Result<i64, Error>> + Send;

    /// Replaces `old` by `new` if `key` holds `old` now.
    ///
    /// `Ok` says only that the store was asked: another value there, or a lost race, is `Ok` too. A swap's answer cannot
    /// be believed on every backend, so there is no place for one here. Whoever wants to know reads.
    fn swap(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A store that did not do what it was asked, in the host's words.
///
/// What it was asked may have happened all the same. The caller can read, and try again a little later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    what: String,
    is_silent: bool,
}

impl Error {
    /// An error that says `what` went wrong.
    ///
    /// ```
    /// # use loopless::store::Error;
    /// assert_eq!(Error::new("disk full").to_string(), "disk full");
    /// ```
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            is_silent: false,
        }
    }

    /// The store has not answered within this time.
    pub(crate) fn silent(patience: Duration) -> Self {
        Self {
            what: format!("it has not answered within {} s", patience.as_secs_f64()),
            is_silent: true,
        }
    }

    /// Whether there was no answer at all. Who asks again at once waits as long again.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// The host has no store of this label.
    pub fn no_such_store() -> Self {
        Self::new(format!("the host has no store called {LABEL:?}"))
    }

    /// The host has the store, but not for this component.
    pub fn access_denied() -> Self {
        Self::new(format!(
            "the component may not open the store {LABEL:?}; in spin.toml, name it in key_value_stores, and for a component dependency, \
             name key_value_stores in its inherit_configuration"
        ))
    }

    /// The host opens no more stores.
    pub fn table_full() -> Self {
        Self::new("too many stores are open in this instance")
    }

    /// The store was opened, and is not there.
    pub fn not_opened() -> Self {
        Self::new("it could not be opened")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

/// The errors of a store that an operator has to do something about. The log has the first one of an instance.
#[derive(Debug, Default)]
pub struct Misuse {
    is_told: AtomicBool,
}

impl Misuse {
    /// The error, which says `what` is wrong and what to change.
    pub fn error(&self, what: String) -> Error {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            eprintln!("The store cannot be used: {what}.");
        }
        Error::new(what)
    }
}
