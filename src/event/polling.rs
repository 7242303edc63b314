use std::time::Duration;

/// How long a wait counts as young. A young wait reads often.
const YOUNG: Duration = Duration::from_secs(2);

/// How often the waits of an instance read the store.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use std::time::Duration;
///
/// use loopless::event::Polling;
///
/// let rarely = Polling { first: Duration::from_millis(50), last: Duration::from_secs(1) };
/// let door = door.with_polling(rarely);
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// The longest time between two readings of a new wait. It grows to at most 1.5 times as much until the wait is 2 s
    /// old.
    pub first: Duration,
    /// The longest time between two readings of an old wait.
    pub last: Duration,
}

impl Default for Polling {
    /// 5 ms and 100 ms.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(5),
            last: Duration::from_millis(100),
        }
    }
}

impl Polling {
    /// The longest time between two readings when a wait is `age` old.
    ///
    /// Somebody is watching a young wait, so it must end within milliseconds of a set. An old one must be cheap.
    pub(super) fn interval(self, age: Duration) -> Duration {
        if age < YOUNG {
            self.grace(age).min(self.first * 3 / 2)
        } else {
            self.grace(age)
        }
    }

    /// How far a wait may exceed its `timeout`: a twentieth of it, but at least `first` and at most `last`.
    pub(super) fn grace(self, timeout: Duration) -> Duration {
        (timeout / 20).min(self.last).max(self.first)
    }
}
