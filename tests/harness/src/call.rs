//! A request's call of the component: who waits for its answer, and that nobody does any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::guest::Life;

/// A call, from when the host takes the request until the guest has answered and the answer is sent.
#[derive(Debug)]
pub struct Call {
    /// The request's number.
    pub number: u64,
    abandoned: CancellationToken,
    /// The instance that took it.
    taker: OnceLock<Taker>,
    is_counted: AtomicBool,
    /// Its place among those that may be under way at the same time.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The instance that took a call. It may be gone.
#[derive(Debug)]
pub struct Taker {
    life: Weak<Life>,
    /// Its number.
    pub instance: u64,
    killed: Arc<AtomicBool>,
}

impl Taker {
    /// Whether somebody has ended it.
    pub fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

impl Call {
    /// A call for the request of this number, with its place among those that are under way.
    pub fn new(number: u64, permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self {
            number,
            abandoned: CancellationToken::new(),
            taker: OnceLock::new(),
            is_counted: AtomicBool::new(false),
            _permit: permit,
        })
    }

    /// An instance takes it.
    pub fn begin(&self, life: &Arc<Life>) {
        life.takes();
        _ = self.taker.set(Taker {
            life: Arc::downgrade(life),
            instance: life.instance,
            killed: life.killed(),
        });
        if self.abandoned.is_cancelled() {
            self.count();
        }
    }

    /// The instance that took it.
    pub fn taker(&self) -> Option<&Taker> {
        self.taker.get()
    }

    /// The same, if it lives.
    pub fn life(&self) -> Option<Arc<Life>> {
        self.taker()?.life.upgrade()
    }

    /// What a host's functions know of the call that they are called in.
    pub fn asker(&self) -> Asker {
        Asker {
            request: self.number,
            abandoned: self.abandoned.clone(),
        }
    }

    /// Nobody waits for the answer any more.
    fn abandon(&self) {
        self.abandoned.cancel();
        // If no instance has it yet, the one that takes it will see.
        self.count();
    }

    /// Tells the instance that this call is abandoned, once.
    fn count(&self) {
        if let Some(life) = self.life()
            && !self.is_counted.swap(true, Ordering::Relaxed)
        {
            life.abandons();
        }
    }
}

/// Who makes a call of the host's.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The number of the request that the guest works for.
    pub request: u64,
    abandoned: CancellationToken,
}

impl Asker {
    /// Whether nobody waits for what it works for.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }
}

/// Somebody who waits for the answer of a call. Dropped before that, it abandons the call.
#[derive(Debug)]
pub struct Waiting(Option<Arc<Call>>);

impl Waiting {
    /// Waits for this call's answer.
    pub fn new(call: Arc<Call>) -> Self {
        Self(Some(call))
    }

    /// It has the answer.
    pub fn ends(mut self) {
        if let Some(life) = self.0.take().and_then(|call| call.life()) {
            life.answers();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call.abandon();
        }
    }
}

/// A response that is being sent.
#[derive(Debug)]
pub struct Sending {
    life: Option<Arc<Life>>,
    /// It is under way as long as its response.
    _call: Arc<Call>,
}

impl Sending {
    /// The response to this call.
    pub fn new(call: Arc<Call>) -> Self {
        let life = call.life();
        if let Some(life) = &life {
            life.begins_body();
        }
        Self { life, _call: call }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(life) = &self.life {
            life.ends_body();
        }
    }
}
