//! What a host has, and how much of it: Spin, and the clouds that run its components.
//!
//! [`Builder::platform`](crate::Builder::platform) starts a host that imitates one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::store::Quotas;

/// An interface that not every host has, and that a [`Platform`] can lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// `wasi:keyvalue/atomics`: compare-and-swap and counters.
    Atomics,
    /// `wasi:keyvalue/batch`.
    Batch,
    /// Connections to a Redis: `spin:redis`, and `fermyon:spin/redis`.
    Redis,
    /// SQLite databases: `spin:sqlite`, and `fermyon:spin/sqlite`.
    Sqlite,
    /// Everything of WASI 0.3, and Spin's interfaces that need it.
    Wasi03,
}

impl Interface {
    /// Every interface, with its name on the command line (`--without`).
    pub const ALL: [(&str, Self); 5] = [
        ("atomics", Self::Atomics),
        ("batch", Self::Batch),
        ("redis", Self::Redis),
        ("sqlite", Self::Sqlite),
        ("wasi-0.3", Self::Wasi03),
    ];

    /// Whether `import` is of this interface.
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
            // Spin's packages of major version 3 are asynchronous: they came with WASI 0.3.
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

/// A host: what it lacks of what this one has, and its limits.
///
/// The limits are those of July 2026, from [Akamai's quotas] and [Fermyon Cloud's FAQ] (its Starter plan). What a cloud counts by
/// the month, such as requests, or by the hour, such as Fermyon Cloud's 500 outgoing requests, is not imitated.
///
/// # Examples
///
/// A host without compare-and-swap, and no other limits:
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
    /// What it is called, in errors.
    pub name: &'static str,
    /// What it does not have. A component that imports one of these does not start.
    pub lacks: Vec<Interface>,
    /// How long a request may take, and the work that it leaves behind. `None`: as long as they like.
    pub request_timeout: Option<Duration>,
    /// How much memory an instance may have, in bytes. `None`: as much as the machine has.
    pub memory: Option<usize>,
    /// How much of the store an application may use.
    pub quotas: Quotas,
    /// How many bytes an SQLite database may take: what [`Connection::limit`](crate::sqlite::Connection::limit) is told.
    /// `None`: as many as the disk has.
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
    /// Spin 4.1: all that this host has, and no limits of its own.
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

    /// Akamai Functions: no compare-and-swap and no SQLite. 30 s a request, 128 MiB an instance, and 1,000 reads and 50 writes of the
    /// store a second.
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

    /// Fermyon Cloud: WASI 0.2, no compare-and-swap and no batches. 30 s a request, 1,024 keys of at most 255 bytes, and
    /// 1 GB of SQLite.
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

    /// Whether it has all of these imports of a component.
    ///
    /// # Errors
    ///
    /// One that names what is missing.
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

/// The error for a component that imports what a [`Platform`] does not have.
///
/// It is among the causes of the error that [`Builder::start`](crate::Builder::start) returns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it imports {import}, which {platform} does not have")]
pub struct Lacking {
    /// The import, such as `wasi:keyvalue/atomics@0.2.0-draft2`.
    pub import: String,
    /// What the platform is called.
    pub platform: &'static str,
}
