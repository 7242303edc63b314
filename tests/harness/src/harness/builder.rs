//! [`Builder`]: how a [`Harness`] is set up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::sync::Semaphore;
use wasmtime_wasi_http::handler::ProxyHandler;

use super::Harness;
use crate::component;
use crate::console::Console;
use crate::guest::{Director, Instances, Limits, OfThread, Program, Reuse, RuntimeClock};
use crate::manifest::Manifest;
use crate::memo::Memo;
use crate::outbound::Allowed;
use crate::platform::{Interface, Platform};
use crate::redis::{self, Outbound};
use crate::sqlite::{self, Databases};
use crate::store::{Limited, Memory, Quirks, Quotas, Store};
use crate::variables::Variables;

/// Sets up a [`Harness`]. See [`Harness::builder`].
pub struct Builder {
    source: Source,
    store: Arc<dyn Store>,
    databases: Databases,
    outbound: Outbound,
    quirks: Quirks,
    reuse: Reuse,
    limits: Limits,
    environment: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    platform: Platform,
    console: Option<Console>,
    director: Option<Arc<dyn Director>>,
    epoch: Option<Duration>,
    instances: u64,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builder")
    }
}

/// Where the component comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The package under test, whose directory cargo sets in `CARGO_MANIFEST_DIR`.
    UnderTest,
    Package(PathBuf),
    Component(PathBuf),
    Manifest(PathBuf),
}

impl Builder {
    /// A host like Spin, for the package under test, with an empty store in memory.
    pub(super) fn new() -> Self {
        Self {
            source: Source::UnderTest,
            store: Arc::new(Memory::default()),
            databases: Databases::default(),
            outbound: Outbound::default(),
            quirks: Quirks::default(),
            reuse: Reuse::default(),
            limits: Limits::default(),
            environment: BTreeMap::new(),
            variables: BTreeMap::new(),
            platform: Platform::default(),
            console: None,
            director: None,
            epoch: None,
            instances: 0,
        }
    }

    /// Runs a component that is already built. The default is the package under test, whose directory cargo sets in
    /// `CARGO_MANIFEST_DIR`.
    pub fn component(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Source::Component(path.into());
        self
    }

    /// Builds and runs the cargo package in `directory`, instead of the package under test. cargo runs a test in the directory
    /// of its package.
    pub fn package(mut self, directory: impl Into<PathBuf>) -> Self {
        self.source = Source::Package(directory.into());
        self
    }

    /// Builds and runs the component of a Spin manifest (version 2), with the manifest's build command and variables.
    /// [`variable`](Self::variable) then sets variables of the application, like `spin up --variable`.
    pub fn manifest(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = Source::Manifest(path.into());
        self
    }

    /// Imitates a platform. The default is Spin.
    ///
    /// Its request timeout applies, unless that of [`reuse`](Self::reuse) is shorter.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Sets the key-value store labelled `default`. The default is an empty one in memory.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// Adds an SQLite database. If there is none labelled `default`, the host adds an empty one in memory.
    ///
    /// The component of a [`manifest`](Self::manifest) may open the databases that its `sqlite_databases` names. Any other
    /// component may open all.
    pub fn database(mut self, label: impl Into<String>, database: impl sqlite::Database) -> Self {
        self.databases.add(label, Arc::new(database));
        self
    }

    /// Connects the component to this server, whichever Redis it names. The default is the Redis that it names.
    ///
    /// The component of a [`manifest`](Self::manifest) may connect to the addresses that its `allowed_outbound_hosts` grants. Any
    /// other component may connect to all.
    pub fn redis(mut self, server: impl redis::Server) -> Self {
        self.outbound.server = Arc::new(server);
        self
    }

    /// Sets whose `wasi:keyvalue/atomics` the component gets. The default is an exact one.
    pub fn quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }

    /// Sets when instances are reused and dropped. The default is Spin's.
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.reuse = reuse;
        self
    }

    /// Sets how many requests the host serves at the same time, and what its instances may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the value of a Spin variable.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets where the component's lines go. The default is [`Harness::lines`].
    pub fn console(mut self, console: Console) -> Self {
        self.console = Some(console);
        self
    }

    /// Starts the host.
    ///
    /// # Errors
    ///
    /// If the component does not build, does not load, or imports something that this host does not have.
    pub async fn start(mut self) -> anyhow::Result<Harness> {
        let source = std::mem::replace(&mut self.source, Source::UnderTest);
        let (platform, limits) = (self.platform.clone(), self.limits);
        let (program, manifest) = tokio::task::spawn_blocking(move || {
            let manifest = match &source {
                Source::Manifest(path) => Some(Manifest::read(path)?),
                _ => None,
            };
            anyhow::Ok((program(source, &platform, &limits)?, manifest))
        })
        .await??;
        if let Some(manifest) = manifest {
            self.environment.extend(manifest.environment());
            self.outbound.allowed = manifest.outbound_hosts(&self.variables)?;
            self.variables = manifest.variables(&self.variables)?;
            self.databases.grant(manifest.databases())?;
        }
        self.databases.complete()?;
        self.start_program(program)
    }

    /// Lets a simulation direct the host. Its date starts at `epoch`, as the time since 1970. Its instances are numbered after
    /// the `instances` that were there before.
    pub(crate) fn staged(
        mut self,
        director: Arc<dyn Director>,
        epoch: Duration,
        instances: u64,
    ) -> Self {
        self.director = Some(director);
        // A simulation has no network.
        self.outbound.allowed = Allowed::NONE;
        self.epoch = Some(epoch);
        self.instances = instances;
        self
    }

    /// Starts the host on a loaded program.
    pub(crate) fn start_program(self, program: Program) -> anyhow::Result<Harness> {
        let now = match self.epoch {
            Some(epoch) => epoch,
            None => SystemTime::now().duration_since(UNIX_EPOCH)?,
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let console = match self.console {
            Some(console) => console,
            None => {
                let lines = lines.clone();
                Console::new(move |line| {
                    lines
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                })
            }
        };
        let timeouts = [self.reuse.request_timeout, self.platform.request_timeout];
        let reuse = Reuse {
            request_timeout: timeouts.into_iter().flatten().min(),
            ..self.reuse
        };
        let memories = [self.limits.memory, self.platform.memory];
        let limits = Limits {
            memory: memories.into_iter().flatten().min(),
            ..self.limits
        };
        let store = match self.platform.quotas {
            none if none == Quotas::default() => self.store,
            quotas => Arc::new(Limited::new(self.store, quotas)),
        };
        let instances = Instances {
            program,
            reuse,
            limits,
            store,
            databases: Arc::new(self.databases),
            outbound: Arc::new(self.outbound),
            quirks: self.quirks,
            environment: self.environment.into_iter().collect(),
            variables: Variables(Arc::new(self.variables)),
            console,
            clock: RuntimeClock::start(now),
            made: AtomicU64::new(self.instances),
            handles: Arc::default(),
            lives: Mutex::default(),
            director: self.director,
        };
        Ok(Harness {
            handler: ProxyHandler::new(OfThread(Arc::new(instances))),
            requests: Arc::default(),
            places: Arc::new(Semaphore::new(
                limits.concurrent_requests.min(Semaphore::MAX_PERMITS),
            )),
            lines,
        })
    }
}

/// The program from this source, for this platform. It is built and compiled once in a process.
pub(crate) fn program(
    source: Source,
    platform: &Platform,
    limits: &Limits,
) -> anyhow::Result<Program> {
    type Key = (PathBuf, Vec<Interface>, usize);
    static PROGRAMS: Memo<Key, Program> = Memo::new();

    let path = match source {
        Source::Component(path) => path,
        Source::Package(directory) => component::build(&directory)?,
        Source::Manifest(path) => Manifest::read(&path)?.build()?,
        Source::UnderTest => {
            let package = std::env::var_os("CARGO_MANIFEST_DIR")
                .context("no component is named, and CARGO_MANIFEST_DIR, which cargo sets for tests, is not set")?;
            component::build(Path::new(&package))?
        }
    };
    let instances = limits.concurrent_requests;
    let key = (path.clone(), platform.lacks.clone(), instances);
    PROGRAMS.get_or_make(key, || {
        Program::load(&path, platform, instances)
            .with_context(|| format!("cannot load the component {}", path.display()))
    })
}
