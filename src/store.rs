//! The key-value store that events need.

mod bounded;
#[cfg(test)]
pub(crate) mod host;
#[cfg(not(target_family = "wasm"))]
mod memory;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use bounded::{Bounded, PATIENCE, Patient};
#[cfg(not(target_family = "wasm"))]
pub use memory::Memory;

/// The label of the store in Spin's manifests.
pub const LABEL: &str = "default";

/// A key-value store with the operations that every host has.
///
/// A key is a register. Its consistency, such as which `set` a concurrent or later `get` sees, depends on the host.
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
/// The operation of a dropped future may or may not take effect. Callers must not depend on either.
pub trait Store: Send + Sync {
    /// Returns the value of `key`, or `None` if it has none.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send;

    /// Sets the value of `key`.
    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes `key`.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns all keys that have a value, in any order.
    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send;
}

/// A store that also has compare-and-swap and counters, as [`Exact`](crate::strategy::Exact) and the
/// [lease](crate::lease) need.
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
    /// The sum is reliable on every backend. After an error, `delta` may or may not have been added.
    fn increment(&self, key: &str, delta: i64) -> impl Future<Output = Result<i64, Error>> + Send;

    /// Replaces the value of `key` with `new` if it is `old`.
    ///
    /// `Ok` does not mean that the value was replaced. Some backends report the result of a swap wrongly, so it is not
    /// returned: read the value afterwards.
    fn swap(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A failure of a store, in the host's words.
///
/// The operation may have taken effect nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    what: String,
    is_silent: bool,
}

impl Error {
    /// Creates an error that says `what` went wrong.
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

    /// The store did not answer within this time.
    pub(crate) fn silent(patience: Duration) -> Self {
        Self {
            what: format!("it did not answer within {} s", patience.as_secs_f64()),
            is_silent: true,
        }
    }

    /// Returns whether the store did not answer. A retry may take as long again.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// The host has no store with this label.
    pub fn no_such_store() -> Self {
        Self::new(format!("the host has no store called {LABEL:?}"))
    }

    /// The component may not open the store.
    pub fn access_denied() -> Self {
        Self::new(format!(
            "the component may not open the store {LABEL:?}; in spin.toml, name it in key_value_stores, and for a component dependency, \
             name key_value_stores in its inherit_configuration"
        ))
    }

    /// The instance has too many open stores.
    pub fn table_full() -> Self {
        Self::new("too many stores are open in this instance")
    }

    /// The store could not be opened.
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

/// Logs the first error of an instance that an operator has to fix.
#[derive(Debug, Default)]
pub struct Misuse {
    is_logged: AtomicBool,
}

impl Misuse {
    /// Creates an error that says `what` is wrong and what to change.
    pub fn error(&self, what: String) -> Error {
        if !self.is_logged.swap(true, Ordering::Relaxed) {
            eprintln!("The store cannot be used: {what}.");
        }
        Error::new(what)
    }
}
