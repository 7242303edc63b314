//! The settings of an operator, which are Spin variables.

use std::fmt;
use std::time::Duration;

use crate::event::Polling;

/// The variables of a host.
pub trait Variables: Send + Sync {
    /// Returns the value of `name`, or `None` if the application does not have this variable.
    ///
    /// # Errors
    ///
    /// If the host cannot read the variable. The error is its message.
    fn get(&self, name: &str) -> impl Future<Output = Result<Option<String>, String>> + Send;
}

/// The settings. Each field names its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `poll_first_ms` and `poll_last_ms`: how often waits read the store.
    pub polling: Polling,
    /// `wait_max_seconds`: the longest wait that a client may ask for.
    pub wait_max: Duration,
    /// `stream_max_seconds`: how long a stream lasts before the client has to reconnect; 0 means forever.
    pub stream_max: Option<Duration>,
    /// `service_lease_seconds`: how long a runner of the service may be silent before another one takes over.
    pub service_lease: Duration,
    /// `service_autostart`: whether the application's startup starts the service.
    pub service_autostart: bool,
    /// `instance_waits_max`: the maximum number of concurrent waits and streams of an instance.
    pub instance_waits: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            polling: Polling::default(),
            // Less than the 30 s that a request may take on Akamai Functions.
            wait_max: Duration::from_secs(25),
            stream_max: None,
            service_lease: Duration::from_secs(5),
            service_autostart: false,
            instance_waits: 1000,
        }
    }
}

/// The error for a variable that cannot be used.
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
    /// Reads all settings. The default applies if the application does not have a variable.
    ///
    /// # Errors
    ///
    /// If a value is not valid, or the host cannot read a variable.
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
                    "is {}, which is more than poll_last_ms, {}",
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
        // The service beats once a second, so the lease must be longer than that.
        if let Some(seconds) = number(variables, "service_lease_seconds", 2, 3600).await? {
            settings.service_lease = Duration::from_secs(seconds);
        }
        if let Some(autostart) = truth(variables, "service_autostart").await? {
            settings.service_autostart = autostart;
        }
        if let Some(waits) = number(variables, "instance_waits_max", 1, 100_000).await? {
            settings.instance_waits = usize::try_from(waits).unwrap_or(usize::MAX);
        }
        Ok(settings)
    }
}

/// The tokens and origins that an operator has set.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// `write_token`: the token that every change needs. If it is `None`, everyone may change events.
    pub write_token: Option<String>,
    /// `read_token`: the token that everything else needs, unless it has the `write_token`. If it is `None`, everyone may
    /// read.
    pub read_token: Option<String>,
    /// `allowed_origins`: the origins of other sites whose pages may use the application.
    pub allowed_origins: Vec<String>,
}

/// Does not show the tokens, which are secrets.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("has_write_token", &self.write_token.is_some())
            .field("has_read_token", &self.read_token.is_some())
            .field("allowed_origins", &self.allowed_origins)
            .finish()
    }
}

impl Access {
    /// Reads the variables. A variable that is missing or empty restricts nothing.
    ///
    /// # Errors
    ///
    /// If `allowed_origins` is not a list of origins, if there is a `read_token` but no `write_token`, or if the host cannot
    /// read a variable.
    pub async fn read(variables: &impl Variables) -> Result<Self, Error> {
        let write_token = filled(variables, "write_token").await?;
        let read_token = filled(variables, "read_token").await?;
        if read_token.is_some() && write_token.is_none() {
            return Err(Error {
                name: "read_token",
                what: "is set, but write_token is not. Everyone could change events and see them in the responses. \
                    Set write_token too"
                    .into(),
            });
        }
        let allowed = filled(variables, "allowed_origins").await?;
        let allowed_origins = allowed.iter().flat_map(|list| list.split_whitespace());
        let allowed_origins: Vec<_> = allowed_origins.map(str::to_owned).collect();
        if let Some(wrong) = allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(Error {
                name: "allowed_origins",
                what: format!(
                    "contains {wrong:?}; it must be a list of origins as browsers send them, such as \"https://app.example https://localhost:8080\""
                ),
            });
        }
        Ok(Self {
            write_token,
            read_token,
            allowed_origins,
        })
    }
}

/// Whether this is an origin as browsers serialize it (RFC 6454, 6.2): in lower case and without a path.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return false;
    };
    let is_host = |byte: u8| byte.is_ascii_graphic() && !b"/?#@,*".contains(&byte);
    ["http", "https"].contains(&scheme)
        && !host.is_empty()
        && host.bytes().all(is_host)
        && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Reads the operator's token. It is read whenever it is needed, and never kept in memory.
///
/// # Errors
///
/// If the host cannot read the variable.
pub async fn operator_token(variables: &impl Variables) -> Result<Option<String>, Error> {
    filled(variables, "operator_token").await
}

/// Reads `redis_url`, the URL of the Redis database that holds the events. It may contain a password, so it is read whenever it
/// is needed, and never kept in memory.
///
/// # Errors
///
/// If the variable is missing or empty, or the host cannot read it.
pub async fn redis_url(variables: &impl Variables) -> Result<String, Error> {
    let name = "redis_url";
    filled(variables, name).await?.ok_or_else(|| Error {
        name,
        what: "has no value; it must be the URL of the Redis database that holds the events: redis://[USER:PASSWORD@]HOST:PORT[/DATABASE], or rediss://… with TLS".into(),
    })
}

/// Reads a variable. `None` if it is missing or empty.
async fn filled(variables: &impl Variables, name: &'static str) -> Result<Option<String>, Error> {
    let text = text(variables, name).await?;
    Ok(text.filter(|text| !text.is_empty()))
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

    use futures_util::FutureExt;

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

    fn at_once<T>(reading: impl Future<Output = T>) -> T {
        reading.now_or_never().unwrap()
    }

    fn read<const N: usize>(given: [(&'static str, &'static str); N]) -> Result<Settings, Error> {
        at_once(Settings::read(&Given(given.into())))
    }

    fn access<const N: usize>(given: [(&'static str, &'static str); N]) -> Result<Access, Error> {
        at_once(Access::read(&Given(given.into())))
    }

    #[test]
    fn without_variables_or_with_empty_ones_everyone_may_do_everything_on_one_site() {
        let open = Access {
            write_token: None,
            read_token: None,
            allowed_origins: Vec::new(),
        };
        assert_eq!(access([]), Ok(open.clone()));
        let empty = [
            ("write_token", ""),
            ("read_token", ""),
            ("allowed_origins", ""),
        ];
        assert_eq!(access(empty), Ok(open));
    }

    #[test]
    fn tokens_are_read_and_not_shown() {
        let access = access([("write_token", "w1ite"), ("read_token", "re4d")]).unwrap();
        assert_eq!(access.write_token.as_deref(), Some("w1ite"));
        assert_eq!(access.read_token.as_deref(), Some("re4d"));
        let shown = format!("{access:?}");
        assert!(
            !shown.contains("w1ite") && !shown.contains("re4d"),
            "{shown}"
        );
    }

    #[test]
    fn reading_cannot_be_restricted_where_writing_is_not() {
        let error = access([("read_token", "secret")]).unwrap_err().to_string();
        assert!(
            error.contains("read_token") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        let access_to = |origins| access([("allowed_origins", origins)]);
        let allowed = access_to("https://app.example  http://[::1]:8080").unwrap();
        assert_eq!(
            allowed.allowed_origins,
            ["https://app.example", "http://[::1]:8080"]
        );
        for wrong in [
            "*",
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://App.example",
            "https://*.example",
            "https://a.example,https://b.example",
            "ftp://app.example",
        ] {
            let error = access_to(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
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
            ("instance_waits_max", "20"),
        ])
        .unwrap();
        assert_eq!(settings.polling.first, Duration::from_millis(10));
        assert_eq!(settings.polling.last, Duration::from_secs(2));
        assert_eq!(settings.wait_max, Duration::from_secs(60));
        assert_eq!(settings.stream_max, Some(Duration::from_secs(20)));
        assert_eq!(settings.service_lease, Duration::from_secs(30));
        assert!(settings.service_autostart);
        assert_eq!(settings.instance_waits, 20);
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
            ("instance_waits_max", "0"),
        ] {
            let error = read([(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        let error = read([("wait_max_seconds", "!")]).unwrap_err().to_string();
        assert!(error.contains("the vault is closed"), "{error}");
    }
}
