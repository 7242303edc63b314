//! [`Memo`]: values that are made once in a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Values by key, each made once. Values of different keys can be made at the same time. A caller that needs a value that is
/// being made waits for it.
pub struct Memo<K, V>(Mutex<BTreeMap<K, Arc<Mutex<Option<V>>>>>);

impl<K: Ord, V: Clone> Memo<K, V> {
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The value of `key`. If there is none yet, `make` makes it. An error is not kept.
    pub fn get_or_make(
        &self,
        key: K,
        make: impl FnOnce() -> anyhow::Result<V>,
    ) -> anyhow::Result<V> {
        let place = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(key).or_default().clone()
        };
        let mut value = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*value {
            return Ok(value.clone());
        }
        Ok(value.insert(make()?).clone())
    }
}
