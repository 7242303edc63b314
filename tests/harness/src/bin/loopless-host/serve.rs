//! Without a subcommand: serves the component.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::{eprintln, println};
use anyhow::{anyhow, bail};
use bytesize::ByteSize;
use clap::Args;
use loopless_host::console::{Console, Line, Output};
use loopless_host::manifest::Manifest;
use loopless_host::platform::{Interface, Lacking, Platform};
use loopless_host::sqlite::{self, Connection};
use loopless_host::store::{Memory, Quirks, Redis, Sqlite};
use loopless_host::{
    Bounds, GRACE, Harness, Limits, Reuse, Routes, Server, Threads, is_variable_name, listen,
};
use redis::IntoConnectionInfo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::control::Controlled;
use crate::lifespan::{self, Lifespan};
use crate::log;
use crate::project::{self, AKAMAI_FUNCTIONS, FERMYON_CLOUD, Host};
use crate::style::{BOLD, DIM};

/// What to serve, and how.
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

    /// Where an SQLite database is kept: `LABEL=PATH` or `LABEL=memory`; may be repeated. Without this, the one called
    /// `default` is in `.loopless/database.db` if a manifest grants it, and else in memory
    #[arg(long = "database", value_name = "LABEL=PATH", value_parser = database)]
    databases: Vec<(String, Place)>,

    /// A built component to serve, instead of building this project's
    #[arg(long, value_name = "PATH", conflicts_with = "from")]
    component: Option<PathBuf>,

    /// A Spin manifest to build and serve, instead of this project's for the host
    #[arg(long, value_name = "MANIFEST")]
    from: Option<PathBuf>,

    /// The host to imitate: its interfaces, and its limits on requests, memory and the store
    #[arg(long, value_enum, value_name = "HOST", default_value_t)]
    host: Host,

    /// Leaves out an interface that not every host has: atomics, batch, redis, sqlite or wasi-0.3; may be repeated
    #[arg(long, value_name = "INTERFACE")]
    without: Vec<Interface>,

    /// Whose compare-and-swap the component meets: exact, spin-sqlite or spin-redis
    #[arg(long, value_name = "QUIRKS", default_value_t)]
    quirks: Quirks,

    /// Gives a Spin variable a value; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,

    /// How many requests an instance serves before it is dropped; without this, 1024, and with Spin's quirks its default, 128
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_instance_reuse_count: Option<usize>,

    /// How many requests an instance serves at the same time
    #[arg(long, value_name = "N", default_value_t = Reuse::default().concurrent_requests, value_parser = at_least_one)]
    max_instance_concurrent_reuse_count: usize,

    /// How long an instance without work is kept, such as 1s or 500ms
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    idle_instance_timeout: Duration,

    /// How long a request may take, such as 30s; without this, as long as it likes
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    request_timeout: Option<Duration>,

    /// How many requests may be under way at the same time; more are rejected with 503
    #[arg(long, value_name = "N", default_value_t = Limits::default().concurrent_requests, value_parser = at_least_one)]
    max_concurrent_requests: usize,

    /// How much memory an instance may have, such as 128MiB
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    max_instance_memory: ByteSize,

    /// How long an instance may compute without a pause; it is ended then
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    cpu_timeout: Duration,

    /// How many threads serve connections; without this, one for each processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// How many connections are served at the same time; more wait
    #[arg(long, value_name = "N", default_value_t = Bounds::default().connections, value_parser = at_least_one)]
    max_connections: usize,

    /// How long a connection may be without the whole head of a request, at first and between two
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    head_timeout: Duration,

    /// How long the body of a request may take to come
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    body_timeout: Duration,

    /// How long a client may take nothing of a response
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    write_timeout: Duration,

    /// Logs a line for each request to standard error; RUST_LOG says more exactly what is logged
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<log::Format>,

    /// Also serves, on /gotcha/, an event in the memory of a component, to see it fail
    #[arg(long)]
    gotcha: bool,

    /// Takes commands on standard input, and ends with it: for `soak`, which starts such hosts
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
}

/// Whether the application of a manifest has the variables that are given, and needs no more.
fn check_variables(manifest: &Path, given: &[(String, String)]) -> anyhow::Result<()> {
    let document = Manifest::read(manifest)?;
    // The host gives every application a token.
    let is_known = |name: &str| name == lifespan::TOKEN || document.declares(name);
    if let Some((name, _)) = given.iter().find(|(name, _)| !is_known(name)) {
        bail!("{} declares no variable {name:?}", manifest.display());
    }
    document.variables(&given.iter().cloned().collect())?;
    Ok(())
}

/// The error, and, if the component is a build for another kind of host, which of the project's builds would work.
fn advised(error: anyhow::Error, lacks: &[Interface]) -> anyhow::Error {
    if !error.chain().any(|cause| cause.is::<Lacking>()) {
        return error;
    }
    let advice = if lacks.contains(&Interface::Wasi03) {
        format!(
            "the one of {FERMYON_CLOUD} works there:{}",
            Host::FermyonCloud.argument()
        )
    } else if lacks.contains(&Interface::Atomics) {
        format!(
            "the one of {AKAMAI_FUNCTIONS} works there:{}",
            Host::AkamaiFunctions.argument()
        )
    } else {
        "all work there".into()
    };
    anyhow!("{error:#}; of this project's builds, {advice}")
}

/// The file of the SQLite database that an application has without being given one.
const DATABASE: &str = ".loopless/database.db";

/// Where the gotcha is served.
const GOTCHA: &str = "/gotcha";

/// Where the store is kept.
#[derive(Clone, Debug)]
pub enum Backend {
    Memory,
    Sqlite(PathBuf),
    Redis {
        url: String,
        /// The URL as it may be shown: without a password.
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

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Redis { shown, .. } => f.write_str(shown),
        }
    }
}

/// Where an SQLite database is kept.
#[derive(Clone, Debug)]
enum Place {
    Memory,
    File(PathBuf),
}

impl Place {
    fn open(&self, platform: &Platform) -> anyhow::Result<Connection> {
        let database = match self {
            Self::Memory => Connection::memory()?,
            Self::File(path) => Connection::open(path)?,
        };
        match platform.database_bytes {
            Some(most) => database.limit(most),
            None => Ok(database),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

fn database(text: &str) -> Result<(String, Place), String> {
    match text.split_once('=') {
        Some((label, place)) if !label.is_empty() && !place.is_empty() => {
            let place = match place {
                "memory" => Place::Memory,
                path => Place::File(path.into()),
            };
            Ok((label.into(), place))
        }
        _ => Err("expected LABEL=PATH or LABEL=memory".into()),
    }
}

/// The databases that are given, and the one that the application of a manifest has without that.
fn databases(
    manifest: Option<&Path>,
    given: Vec<(String, Place)>,
) -> anyhow::Result<Vec<(String, Place)>> {
    let granted = match manifest {
        Some(manifest) => Manifest::read(manifest)?.databases(),
        None => Vec::new(),
    };
    let is_given = given.iter().any(|(label, _)| label == sqlite::DEFAULT);
    let is_missing = !is_given && granted.iter().any(|label| label == sqlite::DEFAULT);
    let default = (sqlite::DEFAULT.into(), Place::File(DATABASE.into()));
    Ok(given
        .into_iter()
        .chain(is_missing.then_some(default))
        .collect())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if !is_variable_name(name) {
        return Err(format!(
            "{name:?} is not a name for a Spin variable: lower-case letters, digits and underscores, a letter first"
        ));
    }
    Ok((name.into(), value.into()))
}

/// Serves until the first Ctrl-C or SIGTERM. Then running requests may finish, and the application stops.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut stopped = pin!(stop_signal()?);
    let Running {
        server,
        harness,
        lifespan,
        controlled,
        threads: _threads,
    } = tokio::select! {
        started = start(arguments) => started?,
        () = &mut stopped => return Ok(()),
    };
    tokio::select! {
        () = stopped => {}
        () = controlled.obey(&harness, &server) => return Ok(()),
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
    /// What instances do in the background ends with these.
    threads: Threads,
}

/// Builds the component if need be, starts its application, and serves it.
async fn start(mut arguments: Arguments) -> anyhow::Result<Running> {
    log::start(arguments.log_format)?;
    let is_own = arguments.component.is_none() && arguments.from.is_none();
    let manifest = arguments.manifest()?;
    let token = lifespan::token(&mut arguments.variables)?;
    // Before the build, which may take a minute: what is wrong with the arguments is said at once.
    if let Some(manifest) = &manifest {
        check_variables(manifest, &arguments.variables)?;
    }
    // An instance leaks a handle of Spin's with each swap, and has 256.
    let requests = match arguments.quirks {
        Quirks::Exact => 1024,
        Quirks::SpinSqlite | Quirks::SpinRedis => Reuse::default().requests,
    };
    let reuse = Reuse {
        requests: arguments.max_instance_reuse_count.unwrap_or(requests),
        concurrent_requests: arguments.max_instance_concurrent_reuse_count,
        idle: arguments.idle_instance_timeout,
        request_timeout: arguments.request_timeout,
    };
    let limits = Limits {
        concurrent_requests: arguments.max_concurrent_requests,
        memory: Some(usize::try_from(arguments.max_instance_memory.as_u64()).unwrap_or(usize::MAX)),
        cpu: Some(arguments.cpu_timeout),
    };
    let bounds = Bounds {
        connections: arguments.max_connections,
        head_timeout: arguments.head_timeout,
        body_timeout: arguments.body_timeout,
        write_timeout: arguments.write_timeout,
    };
    allow_open_files();
    let mut platform = arguments.host.platform();
    platform.lacks.extend(arguments.without);
    let lacks = platform.lacks.clone();
    let databases = databases(manifest.as_deref(), arguments.databases)?;
    let mut builder = Harness::builder()
        .quirks(arguments.quirks)
        .platform(platform.clone())
        .reuse(reuse)
        .limits(limits)
        .console(console("component"));
    for (name, value) in arguments.variables {
        builder = builder.variable(name, value);
    }
    let default = || Backend::Sqlite(arguments.host.store().into());
    let store = arguments.store.unwrap_or_else(default);
    let is_controlled = arguments.controlled;
    let (controlled, mut builder) = match &store {
        Backend::Memory => Controlled::give(Memory::default(), is_controlled, builder),
        Backend::Sqlite(path) => Controlled::give(Sqlite::open(path)?, is_controlled, builder),
        Backend::Redis { url, .. } => {
            Controlled::give(Redis::connect(url).await?, is_controlled, builder)
        }
    };
    for (label, place) in &databases {
        builder = controlled.give_database(label, place.open(&platform)?, builder);
    }
    builder = controlled.give_redis(builder);
    let listener = listen(arguments.listen).await?;
    if let Some(manifest) = manifest {
        let built = manifest.clone();
        spawn_blocking(move || project::build_manifest(&built)).await??;
        builder = builder.manifest(manifest);
    } else if let Some(path) = arguments.component {
        builder = builder.component(path);
    }
    let harness = builder
        .start()
        .await
        .map_err(|error| advised(error, &lacks))?;
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
        None => std::thread::available_parallelism()?,
    };
    let threads = Threads::start(threads)?;
    let server = Server::start_on(&threads, bounds, listener, routes)?;
    let databases = databases.iter();
    let databases = databases.map(|(label, place)| format!(", SQLite database {label}: {place}"));
    let databases: String = databases.collect();
    let url = server.url("");
    println!("{BOLD}Serving{BOLD:#} {url} (store: {store}{databases})");
    if arguments.gotcha {
        println!("{BOLD}The gotcha{BOLD:#} {}/", server.url(GOTCHA));
    }
    if is_own {
        let (door, waits) = (
            server.url("/events/door"),
            "# waits until it is set, 25 s at most",
        );
        println!("Open it in a browser, or try this in two other terminals:");
        println!("  curl {door}/wait    {DIM}{waits}{DIM:#}");
        println!("  curl -X PUT -d '{{\"set\": true}}' {door}    {DIM}# sets it{DIM:#}");
    }
    let most = limits.concurrent_requests;
    println!(
        "{DIM}Up to {most} requests at once (--max-concurrent-requests). Ctrl-C stops it.{DIM:#}"
    );
    Ok(Running {
        server,
        harness,
        lifespan,
        controlled,
        threads,
    })
}

/// Lets this process have as many open files as it may: each connection is one, and the usual limit is 1,024.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Without it, some connections wait.
    _ = setrlimit(Resource::Nofile, most);
}

/// Resolves at the first Ctrl-C or SIGTERM. A second one ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
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

/// Prints what an instance of `component` printed, where it printed it, marked with the instance's number.
fn console(component: &'static str) -> Console {
    Console::new(move |line| {
        let Line {
            instance,
            output,
            text,
        } = line;
        let text = without_control(&text);
        match output {
            Output::Stdout => println!("{DIM}[{component} {instance}]{DIM:#} {text}"),
            Output::Stderr => eprintln!("{DIM}[{component} {instance}]{DIM:#} {text}"),
        }
    })
}

/// The text without what moves a terminal's cursor, or does more: nothing that is printed can hide where it comes from.
fn without_control(text: &str) -> String {
    let visible = |character: &char| *character == '\t' || !character.is_control();
    strip_str(text)
        .to_string()
        .chars()
        .filter(visible)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_component_prints_cannot_control_the_terminal() {
        for (printed, shown) in [
            ("a\tb \u{fc}", "a\tb \u{fc}"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("mine\r[component 1] not mine", "mine[component 1] not mine"),
            ("\u{1b}[1A\u{1b}[2Kover\u{8}\u{9b}2J", "over2J"),
        ] {
            assert_eq!(without_control(printed), shown, "{printed:?}");
        }
    }
}
