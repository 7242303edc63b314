//! [`Event`]: a named flag that any number of requests, instances, processes and machines share.
//!
//! The contract is that of Python's [`asyncio.Event`]: [`set`](Event::set), [`clear`](Event::clear),
//! [`is_set`](Event::is_set) and [`wait`](Event::wait). The store holds a [`State`] instead of a flag. Its
//! [`Generation`] counts the changes of the flag: even is clear, odd is set.
//!
//! ```
//! # use loopless::event::Generation;
//! let fresh = Generation::default();
//! assert!(!fresh.is_set());
//! assert!(fresh.next().is_set());
//! assert!(fresh.next() > fresh);
//! ```
//!
//! How a change is stored, so that no wait misses it, depends on what the host's store can do. That is the event's
//! [strategy](crate::strategy). With compare-and-swap, the generation counts every change and never goes back. Without it,
//! the generation is best effort, and a random tag distinguishes each change from all others.
//!
//! State crosses requests; futures never do. A waiter sleeps on a timer of its own and reads the state again. The waiters
//! of an instance share only the last readings of each event: see [`Event::wait`].
//!
//! [`asyncio.Event`]: https://docs.python.org/3/library/asyncio-sync.html#asyncio.Event

mod error;
mod events;
mod name;
mod outcome;
mod polling;
mod readings;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use self::readings::Readings;
use crate::clock::{Clock, before};
use crate::store::{PATIENCE, Store};
use crate::strategy::{Became, Condition, Foreign, Strategy};

pub use self::error::Error;
pub use self::events::{Events, Page};
#[cfg(not(target_family = "wasm"))]
pub use self::events::{InMemory, example};
pub use self::name::Name;
pub use self::outcome::{Changed, Waited};
pub use self::polling::Polling;
pub use self::readings::Seen;
pub use crate::state::{Generation, State, Tag};

/// The shortest pause between two reads, for a store that takes longer than a poll interval to answer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// One named event: `asyncio.Event` for requests that share nothing but a store.
///
/// [`state`](Self::state), [`set`](Self::set), [`clear`](Self::clear) and [`forget`](Self::forget) are linearizable
/// across everything that uses the same store with the same [strategy](crate::strategy).
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use std::time::Duration;
///
/// use loopless::event::Waited;
///
/// let (waited, set) = tokio::join!(door.wait(Duration::from_secs(1)), door.set());
/// assert_eq!(waited?, Waited::Set(set?));
/// # Ok(()) });
/// ```
#[derive(Debug)]
pub struct Event<'a, S, C> {
    events: &'a Events<S, C>,
    key: String,
    polling: Polling,
}

impl<S: Strategy, C: Clock> Event<'_, S, C> {
    /// Sets how often waits on this event read the store.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// use std::time::Duration;
    ///
    /// use loopless::event::Polling;
    ///
    /// let door = door.with_polling(Polling { last: Duration::from_secs(1), ..Polling::default() });
    /// # Ok(()) });
    /// ```
    pub fn with_polling(mut self, polling: Polling) -> Self {
        self.polling = polling;
        self
    }

    /// Returns the current state. Reads the store once.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// assert_eq!(door.state().await?.generation.changes(), 0);
    /// door.set().await?;
    /// assert_eq!(door.state().await?.generation.changes(), 1);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Foreign`].
    pub async fn state(&self) -> Result<State, Error> {
        Ok(self.look().await?.state)
    }

    /// Returns the current state as a starting point to wait for a [newer](Self::newer) one. Reads the store once.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// let seen = door.look().await?;
    /// assert!(!seen.state.is_set());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Foreign`].
    pub async fn look(&self) -> Result<Seen, Error> {
        let (seen, _) = self.read().await?;
        Ok(seen)
    }

    /// Turns a past state of the event into a starting point to wait for a newer one, without a read.
    pub(crate) fn seen(&self, state: State) -> Seen {
        let Readings { count, .. } = self.last_readings();
        Seen {
            state,
            began: count,
            ended: count,
        }
    }

    /// Returns whether the event is set. Reads the store once.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// door.set().await?;
    /// assert!(door.is_set().await?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Foreign`].
    pub async fn is_set(&self) -> Result<bool, Error> {
        Ok(self.state().await?.is_set())
    }

    /// Sets the event. Every wait that is under way anywhere ends, even if a clear follows at once.
    ///
    /// Setting a set event changes nothing: a hundred concurrent calls make one transition. Returns a state that the
    /// event had after it was set.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// let set = door.set().await?;
    /// assert_eq!(door.set().await?, set);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Contended`] after a bounded number of attempts, [`Error::Store`] if the store failed at the last of
    /// them, and [`Error::Foreign`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the event may or may not be set. Calling it again is safe.
    pub async fn set(&self) -> Result<State, Error> {
        self.changed_to(true).await
    }

    /// Clears the event: the mirror of [`set`](Self::set), with the same errors and cancel safety.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// door.set().await?;
    /// assert!(!door.clear().await?.is_set());
    /// # Ok(()) });
    /// ```
    pub async fn clear(&self) -> Result<State, Error> {
        self.changed_to(false).await
    }

    async fn changed_to(&self, set: bool) -> Result<State, Error> {
        let (Changed::Yes(state) | Changed::No(state) | Changed::Refused(state)) =
            self.change(set).await?;
        Ok(state)
    }

    /// Sets or clears the event, and returns whether that changed anything.
    ///
    /// An event is not a lock: if several callers change it at the same time, more than one may get [`Changed::Yes`] for
    /// the same change.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// use loopless::event::Changed;
    ///
    /// assert!(matches!(door.change(false).await?, Changed::No(_)));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`set`](Self::set), with its cancel safety.
    pub async fn change(&self, set: bool) -> Result<Changed, Error> {
        S::change(self, set, None).await
    }

    /// Like [`change`](Self::change), but only from a state that `is_allowed`.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// use loopless::event::{Changed, State};
    ///
    /// let known = door.set().await?;
    /// door.clear().await?;
    /// let is_known = |state: State| state.is_version_of(known);
    /// assert!(matches!(door.change_if(true, &is_known).await?, Changed::Refused(_)));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`set`](Self::set), with its cancel safety, and [`Error::Unconditional`] without compare-and-swap.
    pub async fn change_if(&self, set: bool, is_allowed: Condition<'_>) -> Result<Changed, Error> {
        S::change(self, set, Some(is_allowed)).await
    }

    /// Forgets the event: it becomes clear, and is no longer listed. Waits that are under way end with
    /// [`Waited::Forgotten`], unless the event is set again before their next read.
    ///
    /// A new event of this name never has a version that this one had. Returns whether the event existed.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// door.set().await?;
    /// assert!(door.forget().await?);
    /// assert!(!door.forget().await?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    ///
    /// The same as [`set`](Self::set), with its cancel safety.
    pub async fn forget(&self) -> Result<bool, Error> {
        S::forget(self).await
    }

    /// Waits until the event is set, for at most `timeout`.
    ///
    /// A wait on a set event returns after one read. Any other wait ends soon after a set that completes during the
    /// wait, even if a clear follows at once. Whether it can also return [`Waited::Set`] without such a set depends on the
    /// [strategy](crate::strategy).
    ///
    /// A wait exceeds `timeout` by at most a twentieth of it, within the bounds of [`Polling`]. It takes longer only if the
    /// store delays the first read, or, on WASI 0.2, where a read cannot be cancelled, the last one. A set just before
    /// the end is seen if the store answers within half of that extra time.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// use std::time::Duration;
    ///
    /// use loopless::event::Waited;
    ///
    /// let waited = door.wait(Duration::from_millis(20)).await?;
    /// assert!(matches!(waited, Waited::TimedOut(_)));
    /// # Ok(()) });
    /// ```
    ///
    /// # Cost
    ///
    /// Every wait makes its own first read. After that, the waits on an event in an instance share one stream of reads:
    /// the first to wake up when a reading is due reads, and the others use the result. With the default [`Polling`],
    /// readings are 5 ms apart at first, at most 7.5 ms until the wait is 2 s old, and after that there are at most 12 a
    /// second.
    ///
    /// # Errors
    ///
    /// A read that fails is repeated until the timeout, the first one for at most [`PATIENCE`]. [`Error::Store`] means that
    /// no read succeeded.
    /// [`Error::Foreign`] ends the wait at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future affects neither the event nor other waits.
    pub async fn wait(&self, timeout: Duration) -> Result<Waited, Error> {
        let started = self.events.clock.now();
        let mut start = self.first_reading(started, timeout).await?;
        while !start.state.is_set() {
            let Some(newer) = self.newer(start, started, timeout).await? else {
                return Ok(Waited::TimedOut(start.state));
            };
            match S::became(start.state, newer.state) {
                Became::Set => return Ok(Waited::Set(newer.state)),
                Became::Forgotten => return Ok(Waited::Forgotten(newer.state)),
                Became::Older => start = newer,
            }
        }
        Ok(Waited::Set(start.state))
    }

    /// Waits until the event is in a state that is not `known`, for at most `timeout`.
    ///
    /// Returns the newest state that it read, which is still `known` if the timeout passed first. Cost, errors and cancel
    /// safety are those of [`wait`](Self::wait).
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// use std::time::Duration;
    ///
    /// let known = door.set().await?;
    /// let is_known = |state: loopless::event::State| state.is_version_of(known);
    /// let (state, _) = tokio::join!(door.changed(is_known, Duration::from_secs(1)), door.clear());
    /// assert!(!state?.is_set());
    /// # Ok(()) });
    /// ```
    pub async fn changed(
        &self,
        known: impl Fn(State) -> bool,
        timeout: Duration,
    ) -> Result<State, Error> {
        let started = self.events.clock.now();
        let start = self.first_reading(started, timeout).await?;
        if !known(start.state) {
            return Ok(start.state);
        }
        let newer = self.newer(start, started, timeout).await?;
        Ok(newer.unwrap_or(start).state)
    }

    /// The reading that a wait starts from. It must be current: an older one could hide a clear, and the wait would
    /// return for a set that ended before the wait began.
    async fn first_reading(&self, started: Duration, timeout: Duration) -> Result<Seen, Error> {
        let clock = &self.events.clock;
        let deadline = started.saturating_add(timeout.min(PATIENCE));
        loop {
            match self.look().await {
                Err(Error::Store(error)) => {
                    let now = clock.now();
                    if now >= deadline || error.is_silent() {
                        return Err(error.into());
                    }
                    let pause = self.polling.interval(now.saturating_sub(started));
                    clock.sleep(pause.min(deadline - now)).await;
                }
                result => return result,
            }
        }
    }

    /// Waits until `timeout` after `started` for a state newer than `start`, which was read after `started`.
    ///
    /// If the event existed and no longer does, its state [is forgotten](State::is_forgotten). Repeated calls with the
    /// same `started` and a longer `timeout` are one wait in several parts.
    ///
    /// Cost, errors and cancel safety are those of [`wait`](Self::wait), except that it returns `None` when the timeout
    /// passes, even if the store failed.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// use std::time::Duration;
    ///
    /// let seen = door.look().await?;
    /// let started = events.now();
    /// assert_eq!(door.newer(seen, started, Duration::from_millis(20)).await?, None);
    /// door.set().await?;
    /// assert!(door.newer(seen, started, Duration::from_secs(1)).await?.is_some());
    /// # Ok(()) });
    /// ```
    pub async fn newer(
        &self,
        start: Seen,
        started: Duration,
        timeout: Duration,
    ) -> Result<Option<Seen>, Error> {
        let clock = &self.events.clock;
        let deadline = started.saturating_add(timeout);
        let grace = self.polling.grace(timeout);
        // After the deadline, so that waits that end at almost the same time can share a last reading.
        let last_look = deadline.saturating_add(grace / 2);
        let give_up = deadline.saturating_add(grace);
        loop {
            let now = clock.now();
            let is_last = now >= deadline;
            let mut readings = self.last_readings();
            // A read that was concurrent with the start may have seen an older state.
            let newer = |readings: Readings| {
                readings.newest(|seen| {
                    seen.began_after(&start) && !seen.state.is_version_of(start.state)
                })
            };
            let is_stale = if is_last {
                // An older reading could miss a set that completed just before the deadline.
                readings.began < deadline
            } else {
                now >= self.due(readings, started)
            };
            if is_stale && newer(readings).is_none() {
                match before(clock, give_up, self.read()).await {
                    // If this read came too late or failed, another wait may have a newer reading by now.
                    None | Some(Ok(_) | Err(Error::Store(_))) => readings = self.last_readings(),
                    Some(Err(error)) => return Err(error),
                }
            }
            if let Some(mut newer) = newer(readings) {
                newer.state.is_forgotten |=
                    S::became(start.state, newer.state) == Became::Forgotten;
                return Ok(Some(newer));
            }
            let now = clock.now();
            if now >= give_up || (is_last && !readings.is_under_way) {
                return Ok(None);
            }
            let pause = if readings.is_under_way {
                self.polling.first.min(give_up - now)
            } else {
                let next = self.due(readings, started).min(last_look);
                next.saturating_sub(now).max(SHORTEST_PAUSE)
            };
            clock.sleep(pause).await;
        }
    }

    /// Reads the store, and shares the reading with the waits of this instance. Returns the value too.
    pub(crate) async fn read(&self) -> Result<(Seen, Option<Vec<u8>>), Error> {
        let began = self.events.clock.now();
        let number = {
            let mut readings = self.events.readings();
            let readings = readings.entry(self.key.clone()).or_default();
            readings.begin(began)
        };

        let value = self.events.store().get(&self.key).await;

        let mut readings = self.events.readings();
        let readings = readings.entry(self.key.clone()).or_default();
        readings.is_under_way &= readings.count > number;
        let value = value?;
        let state = S::parse(value.as_deref()).map_err(|Foreign(writer)| Error::Foreign {
            key: self.key.clone(),
            writer,
        })?;
        let seen = Seen {
            state,
            began: number,
            ended: readings.count,
        };
        readings.add(seen);
        Ok((seen, value))
    }

    /// The strategy that changes the event.
    pub(crate) fn strategy(&self) -> &S {
        &self.events.strategy
    }

    /// The clock that times the waits.
    pub(crate) fn clock(&self) -> &C {
        &self.events.clock
    }

    /// The event's key in the store.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The last readings of this event in this instance.
    fn last_readings(&self) -> Readings {
        self.events
            .readings()
            .get(&self.key)
            .copied()
            .unwrap_or_default()
    }

    /// When a wait that began at `started` needs a newer reading than these.
    ///
    /// The jitter keeps instances from reading in step. It depends only on the event and the reading, so that all waits
    /// of an instance compute the same.
    fn due(&self, readings: Readings, started: Duration) -> Duration {
        let mut hasher = DefaultHasher::new();
        (&self.key, readings.began).hash(&mut hasher);
        let age = readings.began.saturating_sub(started);
        let interval = self.polling.interval(age);
        let jitter = interval / 8 * (hasher.finish() % 1024) as u32 / 1024;
        readings.began.saturating_add(interval - jitter)
    }
}
