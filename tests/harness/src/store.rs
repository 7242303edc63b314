//! Key-value stores for guests: one trait, three backends, and the quirks of Spin's.

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

/// A key-value store, as the host sees it. Every operation is atomic.
///
/// Shared by all instances of a host; two hosts may share what lies beneath it.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// A guest opens the store. Called for each handle that it opens.
    async fn open(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The value of `key`.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error>;

    /// Gives `key` this value, whatever it had.
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error>;

    /// Forgets `key`.
    async fn delete(&self, key: &str) -> Result<(), Error>;

    /// All keys, in order.
    async fn keys(&self) -> Result<Vec<String>, Error>;

    /// Gives `key` the value `new` if it has the value `old` now (`None`: if it has none). Returns whether it did.
    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error>;

    /// Adds `delta` to the number under `key`, which is 0 if there is no value. Returns the sum.
    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error>;

    /// How this backend writes numbers when it is itself.
    fn numbers(&self) -> Numbers;
}

/// A store that could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// How `increment` writes a number into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Decimal text, as Redis does.
    Text,
    /// Eight bytes, the lowest first, as Spin's SQLite store does.
    Bytes,
}

impl Numbers {
    /// The value of a key after `delta` was added to its number, with that number.
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

/// Which host's `wasi:keyvalue/atomics` a guest meets.
///
/// Seen on Spin 4.1 (its `key-value-spin` and `key-value-redis` crates). Both of its hosts also keep the slot of a
/// compare-and-swap handle that was swapped: after 256 swaps, an instance gets no new handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quirks {
    /// Swaps are exact and their answers true.
    #[default]
    Exact,
    /// A swap from no value is a blind write, numbers are eight bytes, and `increment` panics at any other length.
    SpinSqlite,
    /// Every swap answers that it failed, also one that was applied. Numbers are decimal text.
    SpinRedis,
}

impl Quirks {
    /// Every kind, with the name that the command line has for it.
    pub const ALL: [(&str, Self); 3] = [
        ("exact", Self::Exact),
        ("spin-sqlite", Self::SpinSqlite),
        ("spin-redis", Self::SpinRedis),
    ];
}

impl Quirks {
    /// Swaps `key` to `new` as this host does, where `seen` is what the handle has seen: `None` if it never looked.
    ///
    /// Returns what the host answers, be it true or not.
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

    /// How this host writes the numbers of `store`.
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
