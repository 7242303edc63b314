use std::time::Duration;

use super::State;

/// What one read of the store returned, and its place among the reads of the event in this instance.
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
    pub(super) began: u64,
    /// How many reads had begun when the store answered.
    pub(super) ended: u64,
}

impl Seen {
    /// Whether this read began after the other one ended. Otherwise it is unknown which of them is newer.
    pub fn began_after(&self, other: &Self) -> bool {
        self.began > other.ended
    }
}

/// The last readings of an event in this instance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readings {
    /// How many reads have begun.
    pub(super) count: u64,
    /// When the newest read began.
    pub(super) began: Duration,
    /// Whether the newest read has not ended yet.
    pub(super) is_under_way: bool,
    /// The last states, each once, with the newest read that returned it.
    ///
    /// Two are enough for a waiter to learn of any change that some read of this instance showed: if that read's place
    /// was taken, both that remain are newer, and at least one of them differs from the waiter's first state. The other
    /// two are for reads that end in another order than they began.
    last: [Option<Seen>; 4],
}

impl Readings {
    /// Notes that a read begins now. Returns its number.
    pub(super) fn begin(&mut self, now: Duration) -> u64 {
        self.began = now;
        self.is_under_way = true;
        self.count += 1;
        self.count
    }

    pub(super) fn add(&mut self, seen: Seen) {
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

    /// The newest reading that `is_wanted`.
    pub(super) fn newest(&self, is_wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let seen = self.last.iter().flatten();
        seen.filter(|seen| is_wanted(seen))
            .max_by_key(|seen| seen.began)
            .copied()
    }
}
