//! What the processes of the model do, and with which code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loopless::event::{Events, Name, Polling, Waited};
use loopless::store::{Error, Store};
use loopless::strategy::{Exact, Plain, Strategy};

use super::value::{is_set, number, text};
use crate::replay::{Answer, Replay, Step};

/// How long a waiter waits: a first reading, and a few more.
const TIMEOUT: Duration = Duration::from_millis(10);

/// The one key of the model.
const KEY: &str = "event/event";

/// What a process does with the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Set,
    Clear,
    IsSet,
    Forget,
    Wait,
}

/// What an operation returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Done,
    Is(bool),
    WaitedForASet,
    WaitedInVain,
    Forgotten,
    Failed,
}

/// The code of a process: what ships, or something that somebody might write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
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
async fn naive(
    store: &Replay,
    tags: &Tags,
    code: Code,
    operation: Operation,
) -> Result<Outcome, Error> {
    let set = match operation {
        Operation::IsSet => return Ok(Outcome::Is(is_set(&store.get(KEY).await?))),
        Operation::Wait => {
            let mut start = None;
            for _ in 0..3 {
                let value = store.get(KEY).await?;
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
        let value = format!("2.{:016x}", tags.next());
        store.set(KEY, value.as_bytes()).await?;
        return Ok(Outcome::Done);
    }
    let value = store.get(KEY).await?;
    let from = number(&value);
    if is_set(&value) == set {
        return Ok(Outcome::Done);
    }
    let next = text(from + 1);
    match code {
        Code::GetsThenSets => {
            store.set(KEY, &next).await?;
            Ok(Outcome::Done)
        }
        Code::SwapsFromAbsent => {
            store.compare_and_swap(KEY, value.as_deref(), &next).await?;
            Ok(Outcome::Done)
        }
        _ => {
            for _ in 0..2 {
                if store.compare_and_swap(KEY, None, &next).await? {
                    return Ok(Outcome::Done);
                }
            }
            Err(Error::new("the swap never succeeded"))
        }
    }
}

/// Runs one operation of a process.
async fn run(
    store: &Replay,
    tags: &Tags,
    code: Code,
    operation: Operation,
    events: &Instance,
) -> Outcome {
    let is_naive = match code {
        Code::Exact | Code::Plain | Code::HasNoTags => false,
        Code::WaitsForOdd | Code::ComparesGenerations => operation == Operation::Wait,
        Code::ClearsBlindly => operation == Operation::Clear,
        Code::TrustsTheSwap | Code::GetsThenSets | Code::SwapsFromAbsent => true,
    };
    if is_naive {
        let outcome = naive(store, tags, code, operation).await;
        return outcome.unwrap_or(Outcome::Failed);
    }
    match events {
        Instance::Exact(events) => shipped(events, operation).await,
        Instance::Plain(events) => shipped(events, operation).await,
    }
}

/// Tags that no other change has, of this process or another one.
#[derive(Clone)]
struct Tags(Arc<AtomicU64>);

impl Tags {
    fn after(first: u64) -> Self {
        Self(Arc::new(AtomicU64::new(first)))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Where the tags of the code that ships come from.
type Random = Box<dyn Fn() -> u64 + Send + Sync>;

/// The events of a process, as the code that ships has them.
enum Instance {
    Exact(Events<Exact<Replay, Random>, Replay>),
    Plain(Events<Plain<Replay, Random>, Replay>),
}

impl Instance {
    fn new(store: &Replay, tags: &Tags, code: Code) -> Self {
        let tags = tags.clone();
        let tags: Random = match code {
            Code::HasNoTags => Box::new(|| 0),
            _ => Box::new(move || tags.next()),
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
    pub fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Plain | Self::HasNoTags | Self::ComparesGenerations | Self::ClearsBlindly
        )
    }
}

/// A process: what it does, what the store has answered, and where it is with that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    program: Arc<[Operation]>,
    answers: Vec<Answer>,
    pub is_dead: bool,
    /// Its tags follow this one.
    first_tag: u64,
    progress: Arc<Progress>,
}

/// Where a process is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    pub outcomes: Vec<Outcome>,
    pub asks: Option<Step>,
}

impl Process {
    /// One that begins, with tags of its own.
    pub fn new(code: Code, program: &[Operation], first_tag: u64) -> Self {
        Self {
            program: program.into(),
            answers: Vec::new(),
            is_dead: false,
            first_tag,
            progress: Arc::new(replay(code, program, &[], first_tag)),
        }
    }

    /// Whether it has taken a step.
    pub fn has_begun(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Where it is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// What it does now, unless it is at its end.
    pub fn operation(&self) -> Option<Operation> {
        self.program.get(self.progress.outcomes.len()).copied()
    }

    /// Takes this answer to what it asks.
    pub fn take(&mut self, code: Code, answer: Answer) {
        self.answers.push(answer);
        let progress = replay(code, &self.program, &self.answers, self.first_tag);
        self.progress = Arc::new(progress);
    }
}

/// Runs a process from its start to the first step that has no answer yet.
fn replay(code: Code, program: &[Operation], answers: &[Answer], first_tag: u64) -> Progress {
    let store = Replay::new(answers, Duration::ZERO);
    let tags = Tags::after(first_tag);
    let mut outcomes = Vec::new();
    let asks = store.play(async {
        let events = Instance::new(&store, &tags, code);
        for &operation in program {
            let outcome = run(&store, &tags, code, operation, &events).await;
            outcomes.push(outcome);
            if outcome == Outcome::Failed {
                // Nobody knows what it did: for the history, it is still under way.
                break;
            }
        }
    });
    Progress {
        outcomes,
        asks: asks.map(|(_, step)| step),
    }
}
