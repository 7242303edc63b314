//! Several processes on one store, each with its own stall and date.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::clock::Clock;
use crate::store::host::Host;
use crate::store::{self, Store};

/// A process's path to the store, in which one step takes very long.
#[derive(Debug)]
pub(super) struct Path {
    host: Host,
    steps: AtomicU64,
    stall: Option<(u64, Duration)>,
}

impl Path {
    /// Even numbers stall before a step, odd ones after it.
    async fn stall(&self, is_before: bool, step: u64) {
        if let Some((at, duration)) = self.stall
            && at / 2 == step
            && (at % 2 == 0) == is_before
        {
            sleep(duration).await;
        }
    }

    async fn take<T>(&self, step: impl Future<Output = T>) -> T {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        self.stall(true, number).await;
        let result = step.await;
        self.stall(false, number).await;
        result
    }
}

impl Store for Path {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, store::Error> {
        self.take(self.host.get(key)).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), store::Error> {
        self.take(self.host.set(key, value)).await
    }

    async fn delete(&self, key: &str) -> Result<(), store::Error> {
        self.take(self.host.delete(key)).await
    }

    async fn keys(&self) -> Result<Vec<String>, store::Error> {
        self.take(self.host.keys()).await
    }
}

impl Atomics for Path {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, store::Error> {
        self.take(self.host.increment(key, delta)).await
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), store::Error> {
        self.take(self.host.swap(key, old, new)).await
    }
}

/// Tokio's clock, with a wrong date.
#[derive(Debug)]
pub(super) struct Dated {
    began: Instant,
    skew: Duration,
}

impl Clock for Dated {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        sleep(duration)
    }
}

impl Calendar for Dated {
    fn date(&self) -> Duration {
        Duration::from_secs(1_700_000_000) + self.skew + self.began.elapsed()
    }
}

/// The store and the printed lines that all processes of a test share.
pub(super) struct World {
    pub(super) host: Host,
    pub(super) began: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            began: Instant::now(),
            lines: Arc::default(),
        }
    }

    pub(super) fn process(&self) -> Arc<Process> {
        self.stalling(None, Duration::ZERO)
    }

    pub(super) fn stalling(&self, stall: Option<(u64, Duration)>, skew: Duration) -> Arc<Process> {
        let path = Path {
            host: self.host.clone(),
            steps: AtomicU64::new(0),
            stall,
        };
        let clock = Dated {
            began: self.began,
            skew,
        };
        Arc::new(Process {
            events: Events::new(Exact::new(path, || 0), clock),
            lines: self.lines.clone(),
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(super) fn count(&self, text: &str) -> u64 {
        let lines = self.lines();
        lines.iter().filter(|line| *line == text).count() as u64
    }
}

/// One instance of one machine.
pub(super) struct Process {
    pub(super) events: Events<Exact<Path>, Dated>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub(super) fn service(&self) -> Service<'_, Path, Dated> {
        Service::new(&self.events, Duration::from_secs(5), Polling::default())
    }

    pub(super) fn say(&self) -> impl Fn(&str) + Send + Sync {
        let lines = self.lines.clone();
        move |line: &str| lines.lock().unwrap().push(line.into())
    }

    pub(super) fn run(self: &Arc<Self>, runner: Runner) -> JoinHandle<()> {
        let process = self.clone();
        tokio::spawn(async move { process.service().run(runner, process.say()).await })
    }

    pub(super) async fn start(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        match self.service().start(self.say()).await.unwrap() {
            Started::Now(runner) => Some(self.run(runner)),
            Started::Already(_) => None,
        }
    }

    pub(super) async fn stop(&self, timeout: Duration) -> Stopped {
        self.service().stop(timeout, self.say()).await.unwrap()
    }

    pub(super) async fn status(&self) -> Status {
        self.service().status().await.unwrap()
    }
}
