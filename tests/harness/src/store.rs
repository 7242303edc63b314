//! Key-value stores for guests: the trait [`Store`], its backends, and the quirks of Spin's.

mod limited;
mod memory;
mod observed;
mod redis;
mod sqlite;

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

pub use limited::{Limited, Quotas};
pub use memory::Memory;
pub use observed::{Backup, Observed, Operation};
pub use redis::Redis;
pub use sqlite::Sqlite;

/// A key-value store of a host, which all its instances share. Every operation is atomic.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Called for each handle that a guest opens.
    async fn open(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The value of `key`, or `None` if it has none.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error>;

    /// Sets the value of `key`.
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error>;

    /// Deletes `key`, if it is there.
    async fn delete(&self, key: &str) -> Result<(), Error>;

    /// All keys, sorted.
    async fn keys(&self) -> Result<Vec<String>, Error>;

    /// Sets the value of `key` to `new` if it is `old`. `None` is no value. Returns whether it did.
    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error>;

    /// Adds `delta` to the number that is the value of `key`, or to 0 if there is no value. Returns the sum.
    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error>;

    /// How this backend writes numbers, unless a [`Quirks`] says otherwise.
    fn numbers(&self) -> Numbers;
}

/// Why an operation of a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// How `increment` writes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// As decimal text, like Redis.
    Text,
    /// As eight bytes in little-endian order, like Spin's SQLite store.
    Bytes,
}

impl Numbers {
    /// Adds `delta` to the number that `value` is. Returns the sum, and how it is written.
    pub(crate) fn add(self, value: Option<&[u8]>, delta: i64) -> Result<(i64, Vec<u8>), Error> {
        let number = match (value, self) {
            (None, _) => 0,
            (Some(value), Self::Text) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Error("the value is not an integer".into()))?,
            (Some(value), Self::Bytes) => value
                .try_into()
                .map(i64::from_le_bytes)
                .map_err(|_| Error("the value is not eight bytes long".into()))?,
        };
        let sum = number
            .checked_add(delta)
            .ok_or_else(|| Error("the sum is out of range".into()))?;
        let value = match self {
            Self::Text => sum.to_string().into_bytes(),
            Self::Bytes => sum.to_le_bytes().to_vec(),
        };
        Ok((sum, value))
    }
}

/// Whose `wasi:keyvalue/atomics` a guest gets: an exact one, or one with the faults of Spin's.
///
/// The faults are those of Spin 4.1 (its crates `key-value-spin` and `key-value-redis`). Both also leak the slot of each
/// compare-and-swap handle that is swapped: after 256 swaps, an instance gets no new handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quirks {
    /// Swaps are exact, and so are their answers.
    #[default]
    Exact,
    /// A swap from no value is a blind write. Numbers are eight bytes, and `increment` panics on a value of another length.
    SpinSqlite,
    /// Every swap answers that it failed, even if it was applied. Numbers are decimal text.
    SpinRedis,
}

impl Quirks {
    /// All variants, with their names on the command line.
    pub const ALL: [(&str, Self); 3] = [
        ("exact", Self::Exact),
        ("spin-sqlite", Self::SpinSqlite),
        ("spin-redis", Self::SpinRedis),
    ];

    /// Swaps the value of `key` to `new` as this host does. `seen` is what the guest has read through the handle: `None` if it
    /// has not read.
    ///
    /// Returns the host's answer, which may be false.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn swap(
        self,
        store: &dyn Store,
        key: &str,
        seen: Option<Option<&[u8]>>,
        new: &[u8],
    ) -> Result<bool, Error> {
        let is_blind = match seen {
            None => true,
            Some(None) => self == Self::SpinSqlite,
            Some(Some(_)) => false,
        };
        let is_applied = if is_blind {
            store.set(key, new).await?;
            true
        } else {
            store.swap(key, seen.flatten(), new).await?
        };
        Ok(is_applied && self != Self::SpinRedis)
    }

    /// How this host writes numbers to `store`.
    pub fn numbers(self, store: &dyn Store) -> Numbers {
        match self {
            Self::Exact => store.numbers(),
            Self::SpinSqlite => Numbers::Bytes,
            Self::SpinRedis => Numbers::Text,
        }
    }
}

impl fmt::Display for Quirks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, quirks)| quirks == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Quirks {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, quirks)| *quirks)
            .ok_or_else(|| "expected exact, spin-sqlite or spin-redis".to_owned())
    }
}

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(test)]
mod tests {
    use super::support::redis_server::RedisServer;
    use super::*;

    async fn keeps_the_contract(store: impl Store) {
        assert_eq!(store.get("a").await, Ok(None));
        assert_eq!(store.swap("a", Some(b"1"), b"2").await, Ok(false));
        assert_eq!(store.swap("a", None, b"1").await, Ok(true));
        assert_eq!(
            store.swap("a", None, b"9").await,
            Ok(false),
            "it has a value"
        );
        assert_eq!(store.swap("a", Some(b"1"), b"2").await, Ok(true));
        assert_eq!(store.swap("a", Some(b"1"), b"3").await, Ok(false));
        assert_eq!(store.get("a").await, Ok(Some(b"2".to_vec())));

        store.set("b", b"x").await.unwrap();
        assert_eq!(store.keys().await, Ok(vec!["a".into(), "b".into()]));
        store.delete("b").await.unwrap();
        store.delete("b").await.unwrap();
        assert_eq!(store.keys().await, Ok(vec!["a".into()]));

        assert_eq!(store.increment("a", 40, Numbers::Text).await, Ok(42));
        assert_eq!(store.get("a").await, Ok(Some(b"42".to_vec())));
        assert!(store.increment("a", 1, Numbers::Bytes).await.is_err());
        assert_eq!(store.increment("c", 0, Numbers::Bytes).await, Ok(0));
        assert_eq!(store.increment("c", 258, Numbers::Bytes).await, Ok(258));
        assert_eq!(store.get("c").await, Ok(Some(vec![2, 1, 0, 0, 0, 0, 0, 0])));
        assert!(
            store
                .increment("c", i64::MAX, Numbers::Bytes)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        keeps_the_contract(Memory::default()).await;
    }

    #[tokio::test]
    async fn sqlite_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        keeps_the_contract(Sqlite::open(directory.path().join("store.db")).unwrap()).await;
    }

    #[tokio::test]
    async fn redis_keeps_the_contract() {
        let Some(server) = RedisServer::start().await else {
            return;
        };
        keeps_the_contract(Redis::connect(&server.url()).await.unwrap()).await;
    }

    #[tokio::test]
    async fn sqlite_remembers_and_two_connections_see_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new").join("store.db");
        let one = Sqlite::open(&path).unwrap();
        let two = Sqlite::open(&path).unwrap();
        one.set("a", b"1").await.unwrap();
        assert_eq!(two.swap("a", Some(b"1"), b"2").await, Ok(true));
        assert_eq!(one.get("a").await, Ok(Some(b"2".to_vec())));
        drop((one, two));
        let again = Sqlite::open(&path).unwrap();
        assert_eq!(again.get("a").await, Ok(Some(b"2".to_vec())));
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        std::fs::write(
            &path,
            "not a database, but long enough to look like one".repeat(40),
        )
        .unwrap();
        let error = Sqlite::open(&path).unwrap_err().to_string();
        assert!(error.contains("store.db"), "{error}");
    }
}
