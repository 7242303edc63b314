//! The model: what may happen in it, and what has to be true then.

use std::collections::BTreeSet;
use std::fmt::Debug;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use stateright::{Model, Property};

use super::process::{Code, Operation, Outcome, Process};
use super::value::{exists, generation, is_set, text};
use crate::replay::{Answer, Step, Value};

/// A flag, which is what an event is when nobody interferes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Flag(bool);

impl SequentialSpec for Flag {
    type Op = Operation;
    type Ret = Outcome;

    fn invoke(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Set => self.0 = true,
            Operation::Clear | Operation::Forget => self.0 = false,
            Operation::IsSet => return Outcome::Is(self.0),
            Operation::Wait => {}
        }
        Outcome::Done
    }

    fn is_valid_step(&mut self, operation: &Operation, outcome: &Outcome) -> bool {
        // A wait is not a step but a time: `Wait` has a promise of its own.
        *operation == Operation::Wait || self.invoke(operation) == *outcome
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    value: Value,
    processes: Vec<Process>,
    history: LinearizabilityTester<usize, Flag>,
    /// What each process does, while it does it.
    under_way: Vec<Option<UnderWay>>,
    faults_left: u8,
    deaths_left: u8,
    went_back: bool,
    missed_a_set: bool,
    returned_without_a_set: bool,
}

/// An operation between its call and its return.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct UnderWay {
    operation: Operation,
    /// What its first read that succeeded saw.
    start: Option<Value>,
    /// The event was set at some time since its call.
    was_set: bool,
    /// It was set since that first read.
    was_set_since_start: bool,
    /// And a read has succeeded since then: nobody else can know.
    could_know: bool,
    /// It was forgotten since that first read.
    was_forgotten_since_start: bool,
    /// The processes that were clearing it at the time of the call.
    clearing: BTreeSet<usize>,
    /// One of those has written since.
    was_cleared_late: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process takes its step, and the store tells the truth.
    Step(usize),
    /// It takes its swap, and the store says the opposite of the truth.
    Lie(usize),
    /// The store fails, after it did the step or without.
    Fail {
        process: usize,
        is_done: bool,
    },
    Die(usize),
}

/// The processes, and what their store may do.
#[derive(Clone)]
pub struct Protocol {
    pub code: Code,
    pub programs: Vec<Vec<Operation>>,
    /// Whether the store is Spin's SQLite: numbers in bytes, and a swap from no value that is a blind write.
    pub is_sqlite: bool,
    pub lies: bool,
    pub faults: u8,
    pub deaths: u8,
    /// Whether a wait on registers has to end for the reasons for which one on compare-and-swap does.
    pub is_strict: bool,
}

impl Protocol {
    pub fn new(programs: &[&[Operation]]) -> Self {
        Self {
            code: Code::Exact,
            programs: programs.iter().map(|program| program.to_vec()).collect(),
            is_sqlite: false,
            lies: false,
            faults: 0,
            deaths: 0,
            is_strict: false,
        }
    }

    /// Does a step. Returns its true answer.
    fn apply(&self, value: &mut Value, step: &Step) -> Answer {
        match step {
            Step::Get | Step::Look => Answer::Value(value.clone()),
            Step::Add(delta) => {
                assert_eq!(*delta, 0, "an event is only born by it");
                let zero = if self.is_sqlite { vec![0; 8] } else { text(0) };
                value.get_or_insert(zero);
                Answer::Sum(0)
            }
            Step::Put(new) => {
                value.clone_from(new);
                Answer::Done
            }
            Step::Swap { seen, new } => {
                let is_blind = self.is_sqlite && seen.is_none();
                let is_applied = is_blind || value == seen;
                if is_applied {
                    *value = Some(new.clone());
                }
                Answer::Swapped(is_applied)
            }
            Step::Keys => panic!("no operation lists the keys"),
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let programs = self.programs.iter().zip(1..);
        let processes =
            programs.map(|(program, first)| Process::new(self.code, program, first << 32));
        vec![State {
            value: None,
            processes: processes.collect(),
            history: LinearizabilityTester::new(Flag::default()),
            under_way: vec![None; self.programs.len()],
            faults_left: self.faults,
            deaths_left: self.deaths,
            went_back: false,
            missed_a_set: false,
            returned_without_a_set: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, process) in state.processes.iter().enumerate() {
            let asks = process.progress().asks.as_ref();
            let Some(step) = asks.filter(|_| !process.is_dead) else {
                continue;
            };
            actions.push(Action::Step(index));
            if self.lies && matches!(step, Step::Swap { .. }) {
                actions.push(Action::Lie(index));
            }
            if state.faults_left > 0 {
                for is_done in [false, true] {
                    actions.push(Action::Fail {
                        process: index,
                        is_done,
                    });
                }
            }
            if state.deaths_left > 0 && process.has_begun() {
                actions.push(Action::Die(index));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let (Action::Step(index)
        | Action::Lie(index)
        | Action::Fail { process: index, .. }
        | Action::Die(index)) = action;
        if action == Action::Die(index) {
            state.processes[index].is_dead = true;
            state.deaths_left -= 1;
            return Some(state);
        }

        let before = last.processes[index].progress();
        let step = before.asks.as_ref()?;
        let operation = last.processes[index].operation()?;
        // An operation begins with its first step: nothing before it can be told from the outside.
        if last.under_way[index].is_none() {
            state.history.on_invoke(index, operation).ok()?;
            let others = state.under_way.iter().zip(0..);
            let clearing = others.filter(|(other, _)| {
                other
                    .as_ref()
                    .is_some_and(|other| other.operation == Operation::Clear)
            });
            state.under_way[index] = Some(UnderWay {
                operation,
                start: None,
                was_set: is_set(&state.value),
                was_set_since_start: false,
                could_know: false,
                was_forgotten_since_start: false,
                clearing: clearing.map(|(_, index)| index).collect(),
                was_cleared_late: false,
            });
        }

        let answer = match action {
            Action::Fail { is_done, .. } => {
                state.faults_left -= 1;
                if is_done {
                    self.apply(&mut state.value, step);
                }
                Answer::Failed
            }
            Action::Lie(_) => match self.apply(&mut state.value, step) {
                Answer::Swapped(is_applied) => Answer::Swapped(!is_applied),
                answer => answer,
            },
            _ => self.apply(&mut state.value, step),
        };
        let is_lenient = self.code.is_plain() && !self.is_strict;
        state.went_back |= generation(&state.value) < generation(&last.value);
        if state.value != last.value {
            for other in state.under_way.iter_mut().flatten() {
                other.was_set |= is_set(&state.value);
                other.was_set_since_start |= is_set(&state.value);
                other.was_forgotten_since_start |= !exists(&state.value);
                other.was_cleared_late |=
                    operation == Operation::Clear && other.clearing.contains(&index);
            }
        }
        if let (Some(this), Answer::Value(value)) = (&mut state.under_way[index], &answer) {
            if this.start.is_none() {
                this.start = Some(value.clone());
                this.was_set_since_start = is_set(value);
                this.was_forgotten_since_start = false;
            }
            // On registers, a set that is forgotten again is not seen by whoever began without an event.
            let shows_nothing = is_lenient && this.start == Some(None) && value.is_none();
            this.could_know = this.was_set_since_start && !shows_nothing;
        }

        state.processes[index].take(self.code, answer);
        let after = state.processes[index].progress().clone();
        if let Some(&outcome) = after.outcomes.get(before.outcomes.len()) {
            // Whoever fails may have written all the same, and may be writing still: it stays under way.
            if outcome == Outcome::Failed {
                return Some(state);
            }
            state.history.on_return(index, outcome).ok()?;
            let this = state.under_way[index].take()?;
            // Nor can anybody tell there that an event was set before it was forgotten.
            let is_forgiven =
                is_lenient && this.was_forgotten_since_start && outcome == Outcome::Forgotten;
            let is_missed = matches!(outcome, Outcome::WaitedInVain | Outcome::Forgotten);
            state.missed_a_set |= is_missed && this.could_know && !is_forgiven;
            let is_excused = is_lenient && this.was_cleared_late;
            state.returned_without_a_set |=
                outcome == Outcome::WaitedForASet && !this.was_set && !is_excused;
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("operations are linearizable", |_, state: &State| {
                state.history.is_consistent()
            }),
            Property::always(
                "the generation never goes back",
                |model: &Protocol, state: &State| !state.went_back || model.code.is_plain(),
            ),
            Property::always("no wait misses a set", |_, state: &State| {
                !state.missed_a_set
            }),
            Property::always("no wait returns without a set", |_, state: &State| {
                !state.returned_without_a_set
            }),
            // Without a clear or a forget, however many set it, there is one transition.
            Property::always(
                "sets alone make one transition",
                |model: &Protocol, state: &State| {
                    let only_sets = model.programs.iter().flatten().all(|operation| {
                        !matches!(operation, Operation::Clear | Operation::Forget)
                    });
                    !only_sets || generation(&state.value) <= 1
                },
            ),
        ]
    }
}
