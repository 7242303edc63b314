use std::collections::{BTreeSet, HashMap};
#[cfg(not(target_family = "wasm"))]
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::readings::Readings;
use super::{Error, Event, Name, Polling, State};
use crate::clock::Clock;
#[cfg(not(target_family = "wasm"))]
use crate::store;
use crate::store::Store;
use crate::strategy::Strategy;

/// The prefix of the keys of events.
const PREFIX: &str = "event/";

/// The events of one instance: a store with a strategy, a clock, and the last readings of each event.
///
/// The events themselves are in the store: nothing is lost when the instance ends.
///
/// ```
/// use loopless::clock::Tokio;
/// use loopless::event::Events;
/// use loopless::store::Memory;
/// use loopless::strategy::Plain;
///
/// let store = Memory::default();
/// let one = Events::new(Plain::new(store.clone(), rand::random), Tokio::default());
/// let another = Events::new(Plain::new(store, rand::random), Tokio::default());
/// // An event that is set in one is set in the other, because they share the store.
/// ```
#[derive(Debug)]
pub struct Events<S, C> {
    pub(super) strategy: S,
    pub(super) clock: C,
    readings: Mutex<HashMap<String, Readings>>,
}

/// A part of the list of events, in the order of their names.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// door.set().await?;
/// let page = events.list(None, 10).await?;
/// assert_eq!(page.events[0].0.as_str(), "door");
/// assert!(!page.has_more);
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The events.
    pub events: Vec<(Name, State)>,
    /// Whether there are more events after the last one.
    pub has_more: bool,
}

/// Events in the memory of this process. See [`Events::in_memory`].
#[cfg(not(target_family = "wasm"))]
pub type InMemory = Events<crate::strategy::Exact<store::Memory>, crate::clock::Tokio>;

#[cfg(not(target_family = "wasm"))]
impl InMemory {
    /// Creates events in the memory of this process, for tests and for tasks of one process.
    ///
    /// ```
    /// use loopless::event::{Events, Name};
    ///
    /// let events = Events::in_memory();
    /// let demo = events.named(&Name::DEMO);
    /// ```
    pub fn in_memory() -> Self {
        // Each `RandomState` has other keys.
        let random: fn() -> u64 = || RandomState::new().hash_one(());
        let strategy = crate::strategy::Exact::new(store::Memory::default(), random);
        Self::new(strategy, crate::clock::Tokio::default())
    }
}

/// Runs an example of these docs.
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
#[allow(clippy::unwrap_used, reason = "an example that fails has to say so")]
pub fn example(
    example: impl for<'a> AsyncFnOnce(
        &'a InMemory,
        Event<'a, crate::strategy::Exact<store::Memory>, crate::clock::Tokio>,
    ) -> Result<(), Box<dyn std::error::Error>>,
) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(async {
        let events = Events::in_memory();
        let door = events.named(&Name::new("door").unwrap());
        example(&events, door).await.unwrap();
    });
}

impl<S: Strategy, C: Clock> Events<S, C> {
    /// Creates the events that `strategy` stores, with waits timed by `clock`.
    pub fn new(strategy: S, clock: C) -> Self {
        Self {
            strategy,
            clock,
            readings: Mutex::default(),
        }
    }

    /// Returns the store that holds the events.
    pub fn store(&self) -> &S::Store {
        self.strategy.store()
    }

    /// Checks that the store answers. Reads it once.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// events.probe().await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn probe(&self) -> Result<(), Error> {
        // No event has this key, so its value cannot be of another build.
        self.store().get(PREFIX).await?;
        Ok(())
    }

    /// The clock that times the waits.
    pub(crate) fn clock(&self) -> &C {
        &self.clock
    }

    /// Returns the time on the clock that times the waits.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// let began = events.now();
    /// assert!(events.now() >= began);
    /// # Ok(()) });
    /// ```
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Returns the event called `name`. It need not exist: an event that was never set is clear.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// use loopless::event::Name;
    ///
    /// let demo = events.named(&Name::DEMO);
    /// assert!(!demo.is_set().await?);
    /// # Ok(()) });
    /// ```
    pub fn named(&self, name: &Name) -> Event<'_, S, C> {
        Event {
            events: self,
            key: format!("{PREFIX}{name}"),
            polling: Polling::default(),
        }
    }

    /// Lists up to `limit` of the events that exist, in the order of their names, starting after `after` or with the first.
    ///
    /// Lists the store's keys once, and reads each event once, including forgotten ones. Forgotten events and keys that
    /// hold something else are skipped.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// door.set().await?;
    /// let first = events.list(None, 1).await?;
    /// let last = first.events.last().map(|(name, _)| name);
    /// let next = events.list(last, 1).await?;
    /// assert!(next.events.is_empty());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Page, Error> {
        let keys = self.store().keys().await?;
        let names: BTreeSet<Name> = keys
            .iter()
            .filter_map(|key| Name::new(key.strip_prefix(PREFIX)?))
            .filter(|name| after.is_none_or(|after| name > after))
            .collect();
        let mut page = Page {
            events: Vec::new(),
            has_more: false,
        };
        for name in names {
            match self.named(&name).state().await {
                Ok(state) if !state.exists() => {}
                Ok(_) if page.events.len() == limit => {
                    page.has_more = true;
                    break;
                }
                Ok(state) => page.events.push((name, state)),
                Err(Error::Foreign { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    /// Readings are plain values that are complete at every step, so a poisoned lock is safe to use.
    pub(super) fn readings(&self) -> MutexGuard<'_, HashMap<String, Readings>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
