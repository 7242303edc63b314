//! [`Lease`]: one of the processes that share a store holds it, and the acts of all its holders are counted exactly.
//!
//! A lease (Gray and Cheriton, 1989) is a lock that expires if its holder is silent. So it needs no release if the holder
//! dies. A holder that is only slow, and was wrongly taken for dead, is kept from acting by fencing (Kleppmann, *How to do
//! distributed locking*, 2016): each holder has a *term*, a number from a counter, and can do nothing in the term of its
//! successor. Safety depends on the terms, and not on clocks.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use loopless::clock::Tokio;
//! use loopless::lease::{Lease, Standing, Taken};
//! use loopless::store::Memory;
//!
//! // Each process does this, with the same store.
//! let (store, clock) = (Memory::default(), Tokio::default());
//! let lease = Lease::new(&store, &clock, "report", Duration::from_secs(5));
//! lease.prepare().await?;
//!
//! let look = lease.look().await?;
//! assert_eq!(lease.standing(&look), Standing::Free);
//! let Taken::Yes(mut holder) = lease.take(&look).await? else {
//!     return Err("another process was faster: look again".into());
//! };
//!
//! // The holder acts after each beat, and never without one.
//! lease.beat(&mut holder).await?;
//! println!("One page of the report is done.");
//! lease.renew(&mut holder).await;
//! lease.release(&mut holder).await?;
//!
//! let look = lease.look().await?;
//! assert_eq!((lease.standing(&look), look.beats()), (Standing::Free, 1));
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//!
//! - A *beat* is the right to act once. Each beat that [`beat`](Lease::beat) grants is counted exactly once, even if holders
//!   die or stall at any point. So [`Look::beats`] is the number of acts. The only exception is a holder that dies between
//!   its beat and its act.
//! - No holder is granted a beat after one of a later term.
//! - A *run* outlives its holders. A process that takes over from a lost holder continues its run and its count. A run ends
//!   when its holder [releases](Lease::release) it, or when another process [finishes](Lease::finish) it.
//!
//! `tests/models/lease.rs` checks these promises in every order of the steps of two holders.
//!
//! # Protocol
//!
//! A lease called `service` has these keys. A *candidate* is a process that wants to hold the lease.
//!
//! | key | value | written by |
//! | --- | --- | --- |
//! | `service/terms` | the number of terms that were given out | candidates, with `increment` |
//! | `service/lease` | the current term, which only grows | candidates, with a swap from the term that they read |
//! | `service/beats/<term>` | 8 plus the number of beats in the term; below 0 if they are sealed | the term's holder, with `increment`. The holder or its successor seals it with one swap |
//! | `service/runs/<term>` | a `Record`, in JSON | only the term's holder |
//!
//! - A beat is an `increment`, whose result is reliable on every backend. If the sum is the number that the holder expects,
//!   the beat happened in its term. With any other sum, the term is over. (A beat is not a swap, because Spin never frees the
//!   handle of a swap: an instance would run out of handles after 256 beats.)
//! - Before a successor takes the lease, it seals the beats of the previous term by a swap from the number that it read. If
//!   the holder has had a beat since, it is alive, and the swap fails. Otherwise, the number of beats is final: none is lost or
//!   counted twice. A beat that arrives after the seal is rounded off (see `Beats`).
//! - The date in a holder's last record only decides when candidates try to take over. If the clocks of machines differ, a
//!   takeover is early or late, but never unsafe.
//! - Each holder deletes the keys of earlier terms, so the number of keys is bounded.
//!
//! If the store fails, a beat is retried until the lease would have expired. Before each retry, the holder reads whether the
//! beat has happened.
//!
//! # A counter that counts twice
//!
//! A client between the component and a remote store may repeat an `increment` whose answer is lost, and the store may then
//! apply both ([spin#3563]). Spin 4's Redis store does not repeat one: its client reconnects and returns the error. A number that was
//! added twice does no harm:
//! - A number from `service/terms` is still unique, even if one before it is skipped.
//! - A term whose first beats were added twice is dropped before it holds the lease, and the candidate tries the next one.
//! - A beat that was added twice is not granted. It ends the term without an act: the holder seals the beats that it was granted,
//!   and the next candidate takes over. Late beats to a deleted term add up to too little to look like a beat.
//!
//! # A store that goes back
//!
//! A store that is wiped or restored from a backup has another term or another number of beats than the holder. The holder
//! notices at its next beat, and ends. After a restore, the lease may appear held. It then expires, and the next candidate
//! takes over. After a wipe, the lease is free and terms start again from 1. A candidate that takes it before the old holder's next
//! beat may lose its first term to that beat, and nothing else.
//!
//! [spin#3563]: https://github.com/spinframework/spin/issues/3563

mod error;
mod look;
mod stored;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::stored::{Beats, Record, Stored};
use crate::clock::Calendar;
use crate::store::Atomics;

pub use self::error::{Error, Lost};
pub use self::look::Look;

/// How often an operation is tried while others change the lease.
pub(crate) const ATTEMPTS: u32 = 8;

/// How long a holder waits before it retries after a failure of the store.
const RETRY: Duration = Duration::from_millis(200);

/// Whether a lease is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not held: there was no run yet, or the last one is over.
    Free,
    /// It is held.
    Held,
    /// Its holder has been silent for longer than the lease, or has lost it. Another process can take over the run.
    Lost,
}

/// The holder of a lease in one term.
#[derive(Debug)]
pub struct Holder {
    /// The term and its beats, as they are in the store.
    look: Look,
    /// When the store last confirmed that the lease is held.
    confirmed: Duration,
}

impl Holder {
    /// Returns the run as the holder knows it.
    pub fn look(&self) -> &Look {
        &self.look
    }
}

/// How [`Lease::take`] ended.
#[derive(Debug)]
pub enum Taken {
    /// The lease was taken.
    Yes(Holder),
    /// The lease was not taken, because others changed it or the store failed at the last step. Look again to retry.
    No(Option<Error>),
}

/// A lease in a shared store. The [module](self) describes the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a, S, C> {
    stored: Stored<'a, S>,
    clock: &'a C,
    length: Duration,
}

impl<'a, S: Atomics, C: Calendar> Lease<'a, S, C> {
    /// Returns the lease called `name`. A holder is lost when it is silent for longer than `length`, which must be the same
    /// in all processes.
    pub fn new(store: &'a S, clock: &'a C, name: &'a str, length: Duration) -> Self {
        Self {
            stored: Stored { store, name },
            clock,
            length,
        }
    }

    /// Creates the keys of the lease that are missing, and checks the others.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Foreign`].
    pub async fn prepare(&self) -> Result<(), Error> {
        self.stored.prepare().await
    }

    /// Reads the lease and its last run. Three reads of the store, or one if the lease was never held.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub async fn look(&self) -> Result<Look, Error> {
        let mut nothing = Look {
            began: self.clock.now(),
            term: 0,
            lease: None,
            beats: Beats::Released(0),
            sealable: Vec::new(),
            record: Record::default(),
        };
        for _ in 0..ATTEMPTS {
            let (term, lease) = self.stored.current().await?;
            let is_same = term == nothing.term;
            nothing = Look {
                term,
                lease,
                ..nothing
            };
            if term == 0 {
                return Ok(nothing);
            }
            let stored = (
                self.stored.beats(term).await?,
                self.stored.record(term).await?,
            );
            match stored {
                (Some((beats, sealable)), Some(record)) => {
                    return Ok(Look {
                        beats,
                        sealable,
                        record,
                        ..nothing
                    });
                }
                // No holder deletes the keys of the current term, but they are gone. A new term replaces them.
                _ if is_same => return Ok(nothing),
                // A successor has deleted the keys of this term since.
                _ => {}
            }
        }
        Err(Error::Contended)
    }

    /// Like [`look`](Self::look), but with one read if the term is still that of `last`.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub async fn look_after(&self, last: &Look) -> Result<Look, Error> {
        let is_same = match last.beats {
            Beats::Open(_) => match self.stored.beats(last.term).await? {
                Some((beats, sealable)) if !matches!(beats, Beats::Lost(_)) => {
                    return Ok(Look {
                        beats,
                        sealable,
                        ..last.clone()
                    });
                }
                _ => false,
            },
            Beats::Released(_) => self.stored.current().await?.0 == last.term,
            Beats::Lost(_) => false,
        };
        if is_same {
            return Ok(last.clone());
        }
        self.look().await
    }

    /// Returns whether the lease is held according to `look` and the current date.
    pub fn standing(&self, look: &Look) -> Standing {
        match look.beats {
            Beats::Released(_) => Standing::Free,
            Beats::Lost(_) => Standing::Lost,
            Beats::Open(_) => {
                let silent = self.date_ms().saturating_sub(look.record.heartbeat_ms);
                if Duration::from_millis(silent) > self.length {
                    Standing::Lost
                } else {
                    Standing::Held
                }
            }
        }
    }

    /// Takes the lease if it has not changed since `look`. If it was [free](Standing::Free), a new run begins. Otherwise, the
    /// last run continues.
    ///
    /// This ends the term of the previous holder, even if that is alive. Check the [`standing`](Self::standing) first to avoid
    /// that.
    ///
    /// # Errors
    ///
    /// Any [`Error`]. After [`Error::Store`], the lease may have been taken. It then expires unused.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the same as after [`Error::Store`].
    pub async fn take(&self, look: &Look) -> Result<Taken, Error> {
        let going_on = match look.beats {
            Beats::Released(_) => None,
            Beats::Open(_) | Beats::Lost(_) => {
                let beats = Beats::Lost(look.beats.count());
                if !self.seal(look, beats).await? {
                    return Ok(Taken::No(None));
                }
                Some(Record {
                    carried: look.beats(),
                    ..look.record.clone()
                })
            }
        };
        let Some(lease) = &look.lease else {
            self.stored.make_lease().await?;
            return Ok(Taken::No(None));
        };

        let term = self.stored.ticket().await?;
        let date_ms = self.date_ms();
        let mut record = going_on.unwrap_or_else(|| Record {
            run: term,
            started_ms: date_ms,
            carried: 0,
            heartbeat_ms: date_ms,
            previous: (look.term > 0).then(|| (look.run(), look.beats())),
        });
        record.heartbeat_ms = date_ms;
        let holder = Holder {
            look: Look {
                began: look.began,
                term,
                lease: None,
                beats: Beats::Open(0),
                sealable: Vec::new(),
                record,
            },
            confirmed: look.began,
        };
        if !self.stored.make_term(term, &holder.look.record).await? {
            return Ok(Taken::No(None));
        }
        let swapped = self.stored.swap_lease(lease, term).await;
        // The result of a swap is not reliable. Only the read after it is.
        let (now, _) = self.stored.current().await?;
        if now == term {
            self.stored.tidy(term).await;
            return Ok(Taken::Yes(holder));
        }
        if now != look.term {
            // The swap can no longer be applied.
            self.stored.drop_term(term).await;
        }
        Ok(Taken::No(swapped.err()))
    }

    /// Ends the run in place of its holder, if it has not changed since `look`. Returns whether it did.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Foreign`].
    pub async fn finish(&self, look: &Look) -> Result<bool, Error> {
        self.seal(look, Beats::Released(look.beats.count())).await
    }

    /// Requests a beat: the right to act once. If the store fails, retries until the lease would have expired.
    ///
    /// # Errors
    ///
    /// The term is over, and the holder must not act any more.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the beat may have been counted. If so, the next beat ends the term.
    pub async fn beat(&self, holder: &mut Holder) -> Result<(), Lost> {
        let term = holder.look.term;
        let beats_so_far = holder.look.beats.count();
        let next = Beats::Open(beats_so_far + 1);
        let mut is_doubtful = false;
        loop {
            let began = self.clock.now();
            let seen = if is_doubtful {
                let beats = self.stored.beats(term).await;
                beats.map(|beats| beats.map(|(beats, _)| beats))
            } else {
                self.stored.add_beat(term).await
            };
            let failure = match seen {
                Ok(Some(beats)) if beats == next => {
                    holder.look.beats = beats;
                    holder.confirmed = began;
                    return Ok(());
                }
                // The beat did not happen.
                Ok(Some(Beats::Open(beats))) if is_doubtful && beats == beats_so_far => {
                    is_doubtful = false;
                    continue;
                }
                // A successor had deleted the key, and this beat created it again.
                Ok(Some(Beats::Open(0))) if !is_doubtful => {
                    self.stored.drop_beats(term).await;
                    return Err(Lost::taken_over());
                }
                // Only this holder adds beats, so one was added twice. Only granted beats count.
                Ok(Some(Beats::Open(beats))) if beats > beats_so_far => {
                    if let Ok(Some(look)) = self.look_at(holder).await
                        && matches!(look.beats, Beats::Open(_))
                    {
                        _ = self.seal(&look, Beats::Lost(beats_so_far)).await;
                    }
                    return Err(Lost("the store has counted a beat twice".into()));
                }
                Ok(Some(Beats::Open(_))) => {
                    return Err(Lost("the store has gone back".into()));
                }
                Ok(_) => return Err(Lost::taken_over()),
                Err(error) => error,
            };
            is_doubtful = true;
            self.check_time(holder, failure)?;
            self.clock.sleep(RETRY).await;
        }
    }

    /// Renews the heartbeat. Errors are ignored: without a heartbeat, others try to take over, which is safe.
    pub async fn renew(&self, holder: &mut Holder) {
        holder.look.record.heartbeat_ms = self.date_ms();
        let Look { term, record, .. } = &holder.look;
        _ = self.stored.put(*term, record).await;
    }

    /// Ends the holder's run. If the store fails, retries until the lease would have expired.
    ///
    /// # Errors
    ///
    /// The term is over. Another process continues the run.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the run may or may not be over. Calling it again is safe.
    pub async fn release(&self, holder: &mut Holder) -> Result<(), Lost> {
        loop {
            let sealed = match self.look_at(holder).await {
                Ok(None) => return Err(Lost::taken_over()),
                Ok(Some(look)) => match look.beats {
                    Beats::Lost(_) => return Err(Lost::taken_over()),
                    Beats::Released(_) => return Ok(()),
                    Beats::Open(_) => self.finish(&look).await,
                },
                Err(error) => Err(error),
            };
            match sealed {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => self.check_time(holder, error)?,
            }
            self.clock.sleep(RETRY).await;
        }
    }

    /// Reads the beats of a holder's term, to seal them. `None` if they are gone.
    async fn look_at(&self, holder: &Holder) -> Result<Option<Look>, Error> {
        let beats = self.stored.beats(holder.look.term).await?;
        Ok(beats.map(|(beats, sealable)| Look {
            beats,
            sealable,
            ..holder.look.clone()
        }))
    }

    /// Seals the beats, if they have not changed since `look`. Returns whether they are sealed as `to` afterwards.
    async fn seal(&self, look: &Look, to: Beats) -> Result<bool, Error> {
        if look.beats == to {
            return Ok(true);
        }
        let asked = self.stored.seal(look.term, &look.sealable, to).await;
        match self.stored.beats(look.term).await? {
            Some((beats, _)) if beats == to => Ok(true),
            Some((beats, _)) if beats == look.beats => asked.map(|()| false),
            _ => Ok(false),
        }
    }

    /// Fails if the lease has expired, by the holder's own clock, while the store failed.
    fn check_time(&self, holder: &Holder, failure: Error) -> Result<(), Lost> {
        let silent = self.clock.now().saturating_sub(holder.confirmed);
        if silent >= self.length {
            return Err(Lost(format!("{failure}.")));
        }
        Ok(())
    }

    fn date_ms(&self) -> u64 {
        let date = self.clock.date().as_millis();
        u64::try_from(date).unwrap_or(u64::MAX)
    }
}
