//! The event's protocols, checked exhaustively: every order in which a few processes can take their steps on the store,
//! with answers of swaps that are lies, a process that dies between any two steps, and a store that fails.
//!
//! What runs is the code that ships, `loopless::event`. A future cannot be copied or compared, as a model checker
//! needs it. But an instance is a function of what the store has answered it: so a state of the model holds those
//! answers, and the future is run again from its start to learn what it asks for next.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::{Future, pending, poll_fn};
use std::io::{self, Write};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loopless::clock::Clock;
use loopless::event::{Events, Name, Polling, Waited};
use loopless::store::{Atomics, Error, Store};
use loopless::strategy::{Exact, Plain, Strategy};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use stateright::{Checker, Model, Property};

/// How long a waiter waits: a first reading, and a few more.
const TIMEOUT: Duration = Duration::from_millis(10);

type Value = Option<Vec<u8>>;

/// One atomic step on the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Get,
    /// `increment` by 0.
    Create,
    /// The handle of a compare-and-swap takes its look.
    Look,
    Swap {
        seen: Value,
        new: Vec<u8>,
    },
    /// A plain write. `None` deletes.
    Put(Value),
}

/// What the store answers to a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Value(Value),
    Done,
    Swapped(bool),
    Failed,
}

/// What a process does with the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Set,
    Clear,
    IsSet,
    Forget,
    Wait,
}

/// What an operation returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Done,
    Is(bool),
    WaitedForASet,
    WaitedInVain,
    Forgotten,
    Failed,
}

/// The code of a process: what ships, or something that somebody might write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// The strategy that has compare-and-swap.
    Exact,
    /// The strategy that has registers.
    Plain,
    /// On registers: all changes have the same tag.
    HasNoTags,
    /// On registers: waits until the generation is a higher one.
    ComparesGenerations,
    /// On registers: writes without reading.
    ClearsBlindly,
    /// Swaps until the answer is that it was applied.
    TrustsTheSwap,
    /// Polls until the event is set, not until it is another.
    WaitsForOdd,
    /// Reads, then writes.
    GetsThenSets,
    /// Creates the value with the first swap.
    SwapsFromAbsent,
}

/// One run of a process, as far as the store's answers go.
#[derive(Default)]
struct Run {
    answers: Vec<Answer>,
    taken: usize,
    asks: Option<Step>,
    time: Duration,
    outcomes: Vec<Outcome>,
    tags: u64,
}

#[derive(Clone, Default)]
struct Replay(Arc<Mutex<Run>>);

impl Replay {
    fn run(&self) -> MutexGuard<'_, Run> {
        self.0.lock().unwrap()
    }

    /// The recorded answer to the next step, or, where there is none yet, a wait for it that does not end.
    async fn ask(&self, step: Step) -> Answer {
        let answer = {
            let mut run = self.run();
            let answer = run.answers.get(run.taken).cloned();
            match answer {
                Some(_) => run.taken += 1,
                None => run.asks = Some(step),
            }
            answer
        };
        match answer {
            Some(answer) => answer,
            None => pending().await,
        }
    }

    async fn get_value(&self) -> Result<Value, Error> {
        match self.ask(Step::Get).await {
            Answer::Value(value) => Ok(value),
            _ => Err(Error::new("it failed")),
        }
    }

    async fn ask_to_do(&self, step: Step) -> Result<(), Error> {
        match self.ask(step).await {
            Answer::Done => Ok(()),
            _ => Err(Error::new("it failed")),
        }
    }

    /// A tag that no other change has, of this process or another one.
    fn tag(&self) -> u64 {
        let mut run = self.run();
        run.tags += 1;
        run.tags
    }

    /// Looks and, unless `old` is another value than that, swaps. Returns the answer.
    async fn compare_and_swap(&self, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        let Answer::Value(seen) = self.ask(Step::Look).await else {
            return Err(Error::new("it failed"));
        };
        if old.is_some_and(|old| seen.as_deref() != Some(old)) {
            return Ok(false);
        }
        let new = new.to_vec();
        match self.ask(Step::Swap { seen, new }).await {
            Answer::Swapped(answer) => Ok(answer),
            _ => Err(Error::new("it failed")),
        }
    }
}

impl Store for Replay {
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, Error> {
        self.get_value().await
    }

    async fn set(&self, _: &str, value: &[u8]) -> Result<(), Error> {
        self.ask_to_do(Step::Put(Some(value.to_vec()))).await
    }

    async fn delete(&self, _: &str) -> Result<(), Error> {
        self.ask_to_do(Step::Put(None)).await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

impl Atomics for Replay {
    async fn increment(&self, _: &str, delta: i64) -> Result<i64, Error> {
        assert_eq!(delta, 0, "an event is only born by it");
        self.ask_to_do(Step::Create).await.map(|()| 0)
    }

    async fn swap(&self, _: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        self.compare_and_swap(Some(old), new).await.map(drop)
    }
}

impl Clock for Replay {
    fn now(&self) -> Duration {
        self.run().time
    }

    /// Time passes for a process only while it asks for nothing. Processes have no common clock: any of them may be
    /// slow, so that every order of their steps is one that time allows.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let replay = self.clone();
        poll_fn(move |_| {
            let mut run = replay.run();
            if run.asks.is_some() {
                return Poll::Pending;
            }
            run.time += duration;
            Poll::Ready(())
        })
    }
}

fn number(value: &Value) -> i64 {
    let value = value.as_deref().unwrap_or(b"0");
    match <[u8; 8]>::try_from(value) {
        Ok(bytes) => i64::from_le_bytes(bytes),
        Err(_) => {
            let text = std::str::from_utf8(value).unwrap();
            let number = text.split_once('.').map_or(text, |(number, _)| number);
            number.parse().unwrap()
        }
    }
}

/// Without the tag, which is above its 40 bits.
fn generation(value: &Value) -> i64 {
    number(value).abs() % (1 << 40)
}

fn is_set(value: &Value) -> bool {
    number(value).rem_euclid(2) == 1
}

fn exists(value: &Value) -> bool {
    number(value) > 0
}

fn text(number: i64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// Runs one operation with the code that ships.
async fn shipped<S: Strategy>(events: &Events<S, Replay>, operation: Operation) -> Outcome {
    let polling = Polling {
        first: Duration::from_millis(5),
        last: Duration::from_millis(5),
    };
    let event = events.named(&Name::DEMO).with_polling(polling);
    let done = match operation {
        Operation::Set => event.set().await.map(|_| Outcome::Done),
        Operation::Clear => event.clear().await.map(|_| Outcome::Done),
        Operation::Forget => event.forget().await.map(|_| Outcome::Done),
        Operation::IsSet => event.is_set().await.map(Outcome::Is),
        Operation::Wait => event.wait(TIMEOUT).await.map(|waited| match waited {
            Waited::Set(_) => Outcome::WaitedForASet,
            Waited::TimedOut(_) => Outcome::WaitedInVain,
            Waited::Forgotten(_) => Outcome::Forgotten,
        }),
    };
    done.unwrap_or(Outcome::Failed)
}

/// Runs one operation as somebody might write it.
async fn naive(store: &Replay, code: Code, operation: Operation) -> Result<Outcome, Error> {
    let set = match operation {
        Operation::IsSet => return Ok(Outcome::Is(is_set(&store.get_value().await?))),
        Operation::Wait => {
            let mut start = None;
            for _ in 0..3 {
                let value = store.get_value().await?;
                let start = *start.get_or_insert(number(&value));
                let is_news = code == Code::ComparesGenerations && number(&value) > start;
                if is_news || is_set(&value) {
                    return Ok(Outcome::WaitedForASet);
                }
            }
            return Ok(Outcome::WaitedInVain);
        }
        Operation::Set => true,
        Operation::Clear | Operation::Forget => false,
    };
    if code == Code::ClearsBlindly {
        let value = format!("2.{:016x}", store.tag());
        store.set("", value.as_bytes()).await?;
        return Ok(Outcome::Done);
    }
    let value = store.get_value().await?;
    let from = number(&value);
    if is_set(&value) == set {
        return Ok(Outcome::Done);
    }
    let next = text(from + 1);
    match code {
        Code::GetsThenSets => {
            store.set("", &next).await?;
            Ok(Outcome::Done)
        }
        Code::SwapsFromAbsent => {
            store.compare_and_swap(value.as_deref(), &next).await?;
            Ok(Outcome::Done)
        }
        _ => {
            for _ in 0..2 {
                if store.compare_and_swap(None, &next).await? {
                    return Ok(Outcome::Done);
                }
            }
            Err(Error::new("the swap never succeeded"))
        }
    }
}

/// Runs one operation of a process.
async fn run(store: &Replay, code: Code, operation: Operation, events: &Instance) -> Outcome {
    let is_naive = match code {
        Code::Exact | Code::Plain | Code::HasNoTags => false,
        Code::WaitsForOdd | Code::ComparesGenerations => operation == Operation::Wait,
        Code::ClearsBlindly => operation == Operation::Clear,
        Code::TrustsTheSwap | Code::GetsThenSets | Code::SwapsFromAbsent => true,
    };
    if is_naive {
        let outcome = naive(store, code, operation).await;
        return outcome.unwrap_or(Outcome::Failed);
    }
    match events {
        Instance::Exact(events) => shipped(events, operation).await,
        Instance::Plain(events) => shipped(events, operation).await,
    }
}

/// Where the tags of changes come from.
type Tags = Box<dyn Fn() -> u64 + Send + Sync>;

/// The events of a process, as the code that ships has them.
enum Instance {
    Exact(Events<Exact<Replay, Tags>, Replay>),
    Plain(Events<Plain<Replay, Tags>, Replay>),
}

impl Instance {
    fn new(store: &Replay, code: Code) -> Self {
        let tags: Tags = match code {
            Code::HasNoTags => Box::new(|| 0),
            _ => {
                let store = store.clone();
                Box::new(move || store.tag())
            }
        };
        if code.is_plain() {
            Self::Plain(Events::new(Plain::new(store.clone(), tags), store.clone()))
        } else {
            Self::Exact(Events::new(Exact::new(store.clone(), tags), store.clone()))
        }
    }
}

impl Code {
    /// Whether its store has no compare-and-swap.
    fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Plain | Self::HasNoTags | Self::ComparesGenerations | Self::ClearsBlindly
        )
    }
}

/// A process: its code, what it does, and what the store has answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    program: Vec<Operation>,
    answers: Vec<Answer>,
    is_dead: bool,
    /// Its tags follow this one.
    first_tag: u64,
}

/// Where a process is.
struct Progress {
    outcomes: Vec<Outcome>,
    asks: Option<Step>,
}

impl Process {
    /// Runs it from its start to the first step that has no answer yet.
    fn progress(&self, code: Code) -> Progress {
        let replay = Replay::default();
        replay.run().answers.clone_from(&self.answers);
        replay.run().tags = self.first_tag;
        let store = replay.clone();
        let mut running = pin!(async {
            let events = Instance::new(&store, code);
            for &operation in &self.program {
                let outcome = run(&store, code, operation, &events).await;
                store.run().outcomes.push(outcome);
                if outcome == Outcome::Failed {
                    // Nobody knows what it did: for the history, it is still under way.
                    break;
                }
            }
        });
        _ = running
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let run = replay.run();
        Progress {
            outcomes: run.outcomes.clone(),
            asks: run.asks.clone(),
        }
    }
}

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
        // A wait is no step but a time: `Wait` has a promise of its own.
        *operation == Operation::Wait || self.invoke(operation) == *outcome
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
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
enum Action {
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
struct Protocol {
    code: Code,
    programs: Vec<Vec<Operation>>,
    /// Whether the store is Spin's SQLite: numbers in bytes, and a swap from no value that is a blind write.
    is_sqlite: bool,
    lies: bool,
    faults: u8,
    deaths: u8,
    /// Whether a wait on registers has to end for the reasons for which one on compare-and-swap does.
    is_strict: bool,
}

impl Protocol {
    fn new(programs: &[&[Operation]]) -> Self {
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
            Step::Create => {
                let zero = if self.is_sqlite { vec![0; 8] } else { text(0) };
                value.get_or_insert(zero);
                Answer::Done
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
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let processes = self
            .programs
            .iter()
            .zip(1..)
            .map(|(program, first)| Process {
                program: program.clone(),
                answers: Vec::new(),
                is_dead: false,
                first_tag: first << 32,
            });
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
            let Some(step) = process
                .progress(self.code)
                .asks
                .filter(|_| !process.is_dead)
            else {
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
            if state.deaths_left > 0 && !process.answers.is_empty() {
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

        let before = last.processes[index].progress(self.code);
        let step = before.asks?;
        let operation = last.processes[index].program[before.outcomes.len()];
        // An operation begins with its first step: nothing before it can be told from the outside.
        let is_first = {
            let mut earlier = last.processes[index].clone();
            earlier
                .answers
                .pop()
                .is_none_or(|_| earlier.progress(self.code).outcomes.len() < before.outcomes.len())
        };
        if is_first {
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
                    self.apply(&mut state.value, &step);
                }
                Answer::Failed
            }
            Action::Lie(_) => match self.apply(&mut state.value, &step) {
                Answer::Swapped(is_applied) => Answer::Swapped(!is_applied),
                answer => answer,
            },
            _ => self.apply(&mut state.value, &step),
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

        state.processes[index].answers.push(answer);
        let after = state.processes[index].progress(self.code);
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

use Operation::{Clear, Forget, IsSet, Set, Wait};

/// Checks every state, with each strategy, and with compare-and-swap on both kinds of store.
fn holds(name: &str, protocol: &Protocol) {
    holds_on("Redis", name, protocol);
    let is_sqlite = true;
    holds_on(
        "SQLite",
        name,
        &Protocol {
            is_sqlite,
            ..protocol.clone()
        },
    );
    let code = Code::Plain;
    holds_on(
        "registers",
        name,
        &Protocol {
            code,
            ..protocol.clone()
        },
    );
}

/// Says what takes long. The test harness captures what is printed by macros, and not this.
fn say_what_takes_long() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let what = "The model checker takes every order of steps of small programs: about a minute";
        _ = writeln!(io::stderr(), "{what}");
    });
}

fn holds_on(store: &str, name: &str, protocol: &Protocol) {
    say_what_takes_long();
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    println!(
        "{name}, {store}: {} states, {} steps at most",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// Checks that there is a counterexample to this property.
fn fails(protocol: Protocol, property: &'static str) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    let path = checker.assert_any_discovery(property);
    println!(
        "{property}: fails after {} steps",
        path.into_actions().len()
    );
}

#[test]
fn two_writers_that_set_and_a_reader() {
    let programs = [&[Set][..], &[Set], &[IsSet, IsSet]];
    let protocol = Protocol {
        lies: true,
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("two setters, one reader, lies, one death", &protocol);
}

#[test]
fn a_writer_that_sets_against_one_that_clears_and_a_waiter() {
    let programs = [&[Set][..], &[Set, Clear], &[Wait]];
    holds("set, pulse, wait", &Protocol::new(&programs));
}

#[test]
fn a_pulse_and_two_waiters() {
    let programs = [&[Set, Clear][..], &[Wait], &[Wait]];
    let protocol = Protocol {
        lies: true,
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("pulse, two waiters, lies, one death", &protocol);
}

#[test]
fn three_writers() {
    let programs = [&[Set][..], &[Clear], &[Set]];
    let protocol = Protocol {
        lies: true,
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("three writers, lies, one death", &protocol);
}

#[test]
fn three_writers_and_a_waiter() {
    let programs = [&[Set][..], &[Clear], &[Set], &[Wait]];
    let protocol = Protocol {
        lies: true,
        ..Protocol::new(&programs)
    };
    holds("three writers, one waiter, lies", &protocol);
}

#[test]
fn two_writers_and_two_waiters() {
    let programs = [&[Set][..], &[Set], &[Wait], &[Wait]];
    let protocol = Protocol {
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("two writers, two waiters, one death", &protocol);
}

#[test]
fn a_store_that_fails_with_or_without_doing_its_work() {
    let programs = [&[Set][..], &[Set, Clear], &[IsSet]];
    let protocol = Protocol {
        faults: 1,
        ..Protocol::new(&programs)
    };
    holds("set, pulse, read, one fault", &protocol);
}

#[test]
fn an_event_that_is_forgotten_meanwhile() {
    let programs = [&[Set, Forget][..], &[Set], &[Wait]];
    holds("set and forget, set, wait", &Protocol::new(&programs));
}

#[test]
fn the_check_finds_what_trusting_the_swap_does() {
    let protocol = Protocol {
        code: Code::TrustsTheSwap,
        lies: true,
        ..Protocol::new(&[&[Set], &[Clear]])
    };
    fails(protocol, "the generation never goes back");
}

#[test]
fn the_check_finds_what_waiting_for_odd_does() {
    let protocol = Protocol {
        code: Code::WaitsForOdd,
        ..Protocol::new(&[&[Set, Clear], &[Wait]])
    };
    fails(protocol, "no wait misses a set");
}

#[test]
fn the_check_finds_what_get_then_set_does() {
    let protocol = Protocol {
        code: Code::GetsThenSets,
        ..Protocol::new(&[&[Set], &[Set, Clear]])
    };
    fails(protocol, "the generation never goes back");
}

#[test]
fn the_check_finds_what_a_swap_from_no_value_does_on_sqlite() {
    let protocol = Protocol {
        code: Code::SwapsFromAbsent,
        is_sqlite: true,
        ..Protocol::new(&[&[Set], &[Set, Clear]])
    };
    fails(protocol, "the generation never goes back");
}

#[test]
fn the_check_finds_what_a_change_without_a_tag_does() {
    // A clear that has read the first set, and writes after the second one.
    let protocol = Protocol {
        code: Code::HasNoTags,
        ..Protocol::new(&[&[Set, Clear, Set], &[Clear], &[Wait]])
    };
    fails(protocol, "no wait misses a set");
}

#[test]
fn the_check_finds_what_comparing_generations_does_without_compare_and_swap() {
    let protocol = Protocol {
        code: Code::ComparesGenerations,
        ..Protocol::new(&[&[Set, Clear, Set], &[Clear], &[Wait]])
    };
    fails(protocol, "no wait misses a set");
}

#[test]
fn the_check_finds_what_a_blind_clear_does() {
    let protocol = Protocol {
        code: Code::ClearsBlindly,
        ..Protocol::new(&[&[Clear], &[Wait]])
    };
    fails(protocol, "no wait returns without a set");
}

#[test]
fn two_clears_that_race_with_a_set_and_a_waiter() {
    let programs = [&[Set, Clear][..], &[Clear], &[Wait]];
    let protocol = Protocol {
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("pulse, clear, wait, one death", &protocol);
}

#[test]
fn three_that_change_and_one_that_waits_on_registers_that_fail() {
    let programs = [&[Set, Clear][..], &[Clear], &[Set, Forget], &[Wait]];
    let protocol = Protocol {
        code: Code::Plain,
        faults: 1,
        ..Protocol::new(&programs)
    };
    holds_on(
        "registers",
        "pulse, clear, set and forget, wait, one fault",
        &protocol,
    );
}

#[test]
fn registers_cannot_keep_the_promises_of_compare_and_swap() {
    let plain = |programs: &[&[Operation]]| Protocol {
        code: Code::Plain,
        is_strict: true,
        ..Protocol::new(programs)
    };
    let two_clears = plain(&[&[Set, Clear], &[Clear], &[Wait]]);
    fails(two_clears, "no wait returns without a set");
    let forgotten_at_once = plain(&[&[Set, Forget], &[Wait]]);
    fails(forgotten_at_once, "no wait misses a set");
}
