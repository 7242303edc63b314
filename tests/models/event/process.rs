//! The processes of the model: their operations, and the code that they execute.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loopless::event::{Events, Name, Polling, Waited};
use loopless::store::{Error, Store};
use loopless::strategy::{Exact, Plain, Strategy};

use super::value::{is_set, number, text};
use crate::replay::{Answer, Replay, Step};

/// The timeout of a wait: long enough for a few reads.
const TIMEOUT: Duration = Duration::from_millis(10);

/// The one key of the model.
const KEY: &str = "event/event";

/// An operation of a process on the event.
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

/// The code of a process: the code that ships, or a plausible mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The strategy with compare-and-swap.
    Exact,
    /// The strategy on registers.
    Plain,
    /// On registers, with the same tag for all changes.
    HasNoTags,
    /// On registers, waits until the generation is higher.
    ComparesGenerations,
    /// On registers, clears without a read.
    ClearsBlindly,
    /// Swaps until the answer is that the swap was applied.
    TrustsTheSwap,
    /// Waits until the event is set, not until its generation differs.
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

/// Runs one operation with a plausible mistake.
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

/// A source of tags that no other change has, of this process or another.
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

/// The source of tags for the code that ships.
type Random = Box<dyn Fn() -> u64 + Send + Sync>;

/// The events of a process, with the code that ships.
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
    /// Whether the code uses registers, and not compare-and-swap.
    pub fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Plain | Self::HasNoTags | Self::ComparesGenerations | Self::ClearsBlindly
        )
    }
}

/// A process: its program, the answers of the store, and how far it has come with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    program: Arc<[Operation]>,
    answers: Vec<Answer>,
    pub is_dead: bool,
    /// Its tags are the numbers after this one.
    first_tag: u64,
    progress: Arc<Progress>,
}

/// How far a process has come.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    pub outcomes: Vec<Outcome>,
    pub asks: Option<Step>,
}

impl Process {
    /// A process that has taken no step.
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

    /// How far it has come.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The operation that it is in, unless it has ended.
    pub fn operation(&self) -> Option<Operation> {
        self.program.get(self.progress.outcomes.len()).copied()
    }

    /// Takes its step, with this answer.
    pub fn take(&mut self, code: Code, answer: Answer) {
        self.answers.push(answer);
        let progress = replay(code, &self.program, &self.answers, self.first_tag);
        self.progress = Arc::new(progress);
    }
}

/// Runs a process from its start to the first step that has no answer yet, or to its end.
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
                // Its effect is unknown, so it stays under way in the history.
                break;
            }
        }
    });
    Progress {
        outcomes,
        asks: asks.map(|(_, step)| step),
    }
}
