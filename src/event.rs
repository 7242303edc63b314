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

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
#[cfg(not(target_family = "wasm"))]
use std::hash::{BuildHasher, RandomState};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, before};
use crate::store::{self, PATIENCE, Store};
use crate::strategy::{ATTEMPTS, Became, Condition, Foreign, Strategy};

pub use crate::state::{Generation, State, Tag};

/// What the keys of events begin with.
const PREFIX: &str = "event/";

/// The shortest pause between two looks, for a store that takes longer to read than a poll interval.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// How long a wait is young, and reads often.
const YOUNG: Duration = Duration::from_secs(2);

/// What an event is called: 1 to 64 of the characters that need no escape in a URL, `A-Z a-z 0-9 . _ ~ -`.
///
/// `.` and `..` are no names: clients take them out of the paths of URLs (RFC 3986, 5.2.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Cow<'static, str>);

impl Name {
    /// The event of the demo.
    pub const DEMO: Self = Self(Cow::Borrowed("event"));

    /// The event that asks the [service](crate::service) to stop.
    pub const SERVICE_CANCEL: Self = Self(Cow::Borrowed("service.cancel"));

    /// The event by which the service says that it has stopped.
    pub const SERVICE_STOPPED: Self = Self(Cow::Borrowed("service.stopped"));

    /// The longest name, in bytes.
    pub const LONGEST: usize = 64;

    /// `text` as a name, if it is one.
    ///
    /// ```
    /// use loopless::event::Name;
    ///
    /// assert!(Name::new("door.front").is_some());
    /// assert!(Name::new("no spaces").is_none());
    /// ```
    pub fn new(text: &str) -> Option<Self> {
        let is_name = (1..=Self::LONGEST).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
            && ![".", ".."].contains(&text);
        is_name.then(|| Self(Cow::Owned(text.into())))
    }

    /// The name as text.
    ///
    /// ```
    /// # use loopless::event::Name;
    /// assert_eq!(Name::DEMO.as_str(), "event");
    /// ```
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    /// How far apart the readings of a new wait are, at most. They are at most half as far again apart until it is 2 s old.
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

/// Why an operation on an event failed.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use loopless::event::Error;
/// use loopless::store::{Memory, Store};
///
/// # let store: &Memory = events.store();
/// store.set("event/door", b"something else").await?;
/// assert!(matches!(door.set().await, Err(Error::Foreign { .. })));
/// # Ok(()) });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed. A transition may have happened all the same; trying again is safe.
    Store(store::Error),
    /// The store answered, but every attempt at a transition left the generation where it was. Try again later.
    Contended,
    /// The event's key holds something that no event of this build wrote. It is left alone; somebody has to look at it.
    Foreign {
        /// The key in the store.
        key: String,
        /// Who wrote it, if that is known.
        writer: Option<&'static str>,
    },
    /// A change from one state only was asked for, on a host that cannot compare and swap.
    Unconditional,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "The key-value store failed: {error}"),
            Self::Contended => write!(
                f,
                "The event did not change in {ATTEMPTS} attempts, though the store answered each of them"
            ),
            Self::Foreign { key, writer: None } => write!(
                f,
                "The key {key:?} of the key-value store holds a value that no event wrote"
            ),
            Self::Foreign {
                key,
                writer: Some(writer),
            } => write!(
                f,
                "The key {key:?} of the key-value store holds an event of {writer}, and this build is none. Give each build a store of its own"
            ),
            Self::Unconditional => f.write_str(
                "A change from one state only needs compare-and-swap, which the host that this build is for lacks. Nothing was changed",
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Contended | Self::Foreign { .. } | Self::Unconditional => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

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
    strategy: S,
    clock: C,
    readings: Mutex<HashMap<String, Readings>>,
}

/// What one read of the store saw, and when that was among the reads of the event in this instance.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// let seen = door.look().await?;
/// let later = door.look().await?;
/// assert!(later.began_after(&seen));
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The state.
    pub state: State,
    /// The read's number, from 1.
    began: u64,
    /// How many reads had begun when its answer came.
    ended: u64,
}

impl Seen {
    /// Whether this read began when the other one had its answer. Otherwise nobody knows which of them is the newer.
    pub fn began_after(&self, other: &Self) -> bool {
        self.began > other.ended
    }
}

/// The last readings of an event in this instance.
#[derive(Clone, Copy, Debug, Default)]
struct Readings {
    /// How many reads have begun.
    count: u64,
    /// When the newest read was sent to the store.
    began: Duration,
    /// Whether that read has still to come back.
    is_under_way: bool,
    /// The states that were seen last, each once, by the newest read that saw it.
    ///
    /// With two of them, a waiter that could learn of a change from any read of this instance learns of it from these:
    /// if a read that was dropped showed it a change, both that remain are newer, and one of them is another state than
    /// the one that it began with. The others are for readings that come in another order than they were taken.
    last: [Option<Seen>; 4],
}

impl Readings {
    fn add(&mut self, seen: Seen) {
        let is_same =
            |other: &&mut Option<Seen>| other.is_some_and(|other| other.state == seen.state);
        let began = |seen: &Option<Seen>| seen.map_or(0, |seen| seen.began);
        let place = match self.last.iter_mut().find(is_same) {
            Some(place) => Some(place),
            None => self.last.iter_mut().min_by_key(|place| began(place)),
        };
        if let Some(place) = place
            && began(place) < seen.began
        {
            *place = Some(seen);
        }
    }

    /// The newest one that `is_wanted`.
    fn newest(&self, is_wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let seen = self.last.iter().flatten();
        seen.filter(|seen| is_wanted(seen))
            .max_by_key(|seen| seen.began)
            .copied()
    }
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
        let door = events.named(&Name(Cow::Borrowed("door")));
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
    fn readings(&self) -> MutexGuard<'_, HashMap<String, Readings>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// bounds of [`Polling`] (later only if the store keeps its first read waiting longer, or, on WASI 0.2, where no read can be given up, its last).
    /// Whether it may say [`Waited::Set`] without a set while it waited is for the [strategy](crate::strategy) to say.
    /// A set just before the end is seen if the store answers within half of that.
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

#[cfg(test)]
mod tests;
