//! Whether there is an order of the operations on an event, each at one moment between its call and its return, in
//! which an event that one process keeps for itself would have answered the same.
//!
//! The search is the algorithm of Wing and Gong with Lowe's extensions, from `todc-utils`.

use loopless_host::simulation::{Lost, Moment};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action as Step, History};
use todc_utils::specifications::Specification;

use super::clients::{Action, Done};
use super::truth::{State, Truth};

/// What an operation does to an event, or saw of it.
#[derive(Clone, Debug)]
enum Operation {
    Set,
    Clear,
    Forget,
    Saw { generation: u64 },
}

struct Event;

impl Specification for Event {
    type State = i64;
    type Operation = Operation;

    fn init() -> i64 {
        0
    }

    fn apply(operation: &Operation, state: &i64) -> (bool, i64) {
        let state = State(*state);
        let next = match operation {
            Operation::Saw { generation } => return (state.generation() == *generation, state.0),
            Operation::Set if !state.is_set() => state.changed(),
            Operation::Clear if state.is_set() => state.changed(),
            Operation::Forget if state.exists() => state.forgotten(),
            _ => state,
        };
        (true, next.0)
    }
}

/// Whether what these clients did with one event is linearizable.
pub fn is_linearizable<'a>(done: impl Iterator<Item = &'a Done>, truth: &Truth) -> bool {
    let mut steps = Vec::new();
    let operations = done.flat_map(|done| operations(done, truth));
    for (process, (operation, call, end)) in operations.enumerate() {
        steps.push((call.order, (process, Step::Call(operation.clone()))));
        // Nobody knows when, or whether, an operation without an answer was done. At the end of time is after all that
        // anybody saw: there it may as well not have been.
        let end = end.map_or(u64::MAX, |end| end.order);
        steps.push((end, (process, Step::Response(operation))));
    }
    if steps.is_empty() {
        return true;
    }
    steps.sort_by_key(|(order, _)| *order);
    let steps = steps.into_iter().map(|(_, step)| step).collect();
    WGLChecker::<Event>::is_linearizable(History::from_actions(steps))
}

/// What a client's request did and saw, each at some time between its call and its end.
fn operations(done: &Done, truth: &Truth) -> Vec<(Operation, Moment, Option<Moment>)> {
    let call = done.exchange.sent;
    let is_done = done.status().is_some_and(|status| status.is_success());
    let is_refused = matches!(done.exchange.result, Err(Lost::Refused))
        || done.status().is_some_and(|status| status.is_client_error());
    let end = is_done.then_some(done.exchange.ended);
    let mut operations = Vec::new();
    match done.action {
        _ if is_refused => {}
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
            let forgotten = truth.changes().filter(|(moment, state)| {
                state.is_forgotten() && *moment > call && end.is_none_or(|end| *moment < end)
            });
            for _ in 0..forgotten.count().max(1) {
                operations.push((Operation::Forget, call, end));
            }
        }
        _ => {}
    }
    if let Some(generation) = done.generation() {
        let saw = Operation::Saw { generation };
        operations.push((saw, call, Some(done.exchange.ended)));
    }
    operations
}
