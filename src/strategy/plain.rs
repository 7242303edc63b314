//! [`Plain`]: events on registers, for hosts without compare-and-swap.

use crate::clock::Clock;
use crate::event::{Changed, Error, Event, Seen};
use crate::number;
use crate::state::{Generation, State, Tag};
use crate::store::Store;
use crate::strategy::{Became, Condition, Foreign, Strategy, exact};

/// Changes events by plain writes of tagged generations.
///
/// # Protocol
///
/// Each event is one value, under `event/<name>`: its generation and a tag of 64 random bits that no other change has, such
/// as `7.3f9c2b8a11d04e55`. No value means generation 0 without a tag.
///
/// - `set` reads the value. If the event is not set, it writes the next generation with a new tag. `clear` is its mirror.
///   Nothing is retried, and nothing is read afterwards.
/// - `wait` reads the value, and returns if the event is set. Otherwise it returns when it reads another tag.
/// - `forget` deletes the value.
///
/// # Promises
///
/// - *Setting, clearing, forgetting and reading are linearizable* if the store's `get`, `set` and `delete` are. A change
///   takes effect at its write, or, if the event was in the requested state already, at its read.
/// - *No wait misses a set or a pulse that completes while it waits*: the change has a new tag, and every later change
///   has another new one. (If a set is forgotten between two reads of a wait, the wait ends with
///   [`Forgotten`](crate::event::Waited::Forgotten). If there was no value when the wait began, it does not see that set.)
/// - *A wait returns [`Set`](crate::event::Waited::Set) only if* a set took effect during the wait, or a clear that was already
///   under way when the wait began. Two concurrent clears write two tags for one set, and the wait may begin between them. (A
///   clear that begins after the wait has read a set that was there during the wait.)
///
/// # Limits
///
/// Concurrent writers may write the same generation, and a delayed one may write a lower one. So generations do not order
/// changes, and whether a change [changed](Changed::Yes) something is a guess, because the state that it read may have been
/// overwritten meanwhile. Conditional changes and leases are impossible on registers (Herlihy, *Wait-free synchronization*,
/// 1991: registers have the consensus number 1), so they are rejected.
///
/// On a replicated store, such as that of Akamai Functions, all this holds as far as the replica that is read has caught up.
/// A read from an older replica looks like a change.
///
/// # Hosts without compare-and-swap
///
/// *Akamai Functions* has `wasi:keyvalue/store` and `wasi:keyvalue/batch`, but "the `wasi:keyvalue/atomic` interface is not
/// supported due to requiring a different consistency guarantee than can be provided by our global store" ([Akamai], since
/// October 2025). The store has a replica near each compute region. Its operations "exhibit read-your-writes behavior within a
/// request". What other requests read, and when, is not promised.
///
/// *Fermyon Cloud* has only `wasi:keyvalue/store` ([its FAQ]), and one region. The consistency of its store is not documented.
///
/// [Akamai]: https://developer.fermyon.com/wasm-functions/using-key-value-store
/// [its FAQ]: https://developer.fermyon.com/cloud/faq
#[derive(Clone, Copy, Debug)]
pub struct Plain<S, T> {
    store: S,
    tags: T,
}

impl<S: Store, T: Fn() -> u64 + Send + Sync> Plain<S, T> {
    /// Events in `store`, with tags from `tags`, which returns 64 bits that it has never returned before in any instance.
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
        // Tags have no order. So a store that goes back looks like a change, and a wiped one like a forget.
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
        // The event was in the other state in between, whatever its generation was.
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
