//! What an event needs of a clock.

use std::future::Future;
use std::time::Duration;

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// The time since some fixed moment. It never goes back.
    fn now(&self) -> Duration;

    /// Waits until `duration` has passed.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}
