//! [`Event`]: a named flag that any number of requests, instances, processes and machines share.
//!
//! The contract is that of Python's [`asyncio.Event`]: [`set`](Event::set), [`clear`](Event::clear),
//! [`is_set`](Event::is_set) and [`wait`](Event::wait). What is kept is not a flag but a [`State`]. It has a
//! [`Generation`], which counts the changes of the flag: even is clear, odd is set.
//!
//! ```
//! # use loopless::event::Generation;
//! let fresh = Generation::default();
//! assert!(!fresh.is_set());
//! assert!(fresh.next().is_set());
//! assert!(fresh.next() > fresh);
//! ```
//!
//! How a change is made and kept, so that no wait misses it, depends on what the host's store can do: that is the event's
//! [strategy](crate::strategy). With compare-and-swap, the generation counts every change and never goes back. Without, it is best
//! effort, and the state has a tag besides, which tells each change from all others.
//!
//! # What waiting costs
//!
//! State crosses requests; futures never do. A waiter sleeps on its own timer and reads the state again. What the waiters of
//! an instance share is the last reading of each event: see [`Event::wait`].
//!
//! [`asyncio.Event`]: https://docs.python.org/3/library/asyncio-sync.html#asyncio.Event

mod error;
mod events;
mod name;
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
pub use self::readings::Seen;
pub use crate::state::{Generation, State, Tag};

/// The shortest pause between two looks, for a store that takes longer to read than a poll interval.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// How long a wait is young, and reads often.
const YOUNG: Duration = Duration::from_secs(2);

/// How [`Event::wait`] ended, with the newest state that it saw.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use std::time::Duration;
///
/// use loopless::event::Waited;
///
/// match door.wait(Duration::from_millis(20)).await? {
///     Waited::Set(state) => println!("It was set, and is {state} now."),
///     Waited::TimedOut(_) => println!("Nobody set it."),
///     Waited::Forgotten(_) => println!("It is gone."),
/// }
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The event was set at some time during the wait. The state says whether it still was at the last look.
    Set(State),
    /// The time was up, and no look had seen a set.
    TimedOut(State),
    /// The event was forgotten, and nothing says that it had been set before.
    Forgotten(State),
}

impl Waited {
    /// The newest state that the wait saw.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// # use std::time::Duration;
    /// door.set().await?;
    /// let waited = door.wait(Duration::from_secs(1)).await?;
    /// assert!(waited.state().is_set());
    /// # Ok(()) });
    /// ```
    pub fn state(self) -> State {
        match self {
            Self::Set(state) | Self::TimedOut(state) | Self::Forgotten(state) => state,
        }
    }
}

/// What [`Event::change`] did.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use loopless::event::Changed;
///
/// assert!(matches!(door.change(true).await?, Changed::Yes(_)));
/// assert!(matches!(door.change(true).await?, Changed::No(_)));
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The event was seen in the other state, and has been in this one since.
    Yes(State),
    /// The event was in this state already. Nothing was written.
    No(State),
    /// The event was in a state that was not allowed. Nothing was written.
    Refused(State),
}

/// How often the waits of an instance read the store.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use std::time::Duration;
///
/// use loopless::event::Polling;
///
/// let rarely = Polling { first: Duration::from_millis(50), last: Duration::from_secs(1) };
/// let door = door.with_polling(rarely);
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// How far apart the readings of a new wait are, at most. Until the wait is 2 s old, that grows to at most 1.5 times
    /// as much.
    pub first: Duration,
    /// How far apart the readings of an old wait are, at most.
    pub last: Duration,
}

impl Default for Polling {
    /// 5 ms and 100 ms.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(5),
            last: Duration::from_millis(100),
        }
    }
}

impl Polling {
    /// How far apart readings are when a wait is `age` old, at most.
    ///
    /// Somebody watches a young wait, so its end comes within milliseconds. An old one is cheap.
    fn interval(self, age: Duration) -> Duration {
        if age < YOUNG {
            self.grace(age).min(self.first * 3 / 2)
        } else {
            self.grace(age)
        }
    }

    /// How long a wait may be over its `timeout`: a twentieth of it, within `first` and `last`.
    fn grace(self, timeout: Duration) -> Duration {
        (timeout / 20).min(self.last).max(self.first)
    }
}

/// One named event: `asyncio.Event` for requests that share nothing but a store.
///
/// [`state`](Self::state), [`set`](Self::set), [`clear`](Self::clear) and [`forget`](Self::forget) are linearizable over
/// all that use the same store with the same [strategy](crate::strategy).
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
    /// The same event, with waits that read as often as `polling` says.
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

    /// The event's state now. One read of the store.
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

    /// The event's state now, as a place from which to wait for a [newer](Self::newer) one. One read of the store.
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

    /// A state that the event has had before now, as a place from which to wait for a newer one. No read.
    pub(crate) fn seen(&self, state: State) -> Seen {
        let Readings { count, .. } = self.last_readings();
        Seen {
            state,
            began: count,
            ended: count,
        }
    }

    /// Whether the event is set now. One read of the store.
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

    /// Sets the event: every wait that is under way anywhere ends, also if a clear follows at once.
    ///
    /// Setting a set event changes nothing: a hundred calls at the same time make one transition. Returns a state that
    /// the event had after it was set.
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
    /// [`Error::Contended`] after a bounded number of attempts, [`Error::Store`] where the store failed at the last
    /// of them, [`Error::Foreign`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, the event may or may not be set. Calling it again is safe.
    pub async fn set(&self) -> Result<State, Error> {
        self.changed_to(true).await
    }

    /// Clears the event. The mirror of [`set`](Self::set), in errors and cancel safety too.
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

    /// Sets the event, or clears it, and says whether that changed anything.
    ///
    /// When several do that at the same time, one of them may be told [`Changed::Yes`] for what another one did: nobody
    /// can tell whose it was. An event is not a lock.
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
    /// As [`set`](Self::set), with its cancel safety.
    pub async fn change(&self, set: bool) -> Result<Changed, Error> {
        S::change(self, set, None).await
    }

    /// Sets the event, or clears it, but only from a state that `is_allowed`.
    ///
    /// Otherwise as [`change`](Self::change).
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
    /// As [`set`](Self::set), with its cancel safety. [`Error::Unconditional`] on hosts that cannot do this.
    pub async fn change_if(&self, set: bool, is_allowed: Condition<'_>) -> Result<Changed, Error> {
        S::change(self, set, Some(is_allowed)).await
    }

    /// Forgets the event: it is clear, and not listed any more. Waits that are under way end with
    /// [`Waited::Forgotten`], unless somebody sets it again before they look.
    ///
    /// A new event of this name never has a version that this one had.
    ///
    /// Returns whether there was an event.
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
    /// As [`set`](Self::set), with its cancel safety.
    pub async fn forget(&self) -> Result<bool, Error> {
        S::forget(self).await
    }

    /// Waits until the event is set, for at most `timeout`.
    ///
    /// A wait on a set event returns at once, after one read. Otherwise it ends soon after a set that completes
    /// while it waits, even if a clear follows at once. It is over at most a twentieth of `timeout` late, within the
    /// bounds of [`Polling`]; later only if the store keeps its first read waiting longer, or, on WASI 0.2, where no
    /// read can be given up, its last. A set just before the end is seen if the store answers within half of that time.
    /// Whether it may say [`Waited::Set`] without a set while it waited is for the [strategy](crate::strategy) to say.
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
    /// The first read is this wait's own. After that, the waits on an event in an instance share one stream of reads:
    /// whoever wakes up first when a reading is due reads, the others take what it found. With the default
    /// [`Polling`], readings are 5 ms apart at first and at most 7.5 ms until the wait is 2 s old. From then on, there are
    /// at most 12 a second.
    ///
    /// # Errors
    ///
    /// A store that fails is asked again until the time is up. [`Error::Store`] says that no read ever succeeded.
    /// [`Error::Foreign`] ends the wait at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping a wait changes nothing, for the event and for other waits.
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
    /// Returns the newest state that was seen. It is still `known` when the time was up first.
    ///
    /// Cost, errors and cancel safety are those of [`wait`](Self::wait).
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

    /// The start of a wait. It must be current: a reading that is a moment old could hide a clear, and the wait would
    /// return for a set that was over before it began.
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

    /// Waits for a state newer than `start`, which was read after `started`, until `timeout` after that.
    ///
    /// An event that existed and does not any more is in a state that [is forgotten](State::is_forgotten).
    ///
    /// This is one wait in several pieces if it is called again with the same `started` and a longer `timeout`.
    ///
    /// Cost, errors and cancel safety are those of [`wait`](Self::wait), but that `None` is the answer when the time
    /// is up, also if the store failed.
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
        // Not at the deadline itself: waits that end at almost the same time can share a last reading this way.
        let last_look = deadline.saturating_add(grace / 2);
        let give_up = deadline.saturating_add(grace);
        loop {
            let now = clock.now();
            let is_last = now >= deadline;
            let mut readings = self.last_readings();
            // What was read at the same time as the start may be what was there before it.
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
                    // What came too late for this wait, another one may have found meanwhile.
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

    /// Reads the store, now, and leaves what it says for the waits of this instance. Returns the value too.
    pub(crate) async fn read(&self) -> Result<(Seen, Option<Vec<u8>>), Error> {
        let began = self.events.clock.now();
        let number = {
            let mut readings = self.events.readings();
            let readings = readings.entry(self.key.clone()).or_default();
            readings.began = began;
            readings.is_under_way = true;
            readings.count += 1;
            readings.count
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

    /// The strategy with which it is changed.
    pub(crate) fn strategy(&self) -> &S {
        &self.events.strategy
    }

    /// The clock that times its waits.
    pub(crate) fn clock(&self) -> &C {
        &self.events.clock
    }

    /// The key in the store.
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

    /// When a wait that began at `started` wants a newer reading than these.
    ///
    /// The jitter keeps instances from reading in step. It depends on nothing but the event and the reading, so that
    /// the waits of one instance agree.
    fn due(&self, readings: Readings, started: Duration) -> Duration {
        let mut hasher = DefaultHasher::new();
        (&self.key, readings.began).hash(&mut hasher);
        let age = readings.began.saturating_sub(started);
        let interval = self.polling.interval(age);
        let jitter = interval / 8 * (hasher.finish() % 1024) as u32 / 1024;
        readings.began.saturating_add(interval - jitter)
    }
}
