//! Instances of a component: how they are made from a [`Program`], and when they end.

mod life;
mod program;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime::component::{GuestTaskId, ResourceTable};
use wasmtime::{StoreContextMut, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::call::Call;
use crate::console::{Console, Output};
use crate::cpu::{self, Slices};
use crate::handles::{Handles, InstanceHandles};
use crate::keyvalue::KeyValue;
use crate::redis::Outbound;
use crate::sqlite::Databases;
use crate::store::{Quirks, Store};
use crate::variables::Variables;
use crate::view::{Requests, View};

pub use self::life::Life;
pub use self::program::Program;

/// When instances are reused, and when they are dropped. The defaults are those of Spin 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// How many requests an instance serves in total.
    pub requests: usize,
    /// How many requests an instance serves at the same time.
    pub concurrent_requests: usize,
    /// How long an idle instance is kept.
    pub idle: Duration,
    /// How long a request may take, and how long the work that it leaves behind may. `None`: no limit.
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

/// How many requests a host serves at the same time, and what an instance may use.
///
/// If a [`Platform`](crate::platform::Platform) has a lower limit, that one applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests may be under way at the same time, each from its head to the end of its response. A
    /// [`Server`](crate::Server) rejects further requests with 503. The host reserves address space for as many instances.
    pub concurrent_requests: usize,
    /// The most memory that an instance may have, in bytes. A larger allocation fails, and most guests then trap. `None`: no
    /// limit.
    pub memory: Option<usize>,
    /// How long an instance may compute without waiting for anything. Then it traps, and its requests are answered with 500.
    /// `None`: no limit.
    pub cpu: Option<Duration>,
}

impl Default for Limits {
    /// 10,000 requests, no limit of memory, and 5 s.
    fn default() -> Self {
        Self {
            concurrent_requests: 10_000,
            memory: None,
            cpu: Some(Duration::from_secs(5)),
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
    handles: Arc<InstanceHandles>,
    databases: Arc<Databases>,
    outbound: Arc<Outbound>,
    variables: Variables,
    limits: StoreLimits,
    requests: Requests,
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

/// Rejects outgoing requests, as Spin does if `allowed_outbound_hosts` is empty.
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

impl Guest {
    fn view(&mut self) -> View<'_> {
        View {
            keyvalue: &mut self.keyvalue,
            databases: &self.databases,
            outbound: &self.outbound,
            variables: &self.variables,
            handles: &self.handles,
            table: &mut self.table,
            requests: &self.requests,
        }
    }
}

/// The clock of the tokio runtime, which a test may have paused. A guest's sleeps run on it, so its clocks must too.
#[derive(Clone, Copy)]
pub struct RuntimeClock {
    started: tokio::time::Instant,
    /// The guest's date when the clock started, as the time since 1970.
    epoch: Duration,
}

impl RuntimeClock {
    /// A clock that starts now, when the guest's date is `epoch`.
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

/// A simulation, which gives each instance a store and random numbers of its own.
pub trait Director: Send + Sync {
    /// Called before an instance is made. If this returns an error, the instance is not made.
    fn make(&self, life: &Arc<Life>) -> Result<Staged, String>;

    /// Called when an instance begins to serve a request.
    fn begin(&self, instance: u64, request: u64);
}

/// What an instance gets of its [`Director`].
pub struct Staged {
    pub store: Arc<dyn Store>,
    pub databases: Databases,
    /// The seed of the guest's random numbers.
    pub seed: u64,
}

/// Makes the instances of a host.
pub struct Instances {
    pub program: Program,
    pub reuse: Reuse,
    pub limits: Limits,
    pub store: Arc<dyn Store>,
    pub databases: Arc<Databases>,
    pub outbound: Arc<Outbound>,
    pub quirks: Quirks,
    pub environment: Vec<(String, String)>,
    pub variables: Variables,
    pub console: Console,
    pub clock: RuntimeClock,
    pub made: AtomicU64,
    pub handles: Arc<Handles>,
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

    /// The instances that have not ended.
    pub fn living(&self) -> Vec<Arc<Life>> {
        self.lives().iter().filter_map(Weak::upgrade).collect()
    }

    fn lives(&self) -> MutexGuard<'_, Vec<Weak<Life>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instances of a host that share requests. Each thread of a server has its own.
pub struct OfThread(pub Arc<Instances>);

impl HandlerState for OfThread {
    type StoreData = Guest;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Guest, Expiration, Worker>> {
        let Self(instances) = self;
        let number = instances.made.fetch_add(1, Ordering::Relaxed) + 1;
        let made = instances.make(number).await;
        if let Err(error) = &made
            && instances.director.is_none()
        {
            let what = format!("cannot make an instance: {error:#}");
            instances.console.print(number, Output::Stderr, &what);
        }
        made
    }
}

impl Instances {
    /// Makes the instance of this number.
    async fn make(&self, number: u64) -> wasmtime::Result<Instance<Guest, Expiration, Worker>> {
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
            .envs(&self.environment)
            .monotonic_clock(self.clock)
            .wall_clock(self.clock);
        if let Some(Staged { seed, .. }) = staged {
            wasi.insecure_random_seed(seed.into())
                .insecure_random(StdRng::seed_from_u64(seed))
                .secure_random(StdRng::seed_from_u64(seed));
        }
        let is_staged = staged.is_some();
        let (store, databases) = staged.map_or_else(
            || (self.store.clone(), self.databases.clone()),
            |staged| (staged.store, Arc::new(staged.databases)),
        );
        let guest = Guest {
            table: ResourceTable::new(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            hooks: NoOutgoingRequests,
            keyvalue: KeyValue::new(store, self.quirks),
            handles: InstanceHandles::new(self.handles.clone()),
            databases,
            outbound: self.outbound.clone(),
            variables: self.variables.clone(),
            limits: self
                .limits
                .memory
                .map_or_else(StoreLimits::default, |most| {
                    StoreLimitsBuilder::new().memory_size(most).build()
                }),
            requests: Requests::new(is_staged, life.released.clone()),
        };
        let mut store = wasmtime::Store::new(self.program.engine(), guest);
        store.limiter(|guest| &mut guest.limits);
        // The limit is in the machine's time, which must not influence a simulation.
        let slices = if is_staged {
            cpu::leave_alone(&mut store)
        } else {
            cpu::limit(&mut store, self.limits.cpu)
        };
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
                slices,
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

/// Whether a worker was dropped with its runtime. Wasmtime reports that as a panic.
fn is_end_of_runtime(error: &wasmtime::Error) -> bool {
    !std::thread::panicking() && error.to_string() == "worker panicked"
}

/// When an instance is dropped.
pub struct Expiration {
    reuse: Reuse,
    is_wasi_0_2: bool,
    timer: Pin<Box<tokio::time::Sleep>>,
    /// What the instance is doing, and since when.
    state: Option<(WorkerStatus, Instant, tokio::time::Instant)>,
    slices: Arc<Slices>,
    life: Arc<Life>,
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        since_machine: Instant,
    ) -> Poll<()> {
        self.slices.pause();
        if self.life.poll(cx, status).is_ready() {
            return Poll::Ready(());
        }
        let limit = match status {
            WorkerStatus::Idle => Some(self.reuse.idle),
            WorkerStatus::PostReturn if self.is_wasi_0_2 => Some(Duration::ZERO),
            WorkerStatus::Requests | WorkerStatus::PostReturn => self.reuse.request_timeout,
        };
        // The worker uses the machine's clock. The limit is in the runtime's time, which a test may have paused.
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

/// Decides which requests an instance takes.
pub struct Worker {
    reuse: Reuse,
    console: Console,
    life: Arc<Life>,
    director: Option<Arc<dyn Director>>,
}

impl WorkerState for Worker {
    type StoreData = Guest;
    type RequestData = Arc<Call>;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.reuse.requests || self.life.has_abandoned() {
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
        call: Arc<Call>,
        task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        store.data_mut().requests.insert(task, call.asker());
        if let Some(director) = &self.director {
            director.begin(self.life.instance, call.number);
        }
        call.begin(&self.life);
        let timeout = self.reuse.request_timeout;
        Box::pin(async move {
            // The request counts as under way until the guest answers, even if no client waits.
            let _call = call;
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        })
    }

    fn drop(&self, store: wasmtime::Store<Guest>, result: wasmtime::Result<()>) {
        drop(store);
        if let Err(error) = result
            && !self.life.is_killed()
            && !is_end_of_runtime(&error)
        {
            // The causes include the guest's backtrace. The error's own backtrace is the host's.
            for cause in error.chain() {
                let instance = self.life.instance;
                self.console
                    .print(instance, Output::Stderr, &cause.to_string());
            }
        }
    }
}
