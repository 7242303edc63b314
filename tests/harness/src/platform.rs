//! What a host has, and how much of it: Spin, and the clouds that run its components.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::store::Quotas;

/// An interface that not every host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// `wasi:keyvalue/atomics`: compare-and-swap and counters.
    Atomics,
    /// `wasi:keyvalue/batch`.
    Batch,
    /// Everything of WASI 0.3, and Spin's interfaces that need it.
    Wasi03,
}

impl Interface {
    /// Every one, with the name that the command line has for it.
    pub const ALL: [(&str, Self); 3] = [
        ("atomics", Self::Atomics),
        ("batch", Self::Batch),
        ("wasi-0.3", Self::Wasi03),
    ];

    /// Whether `import` is of this interface.
    fn has(self, import: &str) -> bool {
        match self {
            Self::Atomics => import.starts_with("wasi:keyvalue/atomics@"),
            Self::Batch => import.starts_with("wasi:keyvalue/batch@"),
            // Spin's packages of major version 3 are asynchronous: they came with WASI 0.3.
            Self::Wasi03 => {
                let (package, version) = import.split_once('@').unwrap_or((import, ""));
                (package.starts_with("wasi:") && version.starts_with("0.3."))
                    || matches!(
                        package,
                        "spin:key-value/key-value" | "spin:variables/variables"
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
/// Facts of July 2026, from [Akamai's quotas] and [Fermyon Cloud's FAQ].
///
/// [Akamai's quotas]: https://techdocs.akamai.com/akamai-functions/docs/quotas-and-limits
/// [Fermyon Cloud's FAQ]: https://developer.fermyon.com/cloud/faq
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// What it is called.
    pub name: &'static str,
    /// What it does not have.
    pub lacks: Vec<Interface>,
    /// How long a request may take.
    pub request_timeout: Option<Duration>,
    /// How much memory an instance may have, in bytes.
    pub memory: Option<usize>,
    /// How much of the store an application may use.
    pub quotas: Quotas,
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
        }
    }

    /// Akamai Functions.
    pub fn akamai_functions() -> Self {
        Self {
            name: "Akamai Functions",
            lacks: vec![Interface::Atomics],
            request_timeout: Some(Duration::from_secs(30)),
            memory: Some(128 << 20),
            quotas: Quotas {
                reads_per_second: Some(1000),
                writes_per_second: Some(50),
                key_bytes: Some(8 << 10),
                value_bytes: Some(1 << 20),
                keys: None,
            },
        }
    }

    /// Fermyon Cloud.
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

/// A component that imports what a [`Platform`] does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it imports {import}, which {platform} does not have")]
pub struct Lacking {
    /// The interface.
    pub import: String,
    /// What the platform is called.
    pub platform: &'static str,
}
