//! Checks that the operations on an event are linearizable: that each seems to take effect at one moment between its call and
//! its return.
//!
//! The algorithm is that of Wing and Gong with Lowe's extensions, from `todc-utils`.

use std::fmt::Debug;

use loopless_host::simulation::Moment;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action as Step, History};
use todc_utils::specifications::Specification;

use super::clients::Action;
use super::promises::Seen;
use super::truth::{State, Version};

/// An operation on an event with compare-and-swap: a change, or a read and its result.
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
            // Operations do not say which tags they write, so tags are not compared. `Truth` checks them.
            Operation::Saw(version) => {
                let is_same = state.version.generation == version.generation;
                return (is_same, *state);
            }
            Operation::Set if !state.is_set() => state.changed(),
            Operation::Clear if state.is_set() => state.changed(),
            Operation::Forget if state.exists() => state.forgotten(),
            _ => *state,
        };
        (true, next)
    }
}

/// An access to an event without compare-and-swap: a write, or a read and its result.
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

/// An operation, its call, and its return. An operation without a response has no return: it may take effect later, or never.
type Timed<T> = (T, Moment, Option<Moment>);

/// Whether these requests to one event are linearizable.
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
        // An operation at the end of time is not seen by any other, as if it never happened.
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

/// The operations of a request.
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
        // To forget may take effect more than once, if a set comes between. Here it may as often as the event was
        // forgotten meanwhile.
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

/// The accesses of a request. A change is at most one write, which the store's calls show.
fn accesses(seen: &Seen) -> Vec<Timed<Access>> {
    let exchange = &seen.done.exchange;
    let wrote = seen
        .writes()
        .map(|(version, _)| (Access::Wrote(version), exchange.sent, seen.end_of_change()));
    let saw = seen.done.version();
    let saw = saw.map(|version| (Access::Saw(version), exchange.sent, Some(exchange.ended)));
    wrote.chain(saw).collect()
}
