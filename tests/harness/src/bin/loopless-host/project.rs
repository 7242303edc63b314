//! The project that this program was built from: without other arguments, its component is what there is to run.

use std::path::{Path, PathBuf};

use anstream::eprintln;
use anyhow::{Context, bail};
use clap::ValueEnum;
use loopless_host::component;
use loopless_host::manifest::Manifest;
use loopless_host::platform::Platform;
use loopless_host::sqlite;

use crate::serve::Backend;

fn directory() -> anyhow::Result<&'static Path> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    directory.context("the project has no directory")
}

/// A host that the project has a build for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Host {
    /// All that this host has; with this project, spin.toml
    #[default]
    Spin,
    /// With this project, deploy/akamai-functions.toml
    AkamaiFunctions,
    /// With this project, deploy/fermyon-cloud.toml
    FermyonCloud,
}

impl Host {
    /// What it has, and its limits.
    pub fn platform(self) -> Platform {
        match self {
            Self::Spin => Platform::spin(),
            Self::AkamaiFunctions => Platform::akamai_functions(),
            Self::FermyonCloud => Platform::fermyon_cloud(),
        }
    }

    /// It, on the command line. Nothing if it is the default.
    pub fn argument(self) -> String {
        let value = self.to_possible_value().filter(|_| self != Self::default());
        value.map_or_else(String::new, |value| format!(" --host {}", value.get_name()))
    }

    /// The file of its store. The builds write events differently, and a store belongs to one of them.
    pub fn store(self) -> &'static str {
        match self {
            Self::Spin => ".loopless/store.db",
            Self::AkamaiFunctions => ".loopless/akamai-functions.db",
            Self::FermyonCloud => ".loopless/fermyon-cloud.db",
        }
    }

    /// The project's manifest for it.
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

/// The path of a manifest of the project.
pub fn manifest(name: &str) -> anyhow::Result<PathBuf> {
    Ok(directory()?.join(name))
}

/// Builds the component of a manifest, if it has a command for that, and says so. cargo shows how far it is.
pub fn build_manifest(manifest: &Path) -> anyhow::Result<PathBuf> {
    let manifest = Manifest::read(manifest)?;
    if manifest.has_build() {
        say_building("the component");
    }
    manifest.build()
}

/// Builds the component of a package of the project that has no manifest.
pub fn build_package(what: &str, package: &str) -> anyhow::Result<PathBuf> {
    say_building(what);
    component::build(&directory()?.join(package))
}

/// The options of a host that keep the events of a manifest's component in this store: in the key-value store, or where the
/// component keeps them itself. Passwords included.
pub fn kept(manifest: &Path, store: &Backend) -> anyhow::Result<Vec<String>> {
    /// The variable with the Redis of a component that keeps its events in one.
    const URL: &str = "redis_url";

    let document = Manifest::read(manifest)?;
    let (has_redis, has_database) = (document.declares(URL), !document.databases().is_empty());
    let itself = |option: &str, value| vec!["--store=memory".into(), option.into(), value];
    Ok(match store {
        Backend::Redis { url, .. } if has_redis => itself("--variable", format!("{URL}={url}")),
        Backend::Sqlite(path) if has_database => {
            let place = format!("{}={}", sqlite::DEFAULT, path.display());
            itself("--database", place)
        }
        _ if has_redis || has_database => bail!(
            "the component of {} does not keep its events in {store}: choose another --store",
            manifest.display()
        ),
        Backend::Redis { url, .. } => vec!["--store".into(), url.clone()],
        other => vec!["--store".into(), other.to_string()],
    })
}

fn say_building(what: &str) {
    eprintln!("Building {what} in release mode (the first time takes a minute)");
}
