//! What an event really was, as the store's history tells it.

use std::time::Duration;

use loopless_host::simulation::{Database, Moment};

/// The number under an event's key. At least 0: its generation. Below: it was forgotten in the generation without
/// the sign. Written down anew here, so that a mistake in the component is not made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub i64);

impl State {
    fn of(value: Option<&[u8]>) -> Option<Self> {
        let Some(value) = value else {
            return Some(Self(0));
        };
        let text = std::str::from_utf8(value).ok();
        let number = text.and_then(|text| text.parse().ok());
        number
            .or_else(|| Some(i64::from_le_bytes(value.try_into().ok()?)))
            .map(Self)
    }

    pub fn generation(self) -> u64 {
        self.0.unsigned_abs()
    }

    pub fn is_set(self) -> bool {
        self.0 > 0 && self.0 % 2 == 1
    }

    pub fn is_forgotten(self) -> bool {
        self.0 < 0
    }

    pub fn exists(self) -> bool {
        self.0 > 0
    }

    /// The state after a set or a clear that changes something.
    pub fn changed(self) -> Self {
        Self(self.0.abs() + 1)
    }

    /// The state after it was forgotten.
    pub fn forgotten(self) -> Self {
        Self(-(self.0 + 2 + self.0 % 2))
    }
}

/// An event's history.
pub struct Truth {
    /// The first state, from before all time, and each change.
    states: Vec<(Option<Moment>, State)>,
}

impl Truth {
    /// Reads it from the store.
    ///
    /// # Errors
    ///
    /// Where the key was given something that no event may write.
    pub fn read(database: &Database, key: &str) -> Result<Self, String> {
        let mut last = State(0);
        let mut states = vec![(None, last)];
        for (moment, value) in database.history(key) {
            let state = State::of(value.as_deref())
                .filter(|_| value.is_some())
                .ok_or_else(|| format!("{key} was given {value:?} at {:?}", moment.at))?;
            let is_birth = state == State(0) && states.len() == 1;
            let is_step = state == last.changed() || (last.exists() && state == last.forgotten());
            if !is_birth && !is_step {
                return Err(format!(
                    "{key} went from {} to {} at {:.3} s",
                    last.0,
                    state.0,
                    moment.at.as_secs_f64()
                ));
            }
            states.push((Some(moment), state));
            last = state;
        }
        Ok(Self { states })
    }

    /// The states that the event had between two moments, for who may see it up to `lag` late.
    pub fn between(&self, from: Moment, to: Moment, lag: Duration) -> impl Iterator<Item = State> {
        let is_over = move |until: &Moment| {
            if lag.is_zero() {
                until.order < from.order
            } else {
                until.at + lag < from.at
            }
        };
        self.states
            .iter()
            .enumerate()
            .filter(move |(index, (since, _))| {
                let until = self.states.get(index + 1).and_then(|(until, _)| *until);
                since.is_none_or(|since| since.order < to.order)
                    && !until.as_ref().is_some_and(is_over)
            })
            .map(|(_, (_, state))| *state)
    }

    /// The changes, when they were. That the value was created is none.
    pub fn changes(&self) -> impl Iterator<Item = (Moment, State)> {
        self.states
            .iter()
            .filter_map(|(moment, state)| Some(((*moment)?, *state)))
            .filter(|(_, state)| *state != State(0))
    }

    /// The state at a time, all of what happened at that instant included.
    pub fn at(&self, time: Duration) -> State {
        let past =
            |(moment, _): &&(Option<Moment>, State)| moment.is_none_or(|moment| moment.at <= time);
        let last = self.states.iter().take_while(past).last();
        last.map_or(State(0), |(_, state)| *state)
    }
}
