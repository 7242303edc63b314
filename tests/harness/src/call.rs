//! [`Call`]: a request on its way through an instance, which is abandoned if its client gives up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::guest::Life;

/// A call of the component, from the request's head to the end of the response.
#[derive(Debug)]
pub struct Call {
    /// The request's number.
    pub number: u64,
    abandoned: CancellationToken,
    /// The instance that took the call.
    taker: OnceLock<Taker>,
    /// Whether the instance knows that the call is abandoned.
    is_counted: AtomicBool,
    /// The call's share of [`Limits::concurrent_requests`](crate::Limits::concurrent_requests).
    _permit: Option<OwnedSemaphorePermit>,
}

/// The instance that took a call. It may have ended.
#[derive(Debug)]
pub struct Taker {
    life: Weak<Life>,
    /// The instance's number.
    pub instance: u64,
    killed: Arc<AtomicBool>,
}

impl Taker {
    /// Whether the instance was [killed](Life::is_killed).
    pub fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

impl Call {
    /// A call for the request of this number.
    pub fn new(number: u64, permit: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self {
            number,
            abandoned: CancellationToken::new(),
            taker: OnceLock::new(),
            is_counted: AtomicBool::new(false),
            _permit: permit,
        })
    }

    /// An instance takes the call.
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

    /// The instance that took the call.
    pub fn taker(&self) -> Option<&Taker> {
        self.taker.get()
    }

    /// The instance that took the call, if it has not ended.
    pub fn life(&self) -> Option<Arc<Life>> {
        self.taker()?.life.upgrade()
    }

    /// What host functions know of the call.
    pub fn asker(&self) -> Asker {
        Asker {
            request: self.number,
            abandoned: self.abandoned.clone(),
        }
    }

    fn abandon(&self) {
        self.abandoned.cancel();
        // If no instance has taken the call yet, `begin` does this.
        self.count();
    }

    /// Tells the instance, once, that this call is abandoned.
    fn count(&self) {
        if let Some(life) = self.life()
            && !self.is_counted.swap(true, Ordering::Relaxed)
        {
            life.abandons();
        }
    }
}

/// The request for which a guest calls a host function.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The request's number.
    pub request: u64,
    abandoned: CancellationToken,
}

impl Asker {
    /// Whether nobody waits for the response.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }
}

/// A client that waits for a call's answer. If it is dropped before [`ends`](Self::ends), the call is abandoned.
#[derive(Debug)]
pub struct Waiting(Option<Arc<Call>>);

impl Waiting {
    /// A client that waits for the answer of `call`.
    pub fn new(call: Arc<Call>) -> Self {
        Self(Some(call))
    }

    /// The call is answered.
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
    /// Keeps the call under way until the response is sent.
    _call: Arc<Call>,
}

impl Sending {
    /// The response of `call`.
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
