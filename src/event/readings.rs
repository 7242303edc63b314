use std::time::Duration;

use super::State;

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
    pub(super) began: u64,
    /// How many reads had begun when its answer came.
    pub(super) ended: u64,
}

impl Seen {
    /// Whether this read began when the other one had its answer. Otherwise nobody knows which of them is the newer.
    pub fn began_after(&self, other: &Self) -> bool {
        self.began > other.ended
    }
}

/// The last readings of an event in this instance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readings {
    /// How many reads have begun.
    pub(super) count: u64,
    /// When the newest read was sent to the store.
    pub(super) began: Duration,
    /// Whether that read has still to come back.
    pub(super) is_under_way: bool,
    /// The states that were seen last, each once, by the newest read that saw it.
    ///
    /// With two of them, a waiter that could learn of a change from any read of this instance learns of it from these:
    /// if a read that was dropped showed it a change, both that remain are newer, and one of them is another state than
    /// the one that it began with. The others are for readings that come in another order than they were taken.
    last: [Option<Seen>; 4],
}

impl Readings {
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

    /// The newest one that `is_wanted`.
    pub(super) fn newest(&self, is_wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let seen = self.last.iter().flatten();
        seen.filter(|seen| is_wanted(seen))
            .max_by_key(|seen| seen.began)
            .copied()
    }
}
