//! The service: it runs beside the requests, does something every second, and stops when it is asked to.
//!
//! It is the long-running service of the article that this project began with. In the article, the server's startup creates
//! a task, and the shutdown cancels it with an event and awaits it. Here, nothing that could await the task lives as long as
//! the task. So one *runner*, in any instance on any machine, holds a [`Lease`] in the store. It is stopped with the named event
//! [`service.cancel`](Name::SERVICE_CANCEL), and sets [`service.stopped`](Name::SERVICE_STOPPED) when it has stopped.
//!
//! Each tick is a beat of the lease. A runner acts only after the beat was granted, so the store's count of ticks is exact, even if
//! runners die or stall. If a runner dies, its lease expires. The next process that looks takes over, and the run continues. [`lease`]
//! describes the protocol, and what happens if the store fails, counts twice or goes back.
//!
//! The service needs [compare-and-swap](Atomics), and tasks that outlive their request (WASI 0.3). Only the builds that are
//! [`Build::SPIN`](crate::promises::Build::SPIN) have both. The others answer 501.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Calendar;
use crate::event::{self, Changed, Event, Events, Name, Polling, Seen};
use crate::lease::{self, ATTEMPTS, Holder, Lease, Look, Lost, Standing, Taken};
use crate::store::Atomics;
use crate::strategy::{Exact, changed, was_set};

/// The name of the service's lease, which is the prefix of its keys.
const LEASE: &str = "service";

/// How often the service does something.
pub const TICK: Duration = Duration::from_secs(1);

/// The pause after the first attempt to take the lease. It doubles with each attempt.
const BACKOFF: Duration = Duration::from_millis(5);

/// How often a stop checks the lease while it waits for its event.
const LOOK: Duration = Duration::from_millis(500);

/// The longest pause between two readings of the cancellation event, so that a beat is not delayed.
const SLOWEST_POLL: Duration = Duration::from_millis(250);

/// The line that the service prints when it starts.
pub const STARTED: &str = "Service started";
/// The line that the service prints every second.
pub const DID_SOMETHING: &str = "Service did something";
/// The line that the service prints when it has stopped.
pub const STOPPED: &str = "Service stopped";

/// Why an operation on the service failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// One of its two events could not be read or changed.
    Event(event::Error),
    /// Its lease could not be read or changed.
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
    /// It has never run, or has stopped.
    Stopped,
    /// It is running.
    Running,
    /// It is running, and has been asked to stop.
    Stopping,
    /// Its runner has been silent for longer than the lease.
    Lost,
}

/// The service at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// How often it did something in its current or last run.
    pub ticks: u64,
    /// When that run started, as the time since 1970. `None` if there was no run yet.
    pub started: Option<Duration>,
    /// The term of the run's last runner.
    pub runner: Option<u64>,
    /// The last beat of that runner, as the time since 1970.
    pub heartbeat: Option<Duration>,
}

impl Status {
    /// The status of a service in this state, with the numbers of its lease.
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

    /// Returns whether the service is stopped.
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }
}

/// The right to run the service, for [`Service::run`].
#[derive(Debug)]
pub struct Runner {
    holder: Holder,
    /// The cancellation event when the run began: clear.
    cancel: Seen,
}

impl Runner {
    /// Returns the status as the runner begins.
    pub fn status(&self) -> Status {
        Status::of(self.holder.look(), State::Running)
    }
}

/// How [`Service::start`] ended.
#[derive(Debug)]
pub enum Started {
    /// It was not running. Pass the runner to [`Service::run`].
    Now(Runner),
    /// It was already running.
    Already(Status),
}

/// How [`Service::stop`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It has stopped, or was not running.
    Yes(Status),
    /// It was asked to stop, and was still running at the timeout.
    TimedOut(Status),
}

/// The service, with the events of an instance and their store.
#[derive(Debug)]
pub struct Service<'a, S, C> {
    events: &'a Events<Exact<S>, C>,
    lease: Lease<'a, S, C>,
    polling: Polling,
}

impl<'a, S: Atomics, C: Calendar> Service<'a, S, C> {
    /// Returns the service. A runner is lost when it is silent for longer than `lease`, and waits read as often as `polling`
    /// says.
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

    /// Creates the keys of the service that are missing, and checks the others.
    ///
    /// # Errors
    ///
    /// Any [`Error`] except [`lease::Error::Contended`].
    pub async fn prepare(&self) -> Result<(), Error> {
        self.lease.prepare().await?;
        self.status().await?;
        self.event(&Name::SERVICE_STOPPED).state().await?;
        Ok(())
    }

    /// Returns the status. Reads the store four times.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub async fn status(&self) -> Result<Status, Error> {
        let look = self.lease.look().await?;
        let cancel = self.event(&Name::SERVICE_CANCEL).state().await?;
        Ok(self.status_of(&look, cancel))
    }

    /// Takes the lease if it is free, or if its holder is lost. In the second case, the holder's run continues, unless it was
    /// asked to stop. Then that run is ended first, and `say` gets its last line.
    ///
    /// # Errors
    ///
    /// Any [`Error`]. After [`lease::Error::Store`], the lease may have been taken. It then expires unused.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the same as after [`lease::Error::Store`].
    pub async fn start(&self, say: impl Fn(&str)) -> Result<Started, Error> {
        match self.acquire(true, say).await? {
            Some(started) => Ok(started),
            None => Err(lease::Error::Contended.into()),
        }
    }

    /// Takes over from a runner that is lost, or ends its run if it was asked to stop.
    ///
    /// Returns the new runner, if there is one, to pass to [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// The same as [`start`](Self::start), with its cancel safety.
    pub async fn tend(&self, say: impl Fn(&str)) -> Result<Option<Runner>, Error> {
        match self.acquire(false, say).await? {
            Some(Started::Now(runner)) => Ok(Some(runner)),
            Some(Started::Already(_)) | None => Ok(None),
        }
    }

    /// Asks the service to stop, and waits until it has stopped, for at most `timeout`.
    ///
    /// If the runner is lost, its run is ended at once, and `say` gets the last line.
    ///
    /// # Errors
    ///
    /// Any [`Error`]. The service may have been asked to stop nevertheless; calling this again is safe.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the same as after an error.
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
                // The runner sets the event in a moment, or died before it could.
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

    /// Does the service's work until it is asked to stop or the lease is lost. `say` gets each line.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease expires, and another runner takes over.
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
                // If the store has gone back, the event may be set without a set.
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
                // The event's key holds something else. The service continues without the event.
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
            // A runner that was delayed skips the ticks that it missed.
            let elapsed = clock.now().saturating_sub(started).as_secs();
            ticks = u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_add(1);
        }
        if let Err(lost) = self.lease.release(&mut runner.holder).await {
            return say(&last_words(&lost));
        }
        say(STOPPED);
        // A stop also checks the lease, so a failure here only makes it slower.
        _ = self.event(&Name::SERVICE_STOPPED).set().await;
    }

    /// Returns the current lease. Reads the store once if the term is still that of `last`.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
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

    /// Takes the lease if its holder is lost, or, with `fresh`, if it is free. `None` if it is free and not `fresh`.
    async fn acquire(&self, fresh: bool, say: impl Fn(&str)) -> Result<Option<Started>, Error> {
        let mut failure = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.events.clock().sleep(BACKOFF * (1 << attempt)).await;
            }
            // Read before the look: a later set is meant for the holder after the look.
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

    /// Clears an event if it is still in the state `noted`. Returns the state after that, or `None` if it has changed.
    async fn cleared(&self, name: &Name, noted: Seen) -> Result<Option<Seen>, Error> {
        let is_allowed = |state| state == noted.state;
        let event = self.event(name);
        Ok(match event.change_if(false, &is_allowed).await? {
            Changed::Refused(_) => None,
            Changed::No(_) => Some(noted),
            Changed::Yes(_) => Some(event.seen(changed(noted.state))),
        })
    }

    /// Ends the run of a runner that is lost. Returns whether it did.
    async fn finish(&self, look: &Look, say: impl Fn(&str)) -> Result<bool, Error> {
        let is_finished = self.lease.finish(look).await?;
        if is_finished {
            say(STOPPED);
            self.event(&Name::SERVICE_STOPPED).set().await?;
        }
        Ok(is_finished)
    }
}

/// The last line of a runner that has lost its lease.
fn last_words(lost: &Lost) -> String {
    format!("Service lost its lease: {lost}")
}

#[cfg(test)]
mod tests;
