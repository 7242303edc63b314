use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Error, Numbers, Store};

/// A store in this process's memory. It is gone when the last owner drops it.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl Memory {
    /// Each operation changes the map in one step, so a panic leaves it consistent.
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.map().get(key).cloned())
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.map().insert(key.into(), value.into());
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.map().remove(key);
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        Ok(self.map().keys().cloned().collect())
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        let mut map = self.map();
        let matches = map.get(key).map(Vec::as_slice) == old;
        if matches {
            map.insert(key.into(), new.into());
        }
        Ok(matches)
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let mut map = self.map();
        let (sum, value) = numbers.add(map.get(key).map(Vec::as_slice), delta)?;
        map.insert(key.into(), value);
        Ok(sum)
    }

    fn numbers(&self) -> Numbers {
        Numbers::Text
    }
}
