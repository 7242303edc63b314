//! Instances of a component: what they are made from, how long they live, and what they see of the host.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime::component::{Component, GuestTaskId, Linker, ResourceTable};
use wasmtime::{
    Cache, Config, Engine, InstanceAllocationStrategy, StoreContextMut, StoreLimits,
    StoreLimitsBuilder,
};
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p2::bindings::ProxyPre as Wasi02;
use wasmtime_wasi_http::p3::bindings::ServicePre as Wasi03;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::bindings;
use crate::component;
use crate::console::{Console, Output};
use crate::keyvalue::{self, KeyValue};
use crate::platform::Platform;
use crate::store::{Quirks, Store};
use crate::variables::{self, Variables};

/// When the host gives a request to an instance that has served others, and when it drops an instance.
///
/// The defaults are Spin's (4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// How many requests an instance serves in its life.
    pub requests: usize,
    /// How many of them at the same time.
    pub concurrent_requests: usize,
    /// How long an instance without work is kept.
    pub idle: Duration,
    /// How long a request may take, and the work that it leaves behind. `None`: as long as they like.
    pub request_timeout: Option<Duration>,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            requests: 128,
            concurrent_requests: 16,
            idle: Duration::from_secs(1),
            request_timeout: None,
        }
    }
}

/// The state of one instance.
pub struct Guest {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: NoOutgoingRequests,
    keyvalue: KeyValue,
    variables: Variables,
    limits: StoreLimits,
    /// The requests that it serves, by the tasks that serve them.
    requests: HashMap<GuestTaskId, u64>,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// Guests may not send requests, as on Spin where `allowed_outbound_hosts` is empty.
struct NoOutgoingRequests;

impl WasiHttpHooks for NoOutgoingRequests {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<
        dyn Future<
                Output = Result<
                    (
                        http::Response<WasiBody>,
                        Box<dyn Future<Output = Result<(), Error>> + Send>,
                    ),
                    Error,
                >,
            > + Send,
    > {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

/// A component, compiled and linked: instances can be made of it.
#[derive(Clone)]
pub struct Program(Arc<ProxyPre<Guest>>);

impl Program {
    /// Compiles the component at `path`, and checks that this host has all that it imports, as far as the `platform`
    /// has it.
    pub fn load(path: &Path, platform: &Platform) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        // Wasmtime's own cache of this user: compiling takes seconds in a debug build of this host. Where there is
        // no place for a cache, it is only slower.
        config.cache(Cache::from_file(None).ok());
        // Memories are kept and used again: an instance costs microseconds. Not every machine lets a process reserve
        // that much address space.
        config.allocation_strategy(InstanceAllocationStrategy::pooling());
        let engine = Engine::new(&config).or_else(|_| {
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Engine::new(&config)
        })?;
        let bytes = std::fs::read(path)?;
        let component = Component::new(&engine, component::encode(&bytes)?)?;
        let kind = component.component_type();
        platform.check(kind.imports(&engine).map(|(name, _)| name))?;
        let exports = |interface: &str| {
            kind.exports(&engine)
                .any(|(name, _)| name.starts_with(interface))
        };

        let program = linker(&engine)?.instantiate_pre(&component)?;
        let program = if exports("wasi:http/handler@0.3.") {
            ProxyPre::P3(Wasi03::new(program)?)
        } else if exports("wasi:http/incoming-handler@0.2.") {
            ProxyPre::P2(Wasi02::new(program)?)
        } else {
            anyhow::bail!(
                "it exports neither wasi:http/handler (WASI 0.3) nor wasi:http/incoming-handler (WASI 0.2): it is no HTTP component"
            );
        };
        Ok(Self(Arc::new(program)))
    }

    fn engine(&self) -> &Engine {
        let Self(program) = self;
        match &**program {
            ProxyPre::P2(program) => program.engine(),
            ProxyPre::P3(program) => program.engine(),
        }
    }

    /// Whether its instances serve one request each, and nothing goes on after it.
    fn is_wasi_0_2(&self) -> bool {
        let Self(program) = self;
        matches!(**program, ProxyPre::P2(_))
    }

    /// When its instances are reused, where the host's operator wants `reuse`.
    fn reuse(&self, reuse: Reuse) -> Reuse {
        if !self.is_wasi_0_2() {
            return reuse;
        }
        Reuse {
            requests: 1,
            concurrent_requests: 1,
            ..reuse
        }
    }
}

/// All that this host has.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::<Guest>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    bindings::spin::key_value::key_value::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::fermyon::spin::key_value::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::wasi::keyvalue::store::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::wasi::keyvalue::batch::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::wasi::keyvalue::atomics::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::spin::variables::variables::add_to_linker::<_, variables::Data>(
        &mut linker,
        |guest| &mut guest.variables,
    )?;
    bindings::fermyon::spin::variables::add_to_linker::<_, variables::Data>(
        &mut linker,
        |guest| &mut guest.variables,
    )?;
    Ok(linker)
}

impl Guest {
    fn keyvalue(&mut self) -> keyvalue::View<'_> {
        keyvalue::View {
            keyvalue: &mut self.keyvalue,
            table: &mut self.table,
            requests: &self.requests,
        }
    }
}

/// The runtime's clock, which a test may have paused: a guest's sleeps run on it, so its time must too.
#[derive(Clone, Copy)]
pub struct RuntimeClock {
    started: tokio::time::Instant,
    /// What the calendar said when it started, as the time since 1970.
    epoch: Duration,
}

impl RuntimeClock {
    /// A clock that starts now, at this time since 1970.
    pub fn start(epoch: Duration) -> Self {
        Self {
            started: tokio::time::Instant::now(),
            epoch,
        }
    }
}

impl HostMonotonicClock for RuntimeClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        let elapsed = self.started.elapsed().as_nanos();
        elapsed.try_into().unwrap_or(u64::MAX)
    }
}

impl HostWallClock for RuntimeClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        self.epoch.saturating_add(self.started.elapsed())
    }
}

/// The life of one instance, which anybody may end.
#[derive(Debug)]
pub struct Life {
    /// The instance's number: 1 is the first that its host made.
    pub instance: u64,
    state: Mutex<LifeState>,
}

#[derive(Debug)]
enum LifeState {
    /// With who has to be told of the end.
    Alive(Option<Waker>),
    Killed,
}

impl Life {
    fn new(instance: u64) -> Arc<Self> {
        Arc::new(Self {
            instance,
            state: Mutex::new(LifeState::Alive(None)),
        })
    }

    /// Ends the instance, wherever it is. The requests that it serves fail.
    pub fn kill(&self) {
        let state = std::mem::replace(&mut *self.state(), LifeState::Killed);
        if let LifeState::Alive(Some(waker)) = state {
            waker.wake();
        }
    }

    /// Whether it was [killed](Self::kill).
    pub fn is_killed(&self) -> bool {
        matches!(*self.state(), LifeState::Killed)
    }

    fn poll_killed(&self, cx: &Context<'_>) -> Poll<()> {
        match &mut *self.state() {
            LifeState::Alive(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            LifeState::Killed => Poll::Ready(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, LifeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who stages a host: a simulation, which gives each instance a store and a chance of its own.
pub trait Director: Send + Sync {
    /// An instance is about to be made. An error is the host's: there is no instance.
    fn make(&self, life: &Arc<Life>) -> Result<Staged, String>;

    /// An instance begins to serve a request.
    fn begin(&self, instance: u64, request: u64);
}

/// What an instance gets of its [`Director`].
pub struct Staged {
    pub store: Arc<dyn Store>,
    /// What the guest's random numbers come from.
    pub seed: u64,
}

/// Makes the instances of one host.
pub struct Instances {
    pub program: Program,
    pub reuse: Reuse,
    /// The most memory that an instance may have, in bytes.
    pub memory: Option<usize>,
    pub store: Arc<dyn Store>,
    pub quirks: Quirks,
    pub variables: Variables,
    pub console: Console,
    pub clock: RuntimeClock,
    pub made: AtomicU64,
    pub lives: Mutex<Vec<Weak<Life>>>,
    pub director: Option<Arc<dyn Director>>,
}

impl Instances {
    /// Ends all instances.
    pub fn kill(&self) {
        let lives = std::mem::take(&mut *self.lives());
        for life in lives.iter().filter_map(Weak::upgrade) {
            life.kill();
        }
    }

    /// The instances that there are.
    pub fn living(&self) -> Vec<Arc<Life>> {
        self.lives().iter().filter_map(Weak::upgrade).collect()
    }

    fn lives(&self) -> MutexGuard<'_, Vec<Weak<Life>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandlerState for Instances {
    type StoreData = Guest;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Guest, Expiration, Worker>> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let life = Life::new(number);
        let staged = match &self.director {
            None => None,
            Some(director) => Some(director.make(&life).map_err(wasmtime::Error::msg)?),
        };
        {
            let mut lives = self.lives();
            lives.retain(|life| life.strong_count() > 0);
            lives.push(Arc::downgrade(&life));
        }
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(self.console.stream(number, Output::Stdout))
            .stderr(self.console.stream(number, Output::Stderr))
            .monotonic_clock(self.clock)
            .wall_clock(self.clock);
        if let Some(Staged { seed, .. }) = staged {
            wasi.insecure_random_seed(seed.into())
                .insecure_random(StdRng::seed_from_u64(seed))
                .secure_random(StdRng::seed_from_u64(seed));
        }
        let is_staged = staged.is_some();
        let store = staged.map_or_else(|| self.store.clone(), |staged| staged.store);
        let guest = Guest {
            table: ResourceTable::new(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            hooks: NoOutgoingRequests,
            keyvalue: KeyValue::new(store, self.quirks, is_staged),
            variables: self.variables.clone(),
            limits: self.memory.map_or_else(StoreLimits::default, |most| {
                StoreLimitsBuilder::new().memory_size(most).build()
            }),
            requests: HashMap::new(),
        };
        let mut store = wasmtime::Store::new(self.program.engine(), guest);
        store.limiter(|guest| &mut guest.limits);
        let Program(program) = &self.program;
        let proxy = program.instantiate_async(&mut store).await?;
        let reuse = self.program.reuse(self.reuse);
        Ok(Instance {
            store,
            proxy,
            view: Guest::http,
            expiration: Expiration {
                reuse,
                is_wasi_0_2: self.program.is_wasi_0_2(),
                timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
                state: None,
                life: life.clone(),
            },
            state: Worker {
                reuse,
                console: self.console.clone(),
                life,
                director: self.director.clone(),
            },
        })
    }
}

/// When an instance is dropped.
pub struct Expiration {
    reuse: Reuse,
    /// Whether it ends with its one request.
    is_wasi_0_2: bool,
    timer: Pin<Box<tokio::time::Sleep>>,
    /// What the instance is doing, and since when.
    state: Option<(WorkerStatus, Instant, tokio::time::Instant)>,
    life: Arc<Life>,
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        since_machine: Instant,
    ) -> Poll<()> {
        if self.life.poll_killed(cx).is_ready() {
            return Poll::Ready(());
        }
        let limit = match status {
            WorkerStatus::Idle => Some(self.reuse.idle),
            WorkerStatus::PostReturn if self.is_wasi_0_2 => Some(Duration::ZERO),
            WorkerStatus::Requests | WorkerStatus::PostReturn => self.reuse.request_timeout,
        };
        // The worker goes by the machine's clock, the limit by the runtime's, which a test may have paused.
        let since = match self.state {
            Some((known, start, since)) if known == status && start == since_machine => since,
            _ => {
                let since = tokio::time::Instant::now();
                self.state = Some((status, since_machine, since));
                since
            }
        };
        let Some(deadline) = limit.and_then(|limit| since.checked_add(limit)) else {
            return Poll::Pending;
        };
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx)
    }
}

/// Which requests an instance takes.
pub struct Worker {
    reuse: Reuse,
    console: Console,
    life: Arc<Life>,
    director: Option<Arc<dyn Director>>,
}

impl WorkerState for Worker {
    type StoreData = Guest;
    /// The request's number.
    type RequestData = u64;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.reuse.requests {
            ShouldAccept::Never
        } else if concurrent >= self.reuse.concurrent_requests {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        mut store: StoreContextMut<'_, Guest>,
        request: u64,
        task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        if let Some(director) = &self.director {
            store.data_mut().requests.insert(task, request);
            director.begin(self.life.instance, request);
        }
        match self.reuse.request_timeout {
            Some(timeout) => Box::pin(tokio::time::sleep(timeout)),
            None => Box::pin(std::future::pending()),
        }
    }

    fn drop(&self, store: wasmtime::Store<Guest>, result: wasmtime::Result<()>) {
        drop(store);
        if let Err(error) = result
            && !self.life.is_killed()
        {
            // Each cause, with the guest's backtrace among them, but not the host's.
            for cause in error.chain() {
                let instance = self.life.instance;
                self.console
                    .print(instance, Output::Stderr, &cause.to_string());
            }
        }
    }
}
