use std::borrow::Cow;
use std::fmt;

/// The name of an event: 1 to 64 of the characters that need no escape in a URL, `A-Z a-z 0-9 . _ ~ -`.
///
/// `.` and `..` are not names, because clients remove them from the paths of URLs (RFC 3986, 5.2.4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Cow<'static, str>);

impl Name {
    /// The event of the demo page.
    pub const DEMO: Self = Self(Cow::Borrowed("event"));

    /// The event that asks the [service](crate::service) to stop.
    pub const SERVICE_CANCEL: Self = Self(Cow::Borrowed("service.cancel"));

    /// The event that the [service](crate::service) sets when it has stopped.
    pub const SERVICE_STOPPED: Self = Self(Cow::Borrowed("service.stopped"));

    /// The longest name, in bytes.
    pub const LONGEST: usize = 64;

    /// Returns `text` as a name, or `None` if it is not one.
    ///
    /// ```
    /// use loopless::event::Name;
    ///
    /// assert!(Name::new("door.front").is_some());
    /// assert!(Name::new("no spaces").is_none());
    /// ```
    pub fn new(text: &str) -> Option<Self> {
        let is_name = (1..=Self::LONGEST).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
            && ![".", ".."].contains(&text);
        is_name.then(|| Self(Cow::Owned(text.into())))
    }

    /// Returns the name as text.
    ///
    /// ```
    /// # use loopless::event::Name;
    /// assert_eq!(Name::DEMO.as_str(), "event");
    /// ```
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
