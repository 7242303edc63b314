//! [`Life`]: what ends an instance before its time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::handler::WorkerStatus;

/// The life of one instance. It counts the instance's calls, and ends the instance if nobody waits for any of them.
#[derive(Debug)]
pub struct Life {
    /// The instance's number, from 1 in the order in which its host made them.
    pub instance: u64,
    killed: Arc<AtomicBool>,
    /// Cancelled to let the store calls of abandoned requests return, with an error.
    pub(super) released: CancellationToken,
    state: Mutex<LifeState>,
}

#[derive(Debug, Default)]
struct LifeState {
    /// Wakes the instance's worker.
    waker: Option<Waker>,
    /// How many calls the instance has taken since it was last idle.
    calls: usize,
    /// How many of them are answered.
    answered: usize,
    /// How many of them are abandoned: nobody waits for the answer.
    abandoned: usize,
    /// How many responses are being sent.
    bodies: usize,
}

impl LifeState {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Life {
    pub(super) fn new(instance: u64) -> Arc<Self> {
        Arc::new(Self {
            instance,
            killed: Arc::default(),
            released: CancellationToken::new(),
            state: Mutex::default(),
        })
    }

    /// Ends the instance at its next pause. Its requests fail.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.state().wake();
    }

    /// Whether it was [killed](Self::kill), or ended because all its calls were abandoned.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// The flag behind [`is_killed`](Self::is_killed), which outlives the instance.
    pub fn killed(&self) -> Arc<AtomicBool> {
        self.killed.clone()
    }

    /// The instance has taken a call.
    pub fn takes(&self) {
        self.state().calls += 1;
    }

    /// A call of the instance is answered.
    pub fn answers(&self) {
        let mut state = self.state();
        state.answered += 1;
        if state.abandoned > 0 {
            state.wake();
        }
    }

    /// A call of the instance is abandoned.
    pub fn abandons(&self) {
        let mut state = self.state();
        state.abandoned += 1;
        state.wake();
    }

    /// Whether there is an abandoned call that may not have ended. The instance then takes no more calls: these could share
    /// reads of the store with the abandoned ones, and be delayed by their errors.
    pub fn has_abandoned(&self) -> bool {
        self.state().abandoned > 0
    }

    /// The host begins to send a response of the instance.
    pub fn begins_body(&self) {
        self.state().bodies += 1;
    }

    /// A response of the instance was sent, or broke off.
    pub fn ends_body(&self) {
        let mut state = self.state();
        state.bodies -= 1;
        if state.abandoned > 0 {
            state.wake();
        }
    }

    /// Ready if the instance has to end. `status` is its worker's.
    ///
    /// Wasmtime 48 cannot cancel a guest's task (its issue 11833). So if all calls are abandoned, the instance ends. If some
    /// are, the others are answered first. Then the store calls of the abandoned ones return errors, so that their tasks end by
    /// themselves. (Expiration would not end them: a guest whose response nobody takes never ends.)
    pub(super) fn poll(&self, cx: &Context<'_>, status: WorkerStatus) -> Poll<()> {
        let mut state = self.state();
        state.waker = Some(cx.waker().clone());
        if status == WorkerStatus::Idle {
            // All tasks have ended.
            state.calls = 0;
            state.answered = 0;
            state.abandoned = 0;
        } else if state.abandoned > 0 {
            if state.abandoned == state.calls {
                self.killed.store(true, Ordering::Relaxed);
            } else if state.abandoned + state.answered == state.calls && state.bodies == 0 {
                self.released.cancel();
            }
        }
        if self.is_killed() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn state(&self) -> MutexGuard<'_, LifeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
