//! The model: its states, the actions that lead from one to the next, and the properties that must hold.

use std::collections::BTreeSet;
use std::fmt::Debug;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use stateright::{Model, Property};

use super::process::{Code, Operation, Outcome, Process};
use super::value::{exists, generation, is_set, text};
use crate::replay::{Answer, Step, Value};

/// The sequential specification of an event: a flag.
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
        // A wait takes effect over a time, not at a moment. It has properties of its own.
        *operation == Operation::Wait || self.invoke(operation) == *outcome
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    value: Value,
    processes: Vec<Process>,
    history: LinearizabilityTester<usize, Flag>,
    /// The operation of each process that is under way.
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
    /// The value of its first successful read.
    start: Option<Value>,
    /// Whether the event was set at some time since the call.
    was_set: bool,
    /// Whether the event was set at some time since the first read.
    was_set_since_start: bool,
    /// Whether a read has succeeded since then. Without one, the process cannot know about the set.
    could_know: bool,
    /// Whether the event was forgotten since the first read.
    was_forgotten_since_start: bool,
    /// The processes that were clearing the event at the time of the call.
    clearing: BTreeSet<usize>,
    /// Whether one of those has written since.
    was_cleared_late: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process takes its step, and the answer is true.
    Step(usize),
    /// The process takes its swap, and the answer is false.
    Lie(usize),
    /// The store fails, and has done the step or not.
    Fail {
        process: usize,
        is_done: bool,
    },
    Die(usize),
}

/// The programs of the processes, and what may happen to them.
#[derive(Clone)]
pub struct Protocol {
    code: Code,
    programs: Vec<Vec<Operation>>,
    is_sqlite: bool,
    lies: bool,
    faults: u8,
    deaths: u8,
    is_strict: bool,
}

impl Protocol {
    /// A process for each program, with the exact strategy on Redis, on which nothing goes wrong.
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

    /// The processes execute this code.
    pub fn with(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The store is Spin's SQLite: numbers are eight bytes, and a swap from no value is a blind write.
    pub fn on_sqlite(self) -> Self {
        Self {
            is_sqlite: true,
            ..self
        }
    }

    /// Answers to swaps may be false.
    pub fn lies(self) -> Self {
        Self { lies: true, ..self }
    }

    /// So many calls of the store may fail.
    pub fn faults(self, faults: u8) -> Self {
        Self { faults, ..self }
    }

    /// So many processes may die.
    pub fn deaths(self, deaths: u8) -> Self {
        Self { deaths, ..self }
    }

    /// A wait on registers may end only for the reasons for which a wait with compare-and-swap may.
    pub fn strict(self) -> Self {
        Self {
            is_strict: true,
            ..self
        }
    }

    /// Does a step, and returns the true answer.
    fn apply(&self, value: &mut Value, step: &Step) -> Answer {
        match step {
            Step::Get | Step::Look => Answer::Value(value.clone()),
            Step::Add(delta) => {
                assert_eq!(*delta, 0, "the increment only creates an event");
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
        // An operation begins with its first step. Nothing before it can be observed.
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
            // On registers, a wait that began when there was no event cannot see a set that was forgotten again.
            let shows_nothing = is_lenient && this.start == Some(None) && value.is_none();
            this.could_know = this.was_set_since_start && !shows_nothing;
        }

        state.processes[index].take(self.code, answer);
        let after = state.processes[index].progress().clone();
        if let Some(&outcome) = after.outcomes.get(before.outcomes.len()) {
            // An operation that fails may have written, or may still write. It stays under way.
            if outcome == Outcome::Failed {
                return Some(state);
            }
            state.history.on_return(index, outcome).ok()?;
            let this = state.under_way[index].take()?;
            // On registers, a wait cannot see either that the event was set before it was forgotten.
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
            // Without a clear or a forget, any number of sets makes one transition.
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
