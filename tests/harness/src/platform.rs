//! Platforms: the interfaces and limits of Spin, and of the clouds that run its components.
//!
//! [`Builder::platform`](crate::Builder::platform) sets up a host that imitates one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::store::Quotas;

/// An interface that a [`Platform`] may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// `wasi:keyvalue/atomics`: compare-and-swap and counters.
    Atomics,
    /// `wasi:keyvalue/batch`.
    Batch,
    /// Connections to a Redis: `spin:redis` and `fermyon:spin/redis`.
    Redis,
    /// SQLite databases: `spin:sqlite` and `fermyon:spin/sqlite`.
    Sqlite,
    /// All interfaces of WASI 0.3, and Spin's interfaces that need it.
    Wasi03,
}

impl Interface {
    /// All variants, with their names on the command line (`--without`).
    pub const ALL: [(&str, Self); 5] = [
        ("atomics", Self::Atomics),
        ("batch", Self::Batch),
        ("redis", Self::Redis),
        ("sqlite", Self::Sqlite),
        ("wasi-0.3", Self::Wasi03),
    ];

    /// Whether `import` belongs to this interface.
    fn has(self, import: &str) -> bool {
        match self {
            Self::Atomics => import.starts_with("wasi:keyvalue/atomics@"),
            Self::Batch => import.starts_with("wasi:keyvalue/batch@"),
            Self::Redis => {
                import.starts_with("spin:redis/") || import.starts_with("fermyon:spin/redis@")
            }
            Self::Sqlite => {
                import.starts_with("spin:sqlite/") || import.starts_with("fermyon:spin/sqlite@")
            }
            // Major version 3 of Spin's packages is asynchronous, and came with WASI 0.3.
            Self::Wasi03 => {
                let (package, version) = import.split_once('@').unwrap_or((import, ""));
                (package.starts_with("wasi:") && version.starts_with("0.3."))
                    || matches!(
                        package,
                        "spin:key-value/key-value"
                            | "spin:redis/redis"
                            | "spin:sqlite/sqlite"
                            | "spin:variables/variables"
                    )
            }
        }
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, interface)| *interface).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// A platform: which interfaces of this host it lacks, and its limits.
///
/// The limits are those of July 2026, from [Akamai's quotas] and [Fermyon Cloud's FAQ] (its Starter plan). Limits by the month,
/// such as requests, or by the hour, such as Fermyon Cloud's 500 outgoing requests, are not imitated.
///
/// # Examples
///
/// A platform without compare-and-swap, and without limits:
///
/// ```
/// use loopless_host::platform::{Interface, Platform};
///
/// let platform = Platform {
///     lacks: vec![Interface::Atomics],
///     ..Platform::spin()
/// };
/// ```
///
/// [Akamai's quotas]: https://techdocs.akamai.com/akamai-functions/docs/quotas-and-limits
/// [Fermyon Cloud's FAQ]: https://developer.fermyon.com/cloud/faq
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The name in error messages.
    pub name: &'static str,
    /// The interfaces that it does not have. A component that imports one of them does not start.
    pub lacks: Vec<Interface>,
    /// How long a request may take, and how long the work that it leaves behind may. `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// The most memory that an instance may have, in bytes. `None`: no limit.
    pub memory: Option<usize>,
    /// How much of the store an application may use.
    pub quotas: Quotas,
    /// The largest size of an SQLite database, in bytes. `None`: no limit. The host does not apply it: pass it to
    /// [`Connection::limit`](crate::sqlite::Connection::limit).
    pub database_bytes: Option<u64>,
}

impl Default for Platform {
    fn default() -> Self {
        Self::spin()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Platform {
    /// Spin 4.1: all interfaces of this host, and no limits.
    pub fn spin() -> Self {
        Self {
            name: "this host",
            lacks: Vec::new(),
            request_timeout: None,
            memory: None,
            quotas: Quotas::default(),
            database_bytes: None,
        }
    }

    /// Akamai Functions: no compare-and-swap and no SQLite; 30 s for a request, 128 MiB for an instance, and 1,000 reads and 50
    /// writes of the store per second.
    pub fn akamai_functions() -> Self {
        Self {
            name: "Akamai Functions",
            lacks: vec![Interface::Atomics, Interface::Sqlite],
            request_timeout: Some(Duration::from_secs(30)),
            memory: Some(128 << 20),
            quotas: Quotas {
                reads_per_second: Some(1000),
                writes_per_second: Some(50),
                key_bytes: Some(8 << 10),
                value_bytes: Some(1 << 20),
                keys: None,
            },
            database_bytes: None,
        }
    }

    /// Fermyon Cloud: WASI 0.2, no compare-and-swap and no batches; 30 s for a request, 1,024 keys of at most 255 bytes, and
    /// 1 GiB for SQLite.
    pub fn fermyon_cloud() -> Self {
        Self {
            name: "Fermyon Cloud",
            lacks: vec![Interface::Atomics, Interface::Batch, Interface::Wasi03],
            request_timeout: Some(Duration::from_secs(30)),
            memory: None,
            quotas: Quotas {
                keys: Some(1024),
                key_bytes: Some(255),
                value_bytes: Some(1 << 20),
                ..Quotas::default()
            },
            database_bytes: Some(1 << 30),
        }
    }

    /// Checks that the platform has all these imports of a component.
    ///
    /// # Errors
    ///
    /// If it lacks one. The error names it.
    pub(crate) fn check<'a>(
        &self,
        mut imports: impl Iterator<Item = &'a str>,
    ) -> Result<(), Lacking> {
        let lacks = |import: &&str| self.lacks.iter().any(|interface| interface.has(import));
        match imports.find(lacks) {
            None => Ok(()),
            Some(import) => Err(Lacking {
                import: import.into(),
                platform: self.name,
            }),
        }
    }
}

/// The error for a component that imports something that a [`Platform`] does not have.
///
/// It is among the causes of the error that [`Builder::start`](crate::Builder::start) returns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it imports {import}, which {platform} does not have")]
pub struct Lacking {
    /// The import, such as `wasi:keyvalue/atomics@0.2.0-draft2`.
    pub import: String,
    /// The platform's name.
    pub platform: &'static str,
}
