//! What an event needs of a key-value store, and nothing more.

use std::fmt;
use std::future::Future;

/// A host's key-value store, as far as events need it.
///
/// Two operations read, and two write. Those work on one key, and neither says what it did: a swap's answer cannot be
/// believed on every backend (see [`crate::event`]), so the trait has no place for one. Whoever wants to know reads.
///
/// # Cancel safety
///
/// A dropped future may or may not have reached the store. Nothing here depends on which.
pub trait Store: Send + Sync {
    /// The value of `key`, or `None` where it has none.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send;

    /// All keys that have a value, in any order.
    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send;

    /// Gives `key` the number 0, in whatever way this store writes numbers, if it has no value. A value that is
    /// there stays as it is, however late the call arrives.
    fn create(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// Replaces `old` by `new` if `key` holds `old` now.
    ///
    /// `Ok` says only that the store was asked: another value there, or a lost race, is `Ok` too.
    fn swap(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What the [service](crate::service) needs besides: a counter, and plain values that have one writer each.
pub trait Records: Store {
    /// Adds `delta` to the number under `key`, which is 0 where there is none, and returns the sum.
    ///
    /// The one write whose answer is true on every backend. After an error, the number may have been added or not.
    fn increment(&self, key: &str, delta: i64) -> impl Future<Output = Result<i64, Error>> + Send;

    /// Gives `key` this value, whatever it had.
    fn put(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes `key` away.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A store that did not do what it was asked, in the host's words.
///
/// What it was asked may have happened all the same. The caller can read, and try again a little later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error that says `what` went wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
