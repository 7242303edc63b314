//! The clock that waits need.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// A monotonic clock.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use loopless::clock::Clock;
///
/// struct Mine(Instant);
///
/// impl Clock for Mine {
///     fn now(&self) -> Duration {
///         self.0.elapsed()
///     }
///
///     async fn sleep(&self, duration: Duration) {
///         tokio::time::sleep(duration).await;
///     }
/// }
/// ```
pub trait Clock: Send + Sync {
    /// Returns the time since some fixed moment. It never goes back.
    fn now(&self) -> Duration;

    /// Waits until `duration` has passed.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// A clock that also knows the date.
///
/// ```
/// use loopless::clock::{Calendar, Tokio};
///
/// assert!(Tokio::default().date().as_secs() > 1_700_000_000);
/// ```
pub trait Calendar: Clock {
    /// Returns the time since 1970-01-01T00:00:00Z by this machine's clock, which may jump.
    fn date(&self) -> Duration;
}

/// Tokio's clock. It pauses with Tokio's time.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use loopless::clock::{Clock, Tokio};
///
/// let clock = Tokio::default();
/// clock.sleep(std::time::Duration::from_millis(1)).await;
/// assert!(clock.now().as_millis() >= 1);
/// # Ok(()) });
/// ```
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Copy, Debug)]
pub struct Tokio {
    started: tokio::time::Instant,
}

#[cfg(not(target_family = "wasm"))]
impl Default for Tokio {
    /// A clock that starts at 0 now.
    fn default() -> Self {
        Self {
            started: tokio::time::Instant::now(),
        }
    }
}

#[cfg(not(target_family = "wasm"))]
impl Clock for Tokio {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}

#[cfg(not(target_family = "wasm"))]
impl Calendar for Tokio {
    fn date(&self) -> Duration {
        let date = std::time::SystemTime::UNIX_EPOCH.elapsed();
        date.unwrap_or_default()
    }
}

/// Awaits `future` until `deadline`. Returns `None`, and drops `future`, if it is not ready by then.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use std::time::Duration;
///
/// use loopless::clock::{Tokio, before};
///
/// let clock = Tokio::default();
/// let never = std::future::pending::<()>();
/// assert_eq!(before(&clock, Duration::from_millis(1), never).await, None);
/// # Ok(()) });
/// ```
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
