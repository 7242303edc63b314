//! [`Memory`]: a store in the memory of this process.

use std::collections::BTreeMap;
use std::future::{self, Future};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Atomics, Error, Store};
use crate::number;

/// A store in the memory of this process, for tests and for events that only one process shares.
///
/// Every call takes effect at once. Clones are the same store.
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
        // Each call leaves the map whole, also one that panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send {
        future::ready(Ok(self.values().get(key).cloned()))
    }

    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send {
        self.values().insert(key.into(), value.into());
        future::ready(Ok(()))
    }

    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send {
        self.values().remove(key);
        future::ready(Ok(()))
    }

    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send {
        future::ready(Ok(self.values().keys().cloned().collect()))
    }
}

impl Atomics for Memory {
    fn increment(&self, key: &str, delta: i64) -> impl Future<Output = Result<i64, Error>> + Send {
        let mut values = self.values();
        let value = values.get(key);
        let number = value.map_or(Some(0), |value| number::read(value));
        let sum = number.and_then(|number| number.checked_add(delta));
        let Some(sum) = sum else {
            return future::ready(Err(Error::new(format!("{key} holds no number"))));
        };
        let sum_as_value = number::write(value.map(Vec::as_slice), sum);
        values.insert(key.into(), sum_as_value);
        future::ready(Ok(sum))
    }

    fn swap(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let mut values = self.values();
        if let Some(value) = values.get_mut(key).filter(|value| *value == old) {
            *value = new.into();
        }
        future::ready(Ok(()))
    }
}
