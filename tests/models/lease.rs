//! The lease of the service, model-checked: every order in which two runners take their steps on the store. By its own date,
//! each runner believes that the earlier one is dead, and the answers to swaps may be false.
//!
//! The runners execute the code that ships, `loopless::lease` in `loopless::service`: see `replay.rs`. The death of a
//! process needs no step of its own, because the properties hold in every state, also in the last one that a process reaches.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use loopless::event::{Events, Polling};
use loopless::service::{DID_SOMETHING, Service, Started};
use loopless::strategy::Exact;
use stateright::{Checker, Model, Property};

use crate::replay::{Answer, Replay, Step};

/// The number of ticks after which a runner takes no more steps.
const TICKS: usize = 2;

const LEASE: Duration = Duration::from_secs(5);

/// A runner: the answers of the store, and how far it has come with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    index: usize,
    answers: Vec<Answer>,
    progress: Arc<Progress>,
}

/// How far a process has come.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Progress {
    asks: Option<(String, Step)>,
    term: u64,
    ticks: usize,
}

impl Process {
    /// A process that has taken no step.
    fn new(index: usize) -> Self {
        Self {
            index,
            answers: Vec::new(),
            progress: Arc::new(replay(index, &[])),
        }
    }

    /// Takes its step, with this answer.
    fn take(&mut self, answer: Answer) {
        self.answers.push(answer);
        self.progress = Arc::new(replay(self.index, &self.answers));
    }
}

/// Runs a process from its start to the first step that has no answer yet, or to its last tick.
fn replay(index: usize, answers: &[Answer]) -> Progress {
    // An hour later than the previous process's date, so this process believes that the previous one is dead.
    let date = Duration::from_secs(1_700_000_000 + 3600 * index as u64);
    // Nothing sets the two events of the service here.
    let store = Replay::new(answers, date).with_constant("event/");
    let (mut term, ticks) = (0, Cell::new(0));
    let asks = store.play(async {
        let strategy: Exact<_> = Exact::new(store.clone(), || 0);
        let events = Events::new(strategy, store.clone());
        let service = Service::new(&events, LEASE, Polling::default());
        if let Ok(Started::Now(runner)) = service.start(|_| ()).await {
            term = runner.status().runner.unwrap_or_default();
            let say = |line: &str| ticks.set(ticks.get() + usize::from(line == DID_SOMETHING));
            let mut running = pin!(service.run(runner, say));
            poll_fn(|cx| {
                if ticks.get() >= TICKS {
                    return Poll::Ready(());
                }
                running.as_mut().poll(cx)
            })
            .await;
        }
    });
    let ticks = ticks.get();
    Progress {
        asks: asks.filter(|_| ticks < TICKS),
        term,
        ticks,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    store: BTreeMap<String, Vec<u8>>,
    processes: Vec<Process>,
    /// The term of the last tick.
    last: u64,
    /// Whether a tick had an earlier term than the one before it.
    went_back: bool,
}

impl State {
    /// The number of ticks of each process.
    fn ticks(&self) -> impl Iterator<Item = usize> {
        let processes = self.processes.iter();
        processes.map(|process| process.progress.ticks)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// The process takes its step, and the answer is true.
    Step(usize),
    /// The process takes its swap, and the answer is false.
    Lie(usize),
}

/// The runners, and what their store may do.
#[derive(Clone, Debug)]
struct Protocol {
    runners: usize,
    /// The most steps that each runner takes. A takeover without a race takes about 20.
    steps: usize,
    /// Whether no runner has the lease at first. Otherwise, the first runner has it.
    is_fresh: bool,
    lies: bool,
    /// Whether swaps are plain writes. The model checker has to find that this is wrong.
    is_blind: bool,
}

impl Protocol {
    fn apply(&self, store: &mut BTreeMap<String, Vec<u8>>, key: &str, step: &Step) -> Answer {
        match step {
            Step::Get | Step::Look => Answer::Value(store.get(key).cloned()),
            Step::Keys => Answer::Keys(store.keys().cloned().collect()),
            Step::Add(delta) => {
                let sum = store.get(key).map_or(0, |value| number(value)) + delta;
                store.insert(key.into(), sum.to_string().into_bytes());
                Answer::Sum(sum)
            }
            Step::Swap { seen, new } => {
                let is_applied = self.is_blind || store.get(key) == seen.as_ref();
                if is_applied {
                    store.insert(key.into(), new.clone());
                }
                Answer::Swapped(is_applied)
            }
            Step::Put(Some(value)) => {
                store.insert(key.into(), value.clone());
                Answer::Done
            }
            Step::Put(None) => {
                store.remove(key);
                Answer::Done
            }
        }
    }
}

fn number(value: &[u8]) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// The number of ticks in the run, by the store alone.
fn counted(store: &BTreeMap<String, Vec<u8>>) -> u64 {
    let Some(term) = store.get("service/lease").map(|value| number(value)) else {
        return 0;
    };
    if term == 0 {
        return 0;
    }
    // A missing value counts as no tick, which then breaks the property. The beats of a new term are 8.
    let beats = store.get(&format!("service/beats/{term}"));
    let beats = beats.map_or(8, |value| number(value));
    let beats = if beats > 0 {
        beats.unsigned_abs().saturating_sub(8)
    } else {
        beats.unsigned_abs().div_ceil(64) / 2 - 1
    };
    let record = store.get(&format!("service/runs/{term}"));
    let record = record.and_then(|record| serde_json::from_slice(record).ok());
    let carried = record.and_then(|record: serde_json::Value| record["carried"].as_u64());
    carried.unwrap_or(0) + beats
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            store: BTreeMap::new(),
            processes: (0..self.runners).map(Process::new).collect(),
            last: 0,
            went_back: false,
        };
        // The first runner takes the lease. From there on, every order is explored.
        while !self.is_fresh && state.processes[0].progress.term == 0 {
            let next = self.next_state(&state, Action::Step(0));
            state = next.expect("it has a step to take until it has the lease");
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for process in &state.processes {
            if let Some((_, step)) = &process.progress.asks {
                actions.push(Action::Step(process.index));
                if self.lies && matches!(step, Step::Swap { .. }) {
                    actions.push(Action::Lie(process.index));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let (Action::Step(index) | Action::Lie(index)) = action;
        let before = &last.processes[index].progress;
        let (key, step) = before.asks.as_ref()?;
        let answer = match (self.apply(&mut state.store, key, step), action) {
            (Answer::Swapped(is_applied), Action::Lie(_)) => Answer::Swapped(!is_applied),
            (answer, _) => answer,
        };
        state.processes[index].take(answer);
        let after = &state.processes[index].progress;
        if after.ticks > before.ticks {
            state.went_back |= after.term < state.last;
            state.last = after.term;
        }
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        let steps = state.processes.iter().map(|process| process.answers.len());
        steps.max() <= Some(self.steps)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the store counts each tick once", |_, state: &State| {
                counted(&state.store) == state.ticks().sum::<usize>() as u64
            }),
            Property::always("no term ticks after a later one", |_, state: &State| {
                !state.went_back
            }),
            Property::sometimes("a runner takes over and ticks", |_, state: &State| {
                state.ticks().filter(|ticks| *ticks > 0).count() > 1
            }),
        ]
    }
}

const TAKEOVER: Protocol = Protocol {
    runners: 2,
    steps: 60,
    is_fresh: false,
    lies: true,
    is_blind: false,
};

fn holds(protocol: Protocol) {
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    println!(
        "{protocol:?}: {} states, at most {} steps",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn a_takeover_from_a_runner_that_is_alive_keeps_the_promises() {
    holds(TAKEOVER);
}

#[test]
fn two_starts_at_the_same_time_keep_the_promises() {
    holds(Protocol {
        steps: 21,
        is_fresh: true,
        lies: false,
        ..TAKEOVER
    });
}

#[test]
fn the_model_checker_finds_swaps_that_are_plain_writes() {
    let protocol = Protocol {
        lies: false,
        is_blind: true,
        ..TAKEOVER
    };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_any_discovery("the store counts each tick once");
}
