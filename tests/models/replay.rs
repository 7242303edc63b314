//! Code that a model checker takes through every order of its steps on a store.
//!
//! What runs is the code that ships. A future cannot be copied or compared, as a model checker needs it. But an instance is a
//! function of what the store has answered it: so a state of a model holds those answers, and the future is run again from its
//! start to learn what it asks for next.

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
pub enum Answer {
    Value(Value),
    Keys(Vec<String>),
    Sum(i64),
    Swapped(bool),
    Done,
    Failed,
}

/// A process of the model, at most as far as it has come: its store and its clock.
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
    /// A process that has had these answers, on a machine that has this date.
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

    /// Nobody ever writes keys that begin with `prefix`: to read one is not a step.
    pub fn with_constant(mut self, prefix: &'static str) -> Self {
        self.constant = Some(prefix);
        self
    }

    /// Runs the process's code from its start to the first step that has no answer yet, which this returns, or to its end.
    pub fn play(&self, code: impl Future<Output = ()>) -> Option<(String, Step)> {
        let mut context = Context::from_waker(Waker::noop());
        _ = pin!(code).poll(&mut context);
        self.run().asks.clone()
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap()
    }

    /// The recorded answer to the next step, or, if there is none yet, a wait for it that does not end.
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

    /// Looks and, unless `old` is another value than that, swaps. Returns the answer.
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

impl Calendar for Replay {
    fn date(&self) -> Duration {
        self.date
    }
}
