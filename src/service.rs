//! The service: it runs beside the requests, does something every second, and stops when it is asked to.
//!
//! It is the long-running service of the article that this project began with. There it is a task that the server's
//! startup makes and its shutdown awaits, with an event between the two. Here nothing that could await the task lives as
//! long as it does. So exactly one *runner*, in whichever instance on whichever machine, holds a lease in the store; the
//! two events, [`service.cancel`](Name::SERVICE_CANCEL) and [`service.stopped`](Name::SERVICE_STOPPED), are ordinary
//! named events.
//!
//! It needs [compare-and-swap](Atomics), and a task that outlives its request (WASI 0.3): only the [build for
//! Spin](crate::promises::Build::SPIN) has it. The others answer 501.
//!
//! # The lease
//!
//! A lease (Gray and Cheriton, 1989) is a lock that runs out when its holder is not heard of. What makes it safe is not
//! the time but the fencing (Kleppmann, *How to do distributed locking*, 2016): each lease has a *term*, a number from a
//! counter, and a runner that was thought dead can do nothing in the term of its successor.
//!
//! | key | value | who writes |
//! | --- | --- | --- |
//! | `service/terms` | how many terms were given out | `increment`: whoever wants to run |
//! | `service/lease` | the current term, which only grows | a swap from the term that was seen: whoever wants to run |
//! | `service/beats/<term>` | 8 and the beats of the term, or, below 0, that they are sealed | `increment`: the term's runner. One swap, which seals it: the runner that stops, or its successor |
//! | `service/runs/<term>` | a `Record`, in JSON | the term's runner, and nobody else |
//!
//! - A beat is an `increment`, whose answer is true on every backend: if it is the number that the runner expects, the
//!   beat happened in its term, and it prints its line. Any other answer says that the term is over: it prints nothing
//!   and ends. (A beat is no swap, because Spin never frees the handle of one: an instance would be out of them after 256 s.)
//! - Before a successor takes the lease it seals the beats of the term before, by a swap from the very number that it
//!   saw. If the runner has moved since, the swap fails, and it is alive. If not, the number of its beats is final:
//!   no tick is lost or counted twice. A beat that arrives later than the seal is rounded off (see `Beats`).
//! - When a runner is taken for dead, by the date in its last record, only decides when somebody tries. Clocks that
//!   differ between machines make a takeover early or late, never unsafe.
//! - What a runner has written of terms before its own is deleted by the next one: a bounded number of keys remains.
//!
//! If the store fails, a beat is asked for again until the lease would have run out. A beat that may have happened is
//! looked up before it is asked for again.
//!
//! # A counter that counts twice
//!
//! A client between the component and a remote store may ask for an `increment` again when its answer is lost, and then both
//! may be applied ([spin#3563]). In Spin 4's sources, the Redis store does not do this: its client connects again and passes the
//! error on. What was added twice, the service takes for none of its own:
//! - A ticket of `service/terms` is one that nobody else has, also if one is left out before it.
//! - A term that was made twice is dropped before it holds the lease, and the next one is tried.
//! - A beat that was made twice is not said. It costs the term, but no tick: the runner seals the beats that it has said and
//!   ends, and whoever looks next takes over. Late beats of a term that was deleted are too few to look like one.
//!
//! # A store that goes back
//!
//! A store that is wiped, or restored from a backup, has another term than its runner, or another number of beats. The
//! runner learns of it at its next beat, and ends. If the store says that the service runs, whoever looks when the lease
//! is over takes over. If it was wiped, the service is stopped. Terms begin anew then: a service that is started before
//! the runner of before has had its next beat may lose its first term to that, and nothing else.
//!
//! [spin#3563]: https://github.com/spinframework/spin/issues/3563

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Calendar;
use crate::event::{self, Changed, Event, Events, Name, Polling, Seen};
use crate::number;
use crate::store::{self, Atomics};
use crate::strategy::{Exact, changed, was_set};

const TERMS: &str = "service/terms";
const LEASE: &str = "service/lease";
const BEATS: &str = "service/beats/";
const RUNS: &str = "service/runs/";

/// How often the service does something.
pub const TICK: Duration = Duration::from_secs(1);

/// How often it is tried to get the lease, or a look at it that nobody comes between.
const ATTEMPTS: u32 = 8;

/// The pause after the first attempt that changed nothing. It doubles from try to try.
const BACKOFF: Duration = Duration::from_millis(5);

/// How long a runner waits before it asks a store again that failed.
const RETRY: Duration = Duration::from_millis(200);

/// How often a stop looks whether the runner lives, while it waits for its event.
const LOOK: Duration = Duration::from_millis(500);

/// The longest pause between two readings of the cancellation event: a beat must not wait for one.
const SLOWEST_POLL: Duration = Duration::from_millis(250);

/// What the service says when it starts.
pub const STARTED: &str = "Service started";
/// What the service says every second.
pub const DID_SOMETHING: &str = "Service did something";
/// What the service says when it has stopped.
pub const STOPPED: &str = "Service stopped";

/// Why a runner has lost its lease, where others know.
const TAKEN_OVER: &str = "another runner has taken over";

/// Why something could not be done with the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// One of its two events could not be read or changed.
    Event(event::Error),
    /// The store failed. What was asked for may have happened all the same; trying again is safe.
    Store(store::Error),
    /// Others came between at every attempt. Try again later.
    Contended,
    /// A key of the service holds something that it did not write. It is left alone; somebody has to look at it.
    Foreign {
        /// The key in the store.
        key: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(error) => error.fmt(f),
            Self::Store(error) => write!(f, "The key-value store failed: {error}"),
            Self::Contended => write!(
                f,
                "Others changed the service's lease at each of {ATTEMPTS} attempts"
            ),
            Self::Foreign { key } => write!(
                f,
                "The key {key:?} of the key-value store holds a value that is none of the service's"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Event(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Contended | Self::Foreign { .. } => None,
        }
    }
}

impl From<event::Error> for Error {
    fn from(error: event::Error) -> Self {
        Self::Event(error)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// What the service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing: it has never run, or has stopped.
    Stopped,
    /// It runs.
    Running,
    /// It runs, and has been asked to stop.
    Stopping,
    /// Its runner has been silent for longer than its lease.
    Lost,
}

/// The service as one look shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// How often it did something in its current run, or its last one.
    pub ticks: u64,
    /// The date at which that run started, as the time since 1970. `None` where there was none yet.
    pub started: Option<Duration>,
    /// The term of the run's last runner.
    pub runner: Option<u64>,
    /// The date of that runner's last beat.
    pub heartbeat: Option<Duration>,
}

impl Status {
    /// Whether nobody runs and nobody has to.
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }
}

/// What a runner tells of itself, under the key of its term. Nobody else writes there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The term in which the run was started: this one, or an earlier one if the runner has taken over.
    run: u64,
    /// When that was, in milliseconds since 1970.
    started_ms: u64,
    /// The beats of the run's earlier terms.
    carried: u64,
    /// When the runner last had a beat, in milliseconds since 1970.
    heartbeat_ms: u64,
    /// The run before, and how many ticks it had in the end.
    previous: Option<(u64, u64)>,
}

/// The beats of a term.
///
/// Sealed beats are a multiple of [`Beats::STEP`] below 0. A runner that does not know yet that its term is over may
/// still add one, or a few if answers are lost. That is rounded off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beats {
    /// The term's runner may add more.
    Open(u64),
    /// The runner was taken for dead: the run goes on in another term.
    Lost(u64),
    /// The run is over.
    Released(u64),
}

impl Beats {
    const STEP: u64 = 64;

    /// What makes a term. A late beat makes the key of a term that was deleted anew: it leaves less, also if it is made
    /// twice, and there is no beat to which that could lead.
    const BIRTH: i64 = 8;

    /// The beats that a stored number stands for.
    fn of(number: i64) -> Option<Self> {
        if number > 0 {
            let beats = number.saturating_sub(Self::BIRTH).max(0);
            return Some(Self::Open(beats.unsigned_abs()));
        }
        let steps = number.unsigned_abs().div_ceil(Self::STEP);
        let beats = (steps / 2).checked_sub(1)?;
        Some(match steps % 2 {
            0 => Self::Released(beats),
            _ => Self::Lost(beats),
        })
    }

    /// The number that stands for them in the store.
    fn number(self) -> i64 {
        let (sign, number) = match self {
            Self::Open(beats) => (1, beats + Self::BIRTH.unsigned_abs()),
            Self::Lost(beats) => (-1, ((beats + 1) * 2 + 1) * Self::STEP),
            Self::Released(beats) => (-1, (beats + 1) * 2 * Self::STEP),
        };
        // A second each: nobody gets near what does not fit.
        sign * i64::try_from(number).unwrap_or(i64::MAX)
    }

    fn count(self) -> u64 {
        match self {
            Self::Open(beats) | Self::Lost(beats) | Self::Released(beats) => beats,
        }
    }
}

/// One look at the lease.
#[derive(Clone, Debug)]
struct Look {
    /// The current term; 0 where there was none yet.
    term: u64,
    /// The value that holds it.
    lease: Option<Vec<u8>>,
    beats: Beats,
    /// The value that holds them.
    sealable: Vec<u8>,
    record: Record,
}

impl Look {
    fn ticks(&self) -> u64 {
        self.record.carried + self.beats.count()
    }
}

/// Whether somebody holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Free,
    Held,
    Lost,
}

/// How far the service has come, for those who follow it. See [`Service::progress`].
#[derive(Clone, Debug)]
pub struct Progress(Look);

impl Progress {
    /// The number of the run, or 0 where there was none yet. Numbers grow.
    pub fn run(&self) -> u64 {
        self.0.record.run
    }

    /// How often the service did something in this run.
    pub fn ticks(&self) -> u64 {
        self.0.ticks()
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        matches!(self.0.beats, Beats::Released(_))
    }

    /// How many ticks the run `run` had, if it is the one before this one.
    pub fn previous(&self, run: u64) -> Option<u64> {
        let (previous, ticks) = self.0.record.previous?;
        (previous == run).then_some(ticks)
    }
}

/// Who holds the lease. [`Service::run`] does the service's work with it.
#[derive(Debug)]
pub struct Runner {
    term: u64,
    record: Record,
    /// The beats so far, as the store has them.
    beats: u64,
    /// The state of the cancellation event from which the run began: clear.
    cancel: Seen,
    /// When it was last known that the lease is held.
    confirmed: Duration,
}

impl Runner {
    /// The service as the runner begins.
    pub fn status(&self) -> Status {
        Status {
            state: State::Running,
            ticks: self.record.carried + self.beats,
            started: Some(Duration::from_millis(self.record.started_ms)),
            runner: Some(self.term),
            heartbeat: Some(Duration::from_millis(self.record.heartbeat_ms)),
        }
    }

    /// Whether it goes on with what another runner began.
    fn has_taken_over(&self) -> bool {
        self.record.run != self.term
    }
}

/// How [`Service::start`] ended.
#[derive(Debug)]
pub enum Started {
    /// It was not running. Now it is, if the runner is [run](Service::run).
    Now(Runner),
    /// It was running already.
    Already(Status),
}

/// How [`Service::stop`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It runs no more, or did not.
    Yes(Status),
    /// It still ran at the timeout. It has been asked to stop.
    TimedOut(Status),
}

/// How a runner's beat ended.
enum Beat {
    Happened,
    /// The term is over. Why, in a few words.
    Lost(String),
}

/// The service, over the events of an instance and the store that they are kept in.
#[derive(Debug)]
pub struct Service<'a, S, C> {
    events: &'a Events<Exact<S>, C>,
    lease: Duration,
    polling: Polling,
}

impl<'a, S: Atomics, C: Calendar> Service<'a, S, C> {
    /// The service, with runners that are lost when they are silent for longer than `lease`, and with waits that read
    /// as often as `polling` says.
    pub fn new(events: &'a Events<Exact<S>, C>, lease: Duration, polling: Polling) -> Self {
        let polling = Polling {
            first: polling.first.min(SLOWEST_POLL),
            last: polling.last.min(SLOWEST_POLL),
        };
        Self {
            events,
            lease,
            polling,
        }
    }

    /// Makes what the service keeps in the store, where it is missing, and checks what is there.
    ///
    /// # Errors
    ///
    /// All but [`Error::Contended`].
    pub async fn prepare(&self) -> Result<(), Error> {
        let store = self.store();
        for key in [LEASE, TERMS] {
            // The look comes first, because a host may trap where the value is no number.
            match store.get(key).await? {
                None => drop(store.increment(key, 0).await?),
                Some(value) if number::read(&value).is_none() => return Err(foreign(key)),
                Some(_) => {}
            }
        }
        self.status().await?;
        self.event(&Name::SERVICE_STOPPED).state().await?;
        Ok(())
    }

    /// What the service is doing. Four reads of the store. Changes nothing.
    ///
    /// # Errors
    ///
    /// All of them.
    pub async fn status(&self) -> Result<Status, Error> {
        let look = self.look().await?;
        let cancel = self.event(&Name::SERVICE_CANCEL).state().await?;
        Ok(self.status_of(&look, cancel))
    }

    /// Takes the lease, if nobody holds it or its holder is lost, whose run then goes on.
    ///
    /// A holder that is lost and was asked to stop is seen off first, and `say` gets the service's last line.
    ///
    /// # Errors
    ///
    /// All of them. After [`Error::Store`], it may be that the lease was taken, and runs out with nobody having used
    /// it.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn start(&self, say: impl Fn(&str)) -> Result<Started, Error> {
        match self.acquire(true, say).await? {
            Some(started) => Ok(started),
            None => Err(Error::Contended),
        }
    }

    /// Takes over from a runner that is lost, or stops the service in its stead if it was asked to stop.
    ///
    /// Returns the runner that now has to be [run](Self::run), if there is one.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), with its cancel safety.
    pub async fn tend(&self, say: impl Fn(&str)) -> Result<Option<Runner>, Error> {
        match self.acquire(false, say).await? {
            Some(Started::Now(runner)) => Ok(Some(runner)),
            Some(Started::Already(_)) | None => Ok(None),
        }
    }

    /// Asks the service to stop, and waits until it has, for at most `timeout`.
    ///
    /// A runner that is lost meanwhile is not waited for: the service is stopped in its stead, and `say` gets its last
    /// line.
    ///
    /// # Errors
    ///
    /// All of them. The service may have been asked to stop all the same; calling it again is safe.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn stop(&self, timeout: Duration, say: impl Fn(&str)) -> Result<Stopped, Error> {
        let started = self.events.now();
        let deadline = started.saturating_add(timeout);
        let event = self.event(&Name::SERVICE_STOPPED);
        let mut known = event.look().await?;
        let first = self.look().await?;
        if self.standing(&first) == Standing::Free {
            let cancel = self.event(&Name::SERVICE_CANCEL).state().await?;
            return Ok(Stopped::Yes(self.status_of(&first, cancel)));
        }
        let cancel = self.event(&Name::SERVICE_CANCEL).set().await?;
        let mut has_been_free = false;
        loop {
            let now = self.events.now();
            let until = now.saturating_add(LOOK).min(deadline);
            let piece = until.saturating_sub(started);
            let newer = event.newer(known, started, piece).await?;
            let has_said = newer.is_some_and(|newer| was_set(known.state, newer.state));
            known = newer.unwrap_or(known);

            let look = self.look().await?;
            let status = self.status_of(&look, cancel);
            let is_another = look.record.run != first.record.run;
            match self.standing(&look) {
                _ if is_another => return Ok(Stopped::Yes(status)),
                Standing::Free if has_said || known.state.is_set() => {
                    return Ok(Stopped::Yes(status));
                }
                // It said so a moment ago, or died before it could.
                Standing::Free if has_been_free => {
                    event.set().await?;
                    return Ok(Stopped::Yes(status));
                }
                Standing::Free => has_been_free = true,
                Standing::Lost if self.finish(&look, &say).await? => {
                    let state = State::Stopped;
                    return Ok(Stopped::Yes(Status { state, ..status }));
                }
                Standing::Held | Standing::Lost => {}
            }
            if self.events.now() >= deadline {
                return Ok(match self.standing(&look) {
                    Standing::Free => Stopped::Yes(status),
                    Standing::Held | Standing::Lost => Stopped::TimedOut(status),
                });
            }
        }
    }

    /// Does the service's work until it is asked to stop, or until the lease is lost. `say` gets each of its lines.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the runner is as good as dead: its lease runs out, and another one takes over.
    pub async fn run(&self, mut runner: Runner, say: impl Fn(&str)) {
        if runner.has_taken_over() {
            say("Service resumed");
        } else {
            say(STARTED);
        }
        let clock = self.events.clock();
        let started = clock.now();
        let cancellation = self.event(&Name::SERVICE_CANCEL);
        let mut ticks = 1;
        loop {
            let until = TICK * ticks;
            match cancellation.newer(runner.cancel, started, until).await {
                // Where the store has gone back, it is set without a set.
                Ok(Some(newer))
                    if newer.state.is_set() || was_set(runner.cancel.state, newer.state) =>
                {
                    break;
                }
                Ok(Some(newer)) => {
                    runner.cancel = newer;
                    continue;
                }
                Ok(None) => {}
                // Somebody has put something else in the event's place. The service goes on without it.
                Err(_) => {
                    let wait = started.saturating_add(until).saturating_sub(clock.now());
                    clock.sleep(wait).await;
                }
            }
            match self.beat(&mut runner).await {
                Beat::Happened => say(DID_SOMETHING),
                Beat::Lost(why) => {
                    say(&format!("Service lost its lease: {why}"));
                    return;
                }
            }
            self.tell(&mut runner).await;
            // A runner that was held up does not make up for it.
            let elapsed = clock.now().saturating_sub(started).as_secs();
            ticks = u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_add(1);
        }
        match self.release(&mut runner).await {
            Beat::Happened => {
                say(STOPPED);
                // Whoever waits for it also looks at the lease: a failure here makes the stop slower.
                _ = self.event(&Name::SERVICE_STOPPED).set().await;
            }
            Beat::Lost(why) => say(&format!("Service lost its lease: {why}")),
        }
    }

    /// How far the service has come since `last`. One read of the store where it is the same term.
    ///
    /// # Errors
    ///
    /// All of them.
    pub async fn progress(&self, last: Option<&Progress>) -> Result<Progress, Error> {
        if let Some(Progress(last)) = last {
            let is_same = match last.beats {
                Beats::Open(_) => match self.beats(last.term).await? {
                    Some((beats, sealable)) if !matches!(beats, Beats::Lost(_)) => {
                        return Ok(Progress(Look {
                            beats,
                            sealable,
                            ..last.clone()
                        }));
                    }
                    _ => false,
                },
                Beats::Released(_) => self.lease().await?.0 == last.term,
                Beats::Lost(_) => false,
            };
            if is_same {
                return Ok(Progress(last.clone()));
            }
        }
        Ok(Progress(self.look().await?))
    }

    fn store(&self) -> &'a S {
        self.events.store()
    }

    fn event(&self, name: &Name) -> Event<'a, Exact<S>, C> {
        self.events.named(name).with_polling(self.polling)
    }

    fn date_ms(&self) -> u64 {
        let date = self.events.clock().date().as_millis();
        u64::try_from(date).unwrap_or(u64::MAX)
    }

    fn standing(&self, look: &Look) -> Standing {
        match look.beats {
            Beats::Released(_) => Standing::Free,
            Beats::Lost(_) => Standing::Lost,
            Beats::Open(_) => {
                let silent = self.date_ms().saturating_sub(look.record.heartbeat_ms);
                if Duration::from_millis(silent) > self.lease {
                    Standing::Lost
                } else {
                    Standing::Held
                }
            }
        }
    }

    fn status_of(&self, look: &Look, cancel: event::State) -> Status {
        let has_run = look.term > 0;
        Status {
            state: match self.standing(look) {
                Standing::Free => State::Stopped,
                Standing::Lost => State::Lost,
                Standing::Held if cancel.is_set() => State::Stopping,
                Standing::Held => State::Running,
            },
            ticks: look.ticks(),
            started: has_run.then(|| Duration::from_millis(look.record.started_ms)),
            runner: has_run.then_some(look.term),
            heartbeat: has_run.then(|| Duration::from_millis(look.record.heartbeat_ms)),
        }
    }

    /// The current term, and the value that holds it.
    async fn lease(&self) -> Result<(u64, Option<Vec<u8>>), Error> {
        let value = self.store().get(LEASE).await?;
        let term = value.as_deref().map_or(Some(0), number::read);
        match term.and_then(|term| u64::try_from(term).ok()) {
            Some(term) => Ok((term, value)),
            None => Err(foreign(LEASE)),
        }
    }

    /// The beats of a term, and the value that holds them.
    async fn beats(&self, term: u64) -> Result<Option<(Beats, Vec<u8>)>, Error> {
        let key = beats_key(term);
        let Some(value) = self.store().get(&key).await? else {
            return Ok(None);
        };
        match number::read(&value).and_then(Beats::of) {
            Some(beats) => Ok(Some((beats, value))),
            None => Err(foreign(key)),
        }
    }

    async fn look(&self) -> Result<Look, Error> {
        let mut nothing = Look {
            term: 0,
            lease: None,
            beats: Beats::Released(0),
            sealable: Vec::new(),
            record: Record::default(),
        };
        for _ in 0..ATTEMPTS {
            let (term, lease) = self.lease().await?;
            let is_same = term == nothing.term;
            nothing = Look {
                term,
                lease: lease.clone(),
                ..nothing
            };
            if term == 0 {
                return Ok(nothing);
            }
            let key = record_key(term);
            let (beats, record) = (self.beats(term).await?, self.store().get(&key).await?);
            match (beats, record) {
                (Some((beats, sealable)), Some(record)) => {
                    let record = serde_json::from_slice(&record).map_err(|_| foreign(key))?;
                    return Ok(Look {
                        term,
                        lease,
                        beats,
                        sealable,
                        record,
                    });
                }
                // Nobody deletes what belongs to the current term, but somebody did: a new term is the cure.
                _ if is_same => return Ok(nothing),
                // A successor has tidied up since.
                _ => {}
            }
        }
        Err(Error::Contended)
    }

    /// Takes the lease, if nobody holds it and it is wanted `fresh`, or if its holder is lost. `None` where nobody runs
    /// and nobody has to.
    async fn acquire(&self, fresh: bool, say: impl Fn(&str)) -> Result<Option<Started>, Error> {
        let store = self.store();
        let clock = self.events.clock();
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                clock.sleep(BACKOFF * (1 << attempt)).await;
            }
            // Before the look: what is set later than this is meant for who holds the lease after the look.
            let cancel = self.event(&Name::SERVICE_CANCEL).look().await?;
            let stopped = self.event(&Name::SERVICE_STOPPED).look().await?;
            let confirmed = clock.now();
            let look = self.look().await?;
            let (record, from) = match self.standing(&look) {
                Standing::Held => {
                    return Ok(Some(Started::Already(self.status_of(&look, cancel.state))));
                }
                Standing::Lost if cancel.state.is_set() => {
                    self.finish(&look, &say).await?;
                    continue;
                }
                Standing::Lost => {
                    let beats = Beats::Lost(look.beats.count());
                    if !self.seal(&look, beats).await? {
                        continue;
                    }
                    let record = Record {
                        carried: look.ticks(),
                        ..look.record.clone()
                    };
                    (Some(record), cancel)
                }
                Standing::Free if !fresh => return Ok(None),
                Standing::Free => {
                    let (Some(from), Some(_)) = (
                        self.cleared(&Name::SERVICE_CANCEL, cancel).await?,
                        self.cleared(&Name::SERVICE_STOPPED, stopped).await?,
                    ) else {
                        continue;
                    };
                    (None, from)
                }
            };
            let Some(lease) = &look.lease else {
                store.increment(LEASE, 0).await?;
                continue;
            };

            let term = self.ticket().await?;
            let date_ms = self.date_ms();
            let record = record.unwrap_or(Record {
                run: term,
                started_ms: date_ms,
                carried: 0,
                heartbeat_ms: date_ms,
                previous: (look.term > 0).then(|| (look.record.run, look.ticks())),
            });
            let mut runner = Runner {
                term,
                record,
                beats: 0,
                cancel: from,
                confirmed,
            };
            runner.record.heartbeat_ms = date_ms;
            self.put(&runner).await?;
            if store.increment(&beats_key(term), Beats::BIRTH).await? != Beats::BIRTH {
                // Somebody between here and the store asked it twice. This term is of no use; the next one may be.
                self.drop_term(term).await;
                continue;
            }
            let next = i64::try_from(term).map_err(|_| foreign(TERMS))?;
            let value = number::write(Some(lease), next);
            failure = store.swap(LEASE, lease, &value).await.err();
            // Whatever that answered, only the read after it counts.
            let (now, _) = self.lease().await?;
            if now == term {
                self.tidy(term).await;
                return Ok(Some(Started::Now(runner)));
            }
            if now != look.term {
                // The swap can never happen any more.
                self.drop_term(term).await;
            }
        }
        Err(failure.map_or(Error::Contended, Error::Store))
    }

    /// Deletes what there is of a term that never holds the lease: nobody will miss it.
    async fn drop_term(&self, term: u64) {
        _ = self.store().delete(&record_key(term)).await;
        _ = self.store().delete(&beats_key(term)).await;
    }

    /// Clears an event from the state that was `noted`, and returns the state after that, or `None` if somebody has
    /// changed it since.
    async fn cleared(&self, name: &Name, noted: Seen) -> Result<Option<Seen>, Error> {
        let is_allowed = |state| state == noted.state;
        let event = self.event(name);
        Ok(match event.change_if(false, &is_allowed).await? {
            Changed::Refused(_) => None,
            Changed::No(_) => Some(noted),
            Changed::Yes(_) => Some(event.seen(changed(noted.state))),
        })
    }

    /// A term that nobody else has.
    async fn ticket(&self) -> Result<u64, Error> {
        let store = self.store();
        // One more read, because a host may trap where the value is no number.
        let value = store.get(TERMS).await?;
        value
            .as_deref()
            .map_or(Some(0), number::read)
            .ok_or_else(|| foreign(TERMS))?;
        let term = store.increment(TERMS, 1).await?;
        let term = u64::try_from(term).ok();
        term.filter(|term| *term > 0).ok_or_else(|| foreign(TERMS))
    }

    /// Seals the beats that a look saw. Whether they are sealed like this now.
    async fn seal(&self, look: &Look, to: Beats) -> Result<bool, Error> {
        if look.beats == to {
            return Ok(true);
        }
        let key = beats_key(look.term);
        let value = number::write(Some(&look.sealable), to.number());
        let asked = self.store().swap(&key, &look.sealable, &value).await;
        match self.beats(look.term).await? {
            Some((beats, _)) if beats == to => Ok(true),
            Some((beats, _)) if beats == look.beats => asked.map(|()| false).map_err(Error::Store),
            _ => Ok(false),
        }
    }

    /// Stops the service in the stead of a runner that is lost. Whether that is how it ended.
    async fn finish(&self, look: &Look, say: impl Fn(&str)) -> Result<bool, Error> {
        let is_sealed = self.seal(look, Beats::Released(look.beats.count())).await?;
        if is_sealed {
            say(STOPPED);
            self.event(&Name::SERVICE_STOPPED).set().await?;
        }
        Ok(is_sealed)
    }

    /// One beat of a runner. The store is asked for it until the lease would have run out.
    async fn beat(&self, runner: &mut Runner) -> Beat {
        let clock = self.events.clock();
        let key = beats_key(runner.term);
        let next = Beats::Open(runner.beats + 1);
        let mut is_doubtful = false;
        loop {
            let began = clock.now();
            let seen = if is_doubtful {
                self.beats(runner.term)
                    .await
                    .map(|beats| beats.map(|(beats, _)| beats))
            } else {
                let sum = self.store().increment(&key, 1).await;
                sum.map(Beats::of).map_err(Error::Store)
            };
            let failure = match seen {
                Ok(Some(beats)) if beats == next => {
                    runner.beats += 1;
                    runner.confirmed = began;
                    return Beat::Happened;
                }
                // The beat that failed did not happen.
                Ok(Some(Beats::Open(beats))) if is_doubtful && beats == runner.beats => {
                    is_doubtful = false;
                    continue;
                }
                // A successor had deleted the key: this made it anew.
                Ok(Some(Beats::Open(0))) if !is_doubtful => {
                    _ = self.store().delete(&key).await;
                    return Beat::Lost(TAKEN_OVER.into());
                }
                // Nobody else adds to them. What counts is what was said.
                Ok(Some(Beats::Open(beats))) if beats > runner.beats => {
                    if let Ok(Some(look)) = self.look_at(runner).await
                        && matches!(look.beats, Beats::Open(_))
                    {
                        _ = self.seal(&look, Beats::Lost(runner.beats)).await;
                    }
                    return Beat::Lost("the store has counted a beat twice".into());
                }
                Ok(Some(Beats::Open(_))) => return Beat::Lost("the store has gone back".into()),
                Ok(_) => return Beat::Lost(TAKEN_OVER.into()),
                Err(error) => error,
            };
            is_doubtful = true;
            if let Some(lost) = self.run_out(runner, &failure) {
                return lost;
            }
            clock.sleep(RETRY).await;
        }
    }

    /// What the store has of a runner's term, as the runner may seal it. `None` where it has nothing.
    async fn look_at(&self, runner: &Runner) -> Result<Option<Look>, Error> {
        let beats = self.beats(runner.term).await?;
        Ok(beats.map(|(beats, sealable)| Look {
            term: runner.term,
            lease: None,
            beats,
            sealable,
            record: runner.record.clone(),
        }))
    }

    /// Ends the run of a runner. The store is asked for it until the lease would have run out.
    async fn release(&self, runner: &mut Runner) -> Beat {
        let clock = self.events.clock();
        loop {
            let sealed = match self.look_at(runner).await {
                Ok(None) => return Beat::Lost(TAKEN_OVER.into()),
                Ok(Some(look)) => match look.beats {
                    Beats::Lost(_) => return Beat::Lost(TAKEN_OVER.into()),
                    Beats::Released(_) => return Beat::Happened,
                    Beats::Open(beats) => self.seal(&look, Beats::Released(beats)).await,
                },
                Err(error) => Err(error),
            };
            match sealed {
                Ok(true) => return Beat::Happened,
                Ok(false) => {}
                Err(error) => {
                    if let Some(lost) = self.run_out(runner, &error) {
                        return lost;
                    }
                }
            }
            clock.sleep(RETRY).await;
        }
    }

    /// Whether the lease has run out while the store failed, by the runner's own clock.
    fn run_out(&self, runner: &Runner, failure: &Error) -> Option<Beat> {
        let silent = self.events.now().saturating_sub(runner.confirmed);
        (silent >= self.lease).then(|| Beat::Lost(format!("{failure}.")))
    }

    /// Leaves a sign of life. Without it, others will try to take over, which the beats make safe.
    async fn tell(&self, runner: &mut Runner) {
        runner.record.heartbeat_ms = self.date_ms();
        _ = self.put(runner).await;
    }

    async fn put(&self, runner: &Runner) -> Result<(), Error> {
        // Numbers: there is nothing here that JSON could not say.
        let record = serde_json::to_vec(&runner.record).unwrap_or_default();
        Ok(self.store().set(&record_key(runner.term), &record).await?)
    }

    /// Deletes what earlier terms have left. Whoever fails at this leaves it to the next one.
    async fn tidy(&self, term: u64) {
        let keys = self.store().keys().await.unwrap_or_default();
        for key in keys {
            let suffix = key.strip_prefix(BEATS).or_else(|| key.strip_prefix(RUNS));
            let old = suffix.and_then(|suffix| suffix.parse::<u64>().ok());
            if old.is_some_and(|old| old < term) {
                _ = self.store().delete(&key).await;
            }
        }
    }
}

fn beats_key(term: u64) -> String {
    format!("{BEATS}{term}")
}

fn record_key(term: u64) -> String {
    format!("{RUNS}{term}")
}

fn foreign(key: impl Into<String>) -> Error {
    Error::Foreign { key: key.into() }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use loopless_host::store::{Quirks, Store as _};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::clock::Clock;
    use crate::store::Store;
    use crate::store::host::Host;

    const SECOND: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(20);

    /// A process's way to the store, in which one step takes very long.
    #[derive(Debug)]
    struct Path {
        host: Host,
        steps: AtomicU64,
        stall: Option<(u64, Duration)>,
    }

    impl Path {
        /// Whether the stall is before the step or after it depends on the number.
        async fn stall(&self, is_before: bool, step: u64) {
            if let Some((at, duration)) = self.stall
                && at / 2 == step
                && (at % 2 == 0) == is_before
            {
                sleep(duration).await;
            }
        }

        async fn take<T>(&self, step: impl Future<Output = T>) -> T {
            let number = self.steps.fetch_add(1, Ordering::Relaxed);
            self.stall(true, number).await;
            let result = step.await;
            self.stall(false, number).await;
            result
        }
    }

    impl Store for Path {
        async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, store::Error> {
            self.take(self.host.get(key)).await
        }

        async fn set(&self, key: &str, value: &[u8]) -> Result<(), store::Error> {
            self.take(self.host.set(key, value)).await
        }

        async fn delete(&self, key: &str) -> Result<(), store::Error> {
            self.take(self.host.delete(key)).await
        }

        async fn keys(&self) -> Result<Vec<String>, store::Error> {
            self.take(self.host.keys()).await
        }
    }

    impl Atomics for Path {
        async fn increment(&self, key: &str, delta: i64) -> Result<i64, store::Error> {
            self.take(self.host.increment(key, delta)).await
        }

        async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), store::Error> {
            self.take(self.host.swap(key, old, new)).await
        }
    }

    /// Tokio's clock, with a date that is off.
    #[derive(Debug)]
    struct Dated {
        began: Instant,
        skew: Duration,
    }

    impl Clock for Dated {
        fn now(&self) -> Duration {
            self.began.elapsed()
        }

        fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
            sleep(duration)
        }
    }

    impl Calendar for Dated {
        fn date(&self) -> Duration {
            Duration::from_secs(1_700_000_000) + self.skew + self.began.elapsed()
        }
    }

    /// What all processes of a test share.
    struct World {
        host: Host,
        began: Instant,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl World {
        fn new(host: Host) -> Self {
            Self {
                host,
                began: Instant::now(),
                lines: Arc::default(),
            }
        }

        fn process(&self) -> Arc<Process> {
            self.stalling(None, Duration::ZERO)
        }

        fn stalling(&self, stall: Option<(u64, Duration)>, skew: Duration) -> Arc<Process> {
            let path = Path {
                host: self.host.clone(),
                steps: AtomicU64::new(0),
                stall,
            };
            let clock = Dated {
                began: self.began,
                skew,
            };
            Arc::new(Process {
                events: Events::new(Exact::new(path, || 0), clock),
                lines: self.lines.clone(),
            })
        }

        fn lines(&self) -> Vec<String> {
            self.lines.lock().unwrap().clone()
        }

        fn count(&self, text: &str) -> u64 {
            let lines = self.lines();
            lines.iter().filter(|line| *line == text).count() as u64
        }
    }

    /// One instance of one machine.
    struct Process {
        events: Events<Exact<Path>, Dated>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Process {
        fn service(&self) -> Service<'_, Path, Dated> {
            Service::new(&self.events, Duration::from_secs(5), Polling::default())
        }

        fn say(&self) -> impl Fn(&str) + Send + Sync {
            let lines = self.lines.clone();
            move |line: &str| lines.lock().unwrap().push(line.into())
        }

        fn run(self: &Arc<Self>, runner: Runner) -> JoinHandle<()> {
            let process = self.clone();
            tokio::spawn(async move { process.service().run(runner, process.say()).await })
        }

        async fn start(self: &Arc<Self>) -> Option<JoinHandle<()>> {
            match self.service().start(self.say()).await.unwrap() {
                Started::Now(runner) => Some(self.run(runner)),
                Started::Already(_) => None,
            }
        }

        async fn stop(&self, timeout: Duration) -> Stopped {
            self.service().stop(timeout, self.say()).await.unwrap()
        }

        async fn status(&self) -> Status {
            self.service().status().await.unwrap()
        }
    }

    #[test]
    fn beats_are_what_they_were_sealed_as_also_after_late_ones() {
        for beats in [0, 1, 2, 1000, 1 << 40] {
            let open = Beats::Open(beats);
            assert_eq!(Beats::of(open.number()), Some(open));
            for sealed in [Beats::Lost(beats), Beats::Released(beats)] {
                for late in 0..64 {
                    assert_eq!(Beats::of(sealed.number() + late), Some(sealed), "{late}");
                }
            }
        }
        assert_eq!(Beats::of(0), None);
        assert_eq!(Beats::of(-64), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_starts_ticks_every_second_and_stops_without_waiting_for_the_next_tick() {
        for (name, quirks) in Quirks::ALL {
            let world = World::new(Host::new(quirks));
            let process = world.process();
            assert_eq!(process.status().await.state, State::Stopped);
            let running = process.start().await.unwrap();
            sleep(SECOND * 3 + SECOND / 2).await;
            let status = process.status().await;
            assert_eq!((status.state, status.ticks), (State::Running, 3), "{name}");
            let asked = Instant::now();
            let stopped = world.process().stop(LONG).await;
            assert!(matches!(stopped, Stopped::Yes(_)), "{name}: {stopped:?}");
            assert!(asked.elapsed() < SECOND / 2, "{:?}", asked.elapsed());
            running.await.unwrap();
            let mut expected = vec![STARTED];
            expected.extend([DID_SOMETHING; 3]);
            expected.push(STOPPED);
            assert_eq!(world.lines(), expected, "{name}");
            let status = process.status().await;
            assert_eq!((status.state, status.ticks), (State::Stopped, 3), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_starts_at_once_exactly_one_runs() {
        for (name, quirks) in Quirks::ALL {
            for seed in 0..30 {
                let world = World::new(Host::scheduled(quirks, seed));
                for round in 1..=3 {
                    let mut starts = tokio::task::JoinSet::new();
                    for _ in 0..5 {
                        let process = world.process();
                        starts.spawn(async move { process.start().await.is_some() });
                    }
                    let starts = starts.join_all().await;
                    let winners = starts.iter().filter(|is_winner| **is_winner).count();
                    assert_eq!(winners, 1, "{name}, seed {seed}");
                    let stopped = world.process().stop(LONG).await;
                    assert!(matches!(stopped, Stopped::Yes(_)));
                    assert_eq!(world.count(STARTED), round);
                    assert_eq!(world.count(STOPPED), round, "{name}, seed {seed}");
                }
            }
        }
    }

    /// Three processes look after the service for a while. The first one, which starts it, stalls at some step for
    /// longer than the lease; the second one's date is wrong; the third one takes over where it can.
    async fn ticks_are_exact(quirks: Quirks, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let stall = Duration::from_millis(random.random_range(3_000..20_000));
        let skew = Duration::from_millis(random.random_range(0..10_000));
        let world = World::new(Host::scheduled(quirks, seed));
        let processes = [
            world.stalling(Some((seed, stall)), Duration::ZERO),
            world.stalling(Some((seed / 2, stall / 2)), skew),
            world.process(),
        ];
        let first = processes[0].clone();
        tokio::spawn(async move { first.start().await });
        let mut running = Vec::new();
        for half_second in 0..100 {
            if half_second == 60 {
                // Should the first one not have come to it.
                running.extend(processes[2].start().await);
            }
            for process in &processes[1..] {
                if let Some(runner) = process.service().tend(process.say()).await.unwrap() {
                    running.push(process.run(runner));
                }
            }
            sleep(SECOND / 2).await;
        }
        let stopped = processes[2].stop(LONG).await;
        let Stopped::Yes(status) = stopped else {
            panic!("seed {seed}: {stopped:?}");
        };
        // Whoever still stalls has woken up by then, and has noticed.
        sleep(SECOND * 40).await;
        // The first one may lose its lease before it knows that it has it.
        assert!(
            world.count(STARTED) <= 1,
            "seed {seed}: {:?}",
            world.lines()
        );
        assert_eq!(world.count(STOPPED), 1, "seed {seed}: {:?}", world.lines());
        let ticks = world.count(DID_SOMETHING);
        assert_eq!(status.ticks, ticks, "seed {seed}: {:?}", world.lines());
        assert!(ticks > 15, "seed {seed}: {ticks}");
        assert_eq!(processes[2].status().await.ticks, ticks, "seed {seed}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_tick_counts_once_whichever_runner_stalls_and_where() {
        for (_, quirks) in Quirks::ALL {
            for seed in 0..160 {
                ticks_are_exact(quirks, seed).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_died_is_noticed_when_its_lease_is_over_and_its_ticks_stay() {
        for (name, quirks) in Quirks::ALL {
            let world = World::new(Host::new(quirks));
            let running = world.process().start().await.unwrap();
            sleep(SECOND * 2 + SECOND / 2).await;
            running.abort();
            let other = world.process();
            sleep(SECOND * 4).await;
            assert_eq!(other.status().await.state, State::Running, "{name}");
            assert!(other.service().tend(other.say()).await.unwrap().is_none());
            sleep(SECOND).await;
            assert_eq!(other.status().await.state, State::Lost, "{name}");
            let runner = other.service().tend(other.say()).await.unwrap().unwrap();
            let running = other.run(runner);
            let status = other.status().await;
            assert_eq!((status.state, status.ticks), (State::Running, 2), "{name}");
            sleep(SECOND + SECOND / 2).await;
            assert_eq!(other.status().await.ticks, 3, "{name}");
            other.stop(LONG).await;
            running.await.unwrap();
            assert_eq!(world.count(STARTED), 1);
            assert_eq!(world.count("Service resumed"), 1);
            assert_eq!(world.count(STOPPED), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_died_after_it_was_asked_to_stop_is_not_replaced() {
        for is_stopping in [false, true] {
            let world = World::new(Host::new(Quirks::SpinRedis));
            let running = world.process().start().await.unwrap();
            sleep(SECOND).await;
            running.abort();
            let process = world.process();
            if is_stopping {
                let stopped = process.stop(LONG).await;
                assert!(matches!(stopped, Stopped::Yes(_)), "{stopped:?}");
            } else {
                let cancel = process.events.named(&Name::SERVICE_CANCEL);
                cancel.set().await.unwrap();
                sleep(SECOND * 6).await;
                assert_eq!(process.status().await.state, State::Lost);
                let tended = process.service().tend(process.say()).await;
                assert!(tended.unwrap().is_none());
            }
            assert_eq!(process.status().await.state, State::Stopped);
            assert_eq!(world.count(STOPPED), 1);
            let stopped = process.events.named(&Name::SERVICE_STOPPED);
            assert!(stopped.is_set().await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_candidate_that_is_late_does_not_clear_a_stop_that_is_meant_for_another() {
        for at in 0..40 {
            let world = World::new(Host::new(Quirks::SpinSqlite));
            // The cancellation event is set from before.
            world.process().start().await.unwrap();
            world.process().stop(LONG).await;

            let late = world.stalling(Some((at, SECOND * 4)), Duration::ZERO);
            let starting = tokio::spawn(async move { late.start().await.is_some() });
            sleep(SECOND).await;
            world.process().start().await;
            sleep(SECOND).await;
            let stopper = world.process();
            let stopping = tokio::spawn(async move { stopper.stop(SECOND * 30).await });
            // Held up right before its first beat, the late one may hold the lease: then the stop waits for it.
            let stopped = stopping.await.unwrap();
            assert!(matches!(stopped, Stopped::Yes(_)), "{at}: {stopped:?}");
            assert!(world.began.elapsed() < SECOND * 8, "{at}");
            starting.await.unwrap();
            let runs = world.count(STARTED);
            assert!((2..=3).contains(&runs), "{at}: {:?}", world.lines());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_that_times_out_says_so_and_has_asked_all_the_same() {
        let world = World::new(Host::new(Quirks::Exact));
        let process = world.process();
        let running = process.start().await.unwrap();
        sleep(SECOND).await;
        running.abort();
        let stopped = process.stop(SECOND * 2).await;
        let Stopped::TimedOut(status) = stopped else {
            panic!("{stopped:?}");
        };
        assert_eq!(status.state, State::Stopping);
        let cancel = process.events.named(&Name::SERVICE_CANCEL);
        assert!(cancel.is_set().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_for_less_than_the_lease_costs_no_tick_twice() {
        for (name, quirks) in Quirks::ALL {
            let world = World::new(Host::new(quirks));
            let process = world.process();
            process.start().await.unwrap();
            sleep(SECOND * 2 + SECOND / 2).await;
            world.host.store.fail("down");
            sleep(SECOND * 4).await;
            assert_eq!(world.count(DID_SOMETHING), 2, "{name}: nothing unconfirmed");
            world.host.store.recover();
            sleep(SECOND * 3).await;
            let ticks = process.status().await.ticks;
            assert!(ticks >= 5, "{name}: {ticks}");
            assert_eq!(world.count(DID_SOMETHING), ticks, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_for_longer_than_the_lease_ends_the_runner() {
        let world = World::new(Host::new(Quirks::Exact));
        let process = world.process();
        let running = process.start().await.unwrap();
        sleep(SECOND * 2 + SECOND / 2).await;
        world.host.store.fail("down");
        let failed = Instant::now();
        running.await.unwrap();
        let lasted = failed.elapsed();
        assert!((SECOND * 4..SECOND * 6).contains(&lasted), "{lasted:?}");
        let lines = world.lines();
        let last = lines.last().unwrap();
        assert!(
            last.contains("lost its lease") && last.contains("down"),
            "{last}"
        );
        assert_eq!(world.count(DID_SOMETHING), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_that_is_made_twice_costs_the_term_and_no_tick() {
        for (name, quirks) in Quirks::ALL {
            let world = World::new(Host::new(quirks));
            let running = world.process().start().await.unwrap();
            sleep(SECOND * 2 + SECOND / 2).await;
            world.host.store.count_twice();
            running.await.unwrap();
            world.host.store.recover();
            let other = world.process();
            let lost = other.status().await;
            assert_eq!((lost.state, lost.ticks), (State::Lost, 2), "{name}");
            // At once, whatever its lease says.
            let runner = other.service().tend(other.say()).await.unwrap().unwrap();
            other.run(runner);
            sleep(SECOND * 2 + SECOND / 2).await;
            assert_eq!(other.status().await.ticks, 4, "{name}");
            assert_eq!(world.count(DID_SOMETHING), 4, "{name}: {:?}", world.lines());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_beat_that_is_late_and_made_twice_is_none_where_the_term_was_deleted() {
        for (name, quirks) in Quirks::ALL {
            let world = World::new(Host::new(quirks));
            let store = &world.host.store;
            let late = world.process();
            let started = late.service().start(late.say()).await;
            let Started::Now(mut runner) = started.unwrap() else {
                panic!("{name}: nobody else runs");
            };
            // It is held up before its first beat. Another one takes over meanwhile, and tidies up.
            let key = beats_key(runner.term);
            sleep(SECOND * 6).await;
            let other = world.process();
            let tended = other.service().tend(other.say()).await.unwrap();
            other.run(tended.unwrap());
            assert_eq!(store.get(&key).await, Ok(None), "{name}");

            store.count_twice();
            let beat = late.service().beat(&mut runner).await;
            assert!(matches!(beat, Beat::Lost(_)), "{name}");
            assert_eq!(store.get(&key).await, Ok(None), "{name}: left no trace");
            store.recover();
            sleep(SECOND * 2 + SECOND / 2).await;
            assert_eq!(other.status().await.ticks, 2, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_wiped_ends_the_runner_and_the_next_start_is_the_only_one() {
        let cases = Quirks::ALL.map(|(name, quirks)| [(name, quirks, true), (name, quirks, false)]);
        for (name, quirks, is_noticed) in cases.into_iter().flatten() {
            let world = World::new(Host::new(quirks));
            let running = world.process().start().await.unwrap();
            sleep(SECOND * 2 + SECOND / 2).await;
            world.host.store.wipe().await.unwrap();
            let process = world.process();
            assert_eq!(process.status().await.state, State::Stopped, "{name}");
            if is_noticed {
                sleep(SECOND).await;
                assert!(running.is_finished(), "{name}: {:?}", world.lines());
            }
            process.start().await.unwrap();
            sleep(SECOND * 2).await;
            assert!(running.is_finished(), "{name}: {:?}", world.lines());
            // Both runners may have had the same term. If so, both have lost it.
            let tended = process.service().tend(process.say()).await.unwrap();
            assert!(!is_noticed || tended.is_none(), "{name}");
            tended.map(|runner| process.run(runner));
            sleep(SECOND * 2).await;
            let status = process.status().await;
            assert_eq!(status.state, State::Running, "{name}");
            let said = world.count(DID_SOMETHING);
            assert_eq!(status.ticks, said - 2, "{name}: {:?}", world.lines());
            process.stop(LONG).await;
            assert_eq!(process.status().await.state, State::Stopped, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_goes_back_to_a_cancellation_stops_the_service() {
        let world = World::new(Host::new(Quirks::Exact));
        world.process().start().await.unwrap();
        world.process().stop(LONG).await;
        let key = "event/service.cancel";
        let cancelled = world.host.store.get(key).await.unwrap().unwrap();
        let running = world.process().start().await.unwrap();
        sleep(SECOND).await;
        world.host.store.set(key, &cancelled).await.unwrap();
        sleep(SECOND).await;
        assert!(running.is_finished(), "{:?}", world.lines());
        assert_eq!(world.count(STOPPED), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bounded_number_of_keys_remains() {
        let world = World::new(Host::new(Quirks::SpinSqlite));
        for _ in 0..20 {
            let process = world.process();
            process.start().await.unwrap();
            process.stop(LONG).await;
        }
        let keys = world.host.store.keys().await.unwrap();
        // Terms, lease, one term's beats and record, two events.
        assert_eq!(keys.len(), 6, "{keys:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_is_none_of_the_services_is_reported_and_left_alone() {
        for key in [LEASE, TERMS] {
            for (_, quirks) in Quirks::ALL {
                let world = World::new(Host::new(quirks));
                world.host.store.set(key, b"12345678x").await.unwrap();
                let process = world.process();
                if key == TERMS && quirks == Quirks::SpinSqlite {
                    world.host.store.set(key, b"12345x78").await.unwrap();
                }
                let error = process.service().start(process.say()).await;
                assert_eq!(error.unwrap_err(), foreign(key));
                let left = world.host.store.get(key).await.unwrap().unwrap();
                assert!(left.starts_with(b"12345"));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_sees_every_run_also_one_that_ended_in_between() {
        let world = World::new(Host::new(Quirks::Exact));
        let process = world.process();
        let service = process.service();
        assert_eq!(service.progress(None).await.unwrap().run(), 0);
        process.start().await.unwrap();
        let first = service.progress(None).await.unwrap();
        sleep(SECOND * 2 + SECOND / 2).await;
        let later = service.progress(Some(&first)).await.unwrap();
        assert_eq!((later.run(), later.ticks()), (first.run(), 2));
        process.stop(LONG).await;
        process.start().await.unwrap();
        let next = service.progress(Some(&later)).await.unwrap();
        assert!(next.run() > first.run() && !next.is_over());
        assert_eq!(next.previous(first.run()), Some(2));
        assert_eq!(next.previous(next.run()), None);
    }
}
