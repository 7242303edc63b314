//! Without a subcommand: serves the component.

mod console;
mod lifespan;
mod log;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{anyhow, bail};
use bytesize::ByteSize;
use clap::Args;
use clap::builder::{RangedU64ValueParser, TypedValueParser};
use loopless_host::manifest::Manifest;
use loopless_host::platform::{Interface, Lacking};
use loopless_host::sqlite;
use loopless_host::store::{Memory, Quirks, Redis, Sqlite};
use loopless_host::{
    Bounds, GRACE, Harness, Limits, Reuse, Routes, Server, Threads, is_variable_name, listen,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::control::Controlled;
use crate::project::{self, AKAMAI_FUNCTIONS, FERMYON_CLOUD, Host};
use crate::storage::{Backend, Database};
use crate::style::{BOLD, DIM};
use console::console;
use lifespan::Lifespan;

/// The file of the `default` SQLite database that a manifest grants, if `--database` does not set another.
const DATABASE: &str = ".loopless/database.db";

/// Where the gotcha is served.
const GOTCHA: &str = "/gotcha";

/// What to serve and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9009")]
    listen: SocketAddr,

    /// Where the key-value store is kept: `memory`, `sqlite:PATH`, or
    /// `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]` (with TLS, `rediss://`); without this,
    /// `sqlite:.loopless/store.db`, and for the clouds `sqlite:.loopless/HOST.db`
    #[arg(long, value_name = "STORE")]
    store: Option<Backend>,

    /// Where an SQLite database is kept: `LABEL=PATH` or `LABEL=memory`; may be repeated. Without this, the database `default`
    /// is in `.loopless/database.db` if a manifest grants it, and otherwise in memory
    #[arg(long = "database", value_name = "LABEL=PATH")]
    databases: Vec<Database>,

    /// A built component to serve, instead of building this project's
    #[arg(long, value_name = "PATH", conflicts_with = "from")]
    component: Option<PathBuf>,

    /// A Spin manifest to build and serve, instead of this project's for the host
    #[arg(long, value_name = "MANIFEST")]
    from: Option<PathBuf>,

    /// The host to imitate: its interfaces, and its limits on requests, memory and the store
    #[arg(long, value_enum, value_name = "HOST", default_value_t)]
    host: Host,

    /// Leaves out an interface that some hosts do not have: atomics, batch, redis, sqlite or wasi-0.3; may be repeated
    #[arg(long, value_name = "INTERFACE")]
    without: Vec<Interface>,

    /// Which compare-and-swap the component gets: an exact one, or one with the faults of Spin's (spin-sqlite or spin-redis)
    #[arg(long, value_name = "QUIRKS", default_value_t)]
    quirks: Quirks,

    /// Sets a Spin variable; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,

    /// How many requests an instance serves before it is dropped; without this, 1024, and with Spin's quirks its default, 128
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    max_instance_reuse_count: Option<usize>,

    /// How many requests an instance serves at once
    #[arg(long, value_name = "N", default_value_t = Reuse::default().concurrent_requests, value_parser = at_least_one())]
    max_instance_concurrent_reuse_count: usize,

    /// How long an idle instance is kept, such as 1s or 500ms
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    idle_instance_timeout: Duration,

    /// How long a request may take, such as 30s; without this, there is no limit
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    request_timeout: Option<Duration>,

    /// How many requests are served at once; more are rejected with 503
    #[arg(long, value_name = "N", default_value_t = Limits::default().concurrent_requests, value_parser = at_least_one())]
    max_concurrent_requests: usize,

    /// How much memory an instance may have, such as 128MiB
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    max_instance_memory: ByteSize,

    /// How long an instance may compute without a pause before it is ended
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    cpu_timeout: Duration,

    /// How many threads serve connections; without this, one per processor, and with --gotcha one
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// How many connections are served at once; more wait
    #[arg(long, value_name = "N", default_value_t = Bounds::default().connections, value_parser = at_least_one())]
    max_connections: usize,

    /// How long a client may take to send the head of a request, on a new connection or after the last response
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    head_timeout: Duration,

    /// How long a client may take to send the body of a request
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    body_timeout: Duration,

    /// How long a client may pause while it receives a response
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    write_timeout: Duration,

    /// Logs each request to standard error; RUST_LOG filters what is logged
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<log::Format>,

    /// Also serves an event in a component's memory on /gotcha/, to show how it fails
    #[arg(long)]
    gotcha: bool,

    /// Takes commands on standard input, and exits at its end. `soak` and `bench` start hosts like this
    #[arg(long, hide = true)]
    controlled: bool,
}

impl Arguments {
    /// The manifest to serve. `None`: a built component, with variables that need no declaration.
    fn manifest(&self) -> anyhow::Result<Option<PathBuf>> {
        match (&self.component, &self.from) {
            (Some(_), _) => Ok(None),
            (None, Some(path)) => Ok(Some(path.clone())),
            (None, None) => self.host.manifest().map(Some),
        }
    }

    fn reuse(&self) -> Reuse {
        // With Spin's quirks, each swap leaks one of an instance's 256 handles.
        let requests = match self.quirks {
            Quirks::Exact => 1024,
            Quirks::SpinSqlite | Quirks::SpinRedis => Reuse::default().requests,
        };
        Reuse {
            requests: self.max_instance_reuse_count.unwrap_or(requests),
            concurrent_requests: self.max_instance_concurrent_reuse_count,
            idle: self.idle_instance_timeout,
            request_timeout: self.request_timeout,
        }
    }

    fn limits(&self) -> Limits {
        let memory = usize::try_from(self.max_instance_memory.as_u64());
        Limits {
            concurrent_requests: self.max_concurrent_requests,
            memory: Some(memory.unwrap_or(usize::MAX)),
            cpu: Some(self.cpu_timeout),
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            connections: self.max_connections,
            head_timeout: self.head_timeout,
            body_timeout: self.body_timeout,
            write_timeout: self.write_timeout,
        }
    }

    /// The databases to open: those of `--database`, and [`DATABASE`] if the manifest grants `default` and `--database` does
    /// not set it.
    fn databases(&self, manifest: Option<&Path>) -> anyhow::Result<Vec<Database>> {
        let mut databases = self.databases.clone();
        let granted = match manifest {
            Some(manifest) => Manifest::read(manifest)?.databases(),
            None => Vec::new(),
        };
        let is_default = |label: &String| label == sqlite::DEFAULT;
        let is_set = databases.iter().any(|given| is_default(&given.label));
        if !is_set && granted.iter().any(is_default) {
            databases.push(Database {
                label: sqlite::DEFAULT.into(),
                file: Some(DATABASE.into()),
            });
        }
        Ok(databases)
    }
}

fn at_least_one() -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(1..)
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if !is_variable_name(name) {
        return Err(format!(
            "{name:?} is not the name of a Spin variable: use lower-case letters, digits and underscores, and begin with a letter"
        ));
    }
    Ok((name.into(), value.into()))
}

/// Checks that the manifest declares the given variables, and that every required variable has a value.
fn check_variables(manifest: &Path, given: &[(String, String)]) -> anyhow::Result<()> {
    let document = Manifest::read(manifest)?;
    // The host sets the token of every application, whether or not the manifest declares it.
    let is_known = |name: &str| name == lifespan::TOKEN || document.declares(name);
    if let Some((name, _)) = given.iter().find(|(name, _)| !is_known(name)) {
        bail!("{} declares no variable {name:?}", manifest.display());
    }
    document.variables(&given.iter().cloned().collect())?;
    Ok(())
}

/// Adds to an error about a missing interface which of the project's builds works without it.
fn advised(error: anyhow::Error, lacks: &[Interface]) -> anyhow::Error {
    if !error.chain().any(|cause| cause.is::<Lacking>()) {
        return error;
    }
    let (manifest, host) = if lacks.contains(&Interface::Wasi03) {
        (FERMYON_CLOUD, Host::FermyonCloud)
    } else if lacks.contains(&Interface::Atomics) {
        (AKAMAI_FUNCTIONS, Host::AkamaiFunctions)
    } else {
        return anyhow!("{error:#}; all of this project's builds work on such a host");
    };
    let option = host.argument();
    anyhow!("{error:#}; this project's build for such a host is {manifest}: use{option}")
}

/// Serves until the first Ctrl-C or SIGTERM. Then lets running requests finish, and stops the application.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut stopped = pin!(stop_signal()?);
    let Running {
        server,
        harness,
        lifespan,
        controlled,
        threads,
    } = tokio::select! {
        started = start(arguments) => started?,
        () = &mut stopped => return Ok(()),
    };
    tokio::select! {
        () = stopped => {}
        () = controlled.obey(&harness, &server, &threads) => return Ok(()),
    }
    eprintln!(
        "Stopping: running requests have {} s to finish",
        GRACE.as_secs()
    );
    if !server.shut_down().await {
        eprintln!("Some requests did not finish in time and were cut off");
    }
    if let Err(error) = lifespan.shutdown().await {
        eprintln!("{}", crate::one_line(&error));
    }
    Ok(())
}

/// A host that serves.
struct Running {
    server: Server,
    harness: Harness,
    lifespan: Lifespan,
    controlled: Controlled,
    /// The threads that serve. Background tasks of instances end with them.
    threads: Threads,
}

/// Builds the component if necessary, starts the application, and serves it.
async fn start(mut arguments: Arguments) -> anyhow::Result<Running> {
    log::start(arguments.log_format)?;
    let manifest = arguments.manifest()?;
    let token = lifespan::token(&mut arguments.variables)?;
    // Reports wrong arguments before the build, which may take a minute.
    if let Some(manifest) = &manifest {
        check_variables(manifest, &arguments.variables)?;
    }
    let (reuse, limits) = (arguments.reuse(), arguments.limits());
    let databases = arguments.databases(manifest.as_deref())?;
    let default = || Backend::Sqlite(arguments.host.store().into());
    let store = arguments.store.clone().unwrap_or_else(default);
    let mut platform = arguments.host.platform();
    platform.lacks.extend(&arguments.without);
    allow_open_files();

    let mut builder = Harness::builder()
        .quirks(arguments.quirks)
        .platform(platform.clone())
        .reuse(reuse)
        .limits(limits)
        .console(console("component"));
    for (name, value) in &arguments.variables {
        builder = builder.variable(name, value);
    }
    let is_controlled = arguments.controlled;
    let (controlled, mut builder) = match &store {
        Backend::Memory => Controlled::give(Memory::default(), is_controlled, builder),
        Backend::Sqlite(path) => Controlled::give(Sqlite::open(path)?, is_controlled, builder),
        Backend::Redis { url, .. } => {
            Controlled::give(Redis::connect(url).await?, is_controlled, builder)
        }
    };
    for database in &databases {
        builder = controlled.give_database(&database.label, database.open(&platform)?, builder);
    }
    builder = controlled.give_redis(builder);
    let listener = listen(arguments.listen).await?;
    if let Some(manifest) = manifest {
        let built = manifest.clone();
        spawn_blocking(move || project::build_manifest(&built)).await??;
        builder = builder.manifest(manifest);
    } else if let Some(path) = &arguments.component {
        builder = builder.component(path);
    }
    let harness = builder.start().await;
    let harness = harness.map_err(|error| advised(error, &platform.lacks))?;
    let mut routes = Routes::from(harness.clone());
    if arguments.gotcha {
        let build = || project::build_package("the gotcha", "tests/gotcha");
        let path = spawn_blocking(build).await??;
        let gotcha = Harness::builder().reuse(reuse).limits(limits);
        let gotcha = gotcha.console(console("gotcha"));
        routes = routes.mount(GOTCHA, gotcha.component(path).start().await?);
    }
    let lifespan = Lifespan::new(harness.clone(), token);
    lifespan.startup().await?;
    let threads = match arguments.threads {
        Some(threads) => threads,
        // The gotcha needs two requests in one instance, and an instance stays on its thread.
        None if arguments.gotcha => NonZeroUsize::MIN,
        None => std::thread::available_parallelism()?,
    };
    let threads = Threads::start(threads)?;
    let server = Server::start_on(&threads, arguments.bounds(), listener, routes)?;
    announce(&arguments, &server, &store, &databases);
    Ok(Running {
        server,
        harness,
        lifespan,
        controlled,
        threads,
    })
}

/// Prints what is served where, and what to try.
fn announce(arguments: &Arguments, server: &Server, store: &Backend, databases: &[Database]) {
    let databases = databases.iter().map(|database| format!(", {database}"));
    let databases: String = databases.collect();
    let url = server.url("");
    println!("{BOLD}Serving{BOLD:#} {url} (store: {store}{databases})");
    if arguments.gotcha {
        println!("{BOLD}The gotcha{BOLD:#} {}/", server.url(GOTCHA));
    }
    if arguments.component.is_none() && arguments.from.is_none() {
        let door = server.url("/events/door");
        println!("Open it in a browser, or try this in two other terminals:");
        println!("  curl {door}/wait    {DIM}# waits until it is set, 25 s at most{DIM:#}");
        println!("  curl -X PUT -d '{{\"set\": true}}' {door}    {DIM}# sets it{DIM:#}");
    }
    let most = arguments.max_concurrent_requests;
    println!(
        "{DIM}Up to {most} requests at once (--max-concurrent-requests). Ctrl-C stops it.{DIM:#}"
    );
}

/// Raises this process's limit of open files as far as it may. Each connection is a file, and the usual limit is 1,024.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // If this fails, connections above the limit wait.
    _ = setrlimit(Resource::Nofile, most);
}

/// Resolves at the first Ctrl-C or SIGTERM. A second one ends the process at once.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => std::process::exit(130),
                _ = terminate.recv() => std::process::exit(143),
            }
        });
    })
}
