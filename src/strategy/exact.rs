//! [`Exact`]: events on compare-and-swap.

use std::time::Duration;

use crate::clock::Clock;
use crate::event::{Changed, Error, Event};
use crate::number;
use crate::state::{GENERATION_BITS, Generation, State, Tag};
use crate::store::Atomics;
use crate::strategy::{Became, Condition, Foreign, Strategy};

/// Who writes the values of this strategy, for error messages.
pub(super) const NAME: &str = "a build with compare-and-swap";

/// How often a change is tried before it fails with [`Error::Contended`].
pub(crate) const ATTEMPTS: u32 = 8;

/// The pause after the first attempt that changed nothing. It doubles with each attempt.
const BACKOFF: Duration = Duration::from_millis(2);

/// Changes events by compare-and-swap, and counts every change.
///
/// # Promises
///
/// - Every operation is linearizable across everything that uses the same store, if the store's `get` and `swap` are
///   linearizable and `increment` is atomic. (Spin's Azure store does not qualify: `get` cannot read what `increment` wrote.)
/// - The generation counts every change and never goes back, unless [the store does](#a-store-that-goes-back).
/// - A change may be made [from certain states only](Event::change_if).
/// - A wait returns [`Set`](crate::event::Waited::Set) if and only if the event was set at some time during the wait.
///
/// # Why a generation
///
/// - From generation g, the only possible transition is to g + 1, whoever makes it. A writer that reads more than g
///   afterwards knows that its transition happened, and need not know whose swap made it. So the result of a
///   compare-and-swap is never used: Spin's backends get it wrong (Spin 4.1 with Redis reports every swap as failed).
/// - A *pulse*, a set that is followed at once by a clear, increases the generation by two. A waiter that compares
///   generations sees it. One that polls a flag does not.
///
/// # What is stored
///
/// Each event is one number, under `event/<name>`. The lower 40 bits are the generation. The 21 bits above them are the
/// *tag* of the change, drawn at random. The number 0 and no value both mean generation 0. A number is stored either as
/// decimal text or as eight little-endian bytes, and keeps the form in which it was created.
///
/// The value is created by an `increment` by 0, the only operation that creates a value atomically on every backend. (On
/// Spin's SQLite store, a compare-and-swap from *no value* is a blind write: a writer that is delayed between its read and
/// its swap would set a much newer generation back to 1.) It does not change a value that exists, so it may arrive late
/// or more than once, for example if a client below the component repeats it after a lost answer (spin issue 3563).
/// Spin's SQLite host creates eight bytes, and panics if it finds another length; Redis and DynamoDB create decimal
/// text. After that, each swap starts from an existing value, where every backend is exact.
///
/// A number below 0 remains of an event that was [forgotten](Event::forget). It holds the generation from which a new event
/// of that name continues, so that no generation is used twice.
///
/// | from generation | `set` | `clear` | `forget` |
/// | --- | --- | --- | --- |
/// | g, even: clear | g + 1 | | -(g + 2) |
/// | g, odd: set | | g + 1 | -(g + 3) |
/// | -g, even: forgotten | g + 1 | | |
///
/// # A store that goes back
///
/// A store that is wiped or restored, or that loses writes in a failover, shows an older generation than before. The newest
/// read is always believed: a wait continues from there, and ends with the next set.
///
/// Generations are then used again, and the tags of changes distinguish them. An entity tag has both numbers. An old one
/// matches a new state only if two changes of the same generation draw the same tag, which happens once in two million.
///
/// A store that goes back and then forward, such as one that is wiped and then restored, looks as if the changes were
/// made again. A wait that read it in between ends, although there was no set.
///
/// # Why forgetting is safe
///
/// There are two transitions from a clear g: a set, and a forget to -(g + 2). Of all numbers beyond g, -(g + 2) is the
/// only one that is reached without a set. So a writer or a waiter that reads more than g still knows whether there was
/// a set. Tags do not order changes, and it does not matter whose tag is stored: only one swap from g succeeds.
#[derive(Clone, Copy, Debug)]
pub struct Exact<S, T = fn() -> u64> {
    store: S,
    random: T,
}

impl<S: Atomics, T: Fn() -> u64 + Send + Sync> Exact<S, T> {
    /// Events in `store`, with tags made from the 64 random bits that `random` returns.
    ///
    /// ```
    /// use loopless::store::Memory;
    /// use loopless::strategy::Exact;
    ///
    /// let strategy = Exact::new(Memory::default(), rand::random::<u64>);
    /// ```
    pub fn new(store: S, random: T) -> Self {
        Self { store, random }
    }
}

impl<S: Atomics, T: Fn() -> u64 + Send + Sync> Strategy for Exact<S, T> {
    type Store = S;

    fn store(&self) -> &S {
        &self.store
    }

    fn parse(value: Option<&[u8]>) -> Result<State, Foreign> {
        let Some(value) = value else {
            return Ok(State::default());
        };
        number::read(value).and_then(state).ok_or_else(|| {
            let text = std::str::from_utf8(value).ok();
            let plain = text.and_then(|text| text.parse::<State>().ok());
            Foreign(plain.map(|_| "a build without compare-and-swap"))
        })
    }

    fn became(start: State, later: State) -> Became {
        // Another tag in the same generation: the store lost the earlier change, and there was a set since.
        let is_another = later.generation == start.generation && later.tag != start.tag;
        if later.generation < start.generation {
            Became::Older
        } else if is_another || was_set(start, later) {
            Became::Set
        } else {
            Became::Forgotten
        }
    }

    fn since(known: State, now: State, most: u64) -> Option<Vec<State>> {
        let is_lost =
            known.generation == now.generation && known.tag.is_some() && known.tag != now.tag;
        if known.generation > now.generation || is_lost {
            return None;
        }
        if now.is_forgotten {
            let is_news = known.generation < now.generation;
            return Some(Vec::from_iter(is_news.then_some(now)));
        }
        let newest = now.generation.changes();
        let first = (known.generation.changes() + 1).max((newest + 1).saturating_sub(most));
        // Only the newest one's tag is known.
        let state = |changes| match changes == newest {
            true => Some(now),
            false => Generation::new(changes).map(live),
        };
        Some((first..=newest).filter_map(state).collect())
    }

    async fn change<C: Clock>(
        event: &Event<'_, Self, C>,
        set: bool,
        condition: Option<Condition<'_>>,
    ) -> Result<Changed, Error> {
        let step = |state: State| {
            if condition.is_some_and(|is_allowed| !is_allowed(state)) {
                Err(Changed::Refused(state))
            } else if state.is_set() == set {
                Err(Changed::No(state))
            } else {
                Ok(changed(state))
            }
        };
        let has_happened = |before, after| !set || was_set(before, after);
        let result = advance(event, step, has_happened).await?;
        Ok(result.map_or_else(|unchanged| unchanged, Changed::Yes))
    }

    async fn forget<C: Clock>(event: &Event<'_, Self, C>) -> Result<bool, Error> {
        let step = |state: State| state.exists().then(|| forgotten(state)).ok_or(());
        let result = advance(event, step, |_, after| after.is_forgotten).await?;
        Ok(result.is_ok())
    }
}

/// Moves the event from its current state to the one that `step` returns, and returns a state from after that, or the
/// error of `step`.
///
/// `has_happened` returns whether the step was taken, by anyone, between a state and a newer one.
async fn advance<S: Atomics, T: Fn() -> u64 + Send + Sync, C: Clock, R>(
    event: &Event<'_, Exact<S, T>, C>,
    step: impl Fn(State) -> Result<State, R>,
    has_happened: impl Fn(State, State) -> bool,
) -> Result<Result<State, R>, Error> {
    let Exact { store, random } = event.strategy();
    let (mut seen, mut value) = event.read().await?;
    let mut failure = None;
    let mut pause = BACKOFF;
    for _ in 0..ATTEMPTS {
        let from = seen.state;
        let to = match step(from) {
            Ok(to) => to,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // The results of these two are not reliable. Only the read after them is.
        let asked = match &value {
            None => store.increment(event.key(), 0).await.map(drop),
            Some(old) => {
                let new = number::write(Some(old), number(tagged(to, random())));
                store.swap(event.key(), old, &new).await
            }
        };
        if let Err(error) = &asked
            && error.is_silent()
        {
            return Err(error.clone().into());
        }
        match event.read().await {
            Ok(after) if after.0.state.generation > from.generation => {
                if has_happened(from, after.0.state) {
                    return Ok(Ok(after.0.state));
                }
                (seen, value) = after;
                failure = None;
            }
            Ok(born) if value.is_none() && born.1.is_some() => {
                (seen, value) = born;
                continue;
            }
            Ok(after) => {
                (seen, value) = after;
                failure = asked.err();
            }
            Err(Error::Store(error)) if !error.is_silent() => failure = Some(error),
            Err(error) => return Err(error),
        }
        event.clock().sleep(pause).await;
        pause *= 2;
    }
    Err(failure.map_or(Error::Contended, Error::Store))
}

/// Whether the event was set between `clear`, an earlier state, and `later`.
pub(crate) fn was_set(clear: State, later: State) -> bool {
    let is_only_forgotten = later.is_forgotten && later.generation == forgotten(clear).generation;
    later.generation > clear.generation && !is_only_forgotten
}

/// The number of bits of a tag.
const TAG_BITS: u32 = 21;

/// Reads the state from a stored number.
pub(crate) fn state(number: i64) -> Option<State> {
    let (number, is_forgotten) = (number.unsigned_abs(), number < 0);
    let generation = Generation::new(number % (1 << GENERATION_BITS))?;
    let tag = u32::try_from(number >> GENERATION_BITS).ok()?;
    // Only a changed event has a tag, and a forgotten one is in an even generation. Values of old versions have no tags.
    let is_state = match generation.changes() {
        0 => tag == 0,
        _ => tag >> TAG_BITS == 0 && !(is_forgotten && generation.is_set()),
    };
    is_state.then_some(State {
        generation,
        tag: (tag > 0).then_some(Tag::Narrow(tag)),
        is_forgotten,
    })
}

/// The number that is stored for a state.
fn number(state: State) -> i64 {
    let tag = match state.tag {
        Some(Tag::Narrow(bits)) => i64::from(bits) << GENERATION_BITS,
        _ => 0,
    };
    let changes = i64::try_from(state.generation.changes()).unwrap_or(i64::MAX);
    if state.is_forgotten {
        -(tag + changes)
    } else {
        tag + changes
    }
}

/// The state with a tag from these bits. Tag 0 means none.
fn tagged(state: State, random: u64) -> State {
    let bits = random % ((1 << TAG_BITS) - 1) + 1;
    State {
        tag: u32::try_from(bits).ok().map(Tag::Narrow),
        ..state
    }
}

/// A state that is not forgotten, without a tag.
fn live(generation: Generation) -> State {
    State {
        generation,
        ..State::default()
    }
}

/// The state after a set or a clear, without its tag.
pub(crate) fn changed(state: State) -> State {
    live(state.generation.next())
}

/// The state after a forget, without its tag.
fn forgotten(state: State) -> State {
    let next = state.generation.next().next();
    State {
        is_forgotten: true,
        ..live(if next.is_set() { next.next() } else { next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::host::Host;

    #[test]
    fn every_step_leads_to_a_number_that_was_never_there() {
        for number in 0..9 {
            let state = state(number).unwrap();
            assert_eq!(super::number(state), number);
            assert_eq!(super::number(changed(state)), number + 1);
            let forgotten = forgotten(state);
            assert!(forgotten.generation > changed(state).generation);
            assert!(!forgotten.is_set() && !forgotten.exists());
            assert_eq!(super::state(super::number(forgotten)), Some(forgotten));
            assert!(changed(forgotten).is_set());
        }
        let tag = 1 << GENERATION_BITS;
        let beyond = tag << TAG_BITS;
        for number in [-1, -3, tag, -tag, -tag - 1, beyond + 1, i64::MIN, i64::MAX] {
            assert_eq!(state(number), None, "{number}");
        }
    }

    #[test]
    fn whatever_its_tag_a_state_is_one_number_that_can_be_read() {
        for random in [0, 1, u64::MAX] {
            let mut state = State::default();
            for next in [changed as fn(State) -> State, forgotten, changed, changed] {
                state = tagged(next(state), random);
                assert!(state.tag.is_some());
                assert_eq!(super::state(number(state)), Some(state));
                let value = number::write(None, number(state));
                assert_eq!(number::read(&value), Some(number(state)));
            }
        }
    }

    #[test]
    fn another_change_of_the_same_generation_is_news() {
        let clear = tagged(state(4).unwrap(), 1);
        let another = tagged(clear, 2);
        assert_eq!(Exact::<Host>::became(clear, another), Became::Set);
        assert_eq!(Exact::<Host>::since(clear, another, 9), None);
        assert_eq!(Exact::<Host>::since(clear, clear, 9), Some(vec![]));
        // A change that a stream reported late has no tag.
        assert_eq!(
            Exact::<Host>::since(live(clear.generation), clear, 9),
            Some(vec![])
        );
        let later = tagged(state(6).unwrap(), 3);
        let changes = vec![live(changed(clear).generation), later];
        assert_eq!(Exact::<Host>::since(clear, later, 9), Some(changes));
        assert_eq!(Exact::<Host>::became(later, clear), Became::Older);
        assert_eq!(Exact::<Host>::since(later, clear, 9), None);
    }

    #[test]
    fn forgetting_a_clear_event_is_no_set_and_all_else_beyond_it_is_after_one() {
        let clear = state(4).unwrap();
        for (number, was_set) in [
            (4, false),
            (-6, false),
            (5, true),
            (6, true),
            (-8, true),
            (7, true),
        ] {
            let later = state(number).unwrap();
            assert_eq!(super::was_set(clear, later), was_set, "{number}");
        }
    }
}
