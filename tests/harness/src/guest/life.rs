//! [`Life`]: when an instance ends, and why.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::handler::WorkerStatus;

/// The life of one instance, which anybody may end.
#[derive(Debug)]
pub struct Life {
    /// The instance's number: 1 is the first that its host made.
    pub instance: u64,
    /// Whether somebody has ended it.
    killed: Arc<AtomicBool>,
    /// Cancelled when calls of the store that were held back for abandoned requests get their answer, an error.
    pub(super) released: CancellationToken,
    state: Mutex<LifeState>,
}

#[derive(Debug, Default)]
struct LifeState {
    /// Who has to be told of changes.
    waker: Option<Waker>,
    /// How many calls it has taken since it last had nothing to do.
    calls: usize,
    /// How many of them are answered.
    answered: usize,
    /// How many of them nobody wants answered any more.
    abandoned: usize,
    /// How many of its responses are being sent.
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

    /// Ends the instance, wherever it is. The requests that it serves fail.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.state().wake();
    }

    /// Whether it was [killed](Self::kill), or ended because nobody wanted what it did.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// The same, for somebody who asks when the instance is gone.
    pub fn killed(&self) -> Arc<AtomicBool> {
        self.killed.clone()
    }

    /// It has taken a call.
    pub fn takes(&self) {
        self.state().calls += 1;
    }

    /// Somebody has got the answer to a call of it.
    pub fn answers(&self) {
        let mut state = self.state();
        state.answered += 1;
        if state.abandoned > 0 {
            state.wake();
        }
    }

    /// Nobody wants this call of its answered any more.
    pub fn abandons(&self) {
        let mut state = self.state();
        state.abandoned += 1;
        state.wake();
    }

    /// Whether somebody has abandoned a call that may not have ended yet. It takes no more then: those would wait for the
    /// same event as the abandoned ones, perhaps, and the errors of these would delay them.
    pub fn has_abandoned(&self) -> bool {
        self.state().abandoned > 0
    }

    /// A response of it begins to be sent.
    pub fn begins_body(&self) {
        self.state().bodies += 1;
    }

    /// A response of it was sent, or given up.
    pub fn ends_body(&self) {
        let mut state = self.state();
        state.bodies -= 1;
        if state.abandoned > 0 {
            state.wake();
        }
    }

    /// Whether it is over, when its worker is in this status.
    ///
    /// Wasmtime 48 has no way to cancel a guest's task (its issue 11833). What can be done is to end the instance, where
    /// none but abandoned calls can have anything left to do in it; and otherwise, when all others have their answers, to
    /// let the abandoned ones go on, with errors from the store, to the end of their own patience. (They are not made to
    /// expire: a guest whose answer nobody takes would never end.)
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
