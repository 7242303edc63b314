//! What an operator can set, by Spin variables.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::event::Polling;

/// A host's variables.
pub trait Variables: Send + Sync {
    /// The value of `name`, or `None` where the application does not have this variable.
    fn get(&self, name: &str) -> impl Future<Output = Result<Option<String>, String>> + Send;
}

/// The settings, each read from the variable of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `poll_first_ms` and `poll_last_ms`: how often waits read the store.
    pub polling: Polling,
    /// `wait_max_seconds`: the longest wait that a client may ask for.
    pub wait_max: Duration,
    /// `stream_max_seconds`: how long a stream goes on before the client has to ask again; 0 is for ever.
    pub stream_max: Option<Duration>,
    /// `service_lease_seconds`: how long a runner of the service may be silent before another one takes over.
    pub service_lease: Duration,
    /// `service_autostart`: whether the application's startup starts the service.
    pub service_autostart: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            polling: Polling::default(),
            // Below the 30 s that Akamai Functions give a request.
            wait_max: Duration::from_secs(25),
            stream_max: None,
            service_lease: Duration::from_secs(5),
            service_autostart: false,
        }
    }
}

/// A variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    name: &'static str,
    what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The Spin variable {} {}", self.name, self.what)
    }
}

impl std::error::Error for Error {}

impl Settings {
    /// Reads all of them. A variable that the application does not have leaves the default.
    ///
    /// # Errors
    ///
    /// Where a value is not a whole number in its range, or the host cannot say what it is.
    pub async fn read(variables: &impl Variables) -> Result<Self, Error> {
        let mut settings = Self::default();
        let Polling { first, last } = &mut settings.polling;
        if let Some(ms) = number(variables, "poll_first_ms", 1, 60_000).await? {
            *first = Duration::from_millis(ms);
        }
        if let Some(ms) = number(variables, "poll_last_ms", 1, 60_000).await? {
            *last = Duration::from_millis(ms);
        }
        if first > last {
            return Err(Error {
                name: "poll_first_ms",
                what: format!(
                    "is {}, more than poll_last_ms, which is {}",
                    first.as_millis(),
                    last.as_millis()
                ),
            });
        }
        if let Some(seconds) = number(variables, "wait_max_seconds", 1, 3600).await? {
            settings.wait_max = Duration::from_secs(seconds);
        }
        if let Some(seconds) = number(variables, "stream_max_seconds", 0, 86_400).await? {
            settings.stream_max = (seconds > 0).then(|| Duration::from_secs(seconds));
        }
        // A beat is a second: a lease must outlast one.
        if let Some(seconds) = number(variables, "service_lease_seconds", 2, 3600).await? {
            settings.service_lease = Duration::from_secs(seconds);
        }
        if let Some(autostart) = truth(variables, "service_autostart").await? {
            settings.service_autostart = autostart;
        }
        Ok(settings)
    }
}

/// The operator's token, which is in no [`Settings`]: it is read when it is needed, and not kept.
///
/// # Errors
///
/// Where the host cannot say what it is.
pub async fn operator_token(variables: &impl Variables) -> Result<Option<String>, Error> {
    let token = text(variables, "operator_token").await?;
    Ok(token.filter(|token| !token.is_empty()))
}

async fn text(variables: &impl Variables, name: &'static str) -> Result<Option<String>, Error> {
    variables.get(name).await.map_err(|error| Error {
        name,
        what: format!("cannot be read: {error}"),
    })
}

async fn truth(variables: &impl Variables, name: &'static str) -> Result<Option<bool>, Error> {
    match text(variables, name).await?.as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(value) => Err(Error {
            name,
            what: format!("is {value:?}; it must be true or false"),
        }),
    }
}

async fn number(
    variables: &impl Variables,
    name: &'static str,
    least: u64,
    most: u64,
) -> Result<Option<u64>, Error> {
    let Some(value) = text(variables, name).await? else {
        return Ok(None);
    };
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(Error {
            name,
            what: format!("is {value:?}; it must be a whole number from {least} to {most}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    struct Given(HashMap<&'static str, &'static str>);

    impl Variables for Given {
        async fn get(&self, name: &str) -> Result<Option<String>, String> {
            match self.0.get(name) {
                Some(&"!") => Err("the vault is closed".into()),
                value => Ok(value.map(ToString::to_string)),
            }
        }
    }

    fn read<const N: usize>(given: [(&'static str, &'static str); N]) -> Result<Settings, Error> {
        let given = Given(given.into());
        let mut reading = pin!(Settings::read(&given));
        match reading
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(settings) => settings,
            Poll::Pending => unreachable!("nothing here waits"),
        }
    }

    #[test]
    fn without_variables_the_defaults_hold() {
        assert_eq!(read([]), Ok(Settings::default()));
    }

    #[test]
    fn each_variable_sets_its_setting() {
        let settings = read([
            ("poll_first_ms", "10"),
            ("poll_last_ms", "2000"),
            ("wait_max_seconds", "60"),
            ("stream_max_seconds", "20"),
            ("service_lease_seconds", "30"),
            ("service_autostart", "true"),
        ])
        .unwrap();
        assert_eq!(settings.polling.first, Duration::from_millis(10));
        assert_eq!(settings.polling.last, Duration::from_secs(2));
        assert_eq!(settings.wait_max, Duration::from_secs(60));
        assert_eq!(settings.stream_max, Some(Duration::from_secs(20)));
        assert_eq!(settings.service_lease, Duration::from_secs(30));
        assert!(settings.service_autostart);
        assert_eq!(read([("stream_max_seconds", "0")]), Ok(Settings::default()));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_an_error_that_names_it() {
        for (name, value) in [
            ("poll_first_ms", "0"),
            ("poll_first_ms", "five"),
            ("poll_first_ms", "101"),
            ("poll_last_ms", "-1"),
            ("poll_last_ms", "1.5"),
            ("wait_max_seconds", ""),
            ("wait_max_seconds", "3601"),
            ("stream_max_seconds", "99999999999999999999"),
            ("service_lease_seconds", "1"),
            ("service_autostart", "yes"),
            ("service_autostart", ""),
        ] {
            let error = read([(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        let error = read([("wait_max_seconds", "!")]).unwrap_err().to_string();
        assert!(error.contains("the vault is closed"), "{error}");
    }
}
