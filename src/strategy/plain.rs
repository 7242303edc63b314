//! [`Plain`]: on registers, for hosts without compare-and-swap.

use crate::clock::Clock;
use crate::event::{Changed, Error, Event, Seen};
use crate::number;
use crate::state::{Generation, State, Tag};
use crate::store::Store;
use crate::strategy::{Became, Condition, Foreign, Strategy, exact};

/// Transitions by plain writes of tagged generations.
///
/// # The protocol
///
/// One value an event, under `event/<name>`: its generation and a tag of 64 random bits that no other change ever has,
/// such as `7.3f9c2b8a11d04e55`. No value is generation 0, without a tag.
///
/// - `set` reads. If the event is set, it is done. Otherwise it writes the next generation with a new tag, and is done.
///   `clear` is its mirror. There is nothing to try again, and nothing to read afterwards.
/// - `wait` reads, and returns if the event is set. Otherwise it returns when it reads another tag.
/// - `forget` deletes the value.
///
/// # What it promises
///
/// - *Setting, clearing, forgetting and looking are linearizable* if the store's `get`, `set` and `delete` are. A change
///   takes effect at its write; one that found nothing to do, at its read.
/// - *No wait misses a set or a pulse that completes while it waits*: its tag was never there before, and whoever
///   overwrites it does so with another new one. (A set that is forgotten again between two looks of a wait ends it with
///   [`Forgotten`](crate::event::Waited::Forgotten), or, if there was no value when the wait began, is not seen.)
/// - *A wait does not end without a reason*: either a set took effect while it waited, or a clear that was already under way
///   when it began. Two clears that race write two tags for one set, and the wait may begin between them. (A clear
///   that begins later has read a set that was there during the wait.)
///
/// # What it cannot promise
///
/// Two writers that race may write the same generation, and a late one a lower one. So generations order nothing here,
/// and whether a change [changed](Changed::Yes) something is a guess: the state that was read may have been
/// overwritten meanwhile. A change from one state only, and a lease, cannot be had from registers at all (Herlihy,
/// *Wait-free synchronization*, 1991: registers have the consensus number 1). They are rejected.
///
/// On a replicated store, such as that of Akamai Functions, all of this holds as far as the replica that is read has caught
/// up. A read from an older replica looks like a change.
///
/// # Hosts without compare-and-swap
///
/// *Akamai Functions* have `wasi:keyvalue/store` and `wasi:keyvalue/batch`, but "the `wasi:keyvalue/atomic` interface is not
/// supported due to requiring a different consistency guarantee than can be provided by our global store" ([Akamai], since
/// October 2025). The store has a replica near each compute region. Its operations "exhibit read-your-writes behavior within a
/// request"; what other requests read, and when, is not promised.
///
/// *Fermyon Cloud* has `wasi:keyvalue/store` only ([its FAQ]). It has one region. Its store's consistency is not documented.
///
/// [Akamai]: https://developer.fermyon.com/wasm-functions/using-key-value-store
/// [its FAQ]: https://developer.fermyon.com/cloud/faq
#[derive(Clone, Copy, Debug)]
pub struct Plain<S, T> {
    store: S,
    tags: T,
}

impl<S: Store, T: Fn() -> u64 + Send + Sync> Plain<S, T> {
    /// Events in `store`, with changes told apart by what `tags` returns: 64 bits that it has never returned before,
    /// in this instance or any other.
    ///
    /// ```
    /// use loopless::store::Memory;
    /// use loopless::strategy::Plain;
    ///
    /// let strategy = Plain::new(Memory::default(), rand::random::<u64>);
    /// ```
    pub fn new(store: S, tags: T) -> Self {
        Self { store, tags }
    }
}

impl<S: Store, T: Fn() -> u64 + Send + Sync> Strategy for Plain<S, T> {
    type Store = S;

    fn store(&self) -> &S {
        &self.store
    }

    fn parse(value: Option<&[u8]>) -> Result<State, Foreign> {
        let Some(value) = value else {
            return Ok(State::default());
        };
        let text = std::str::from_utf8(value).ok();
        let state = text.and_then(|text| text.parse::<State>().ok());
        state
            .filter(|state| matches!(state.tag, Some(Tag::Wide(_))) && state.exists())
            .ok_or_else(|| Foreign(number::read(value).map(|_| exact::NAME)))
    }

    fn became(_: State, later: State) -> Became {
        // Tags have no order: a store that goes back looks like a change, and a wiped one like events that are forgotten.
        if later.exists() {
            Became::Set
        } else {
            Became::Forgotten
        }
    }

    fn since(known: State, now: State, _: u64) -> Option<Vec<State>> {
        if known.is_version_of(now) {
            return Some(Vec::new());
        }
        // It was the other one in between, whatever that one's number was.
        let is_pulse = known.is_set() == now.is_set() && now.exists();
        let between = Generation::new(now.generation.changes().saturating_sub(1));
        let between = between.filter(|_| is_pulse).map(|generation| State {
            generation,
            ..State::default()
        });
        Some(between.into_iter().chain([now]).collect())
    }

    async fn change<C: Clock>(
        event: &Event<'_, Self, C>,
        set: bool,
        condition: Option<Condition<'_>>,
    ) -> Result<Changed, Error> {
        if condition.is_some() {
            return Err(Error::Unconditional);
        }
        let (Seen { state, .. }, _) = event.read().await?;
        if state.is_set() == set {
            return Ok(Changed::No(state));
        }
        let Self { store, tags } = event.strategy();
        let next = State {
            generation: state.generation.next(),
            tag: Some(Tag::Wide(tags())),
            is_forgotten: false,
        };
        let value = next.to_string();
        store.set(event.key(), value.as_bytes()).await?;
        Ok(Changed::Yes(next))
    }

    async fn forget<C: Clock>(event: &Event<'_, Self, C>) -> Result<bool, Error> {
        let (Seen { state, .. }, _) = event.read().await?;
        if state.exists() {
            event.strategy().store.delete(event.key()).await?;
        }
        Ok(state.exists())
    }
}
