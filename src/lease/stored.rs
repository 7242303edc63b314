//! The keys of a lease in the store, and their values: [`Beats`] and [`Record`]s.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::number;
use crate::store::Atomics;

/// What a holder publishes under the key of its term. Only the holder writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The term in which the run began: this one, or an earlier one if the holder has taken over.
    pub(super) run: u64,
    /// When the run began, in milliseconds since 1970.
    pub(super) started_ms: u64,
    /// The number of beats in the run's earlier terms.
    pub(super) carried: u64,
    /// When the holder last had a beat, in milliseconds since 1970.
    pub(super) heartbeat_ms: u64,
    /// The previous run, and how many beats it had.
    pub(super) previous: Option<(u64, u64)>,
}

/// The beats of a term.
///
/// Sealed beats are a multiple of [`Beats::STEP`] below 0. A holder that does not yet know that its term is over may
/// still add one beat, or a few if answers are lost. These are rounded off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beats {
    /// The term's holder may add more.
    Open(u64),
    /// The holder was taken for dead. The run continues in another term.
    Lost(u64),
    /// The run is over.
    Released(u64),
}

impl Beats {
    const STEP: u64 = 64;

    /// The number that a term starts from. A late beat creates the key of a deleted term again. It then holds a lower
    /// number than this, even if the beat is added twice, and no such number is a beat.
    const BIRTH: i64 = 8;

    /// The beats that a stored number stands for.
    pub(super) fn of(number: i64) -> Option<Self> {
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
    pub(super) fn number(self) -> i64 {
        let (sign, number) = match self {
            Self::Open(beats) => (1, beats + Self::BIRTH.unsigned_abs()),
            Self::Lost(beats) => (-1, ((beats + 1) * 2 + 1) * Self::STEP),
            Self::Released(beats) => (-1, (beats + 1) * 2 * Self::STEP),
        };
        // Each beat is a call of the store, so the number stays far below the maximum.
        sign * i64::try_from(number).unwrap_or(i64::MAX)
    }

    pub(super) fn count(self) -> u64 {
        match self {
            Self::Open(beats) | Self::Lost(beats) | Self::Released(beats) => beats,
        }
    }
}

/// The keys of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a, S> {
    pub(super) store: &'a S,
    pub(super) name: &'a str,
}

impl<S: Atomics> Stored<'_, S> {
    /// Creates the keys that are missing for the first term, and checks the others.
    pub(super) async fn prepare(&self) -> Result<(), Error> {
        for key in [self.lease_key(), self.terms_key()] {
            // Read first, because `increment` may trap if the value is not a number.
            match self.store.get(&key).await? {
                None => drop(self.store.increment(&key, 0).await?),
                Some(value) if number::read(&value).is_none() => return Err(foreign(key)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Creates the value that holds the current term, if it is missing.
    pub(super) async fn make_lease(&self) -> Result<(), Error> {
        self.store.increment(&self.lease_key(), 0).await?;
        Ok(())
    }

    /// The current term, and the value that holds it.
    pub(super) async fn current(&self) -> Result<(u64, Option<Vec<u8>>), Error> {
        let key = self.lease_key();
        let value = self.store.get(&key).await?;
        let term = value.as_deref().map_or(Some(0), number::read);
        match term.and_then(|term| u64::try_from(term).ok()) {
            Some(term) => Ok((term, value)),
            None => Err(foreign(key)),
        }
    }

    /// The beats of a term, and the value that holds them.
    pub(super) async fn beats(&self, term: u64) -> Result<Option<(Beats, Vec<u8>)>, Error> {
        let key = self.beats_key(term);
        let Some(value) = self.store.get(&key).await? else {
            return Ok(None);
        };
        match number::read(&value).and_then(Beats::of) {
            Some(beats) => Ok(Some((beats, value))),
            None => Err(foreign(key)),
        }
    }

    /// What a term's holder has published.
    pub(super) async fn record(&self, term: u64) -> Result<Option<Record>, Error> {
        let key = self.record_key(term);
        let Some(value) = self.store.get(&key).await? else {
            return Ok(None);
        };
        match serde_json::from_slice(&value) {
            Ok(record) => Ok(Some(record)),
            Err(_) => Err(foreign(key)),
        }
    }

    /// Adds one beat, and returns the new count.
    pub(super) async fn add_beat(&self, term: u64) -> Result<Option<Beats>, Error> {
        let sum = self.store.increment(&self.beats_key(term), 1).await?;
        Ok(Beats::of(sum))
    }

    /// Seals the beats, if this is their value. Only a read tells whether that worked.
    pub(super) async fn seal(&self, term: u64, beats: &[u8], to: Beats) -> Result<(), Error> {
        let sealed = number::write(Some(beats), to.number());
        Ok(self
            .store
            .swap(&self.beats_key(term), beats, &sealed)
            .await?)
    }

    /// Moves the lease to this term, if this is its value. Only a read tells whether that worked.
    pub(super) async fn swap_lease(&self, lease: &[u8], term: u64) -> Result<(), Error> {
        let term = i64::try_from(term).map_err(|_| foreign(self.terms_key()))?;
        let new = number::write(Some(lease), term);
        Ok(self.store.swap(&self.lease_key(), lease, &new).await?)
    }

    /// Draws a unique term.
    pub(super) async fn ticket(&self) -> Result<u64, Error> {
        let key = self.terms_key();
        // Read first, because `increment` may trap if the value is not a number.
        let value = self.store.get(&key).await?;
        if value.is_some_and(|value| number::read(&value).is_none()) {
            return Err(foreign(key));
        }
        let term = self.store.increment(&key, 1).await?;
        let term = u64::try_from(term).ok();
        term.filter(|term| *term > 0).ok_or_else(|| foreign(key))
    }

    /// Creates a term with this record. Returns whether it can be used.
    pub(super) async fn make_term(&self, term: u64, record: &Record) -> Result<bool, Error> {
        self.put(term, record).await?;
        let key = self.beats_key(term);
        let is_born = self.store.increment(&key, Beats::BIRTH).await? == Beats::BIRTH;
        if !is_born {
            // The `increment` was applied twice on its way to the store.
            self.drop_term(term).await;
        }
        Ok(is_born)
    }

    /// Writes the record of a term's holder.
    pub(super) async fn put(&self, term: u64, record: &Record) -> Result<(), Error> {
        // A record has only numbers, so serializing it cannot fail.
        let record = serde_json::to_vec(record).unwrap_or_default();
        Ok(self.store.set(&self.record_key(term), &record).await?)
    }

    /// Deletes the keys of a term that never holds the lease.
    pub(super) async fn drop_term(&self, term: u64) {
        _ = self.store.delete(&self.record_key(term)).await;
        self.drop_beats(term).await;
    }

    /// Deletes the beats of a term.
    pub(super) async fn drop_beats(&self, term: u64) {
        _ = self.store.delete(&self.beats_key(term)).await;
    }

    /// Deletes the keys of earlier terms. If that fails, the next holder does it.
    pub(super) async fn tidy(&self, term: u64) {
        let places = [
            format!("{}/beats/", self.name),
            format!("{}/runs/", self.name),
        ];
        let keys = self.store.keys().await.unwrap_or_default();
        for key in keys {
            let suffix = places.iter().find_map(|place| key.strip_prefix(place));
            let old = suffix.and_then(|suffix| suffix.parse::<u64>().ok());
            if old.is_some_and(|old| old < term) {
                _ = self.store.delete(&key).await;
            }
        }
    }

    fn terms_key(&self) -> String {
        format!("{}/terms", self.name)
    }

    fn lease_key(&self) -> String {
        format!("{}/lease", self.name)
    }

    fn beats_key(&self, term: u64) -> String {
        format!("{}/beats/{term}", self.name)
    }

    fn record_key(&self, term: u64) -> String {
        format!("{}/runs/{term}", self.name)
    }
}

fn foreign(key: String) -> Error {
    Error::Foreign { key }
}
