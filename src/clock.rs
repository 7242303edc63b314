//! What waiting needs of a clock.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// The time since some fixed moment. It never goes back.
    fn now(&self) -> Duration;

    /// Waits until `duration` has passed.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// A clock that also knows the date.
pub trait Calendar: Clock {
    /// The time since 1970-01-01T00:00:00Z, as this machine has it. It may jump.
    fn date(&self) -> Duration;
}

/// What `future` gives, or `None` if it has given nothing by `deadline`. It is dropped then.
pub async fn before<T>(
    clock: &impl Clock,
    deadline: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = pin!(clock.sleep(deadline.saturating_sub(clock.now())));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}
