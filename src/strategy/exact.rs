//! [`Exact`]: on compare-and-swap.

use std::time::Duration;

use crate::clock::Clock;
use crate::event::{Changed, Error, Event};
use crate::number;
use crate::state::{GENERATION_BITS, Generation, State, Tag};
use crate::store::Atomics;
use crate::strategy::{Became, Condition, Foreign, Strategy};

/// Who writes the values of this strategy, as others may say it.
pub(super) const NAME: &str = "a build with compare-and-swap";

/// How often the store is asked for a transition before it fails with [`Error::Contended`].
pub(crate) const ATTEMPTS: u32 = 8;

/// The pause after the first attempt that changed nothing. It doubles from try to try.
const BACKOFF: Duration = Duration::from_millis(2);

/// Transitions by compare-and-swap, which count every change.
///
/// # What it promises
///
/// *Every operation is linearizable* over all that use the same store, if the store's `get` and `swap` are and
/// `increment` is atomic. Spin's Azure store is not such a store: it keeps what `increment` wrote where no `get` can read it.
/// The generation counts every change and never goes back, a change may be made [from one
/// state only](Event::change_if), and a wait ends with a set if and only if there was one while it waited.
///
/// The store may also be wiped or restored: [below](#a-store-that-goes-back).
///
/// # Why a generation
///
/// - From generation g there is only one place to go, g + 1. Writers cannot disagree about where, only about who was
///   first, and nobody needs to know that: a writer that reads more than g afterwards knows that its transition
///   happened. So the answer of a compare-and-swap, which Spin's backends get wrong, is never used (Spin 4.1: with
///   Redis every swap answers that it failed).
/// - A set that is followed at once by a clear (a *pulse*) changes the generation by two. A waiter that compares
///   generations sees it; one that polls a flag does not.
///
/// # What is stored
///
/// One value an event, under `event/<name>`: a number. Its lower 40 bits are the generation, the 21 above them are the
/// change's *tag*, drawn at random. No value means generation 0, and so does the number 0. A number can be written in two
/// ways, and the value keeps the one that it was born with: decimal text, or eight little-endian bytes.
///
/// The reason is the birth of the value. On Spin's SQLite store, a compare-and-swap from *no value* is a blind write: a
/// writer that was held up between its look and its swap would set a much newer generation back to 1. The one
/// operation that creates a value atomically on every backend is `increment`, by 0. It leaves a value that exists as
/// it is, so it may arrive as late as it likes, and as often: a client below the component that asks for it again after a
/// lost answer (as in spin issue 3563) adds nothing twice. SQLite's host writes it as eight bytes (and panics if it finds a
/// value of any other length, so the length has to stay), Redis and DynamoDB as decimal text. From then on, each swap
/// starts from a value that is present, where every backend is exact.
///
/// A number below 0 is what is left of an event that was [forgotten](Event::forget): its generation, which
/// a new event of that name goes on from, so that no generation is ever used twice.
///
/// | from generation | `set` | `clear` | `forget` |
/// | --- | --- | --- | --- |
/// | g, even: clear | g + 1 | | -(g + 2) |
/// | g, odd: set | | g + 1 | -(g + 3) |
/// | -g, even: forgotten | g + 1 | | |
///
/// # A store that goes back
///
/// A store that is wiped or restored, or that fails over and loses writes, shows an older generation than before. What the
/// newest read says is what is true, whatever was read before it: a wait goes on from there, and ends with the next set.
///
/// Generations are used again then. The tags of changes tell them apart, and entity tags have both numbers: none of before
/// matches another state, unless two changes of the same generation draw the same tag, once in two million.
///
/// A store that goes back and then forward, such as one that is wiped and then restored, looks as if the changes between
/// had been made anew. A wait that saw it in between ends, and nobody can tell that there was no set.
///
/// # The steps
///
/// With forgetting there are two ways from a clear g. They stay apart: -(g + 2) can be reached from g without a set,
/// and every other number beyond g cannot. So a writer that reads more than g still knows whether its set happened, and
/// so does a waiter. Tags do not order changes, and nobody has to know whose tag it is: only one swap from g succeeds.
#[derive(Clone, Copy, Debug)]
pub struct Exact<S, T = fn() -> u64> {
    store: S,
    random: T,
}

impl<S: Atomics, T: Fn() -> u64 + Send + Sync> Exact<S, T> {
    /// Events in `store`, with tags made of the 64 random bits that `random` returns.
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
        // Another change of the same generation comes after one that was lost, and after a set.
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
        // Only of the newest is it known which change it was.
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

/// Moves the event to the state that `step` makes of the current one, and returns a later state in which that has
/// happened, or what `step` refuses with.
///
/// `has_happened` tells, of the state before and a newer one, whether the step was taken between them, by whomever.
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
        // Whatever these two answer, only the read after them counts.
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

/// The bits of a tag.
const TAG_BITS: u32 = 21;

/// The state that a stored number stands for.
pub(crate) fn state(number: i64) -> Option<State> {
    let (number, is_forgotten) = (number.unsigned_abs(), number < 0);
    let generation = Generation::new(number % (1 << GENERATION_BITS))?;
    let tag = u32::try_from(number >> GENERATION_BITS).ok()?;
    // Only what was set can be forgotten, and only what was changed has a tag. Before there were tags, it had none.
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

/// The number that stands for it in the store.
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

/// The state with a tag of these bits. Tag 0 is none.
fn tagged(state: State, random: u64) -> State {
    let bits = random % ((1 << TAG_BITS) - 1) + 1;
    State {
        tag: u32::try_from(bits).ok().map(Tag::Narrow),
        ..state
    }
}

/// The state of an event that is not forgotten, after some change.
fn live(generation: Generation) -> State {
    State {
        generation,
        ..State::default()
    }
}

/// The state after a transition, but for its tag.
pub(crate) fn changed(state: State) -> State {
    live(state.generation.next())
}

/// The state after it was forgotten, but for its tag.
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
        // What was told late had no tag.
        assert_eq!(
            Exact::<Host>::since(live(clear.generation), clear, 9),
            Some(vec![])
        );
        let later = tagged(state(6).unwrap(), 3);
        let told = vec![live(changed(clear).generation), later];
        assert_eq!(Exact::<Host>::since(clear, later, 9), Some(told));
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
