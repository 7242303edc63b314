//! The project that this program was built from. By default, its component is the one to run.

use std::path::{Path, PathBuf};

use anstream::eprintln;
use anyhow::{Context, bail};
use clap::ValueEnum;
use loopless_host::component;
use loopless_host::manifest::Manifest;
use loopless_host::platform::Platform;
use loopless_host::sqlite;

use crate::storage::Backend;

fn directory() -> anyhow::Result<&'static Path> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    directory.context("the project has no directory")
}

/// A host that this project has a build for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Host {
    /// All interfaces, no limits; this project's build is spin.toml
    #[default]
    Spin,
    /// This project's build is deploy/akamai-functions.toml
    AkamaiFunctions,
    /// This project's build is deploy/fermyon-cloud.toml
    FermyonCloud,
}

impl Host {
    /// The host's interfaces and limits.
    pub fn platform(self) -> Platform {
        match self {
            Self::Spin => Platform::spin(),
            Self::AkamaiFunctions => Platform::akamai_functions(),
            Self::FermyonCloud => Platform::fermyon_cloud(),
        }
    }

    /// The option that selects this host, with a space before it. Empty for the default host.
    pub fn argument(self) -> String {
        let value = self.to_possible_value().filter(|_| self != Self::default());
        value.map_or_else(String::new, |value| format!(" --host {}", value.get_name()))
    }

    /// The default file of the store. Each host has its own, because the builds store events in different formats.
    pub fn store(self) -> &'static str {
        match self {
            Self::Spin => ".loopless/store.db",
            Self::AkamaiFunctions => ".loopless/akamai-functions.db",
            Self::FermyonCloud => ".loopless/fermyon-cloud.db",
        }
    }

    /// The path of the project's manifest for this host.
    pub fn manifest(self) -> anyhow::Result<PathBuf> {
        manifest(match self {
            Self::Spin => "spin.toml",
            Self::AkamaiFunctions => AKAMAI_FUNCTIONS,
            Self::FermyonCloud => FERMYON_CLOUD,
        })
    }
}

/// The manifest of the build for WASI 0.3 without compare-and-swap.
pub const AKAMAI_FUNCTIONS: &str = "deploy/akamai-functions.toml";
/// The manifest of the build for WASI 0.2 without compare-and-swap.
pub const FERMYON_CLOUD: &str = "deploy/fermyon-cloud.toml";

/// The manifest of the build for WASI 0.3 with its events in SQLite.
pub const SQLITE: &str = "deploy/spin-sqlite.toml";
/// The manifest of the build for WASI 0.3 with its events in a Redis.
pub const REDIS: &str = "deploy/akamai-functions-redis.toml";

/// The path of one of the project's manifests.
pub fn manifest(name: &str) -> anyhow::Result<PathBuf> {
    Ok(directory()?.join(name))
}

/// Builds the component of a manifest if that has a build command, and returns its path. Cargo shows the progress.
pub fn build_manifest(manifest: &Path) -> anyhow::Result<PathBuf> {
    let manifest = Manifest::read(manifest)?;
    if manifest.has_build() {
        say_building("the component");
    }
    manifest.build()
}

/// Builds the component of one of the project's packages that has no manifest, and returns its path.
pub fn build_package(what: &str, package: &str) -> anyhow::Result<PathBuf> {
    say_building(what);
    component::build(&directory()?.join(package))
}

/// Returns the options of a host that make the component of `manifest` keep its events in `store`: as the key-value store, or
/// as the SQLite database or Redis that the component itself uses. The options include passwords.
pub fn kept(manifest: &Path, store: &Backend) -> anyhow::Result<Vec<String>> {
    /// The variable that names a component's own Redis.
    const URL: &str = "redis_url";

    let document = Manifest::read(manifest)?;
    let (has_redis, has_database) = (document.declares(URL), !document.databases().is_empty());
    let itself = |option: &str, value| vec!["--store=memory".into(), option.into(), value];
    Ok(match store {
        Backend::Redis { url, .. } if has_redis => itself("--variable", format!("{URL}={url}")),
        Backend::Sqlite(path) if has_database => {
            let database = format!("{}={}", sqlite::DEFAULT, path.display());
            itself("--database", database)
        }
        _ if has_redis || has_database => bail!(
            "the component of {} cannot keep its events in {store}: choose another --store",
            manifest.display()
        ),
        Backend::Redis { url, .. } => vec!["--store".into(), url.clone()],
        other => vec!["--store".into(), other.to_string()],
    })
}

fn say_building(what: &str) {
    eprintln!("Building {what} in release mode (the first build takes a minute)");
}
