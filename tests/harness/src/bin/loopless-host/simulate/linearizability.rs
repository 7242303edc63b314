//! Whether there is an order of the operations on an event, each at one moment between its call and its return, in
//! which an event that one process keeps for itself would have answered the same.
//!
//! The search is the algorithm of Wing and Gong with Lowe's extensions, from `todc-utils`.

use std::fmt::Debug;

use loopless_host::simulation::Moment;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action as Step, History};
use todc_utils::specifications::Specification;

use super::clients::Action;
use super::promises::Seen;
use super::truth::{State, Version};

/// What an operation does to an event that counts its changes, or saw of it.
#[derive(Clone, Debug)]
enum Operation {
    Set,
    Clear,
    Forget,
    Saw(Version),
}

struct Event;

impl Specification for Event {
    type State = State;
    type Operation = Operation;

    fn init() -> State {
        State::default()
    }

    fn apply(operation: &Operation, state: &State) -> (bool, State) {
        let next = match operation {
            // Which tag a change has is seen in the store, and not here.
            Operation::Saw(version) => {
                let is_it = state.version.generation == version.generation;
                return (is_it, *state);
            }
            Operation::Set if !state.is_set() => state.changed(),
            Operation::Clear if state.is_set() => state.changed(),
            Operation::Forget if state.exists() => state.forgotten(),
            _ => *state,
        };
        (true, next)
    }
}

/// What an operation did to an event whose changes are plain writes, or saw of it.
#[derive(Clone, Debug)]
enum Access {
    Wrote(Version),
    Saw(Version),
}

struct Register;

impl Specification for Register {
    type State = Version;
    type Operation = Access;

    fn init() -> Version {
        Version::default()
    }

    fn apply(access: &Access, state: &Version) -> (bool, Version) {
        match access {
            Access::Wrote(version) => (true, *version),
            Access::Saw(version) => (state == version, *state),
        }
    }
}

/// An operation, when it was called, and when it had returned. Nobody knows when, or whether, an operation without an
/// answer was done.
type Timed<T> = (T, Moment, Option<Moment>);

/// Whether what these requests did with one event is linearizable.
pub fn is_linearizable<'a>(seen: impl Iterator<Item = Seen<'a>>, is_exact: bool) -> bool {
    if is_exact {
        check::<Event>(seen.flat_map(|seen| operations(&seen)).collect())
    } else {
        check::<Register>(seen.flat_map(|seen| accesses(&seen)).collect())
    }
}

fn check<S: Specification<Operation: Clone + Debug>>(operations: Vec<Timed<S::Operation>>) -> bool {
    let mut steps = Vec::new();
    for (process, (operation, call, end)) in operations.into_iter().enumerate() {
        steps.push((call.order, (process, Step::Call(operation.clone()))));
        // The end of time is after all that anybody saw: there it may as well not have been.
        let end = end.map_or(u64::MAX, |end| end.order);
        steps.push((end, (process, Step::Response(operation))));
    }
    if steps.is_empty() {
        return true;
    }
    steps.sort_by_key(|(order, _)| *order);
    let steps = steps.into_iter().map(|(_, step)| step).collect();
    WGLChecker::<S>::is_linearizable(History::from_actions(steps))
}

/// What a request did and saw, each at some time between its call and its end.
fn operations(seen: &Seen) -> Vec<Timed<Operation>> {
    let done = seen.done;
    let (call, end) = (done.exchange.sent, seen.end_of_change());
    let mut operations = Vec::new();
    match done.action {
        _ if seen.is_refused() => {}
        Action::Change { set, .. } | Action::Post { set } => {
            let change = if set {
                Operation::Set
            } else {
                Operation::Clear
            };
            operations.push((change, call, end));
        }
        // Its contract allows it to take effect more than once while it runs: when a set comes between, nobody can
        // tell whether the last time was one. Here it may as often as the event was forgotten meanwhile.
        Action::Forget => {
            let forgotten = seen.truth.changes().filter(|(moment, state)| {
                state.is_forgotten && *moment > call && end.is_none_or(|end| *moment < end)
            });
            for _ in 0..forgotten.count().max(1) {
                operations.push((Operation::Forget, call, end));
            }
        }
        _ => {}
    }
    if let Some(version) = done.version() {
        operations.push((Operation::Saw(version), call, Some(done.exchange.ended)));
    }
    operations
}

/// The same, where a change is at most one write, and the store tells which.
fn accesses(seen: &Seen) -> Vec<Timed<Access>> {
    let exchange = &seen.done.exchange;
    let wrote = seen
        .writes()
        .map(|(version, _)| (Access::Wrote(version), exchange.sent, seen.end_of_change()));
    let saw = seen.done.version();
    let saw = saw.map(|version| (Access::Saw(version), exchange.sent, Some(exchange.ended)));
    wrote.chain(saw).collect()
}
