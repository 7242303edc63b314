//! A timer with an error of microseconds. That of the runtime's timer is up to a millisecond, which is longer than a request.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    pub struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub fn new() -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
            #[expect(
                deprecated,
                reason = "its successor is unsafe, for types whose descriptor is not their own as this one's is"
            )]
            let timer = AsyncFd::new(timer)?;
            Ok(Self(timer))
        }

        pub async fn sleep(&self, time: Duration) -> io::Result<()> {
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let once = Itimerspec {
                it_interval: zero,
                it_value: Timespec {
                    tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: time.subsec_nanos().into(),
                },
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            // The timer needs no read: setting it again makes it unready.
            self.0.readable().await?.clear_ready();
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::time::Duration;

    pub struct Timer;

    impl Timer {
        pub fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub async fn sleep(&self, time: Duration) -> io::Result<()> {
            tokio::time::sleep(time).await;
            Ok(())
        }
    }
}

/// A timer for one sleep at a time.
pub struct Timer(system::Timer);

impl Timer {
    pub fn new() -> io::Result<Self> {
        Ok(Self(system::Timer::new()?))
    }

    /// Waits until `due`, and returns the time from which to measure: `due` if it was over already, and otherwise the time after
    /// the wait. So the timer's own delay is not attributed to the server.
    pub async fn until(&self, due: Instant) -> io::Result<Instant> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(due);
        }
        self.0.sleep(left).await?;
        Ok(Instant::now())
    }
}
