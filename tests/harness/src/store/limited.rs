use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::{Duration, Instant};

use super::{Error, Numbers, Store};

/// How much of a store an application may use. `None` is no limit, and the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// How many keys there may be.
    pub keys: Option<usize>,
    /// How long a key may be, in bytes.
    pub key_bytes: Option<usize>,
    /// How long a value may be, in bytes.
    pub value_bytes: Option<usize>,
    /// How many reads there may be in a second. Listing the keys is one read.
    pub reads_per_second: Option<u32>,
    /// How many writes there may be in a second. Deletions, swaps and increments are writes, even if they change nothing.
    pub writes_per_second: Option<u32>,
}

/// A store with [`Quotas`]. An operation that exceeds a quota does nothing, and returns an error that names the quota.
///
/// Rates are counted in fixed windows of one second of tokio's clock: the first operation after a window begins the next one.
/// Rejected operations count too. If two writers create keys at the same time, there may be one key too many.
///
/// [`Builder::platform`](crate::Builder::platform) wraps the host's store in this. A test can wrap its own.
#[derive(Clone, Debug)]
pub struct Limited {
    inner: Arc<dyn Store>,
    quotas: Quotas,
    rates: Arc<Mutex<Rates>>,
}

/// The operations in the current second.
#[derive(Debug)]
struct Rates {
    since: Instant,
    reads: u32,
    writes: u32,
}

impl Limited {
    /// `inner` with these quotas. Clones share them.
    pub fn new(inner: Arc<dyn Store>, quotas: Quotas) -> Self {
        Self {
            inner,
            quotas,
            rates: Arc::new(Mutex::new(Rates {
                since: Instant::now(),
                reads: 0,
                writes: 0,
            })),
        }
    }

    fn count(
        &self,
        what: &str,
        most: Option<u32>,
        counter: impl Fn(&mut Rates) -> &mut u32,
    ) -> Result<(), Error> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now - rates.since >= Duration::from_secs(1) {
            *rates = Rates {
                since: now,
                reads: 0,
                writes: 0,
            };
        }
        let counter = counter(&mut rates);
        *counter += 1;
        match most {
            Some(most) if *counter > most => {
                Err(Error(format!("more than {most} {what} in a second")))
            }
            _ => Ok(()),
        }
    }

    fn reads(&self) -> Result<(), Error> {
        self.count("reads", self.quotas.reads_per_second, |rates| {
            &mut rates.reads
        })
    }

    /// Checks a write of `key`. `value` is `None` for a deletion.
    async fn writes(&self, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        self.count("writes", self.quotas.writes_per_second, |rates| {
            &mut rates.writes
        })?;
        if let Some(most) = self.quotas.key_bytes.filter(|most| key.len() > *most) {
            return Err(Error(format!("the key is longer than {most} bytes")));
        }
        let Some(value) = value else { return Ok(()) };
        if let Some(most) = self.quotas.value_bytes.filter(|most| value.len() > *most) {
            return Err(Error(format!("the value is longer than {most} bytes")));
        }
        if let Some(most) = self.quotas.keys
            && self.inner.get(key).await?.is_none()
            && self.inner.keys().await?.len() >= most
        {
            return Err(Error(format!("there are {most} keys, which is the most")));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Limited {
    async fn open(&self) -> Result<(), Error> {
        self.inner.open().await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.reads()?;
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.writes(key, Some(value)).await?;
        self.inner.set(key, value).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.writes(key, None).await?;
        self.inner.delete(key).await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.reads()?;
        self.inner.keys().await
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        self.writes(key, Some(new)).await?;
        self.inner.swap(key, old, new).await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        self.writes(key, Some(&[])).await?;
        self.inner.increment(key, delta, numbers).await
    }

    fn numbers(&self) -> Numbers {
        self.inner.numbers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Memory;

    fn limited(quotas: Quotas) -> Limited {
        Limited::new(Arc::new(Memory::default()), quotas)
    }

    fn rejected<T>(what: &str) -> Result<T, Error> {
        Err(Error(what.into()))
    }

    #[tokio::test]
    async fn what_exceeds_a_quota_is_rejected_and_not_stored() {
        let store = limited(Quotas {
            keys: Some(2),
            key_bytes: Some(3),
            value_bytes: Some(4),
            ..Quotas::default()
        });
        let long = store.set("long", b"").await;
        assert_eq!(long, rejected("the key is longer than 3 bytes"));
        let large = store.set("a", b"12345").await;
        assert_eq!(large, rejected("the value is longer than 4 bytes"));
        store.set("a", b"1234").await.unwrap();
        store.increment("b", 1, Numbers::Text).await.unwrap();
        let many = store.set("c", b"").await;
        assert_eq!(many, rejected("there are 2 keys, which is the most"));
        assert_eq!(store.keys().await, Ok(vec!["a".into(), "b".into()]));
        store.set("a", b"2").await.unwrap();
        store.delete("a").await.unwrap();
        store.set("c", b"").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_counted_in_each_second() {
        let store = limited(Quotas {
            reads_per_second: Some(2),
            writes_per_second: Some(1),
            ..Quotas::default()
        });
        for _ in 0..3 {
            store.get("a").await.unwrap();
            store.keys().await.unwrap();
            store.set("a", b"").await.unwrap();
            assert_eq!(
                store.get("a").await,
                rejected("more than 2 reads in a second")
            );
            let written = store.delete("a").await;
            assert_eq!(written, rejected("more than 1 writes in a second"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}
