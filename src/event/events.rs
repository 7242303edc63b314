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

/// What the keys of events begin with.
const PREFIX: &str = "event/";

/// The events of one instance: a store with a strategy, a clock, and the last readings of each event.
///
/// All of it may be lost at any time, with the instance, and nothing is: the truth is in the store.
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
/// // What is set in one is set in the other: they share the store.
/// ```
#[derive(Debug)]
pub struct Events<S, C> {
    pub(super) strategy: S,
    pub(super) clock: C,
    readings: Mutex<HashMap<String, Readings>>,
}

/// Some of the events that exist, in the order of their names.
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
    /// Whether there are more after the last one.
    pub has_more: bool,
}

/// Events in the memory of this process: [`Events::in_memory`].
#[cfg(not(target_family = "wasm"))]
pub type InMemory = Events<crate::strategy::Exact<store::Memory>, crate::clock::Tokio>;

#[cfg(not(target_family = "wasm"))]
impl InMemory {
    /// Events in the memory of this process, for tests and for tasks that share no more than that.
    ///
    /// ```
    /// use loopless::event::{Events, Name};
    ///
    /// let events = Events::in_memory();
    /// let demo = events.named(&Name::DEMO);
    /// ```
    pub fn in_memory() -> Self {
        // Each has keys of its own, from the operating system's random numbers.
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
    /// Events kept as `strategy` does, with waits timed by `clock`.
    pub fn new(strategy: S, clock: C) -> Self {
        Self {
            strategy,
            clock,
            readings: Mutex::default(),
        }
    }

    /// The store that they are kept in.
    pub fn store(&self) -> &S::Store {
        self.strategy.store()
    }

    /// Returns if the store answers. One read.
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
        // No event is called that: there is nothing here that could be of another build.
        self.store().get(PREFIX).await?;
        Ok(())
    }

    /// The clock that times their waits.
    pub(crate) fn clock(&self) -> &C {
        &self.clock
    }

    /// The time on the clock of these events' waits.
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

    /// The event called `name`. It need not exist: an event that nobody has set is clear.
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

    /// Up to `limit` of the events that exist, in the order of their names: those after `after`, or the first ones.
    ///
    /// One listing of the store's keys, and one read for each event, and for each forgotten one that is passed over.
    /// A key of this prefix that holds something else is passed over too.
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
        let mut events = Vec::new();
        for name in names {
            match self.named(&name).state().await {
                Ok(state) if state.exists() => {
                    if events.len() == limit {
                        return Ok(Page {
                            events,
                            has_more: true,
                        });
                    }
                    events.push((name, state));
                }
                Ok(_) | Err(Error::Foreign { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Page {
            events,
            has_more: false,
        })
    }

    /// Readings are plain values, complete at every step: a panic elsewhere cannot have left one half written.
    pub(super) fn readings(&self) -> MutexGuard<'_, HashMap<String, Readings>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
