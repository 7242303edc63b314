//! The service: it runs beside the requests, does something every second, and stops when it is asked to.
//!
//! It is the long-running service of the article that this project began with. There it is a task that the server's
//! startup makes and its shutdown awaits, with an event between the two. Here nothing that could await the task lives as
//! long as it does. So exactly one *runner*, in whichever instance on whichever machine, holds a [`Lease`] in the store; the
//! two events, [`service.cancel`](Name::SERVICE_CANCEL) and [`service.stopped`](Name::SERVICE_STOPPED), are ordinary
//! named events.
//!
//! Each tick is a beat of the lease: a runner says that it did something only after the beat was granted. So the ticks that the
//! store counts are those that were said, whoever dies or stalls. A runner that dies is noticed by whoever looks when its lease
//! is over, and its run goes on. [`lease`] has the protocol, and what it says of stores that fail, count twice or go back is true of
//! the service.
//!
//! The service needs [compare-and-swap](Atomics), and a task that outlives its request (WASI 0.3): only the [build for
//! Spin](crate::promises::Build::SPIN) has it. The others answer 501.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Calendar;
use crate::event::{self, Changed, Event, Events, Name, Polling, Seen};
use crate::lease::{self, ATTEMPTS, Holder, Lease, Look, Lost, Standing, Taken};
use crate::store::Atomics;
use crate::strategy::{Exact, changed, was_set};

/// The name of its lease, with which its keys in the store begin.
const LEASE: &str = "service";

/// How often the service does something.
pub const TICK: Duration = Duration::from_secs(1);

/// The pause after the first attempt to take the lease that changed nothing. It doubles from try to try.
const BACKOFF: Duration = Duration::from_millis(5);

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

/// Why something could not be done with the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// One of its two events could not be read or changed.
    Event(event::Error),
    /// Its lease could not be looked at or changed.
    Lease(lease::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(error) => error.fmt(f),
            Self::Lease(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Event(error) => Some(error),
            Self::Lease(error) => Some(error),
        }
    }
}

impl From<event::Error> for Error {
    fn from(error: event::Error) -> Self {
        Self::Event(error)
    }
}

impl From<lease::Error> for Error {
    fn from(error: lease::Error) -> Self {
        Self::Lease(error)
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
    /// What a look at the lease says of a service that does this.
    fn of(look: &Look, state: State) -> Self {
        let has_run = look.term().is_some();
        Self {
            state,
            ticks: look.beats(),
            started: has_run.then(|| look.started()),
            runner: look.term(),
            heartbeat: has_run.then(|| look.heartbeat()),
        }
    }

    /// Whether nobody runs and nobody has to.
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }
}

/// Who runs the service. [`Service::run`] does the service's work with it.
#[derive(Debug)]
pub struct Runner {
    holder: Holder,
    /// The state of the cancellation event from which the run began: clear.
    cancel: Seen,
}

impl Runner {
    /// The service as the runner begins.
    pub fn status(&self) -> Status {
        Status::of(self.holder.look(), State::Running)
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

/// The service, over the events of an instance and the store that they are kept in.
#[derive(Debug)]
pub struct Service<'a, S, C> {
    events: &'a Events<Exact<S>, C>,
    lease: Lease<'a, S, C>,
    polling: Polling,
}

impl<'a, S: Atomics, C: Calendar> Service<'a, S, C> {
    /// The service, with runners that are lost when they are silent for longer than `lease`, and with waits that read
    /// as often as `polling` says.
    pub fn new(events: &'a Events<Exact<S>, C>, lease: Duration, polling: Polling) -> Self {
        Self {
            events,
            lease: Lease::new(events.store(), events.clock(), LEASE, lease),
            polling: Polling {
                first: polling.first.min(SLOWEST_POLL),
                last: polling.last.min(SLOWEST_POLL),
            },
        }
    }

    /// Makes what the service keeps in the store, where it is missing, and checks what is there.
    ///
    /// # Errors
    ///
    /// All but [`lease::Error::Contended`].
    pub async fn prepare(&self) -> Result<(), Error> {
        self.lease.prepare().await?;
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
        let look = self.lease.look().await?;
        let cancel = self.event(&Name::SERVICE_CANCEL).state().await?;
        Ok(self.status_of(&look, cancel))
    }

    /// Takes the lease, if nobody holds it or its holder is lost, whose run then goes on.
    ///
    /// A holder that is lost and was asked to stop is seen off first, and `say` gets the service's last line.
    ///
    /// # Errors
    ///
    /// All of them. After [`lease::Error::Store`], it may be that the lease was taken, and runs out with nobody having used
    /// it.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn start(&self, say: impl Fn(&str)) -> Result<Started, Error> {
        match self.acquire(true, say).await? {
            Some(started) => Ok(started),
            None => Err(lease::Error::Contended.into()),
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
        let first = self.lease.look().await?;
        if self.lease.standing(&first) == Standing::Free {
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

            let look = self.lease.look().await?;
            let status = self.status_of(&look, cancel);
            let is_another = look.run() != first.run();
            match self.lease.standing(&look) {
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
                return Ok(match self.lease.standing(&look) {
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
        if runner.holder.look().is_resumed() {
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
                // If the store has gone back, it is set without a set.
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
            if let Err(lost) = self.lease.beat(&mut runner.holder).await {
                return say(&last_words(&lost));
            }
            say(DID_SOMETHING);
            self.lease.renew(&mut runner.holder).await;
            // A runner that was held up does not make up for it.
            let elapsed = clock.now().saturating_sub(started).as_secs();
            ticks = u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_add(1);
        }
        if let Err(lost) = self.lease.release(&mut runner.holder).await {
            return say(&last_words(&lost));
        }
        say(STOPPED);
        // Whoever waits for it also looks at the lease: a failure here makes the stop slower.
        _ = self.event(&Name::SERVICE_STOPPED).set().await;
    }

    /// How far the service has come since `last`. One read of the store where it is the same term.
    ///
    /// # Errors
    ///
    /// All of them.
    pub async fn progress(&self, last: Option<&Look>) -> Result<Look, Error> {
        Ok(match last {
            Some(last) => self.lease.look_after(last).await?,
            None => self.lease.look().await?,
        })
    }

    fn event(&self, name: &Name) -> Event<'a, Exact<S>, C> {
        self.events.named(name).with_polling(self.polling)
    }

    fn status_of(&self, look: &Look, cancel: event::State) -> Status {
        let state = match self.lease.standing(look) {
            Standing::Free => State::Stopped,
            Standing::Lost => State::Lost,
            Standing::Held if cancel.is_set() => State::Stopping,
            Standing::Held => State::Running,
        };
        Status::of(look, state)
    }

    /// Takes the lease, if nobody holds it and it is wanted `fresh`, or if its holder is lost. `None` where nobody runs
    /// and nobody has to.
    async fn acquire(&self, fresh: bool, say: impl Fn(&str)) -> Result<Option<Started>, Error> {
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.events.clock().sleep(BACKOFF * (1 << attempt)).await;
            }
            // Before the look: what is set later than this is meant for who holds the lease after the look.
            let cancel = self.event(&Name::SERVICE_CANCEL).look().await?;
            let stopped = self.event(&Name::SERVICE_STOPPED).look().await?;
            let look = self.lease.look().await?;
            let cancel = match self.lease.standing(&look) {
                Standing::Held => {
                    return Ok(Some(Started::Already(self.status_of(&look, cancel.state))));
                }
                Standing::Lost if cancel.state.is_set() => {
                    self.finish(&look, &say).await?;
                    continue;
                }
                Standing::Lost => cancel,
                Standing::Free if !fresh => return Ok(None),
                Standing::Free => {
                    let (Some(cancel), Some(_)) = (
                        self.cleared(&Name::SERVICE_CANCEL, cancel).await?,
                        self.cleared(&Name::SERVICE_STOPPED, stopped).await?,
                    ) else {
                        continue;
                    };
                    cancel
                }
            };
            match self.lease.take(&look).await? {
                Taken::Yes(holder) => return Ok(Some(Started::Now(Runner { holder, cancel }))),
                Taken::No(error) => failure = error,
            }
        }
        Err(failure.unwrap_or(lease::Error::Contended).into())
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

    /// Stops the service in the stead of a runner that is lost. Whether that is how it ended.
    async fn finish(&self, look: &Look, say: impl Fn(&str)) -> Result<bool, Error> {
        let is_finished = self.lease.finish(look).await?;
        if is_finished {
            say(STOPPED);
            self.event(&Name::SERVICE_STOPPED).set().await?;
        }
        Ok(is_finished)
    }
}

/// What a runner says last that has lost its lease.
fn last_words(lost: &Lost) -> String {
    format!("Service lost its lease: {lost}")
}

#[cfg(test)]
mod tests;
