//! Where a host keeps its data: the values of `--store` and `--database`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use loopless_host::platform::Platform;
use loopless_host::sqlite::Connection;
use redis::IntoConnectionInfo;

/// Where the key-value store is kept.
#[derive(Clone, Debug)]
pub enum Backend {
    Memory,
    Sqlite(PathBuf),
    Redis {
        url: String,
        /// The URL without user and password, for display.
        shown: String,
    },
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some((scheme @ ("redis" | "rediss"), _)) => redis(scheme, text),
            _ => Err("expected memory, sqlite:PATH or redis://HOST[:PORT][/DATABASE]".into()),
        }
    }
}

fn redis(scheme: &str, url: &str) -> Result<Backend, String> {
    let info = url
        .into_connection_info()
        .map_err(|error| format!("expected {scheme}://HOST[:PORT][/DATABASE]: {error}"))?;
    Ok(Backend::Redis {
        url: url.into(),
        shown: format!("{scheme}://{}/{}", info.addr(), info.redis_settings().db()),
    })
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Redis { shown, .. } => f.write_str(shown),
        }
    }
}

/// A guest's SQLite database: its label, and where it is kept.
#[derive(Clone, Debug)]
pub struct Database {
    pub label: String,
    /// `None`: in memory.
    pub file: Option<PathBuf>,
}

impl Database {
    /// Opens the database, with the size limit of the platform.
    pub fn open(&self, platform: &Platform) -> anyhow::Result<Connection> {
        let database = match &self.file {
            None => Connection::memory()?,
            Some(path) => Connection::open(path)?,
        };
        match platform.database_bytes {
            Some(most) => database.limit(most),
            None => Ok(database),
        }
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((label, place)) if !label.is_empty() && !place.is_empty() => Ok(Self {
                label: label.into(),
                file: (place != "memory").then(|| place.into()),
            }),
            _ => Err("expected LABEL=PATH or LABEL=memory".into()),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQLite database {}: ", self.label)?;
        match &self.file {
            None => f.write_str("memory"),
            Some(path) => path.display().fmt(f),
        }
    }
}
