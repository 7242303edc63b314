//! The lease of the service, checked exhaustively: every order in which two and three would-be runners can take their
//! steps on the store, where each one's date makes it take those before it for dead, and answers of swaps are lies.
//!
//! What runs is the code that ships, `loopless::lease` in `loopless::service`: see `replay.rs`. That a process dies
//! needs no step of its own: the promises hold in every state, also in the last one that it reaches.

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

/// How often a runner ticks before the model looks no further.
const TICKS: usize = 2;

const LEASE: Duration = Duration::from_secs(5);

/// A would-be runner: what the store has answered, and where it is with that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    index: usize,
    answers: Vec<Answer>,
    progress: Arc<Progress>,
}

/// Where a process is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Progress {
    asks: Option<(String, Step)>,
    term: u64,
    ticks: usize,
}

impl Process {
    /// One that begins.
    fn new(index: usize) -> Self {
        Self {
            index,
            answers: Vec::new(),
            progress: Arc::new(replay(index, &[])),
        }
    }

    /// Takes this answer to what it asks.
    fn take(&mut self, answer: Answer) {
        self.answers.push(answer);
        self.progress = Arc::new(replay(self.index, &self.answers));
    }
}

/// Runs a process from its start to the first step that has no answer yet, or to its end.
fn replay(index: usize, answers: &[Answer]) -> Progress {
    // An hour later than the one before: to this one, all those are dead.
    let date = Duration::from_secs(1_700_000_000 + 3600 * index as u64);
    // Nobody sets the two events here.
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
    went_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// The process takes its step, and the store tells the truth.
    Step(usize),
    /// It takes its swap, and the store says the opposite of the truth.
    Lie(usize),
}

/// Would-be runners, and what their store does.
#[derive(Clone, Debug)]
struct Protocol {
    runners: usize,
    /// How many steps each one takes at most. A takeover without a race takes about 20.
    steps: usize,
    /// Whether nobody has the lease at first. Otherwise, the first one has it.
    is_fresh: bool,
    lies: bool,
    /// A store whose swaps are plain writes, to see that the check sees it.
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

/// The ticks of the run, by the store alone.
fn counted(store: &BTreeMap<String, Vec<u8>>) -> u64 {
    let Some(term) = store.get("service/lease").map(|value| number(value)) else {
        return 0;
    };
    if term == 0 {
        return 0;
    }
    // What is missing counts as nothing, which the check then sees. A term is born with 8.
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
        // The first one has the lease already. From here on, every order is tried.
        while !self.is_fresh && state.processes[0].progress.term == 0 {
            let next = self.next_state(&state, Action::Step(0));
            state = next.expect("it takes steps until it has the lease");
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
            Property::always("the store counts what was told", |_, state: &State| {
                let ticks = state.processes.iter().map(|process| process.progress.ticks);
                let told: usize = ticks.sum();
                counted(&state.store) == told as u64
            }),
            Property::always("no term ticks after a later one", |_, state: &State| {
                !state.went_back
            }),
            Property::sometimes("a runner takes over and ticks", |_, state: &State| {
                let processes = state.processes.iter();
                let ticking = processes.filter(|process| process.progress.ticks > 0);
                ticking.count() > 1
            }),
        ]
    }
}

fn holds(protocol: Protocol) {
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    println!(
        "{protocol:?}: {} states, {} steps at most",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn a_runner_and_one_that_takes_it_for_dead() {
    holds(Protocol {
        runners: 2,
        steps: 60,
        is_fresh: false,
        lies: true,
        is_blind: false,
    });
}

#[test]
fn two_that_start_at_once() {
    holds(Protocol {
        runners: 2,
        steps: 21,
        is_fresh: true,
        lies: false,
        is_blind: false,
    });
}

#[test]
fn the_check_finds_what_a_blind_swap_does() {
    let protocol = Protocol {
        runners: 2,
        steps: 60,
        is_fresh: false,
        lies: false,
        is_blind: true,
    };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_any_discovery("the store counts what was told");
}
