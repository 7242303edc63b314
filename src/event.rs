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
    /// How far apart the readings of a young wait are.
    pub first: Duration,
    /// How far apart the readings of an old wait are.
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
    /// How far apart readings are when a wait is `age` old, before jitter. A wait of 2 s has the last interval of the
    /// defaults.
    fn interval(self, age: Duration) -> Duration {
        (age / 20).min(self.last).max(self.first)
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
    /// while it waits, even if a clear follows at once. It is over at most one poll interval after `timeout` (later
    /// only if the store keeps its first read waiting longer, or, on WASI 0.2, where no read can be given up, its last).
    /// Whether it may say [`Waited::Set`] without a set while it waited is for the [strategy](crate::strategy) to say.
    /// A set just before the end is seen if the store answers within half an interval.
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
    /// [`Polling`], readings are about 5 ms apart at first, and grow rarer with the age of the wait: from 2 s on, there
    /// are at most 10 a second.
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
        let interval = self.polling.interval(timeout);
        // Not at the deadline itself: waits that end at almost the same time can share a last reading this way.
        let last_look = deadline.saturating_add(interval / 2);
        let give_up = deadline.saturating_add(interval);
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
        let jitter = interval / 4 * (hasher.finish() % 1024) as u32 / 1024;
        readings.began.saturating_add(interval + jitter)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use loopless_host::store::{Memory, Observed, Operation, Quirks, Store as _};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use tokio::time::Instant;

    use super::*;
    use crate::clock::Tokio;
    use crate::state::GENERATION_BITS;
    use crate::store::Atomics;
    use crate::strategy::{self, Exact, Plain};

    const KEY: &str = "event/e";

    /// The tag that comes of random bits that are all 0.
    const TAG: i64 = 1;

    /// The harness's store with the quirks of a host. Each step takes a random while, so that a seed is a schedule.
    #[derive(Clone, Debug)]
    pub(crate) struct Host {
        pub(crate) store: Observed,
        quirks: Quirks,
        random: Arc<Mutex<StdRng>>,
        slowest: Duration,
    }

    impl Host {
        pub(crate) fn new(quirks: Quirks) -> Self {
            Self {
                store: Observed::new(Memory::default()),
                quirks,
                random: Arc::new(Mutex::new(StdRng::seed_from_u64(0))),
                slowest: Duration::ZERO,
            }
        }

        pub(crate) fn scheduled(quirks: Quirks, seed: u64) -> Self {
            Self {
                random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
                slowest: Duration::from_millis(20),
                ..Self::new(quirks)
            }
        }

        /// An instance of its own, on this store.
        fn instance(&self) -> Events<Exact<Host>, Tokio> {
            Events::new(Exact::new(self.clone(), || 0), Tokio::default())
        }

        /// An instance of its own, on this store, without compare-and-swap.
        fn plain_instance(
            &self,
        ) -> Events<Plain<Host, impl Fn() -> u64 + Send + Sync + use<>>, Tokio> {
            let random = self.random.clone();
            let tags = move || random.lock().unwrap().random();
            Events::new(Plain::new(self.clone(), tags), Tokio::default())
        }

        async fn step(&self) {
            if !self.slowest.is_zero() {
                let range = Duration::ZERO..self.slowest;
                let latency = self.random.lock().unwrap().random_range(range);
                tokio::time::sleep(latency).await;
            }
        }
    }

    fn failed(error: loopless_host::store::Error) -> store::Error {
        store::Error::new(error.0)
    }

    impl Store for Host {
        async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, store::Error> {
            self.step().await;
            let value = self.store.get(key).await.map_err(failed);
            self.step().await;
            value
        }

        async fn set(&self, key: &str, value: &[u8]) -> Result<(), store::Error> {
            self.step().await;
            let set = self.store.set(key, value).await.map_err(failed);
            self.step().await;
            set
        }

        async fn delete(&self, key: &str) -> Result<(), store::Error> {
            self.step().await;
            self.store.delete(key).await.map_err(failed)
        }

        async fn keys(&self) -> Result<Vec<String>, store::Error> {
            self.step().await;
            self.store.keys().await.map_err(failed)
        }
    }

    impl Atomics for Host {
        async fn increment(&self, key: &str, delta: i64) -> Result<i64, store::Error> {
            self.step().await;
            if self.quirks == Quirks::SpinSqlite
                && let Some(value) = self.store.get(key).await.map_err(failed)?
            {
                assert_eq!(value.len(), 8, "Spin's SQLite host panics");
            }
            let numbers = self.quirks.numbers(&self.store);
            let sum = self.store.increment(key, delta, numbers).await;
            self.step().await;
            sum.map_err(failed)
        }

        async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), store::Error> {
            self.step().await;
            let seen = self.store.get(key).await.map_err(failed)?;
            if seen.as_deref() != Some(old) {
                return Ok(());
            }
            self.step().await;
            let answer = self
                .quirks
                .swap(&self.store, key, Some(seen.as_deref()), new)
                .await;
            self.step().await;
            answer.map(drop).map_err(failed)
        }
    }

    /// The state in this generation, forgotten below 0, after a change with the tag `TAG`.
    fn state(generation: i64) -> State {
        strategy::state(generation.signum() * (TAG << GENERATION_BITS) + generation).unwrap()
    }

    /// The event that the tests are about.
    fn e() -> Name {
        Name::new("e").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_nobody_has_set_is_clear() {
        let events = Host::new(Quirks::Exact).instance();
        assert_eq!(events.named(&e()).is_set().await, Ok(false));
        assert_eq!(events.named(&e()).state().await, Ok(state(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn set_sets_and_clear_clears_on_every_host() {
        for (name, quirks) in Quirks::ALL {
            let events = Host::new(quirks).instance();
            let event = events.named(&e());
            for expected in 1..20 {
                let is_set = expected % 2 == 1;
                let changed = if is_set {
                    event.set().await
                } else {
                    event.clear().await
                };
                assert_eq!(changed, Ok(state(expected)), "{name}");
                assert_eq!(event.is_set().await, Ok(is_set), "{name}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn setting_a_set_event_and_clearing_a_clear_one_write_nothing() {
        let host = Host::new(Quirks::Exact);
        let events = host.instance();
        let event = events.named(&e());
        assert_eq!(event.clear().await, Ok(state(0)));
        assert_eq!(host.store.get(KEY).await, Ok(None));
        assert_eq!(event.set().await, Ok(state(1)));
        assert_eq!(event.set().await, Ok(state(1)));
        assert_eq!(host.store.count(Operation::Swap), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_different_names_are_different() {
        let events = Host::new(Quirks::Exact).instance();
        events.named(&Name::new("a").unwrap()).set().await.unwrap();
        assert_eq!(
            events.named(&Name::new("b").unwrap()).is_set().await,
            Ok(false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_sets_at_once_make_one_transition_also_as_the_very_first() {
        for (name, quirks) in Quirks::ALL {
            for seed in 0..20 {
                let host = Host::scheduled(quirks, seed);
                let mut sets = tokio::task::JoinSet::new();
                for _ in 0..100 {
                    let events = host.instance();
                    sets.spawn(async move { events.named(&e()).set().await });
                }
                for set in sets.join_all().await {
                    assert_eq!(set, Ok(state(1)), "{name}, seed {seed}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_generation_never_goes_back_whatever_the_schedule() {
        for (name, quirks) in Quirks::ALL {
            for seed in 0..200 {
                let host = Host::scheduled(quirks, seed);
                let mut writers = tokio::task::JoinSet::new();
                for writer in 0..4 {
                    let events = host.instance();
                    writers.spawn(async move {
                        let event = events.named(&e());
                        for round in 0..3 {
                            if (writer + round) % 2 == 0 {
                                event.set().await.unwrap();
                            } else {
                                event.clear().await.unwrap();
                            }
                        }
                    });
                }
                let mut newest = Generation::default();
                while !writers.is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let value = host.store.get(KEY).await.unwrap();
                    let now = Exact::<Host>::parse(value.as_deref()).unwrap().generation;
                    assert!(now >= newest, "{name}, seed {seed}: {newest}, then {now}");
                    newest = now;
                    while let Some(done) = writers.try_join_next() {
                        done.unwrap();
                    }
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_birth_that_arrives_late_undoes_nothing() {
        for (_, quirks) in Quirks::ALL {
            let host = Host::new(quirks);
            let events = host.instance();
            let event = events.named(&e());
            // Somebody saw no value, and is held up here.
            event.set().await.unwrap();
            event.clear().await.unwrap();
            event.set().await.unwrap();
            host.increment(KEY, 0).await.unwrap();
            assert_eq!(event.state().await, Ok(state(3)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_set_event_takes_one_read_and_no_time() {
        let host = Host::new(Quirks::Exact);
        host.instance().named(&e()).set().await.unwrap();
        let events = host.instance();
        let (reads, began) = (host.store.count(Operation::Get), Instant::now());
        let waited = events.named(&e()).wait(Duration::from_secs(9)).await;
        assert_eq!(waited, Ok(Waited::Set(state(1))));
        assert_eq!(host.store.count(Operation::Get) - reads, 1);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_a_set_ends_at_its_timeout() {
        for timeout in [0, 1, 4, 100, 2500, 60_000] {
            let timeout = Duration::from_millis(timeout);
            let events = Host::new(Quirks::Exact).instance();
            let began = Instant::now();
            let waited = events.named(&e()).wait(timeout).await;
            assert_eq!(waited, Ok(Waited::TimedOut(state(0))));
            assert!(began.elapsed() >= timeout);
            assert!(began.elapsed() <= timeout + Polling::default().interval(timeout));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_soon_after_a_set_in_another_instance() {
        for age in [1, 50, 700, 30_000] {
            let host = Host::new(Quirks::Exact);
            let events = host.instance();
            let waiter =
                tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
            tokio::time::sleep(Duration::from_millis(age)).await;
            let set_at = Instant::now();
            host.instance().named(&e()).set().await.unwrap();
            assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(1))));
            let bound = Polling::default().interval(Duration::from_millis(age)) * 5 / 4
                + SHORTEST_PAUSE * 2;
            assert!(set_at.elapsed() <= bound, "{:?}", set_at.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_sees_a_pulse() {
        let host = Host::new(Quirks::SpinRedis);
        let events = host.instance();
        let waiter =
            tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_secs(10)).await;
        let other = host.instance();
        other.named(&e()).set().await.unwrap();
        other.named(&e()).clear().await.unwrap();
        assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_just_before_the_deadline_is_seen() {
        for before in 1..100 {
            let host = Host::new(Quirks::Exact);
            let events = host.instance();
            let timeout = Duration::from_secs(3);
            let waiter = tokio::spawn(async move { events.named(&e()).wait(timeout).await });
            tokio::time::sleep(timeout - Duration::from_millis(before)).await;
            host.instance().named(&e()).set().await.unwrap();
            assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(1))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_from_before_the_wait_that_was_cleared_does_not_end_it() {
        let host = Host::new(Quirks::Exact);
        let events = host.instance();
        events.named(&e()).set().await.unwrap();
        // The instance remembers "set"; another one clears.
        host.instance().named(&e()).clear().await.unwrap();
        let waited = events.named(&e()).wait(Duration::from_millis(50)).await;
        assert_eq!(waited, Ok(Waited::TimedOut(state(2))));
    }

    async fn reads_of(waiters: usize) -> u64 {
        let host = Host::new(Quirks::Exact);
        let events = Arc::new(host.instance());
        let mut waits = tokio::task::JoinSet::new();
        for _ in 0..waiters {
            let events = events.clone();
            waits.spawn(async move { events.named(&e()).wait(Duration::from_secs(10)).await });
        }
        waits.join_all().await;
        host.store.count(Operation::Get)
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_of_an_instance_share_one_stream_of_reads() {
        let (one, sixteen) = (reads_of(1).await, reads_of(16).await);
        assert!(one < 180, "{one} reads in 10 s");
        assert!(
            sixteen * 10 <= one * 12,
            "{sixteen} reads for sixteen, {one} for one"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_wait_reads_at_most_ten_times_a_second() {
        let host = Host::new(Quirks::Exact);
        let events = host.instance();
        let waiter =
            tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = host.store.count(Operation::Get);
        tokio::time::sleep(Duration::from_secs(50)).await;
        let reads = host.store.count(Operation::Get) - before;
        assert!((1..=500).contains(&reads), "{reads} reads in 50 s");
        waiter.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_outlasts_a_store_that_fails_for_a_while() {
        let host = Host::new(Quirks::Exact);
        let events = host.instance();
        let waiter =
            tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        host.store.fail("down");
        tokio::time::sleep(Duration::from_secs(20)).await;
        host.store.recover();
        host.instance().named(&e()).set().await.unwrap();
        assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_one_good_read_reports_the_stores_error() {
        let host = Host::new(Quirks::Exact);
        host.store.fail("down");
        let events = host.instance();
        let began = Instant::now();
        let waited = events.named(&e()).wait(Duration::from_secs(5)).await;
        assert_eq!(waited, Err(Error::Store(store::Error::new("down"))));
        assert!(began.elapsed() <= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_leaves_the_event_as_it_was() {
        let host = Host::new(Quirks::Exact);
        let events = host.instance();
        let event = events.named(&e());
        event.set().await.unwrap();
        host.store.fail("down");
        assert_eq!(
            event.clear().await,
            Err(Error::Store(store::Error::new("down")))
        );
        host.store.recover();
        assert_eq!(event.state().await, Ok(state(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_no_event_wrote_is_reported_and_left_alone() {
        let eight_negative = [0xff; 8];
        for foreign in [
            &b""[..],
            b"x",
            b"-1",
            b"+1",
            b" 1",
            b"99999999999999999999",
            &eight_negative,
        ] {
            let host = Host::new(Quirks::Exact);
            host.store.set(KEY, foreign).await.unwrap();
            let events = host.instance();
            let event = events.named(&e());
            let error = Error::Foreign {
                key: KEY.into(),
                writer: None,
            };
            assert_eq!(event.set().await, Err(error.clone()));
            assert_eq!(event.is_set().await, Err(error.clone()));
            assert_eq!(event.wait(Duration::from_secs(1)).await, Err(error));
            assert_eq!(host.store.get(KEY).await, Ok(Some(foreign.to_vec())));
        }
    }

    /// A store whose swaps never come through.
    #[derive(Debug, Default)]
    struct Stuck(Mutex<u32>);

    impl Store for Stuck {
        async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, store::Error> {
            Ok(Some(b"0".to_vec()))
        }

        async fn set(&self, _: &str, _: &[u8]) -> Result<(), store::Error> {
            Ok(())
        }

        async fn delete(&self, _: &str) -> Result<(), store::Error> {
            Ok(())
        }

        async fn keys(&self) -> Result<Vec<String>, store::Error> {
            Ok(Vec::new())
        }
    }

    impl Atomics for Stuck {
        async fn increment(&self, _: &str, _: i64) -> Result<i64, store::Error> {
            Ok(0)
        }

        async fn swap(&self, _: &str, _: &[u8], _: &[u8]) -> Result<(), store::Error> {
            *self.0.lock().unwrap() += 1;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_never_comes_through_ends_after_a_bounded_number_of_attempts() {
        let events = Events::new(Exact::new(Stuck::default(), || 0), Tokio::default());
        let began = Instant::now();
        assert_eq!(events.named(&e()).set().await, Err(Error::Contended));
        assert_eq!(*events.store().0.lock().unwrap(), ATTEMPTS);
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn names_are_what_needs_no_escape_in_a_url() {
        let longest = "x".repeat(64);
        for name in ["a", "Z", "0", "...", "_", "~", "-", "a.b_c~d-e", &longest] {
            assert_eq!(Name::new(name).unwrap().as_str(), name);
        }
        let too_long = "x".repeat(65);
        for name in [
            "", ".", "..", "a b", "a/b", "\u{e9}", "a%", "a?", "a:", "\0", &too_long,
        ] {
            assert_eq!(Name::new(name), None, "{name:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_says_whether_it_changed_anything() {
        let events = Host::new(Quirks::SpinRedis).instance();
        let event = events.named(&e());
        assert_eq!(event.change(false).await, Ok(Changed::No(state(0))));
        assert_eq!(event.change(true).await, Ok(Changed::Yes(state(1))));
        assert_eq!(event.change(true).await, Ok(Changed::No(state(1))));
        assert_eq!(event.change(false).await, Ok(Changed::Yes(state(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_from_one_generation_is_refused_in_another() {
        let events = Host::new(Quirks::SpinSqlite).instance();
        let event = events.named(&e());
        let from = |changes| move |state: State| state.generation.changes() == changes;
        assert_eq!(
            event.change_if(true, &from(2)).await,
            Ok(Changed::Refused(state(0)))
        );
        assert_eq!(
            event.change_if(true, &from(0)).await,
            Ok(Changed::Yes(state(1)))
        );
        assert_eq!(
            event.change_if(true, &from(0)).await,
            Ok(Changed::Refused(state(1)))
        );
        assert_eq!(
            event.change_if(true, &from(1)).await,
            Ok(Changed::No(state(1)))
        );
        assert_eq!(
            event.change_if(false, &from(1)).await,
            Ok(Changed::Yes(state(2)))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_event_is_clear_and_its_generations_are_never_used_again() {
        for (name, quirks) in Quirks::ALL {
            let events = Host::new(quirks).instance();
            let event = events.named(&e());
            assert_eq!(event.forget().await, Ok(false), "{name}: there was none");
            event.set().await.unwrap();
            assert_eq!(event.forget().await, Ok(true), "{name}");
            assert_eq!(event.forget().await, Ok(false), "{name}");
            assert_eq!(event.state().await, Ok(state(-4)), "{name}");
            assert!(!event.state().await.unwrap().is_set());
            assert!(!event.state().await.unwrap().exists());
            assert_eq!(event.clear().await, Ok(state(-4)), "{name}");
            assert_eq!(event.set().await, Ok(state(5)), "{name}");
            assert_eq!(event.clear().await, Ok(state(6)), "{name}");
            assert_eq!(event.forget().await, Ok(true), "{name}");
            assert_eq!(event.state().await, Ok(state(-8)), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn forgetting_ends_the_waits_but_a_set_before_it_is_not_lost() {
        for is_set_first in [false, true] {
            let host = Host::new(Quirks::Exact);
            let other = host.instance();
            other.named(&e()).set().await.unwrap();
            other.named(&e()).clear().await.unwrap();
            let events = host.instance();
            let waiter =
                tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
            tokio::time::sleep(Duration::from_secs(10)).await;
            if is_set_first {
                other.named(&e()).set().await.unwrap();
            }
            other.named(&e()).forget().await.unwrap();
            let expected = if is_set_first {
                Waited::Set(state(-6))
            } else {
                Waited::Forgotten(state(-4))
            };
            assert_eq!(waiter.await.unwrap(), Ok(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_that_races_with_a_forget_is_not_lost() {
        for (name, quirks) in Quirks::ALL {
            for seed in 0..200 {
                let host = Host::scheduled(quirks, seed);
                let (one, two) = (host.instance(), host.instance());
                one.named(&e()).set().await.unwrap();
                one.named(&e()).clear().await.unwrap();
                let forget = tokio::spawn(async move { two.named(&e()).forget().await });
                let set = one.named(&e()).set().await.unwrap();
                assert!(set.generation > state(2).generation, "{name}, seed {seed}");
                let was_set = set.is_set() || strategy::was_set(state(2), set);
                assert!(was_set, "{name}, seed {seed}: {set:?}");
                forget.await.unwrap().unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_has_the_events_that_exist_in_order_by_pages() {
        let host = Host::new(Quirks::SpinSqlite);
        let events = host.instance();
        for name in ["b", "a", "B", "~", "forgotten"] {
            events.named(&Name::new(name).unwrap()).set().await.unwrap();
        }
        events
            .named(&Name::new("a").unwrap())
            .clear()
            .await
            .unwrap();
        let forgotten = Name::new("forgotten").unwrap();
        events.named(&forgotten).forget().await.unwrap();
        host.store.set("event/x", b"no generation").await.unwrap();
        host.store.set("event/no name", b"1").await.unwrap();
        host.store.set("other", b"1").await.unwrap();

        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = events.list(after.as_ref(), 2).await.unwrap();
            assert!(page.events.len() <= 2);
            after = page.events.last().map(|(name, _)| name.clone());
            seen.extend(page.events);
            if !page.has_more {
                break;
            }
        }
        let seen: Vec<_> = seen
            .iter()
            .map(|(name, state)| (name.as_str(), state.generation.changes()))
            .collect();
        assert_eq!(seen, [("B", 1), ("a", 2), ("b", 1), ("~", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_wipe_no_state_is_one_of_before_and_a_wait_ends_with_the_next_set() {
        static RANDOM: AtomicU64 = AtomicU64::new(0);
        let random = || RANDOM.fetch_add(1, Ordering::Relaxed);
        let host = Host::new(Quirks::SpinSqlite);
        let strategy = Exact::new(host.clone(), random);
        let events = Arc::new(Events::new(strategy, Tokio::default()));
        let event = events.named(&e());
        let mut before = Vec::new();
        for set in [true, false, true, false] {
            event.change(set).await.unwrap();
            before.push(event.state().await.unwrap());
        }
        let same = events.clone();
        let waiter =
            tokio::spawn(async move { same.named(&e()).wait(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_secs(10)).await;

        host.store.delete(KEY).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiter.is_finished());
        for set in [true, false, true, false] {
            for state in &before {
                let is_same = |now: State| now.is_version_of(*state);
                let changed = event.change_if(set, &is_same).await;
                assert!(matches!(changed, Ok(Changed::Refused(_))), "{changed:?}");
            }
            event.change(set).await.unwrap();
        }
        assert!(matches!(waiter.await.unwrap(), Ok(Waited::Set(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn without_compare_and_swap_each_change_has_a_tag_of_its_own() {
        let host = Host::new(Quirks::Exact);
        let events = host.plain_instance();
        let event = events.named(&e());
        let mut seen = Vec::new();
        for expected in 1..6 {
            let Changed::Yes(state) = event.change(expected % 2 == 1).await.unwrap() else {
                panic!("it was in the other state");
            };
            assert_eq!(state.generation.changes(), expected);
            assert_eq!(event.state().await, Ok(state));
            let value = host.store.get(KEY).await.unwrap().unwrap();
            assert_eq!(value, state.to_string().as_bytes());
            assert!(!seen.contains(&state.tag) && state.tag.is_some());
            seen.push(state.tag);
            assert_eq!(
                event.change(expected % 2 == 1).await,
                Ok(Changed::No(state))
            );
        }
        assert_eq!(host.store.count(Operation::Set), 5);
        assert_eq!(host.store.count(Operation::Swap), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_compare_and_swap_a_condition_is_refused_before_the_store_is_asked() {
        let host = Host::new(Quirks::Exact);
        let events = host.plain_instance();
        let refused = events.named(&e()).change_if(true, &|_| true).await;
        assert_eq!(refused, Err(Error::Unconditional));
        assert_eq!(host.store.count(Operation::Get), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_compare_and_swap_a_forgotten_event_leaves_nothing_and_ends_the_waits() {
        let host = Host::new(Quirks::Exact);
        let other = host.plain_instance();
        let event = other.named(&e());
        event.set().await.unwrap();
        let cleared = event.clear().await.unwrap();
        let events = host.plain_instance();
        let waiter =
            tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(event.forget().await, Ok(true));
        assert_eq!(event.forget().await, Ok(false));
        assert!(matches!(waiter.await.unwrap(), Ok(Waited::Forgotten(_))));
        assert_eq!(host.store.get(KEY).await, Ok(None));
        event.set().await.unwrap();
        let again = event.clear().await.unwrap();
        assert_eq!(again.generation, cleared.generation);
        assert!(!again.is_version_of(cleared));
    }

    #[tokio::test(start_paused = true)]
    async fn without_compare_and_swap_a_wait_does_not_take_a_reading_of_before_for_a_change() {
        for seed in 0..300 {
            let host = Host::scheduled(Quirks::Exact, seed);
            let events = Arc::new(host.plain_instance());
            let looks = events.clone();
            let looking = tokio::spawn(async move {
                let event = looks.named(&e());
                for _ in 0..4 {
                    // Readings that may be on their way for long.
                    _ = tokio::join!(event.state(), event.state());
                }
            });
            let other = host.plain_instance();
            other.named(&e()).set().await.unwrap();
            other.named(&e()).clear().await.unwrap();
            let waited = events.named(&e()).wait(Duration::from_millis(60)).await;
            assert!(
                matches!(waited, Ok(Waited::TimedOut(_))),
                "seed {seed}: {waited:?}"
            );
            looking.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_compare_and_swap_no_wait_misses_a_pulse_among_writers_that_race() {
        for seed in 0..300 {
            let host = Host::scheduled(Quirks::Exact, seed);
            let one = host.plain_instance();
            one.named(&e()).set().await.unwrap();
            one.named(&e()).clear().await.unwrap();
            let events = host.plain_instance();
            let waiter =
                tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(9)).await });
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut writers = tokio::task::JoinSet::new();
            for set in [true, false, false] {
                let events = host.plain_instance();
                writers.spawn(async move { events.named(&e()).change(set).await });
            }
            writers.join_all().await;
            let changed = one.named(&e()).set().await;
            assert!(changed.unwrap().is_set(), "seed {seed}");
            one.named(&e()).clear().await.unwrap();
            let waited = waiter.await.unwrap();
            assert!(
                matches!(waited, Ok(Waited::Set(_))),
                "seed {seed}: {waited:?}"
            );
        }
    }
}
