//! Lets a model checker explore every order in which processes take their steps on a store.
//!
//! The processes run the code that ships. A model checker has to copy and compare its states, and a future can be neither copied
//! nor compared. But a process is determined by the store's answers to it. So a state of a model holds these answers, and the
//! future runs again from its start to find out which step comes next.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loopless::clock::{Calendar, Clock};
use loopless::store::{Atomics, Error, Store};

pub type Value = Option<Vec<u8>>;

/// One atomic step on the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Get,
    Keys,
    Add(i64),
    /// Reads the value that the swap of this compare-and-swap expects.
    Look,
    Swap {
        seen: Value,
        new: Vec<u8>,
    },
    /// A plain write. `None` deletes.
    Put(Value),
}

/// The store's answer to a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Value(Value),
    Keys(Vec<String>),
    Sum(i64),
    Swapped(bool),
    Done,
    Failed,
}

/// The store and the clock of one process of the model. They let the process go as far as it has answers.
#[derive(Clone, Debug)]
pub struct Replay {
    run: Arc<Mutex<Run>>,
    date: Duration,
    constant: Option<&'static str>,
}

#[derive(Debug)]
struct Run {
    answers: Vec<Answer>,
    taken: usize,
    asks: Option<(String, Step)>,
    time: Duration,
}

impl Replay {
    /// A process that has received these answers, on a machine with this date.
    pub fn new(answers: &[Answer], date: Duration) -> Self {
        let run = Run {
            answers: answers.to_vec(),
            taken: 0,
            asks: None,
            time: Duration::ZERO,
        };
        Self {
            run: Arc::new(Mutex::new(run)),
            date,
            constant: None,
        }
    }

    /// Declares that no process writes keys that begin with `prefix`, so that a read of such a key is not a step.
    pub fn with_constant(mut self, prefix: &'static str) -> Self {
        self.constant = Some(prefix);
        self
    }

    /// Runs the code of the process from its start. Returns the first step that has no answer yet, or `None` if the code ends
    /// before.
    pub fn play(&self, code: impl Future<Output = ()>) -> Option<(String, Step)> {
        let mut context = Context::from_waker(Waker::noop());
        _ = pin!(code).poll(&mut context);
        self.run().asks.clone()
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap()
    }

    /// Returns the recorded answer to the next step. If there is none yet, records the step and never returns.
    async fn ask(&self, key: &str, step: Step) -> Answer {
        let answer = {
            let mut run = self.run();
            let answer = run.answers.get(run.taken).cloned();
            match answer {
                Some(_) => run.taken += 1,
                None => run.asks = Some((key.into(), step)),
            }
            answer
        };
        match answer {
            Some(answer) => answer,
            None => pending().await,
        }
    }

    async fn ask_to_do(&self, key: &str, step: Step) -> Result<(), Error> {
        match self.ask(key, step).await {
            Answer::Done => Ok(()),
            answer => failed(answer),
        }
    }

    /// Reads the value and, if it is `old` or `old` is `None`, swaps it. Returns the answer to the swap.
    pub async fn compare_and_swap(
        &self,
        key: &str,
        old: Option<&[u8]>,
        new: &[u8],
    ) -> Result<bool, Error> {
        let seen = match self.ask(key, Step::Look).await {
            Answer::Value(seen) => seen,
            answer => return failed(answer),
        };
        if old.is_some_and(|old| seen.as_deref() != Some(old)) {
            return Ok(false);
        }
        let new = new.to_vec();
        match self.ask(key, Step::Swap { seen, new }).await {
            Answer::Swapped(answer) => Ok(answer),
            answer => failed(answer),
        }
    }
}

fn failed<T>(answer: Answer) -> Result<T, Error> {
    Err(Error::new(format!("the answer was {answer:?}")))
}

impl Store for Replay {
    async fn get(&self, key: &str) -> Result<Value, Error> {
        if self.constant.is_some_and(|prefix| key.starts_with(prefix)) {
            return Ok(None);
        }
        match self.ask(key, Step::Get).await {
            Answer::Value(value) => Ok(value),
            answer => failed(answer),
        }
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.ask_to_do(key, Step::Put(Some(value.to_vec()))).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.ask_to_do(key, Step::Put(None)).await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        match self.ask("", Step::Keys).await {
            Answer::Keys(keys) => Ok(keys),
            answer => failed(answer),
        }
    }
}

impl Atomics for Replay {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        match self.ask(key, Step::Add(delta)).await {
            Answer::Sum(sum) => Ok(sum),
            answer => failed(answer),
        }
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        self.compare_and_swap(key, Some(old), new).await.map(drop)
    }
}

impl Clock for Replay {
    fn now(&self) -> Duration {
        self.run().time
    }

    /// Time passes for a process only while it has no step to take. Processes share no clock: any of them may be slow, so
    /// every order of their steps is possible in time.
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

impl Calendar for Replay {
    fn date(&self) -> Duration {
        self.date
    }
}
