//! [`Lease`]: of all who share a store, one holds it, and what the holders do is counted exactly, from hand to hand.
//!
//! A lease (Gray and Cheriton, 1989) is a lock that runs out when its holder is not heard of. It answers two questions that a
//! lock in a store leaves open: what if the holder dies, and what if it was only taken for dead. What makes it safe is not the
//! time but the fencing (Kleppmann, *How to do distributed locking*, 2016): each holder has a *term*, a number from a counter,
//! and a holder that was thought dead can do nothing in the term of its successor.
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
//! // Each process has this, on one store.
//! let (store, clock) = (Memory::default(), Tokio::default());
//! let lease = Lease::new(&store, &clock, "report", Duration::from_secs(5));
//! lease.prepare().await?;
//!
//! let look = lease.look().await?;
//! assert_eq!(lease.standing(&look), Standing::Free);
//! let Taken::Yes(mut holder) = lease.take(&look).await? else {
//!     return Err("somebody else was faster: look again".into());
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
//! - A *beat* is the right to act once. What [`beat`](Lease::beat) grants is counted, once, whoever dies or stalls, and wherever:
//!   [`Look::beats`] is the number of acts, but for the one of a holder that died between its beat and its act.
//! - No holder has a beat after one of a later term.
//! - A *run* outlives its holders. Who takes over from a holder that is lost goes on with its run and its count. A run ends when
//!   its holder [releases](Lease::release) it, or somebody does [in its stead](Lease::finish).
//!
//! `tests/models/lease.rs` checks them in every order of steps of two holders.
//!
//! # Protocol
//!
//! For a lease that is called `service`:
//!
//! | key | value | who writes |
//! | --- | --- | --- |
//! | `service/terms` | how many terms were given out | `increment`: whoever wants to hold it |
//! | `service/lease` | the current term, which only grows | a swap from the term that was seen: whoever wants to hold it |
//! | `service/beats/<term>` | 8 and the beats of the term, or, below 0, that they are sealed | `increment`: the term's holder. One swap, which seals it: the holder that ends, or its successor |
//! | `service/runs/<term>` | a `Record`, in JSON | the term's holder, and nobody else |
//!
//! - A beat is an `increment`, whose answer is true on every backend: if it is the number that the holder expects, the beat
//!   happened in its term. Any other answer says that the term is over. (A beat is not a swap, because Spin never frees the handle
//!   of one: an instance would be out of them after 256 beats.)
//! - Before a successor takes the lease it seals the beats of the term before, by a swap from the very number that it saw. If the
//!   holder has moved since, the swap fails, and it is alive. If not, the number of its beats is final: none is lost or counted
//!   twice. A beat that arrives later than the seal is rounded off (see `Beats`).
//! - When a holder is taken for dead, by the date in its last record, only decides when somebody tries. Clocks that differ
//!   between machines make a takeover early or late, never unsafe.
//! - What a holder has written of terms before its own is deleted by the next one: a bounded number of keys remains.
//!
//! If the store fails, a beat is asked for again until the lease would have run out. A beat that may have happened is looked up
//! before it is asked for again.
//!
//! # A counter that counts twice
//!
//! A client between the component and a remote store may ask for an `increment` again when its answer is lost, and then both
//! may be applied ([spin#3563]). In Spin 4's sources, the Redis store does not do this: its client connects again and passes the
//! error on. What was added twice, no holder takes for its own:
//! - A ticket of `service/terms` is one that nobody else has, also if one is left out before it.
//! - A term that was made twice is dropped before it holds the lease, and the next one is tried.
//! - A beat that was made twice is not granted. It costs the term, but no act: the holder seals the beats that it has had and
//!   ends, and whoever looks next takes over. Late beats of a term that was deleted are too few to look like one.
//!
//! # A store that goes back
//!
//! A store that is wiped, or restored from a backup, has another term than its holder, or another number of beats. The
//! holder learns of it at its next beat, and ends. If the store says that there is a holder, whoever looks when the lease is over
//! takes over. If it was wiped, the lease is free. Terms begin anew then: who takes it before the holder of before has had its
//! next beat may lose its first term to that, and nothing else.
//!
//! [spin#3563]: https://github.com/spinframework/spin/issues/3563

mod stored;

use std::fmt;
use std::time::Duration;

use self::stored::{Beats, Record, Stored};
use crate::clock::Calendar;
use crate::store::{self, Atomics};

/// How often a look is tried that nobody comes between.
pub(crate) const ATTEMPTS: u32 = 8;

/// How long a holder waits before it asks a store again that failed.
const RETRY: Duration = Duration::from_millis(200);

/// Why something could not be done with a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The store failed. What was asked for may have happened all the same; trying again is safe.
    Store(store::Error),
    /// Others came between at every attempt. Try again later.
    Contended,
    /// A key of the lease holds something that no holder wrote. It is left alone; somebody has to look at it.
    Foreign {
        /// The key in the store.
        key: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "The key-value store failed: {error}"),
            Self::Contended => write!(f, "Others changed the lease at each of {ATTEMPTS} attempts"),
            Self::Foreign { key } => write!(
                f,
                "The key {key:?} of the key-value store holds a value that no holder of a lease wrote"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Contended | Self::Foreign { .. } => None,
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// A holder's term is over. Why, in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(String);

impl Lost {
    /// Where others know.
    fn taken_over() -> Self {
        Self("another holder has taken over".into())
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lost {}

/// One look at a lease: what the store had of its last run.
#[derive(Clone, Debug)]
pub struct Look {
    /// When it began, by the clock of who looked.
    began: Duration,
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
    /// The run's number: the term in which it began. Numbers grow. 0 where there was no run yet.
    pub fn run(&self) -> u64 {
        self.record.run
    }

    /// The term of the run's last holder. `None` where there was none yet.
    pub fn term(&self) -> Option<u64> {
        (self.term > 0).then_some(self.term)
    }

    /// The beats of the run, in all its terms.
    pub fn beats(&self) -> u64 {
        self.record.carried + self.beats.count()
    }

    /// The date at which the run began, as the time since 1970.
    pub fn started(&self) -> Duration {
        Duration::from_millis(self.record.started_ms)
    }

    /// The date of the last sign of life of the run's last holder, as the time since 1970.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.record.heartbeat_ms)
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        matches!(self.beats, Beats::Released(_))
    }

    /// Whether the run goes on in another term than the one in which it began.
    pub fn is_resumed(&self) -> bool {
        self.record.run != self.term
    }

    /// How many beats the run `run` had, if it is the one before this one.
    pub fn previous(&self, run: u64) -> Option<u64> {
        let (previous, beats) = self.record.previous?;
        (previous == run).then_some(beats)
    }
}

/// Whether somebody holds a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody does: there was no run yet, or the last one is over.
    Free,
    /// Somebody does.
    Held,
    /// Its holder has been silent for longer than the lease, or has lost it. The run is there to be taken over.
    Lost,
}

/// Who holds a lease, in one term.
#[derive(Debug)]
pub struct Holder {
    /// Its term, with the beats so far, as the store has them.
    look: Look,
    /// When it was last known that the lease is held.
    confirmed: Duration,
}

impl Holder {
    /// The run as the holder knows it.
    pub fn look(&self) -> &Look {
        &self.look
    }
}

/// How [`Lease::take`] ended.
#[derive(Debug)]
pub enum Taken {
    /// The lease is held now.
    Yes(Holder),
    /// Others came between, or the store failed at the last step. Whoever still wants it looks again.
    No(Option<Error>),
}

/// A lease, as those see it who share a store. The [module](self) has its protocol.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a, S, C> {
    stored: Stored<'a, S>,
    clock: &'a C,
    length: Duration,
}

impl<'a, S: Atomics, C: Calendar> Lease<'a, S, C> {
    /// The lease called `name`. A holder is lost when it is silent for longer than `length`, which is the same for all who
    /// share the lease.
    pub fn new(store: &'a S, clock: &'a C, name: &'a str, length: Duration) -> Self {
        Self {
            stored: Stored { store, name },
            clock,
            length,
        }
    }

    /// Makes what the lease keeps in the store, where it is missing, and checks what is there.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Foreign`].
    pub async fn prepare(&self) -> Result<(), Error> {
        self.stored.prepare().await
    }

    /// What the store has of the lease. Three reads, or one where it was never held. Changes nothing.
    ///
    /// # Errors
    ///
    /// All of them.
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
                // Nobody deletes what belongs to the current term, but somebody did: a new term is the cure.
                _ if is_same => return Ok(nothing),
                // A successor has tidied up since.
                _ => {}
            }
        }
        Err(Error::Contended)
    }

    /// A newer look than `last`. One read of the store where the term is the same.
    ///
    /// # Errors
    ///
    /// All of them.
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

    /// Whether somebody held the lease at that look, by the date of now.
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

    /// Takes the lease as that look saw it: where it was [free](Standing::Free), for a new run, and otherwise to go on with the
    /// run.
    ///
    /// Whoever held it then is out, whether it is alive or not. If that is not meant, ask for the
    /// [`standing`](Self::standing) first.
    ///
    /// # Errors
    ///
    /// All of them. After [`Error::Store`], it may be that the lease was taken, and runs out with nobody having used it.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
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
            // This term is of no use; the next one may be.
            return Ok(Taken::No(None));
        }
        let swapped = self.stored.swap_lease(lease, term).await;
        // Whatever that answered, only the read after it counts.
        let (now, _) = self.stored.current().await?;
        if now == term {
            self.stored.tidy(term).await;
            return Ok(Taken::Yes(holder));
        }
        if now != look.term {
            // The swap can never happen any more.
            self.stored.drop_term(term).await;
        }
        Ok(Taken::No(swapped.err()))
    }

    /// Ends the run that a look saw, in the stead of its holder. Whether that is how it ended.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] and [`Error::Foreign`].
    pub async fn finish(&self, look: &Look) -> Result<bool, Error> {
        self.seal(look, Beats::Released(look.beats.count())).await
    }

    /// One beat: the right to act once. The store is asked for it until the lease would have run out.
    ///
    /// # Errors
    ///
    /// The term is over. The holder may do nothing any more.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, the beat may have been counted. The next one finds one too many then, and ends the term.
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
                // The beat that failed did not happen.
                Ok(Some(Beats::Open(beats))) if is_doubtful && beats == beats_so_far => {
                    is_doubtful = false;
                    continue;
                }
                // A successor had deleted the key: this made it anew.
                Ok(Some(Beats::Open(0))) if !is_doubtful => {
                    self.stored.drop_beats(term).await;
                    return Err(Lost::taken_over());
                }
                // Nobody else adds to them. What counts is what was granted.
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

    /// Leaves a sign of life. Without it, others will try to take over, which the beats make safe: so it may fail.
    pub async fn renew(&self, holder: &mut Holder) {
        holder.look.record.heartbeat_ms = self.date_ms();
        let Look { term, record, .. } = &holder.look;
        _ = self.stored.put(*term, record).await;
    }

    /// Ends the holder's run. The store is asked for it until the lease would have run out.
    ///
    /// # Errors
    ///
    /// The term is over, and the run goes on without this holder, or will.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, the run may be over or not. Calling it again is safe.
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

    /// What the store has of a holder's term, as the holder may seal it. `None` where it has nothing.
    async fn look_at(&self, holder: &Holder) -> Result<Option<Look>, Error> {
        let beats = self.stored.beats(holder.look.term).await?;
        Ok(beats.map(|(beats, sealable)| Look {
            beats,
            sealable,
            ..holder.look.clone()
        }))
    }

    /// Seals the beats that a look saw. Whether they are sealed like this now.
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

    /// Lost, if the lease has run out while the store failed, by the holder's own clock.
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

#[cfg(test)]
mod tests;
