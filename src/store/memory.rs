//! [`Memory`]: a store in the memory of this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Atomics, Error, Store};
use crate::number;

/// A store in the memory of this process, for tests and for events that only this process uses.
///
/// Clones share the same data.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), loopless::store::Error> {
/// use loopless::store::{Atomics, Memory, Store};
///
/// let store = Memory::default();
/// let same = store.clone();
/// store.set("a", b"1").await?;
/// same.swap("a", b"1", b"2").await?;
/// assert_eq!(store.get("a").await?, Some(b"2".to_vec()));
/// assert_eq!(store.increment("a", 3).await?, 5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn values(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // No call leaves the map half changed, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.values().get(key).cloned())
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.values().insert(key.into(), value.into());
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.values().remove(key);
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        Ok(self.values().keys().cloned().collect())
    }
}

impl Atomics for Memory {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        let mut values = self.values();
        let value = values.get(key);
        let number = value.map_or(Some(0), |value| number::read(value));
        let sum = number.and_then(|number| number.checked_add(delta));
        let sum = sum.ok_or_else(|| Error::new(format!("the value of {key:?} is not a number")))?;
        let sum_as_value = number::write(value.map(Vec::as_slice), sum);
        values.insert(key.into(), sum_as_value);
        Ok(sum)
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        if let Some(value) = self.values().get_mut(key).filter(|value| *value == old) {
            *value = new.into();
        }
        Ok(())
    }
}
