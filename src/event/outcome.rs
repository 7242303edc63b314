use super::State;

/// How [`Event::wait`](super::Event::wait) ended, with the newest state that it read.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use std::time::Duration;
///
/// use loopless::event::Waited;
///
/// match door.wait(Duration::from_millis(20)).await? {
///     Waited::Set(state) => println!("It was set, and is {state} now."),
///     Waited::TimedOut(_) => println!("Nobody set it."),
///     Waited::Forgotten(_) => println!("It was forgotten."),
/// }
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The event was set at some time during the wait. The state says whether it was still set at the last read.
    Set(State),
    /// The timeout passed without a set.
    TimedOut(State),
    /// The event was forgotten, as far as is known without having been set.
    Forgotten(State),
}

impl Waited {
    /// The newest state that the wait read.
    ///
    /// ```
    /// # loopless::event::example(async |events, door| {
    /// # use std::time::Duration;
    /// door.set().await?;
    /// let waited = door.wait(Duration::from_secs(1)).await?;
    /// assert!(waited.state().is_set());
    /// # Ok(()) });
    /// ```
    pub fn state(self) -> State {
        match self {
            Self::Set(state) | Self::TimedOut(state) | Self::Forgotten(state) => state,
        }
    }
}

/// What [`Event::change`](super::Event::change) did.
///
/// ```
/// # loopless::event::example(async |events, door| {
/// use loopless::event::Changed;
///
/// assert!(matches!(door.change(true).await?, Changed::Yes(_)));
/// assert!(matches!(door.change(true).await?, Changed::No(_)));
/// # Ok(()) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The event was read in the other state, and was in this one afterwards.
    Yes(State),
    /// The event was in this state already. Nothing was written.
    No(State),
    /// The event was in a state that the condition does not allow. Nothing was written.
    Refused(State),
}
