//! `asyncio.Event` for WebAssembly components: an event that no loop owns.
//!
//! ```
//! use std::time::Duration;
//!
//! use loopless::event::{Events, Name, Waited};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let events = Events::in_memory();
//!     let door = events.named(&Name::new("door").ok_or("not a name")?);
//!
//!     // One task waits, and another one sets the event.
//!     let (waited, set) = tokio::join!(door.wait(Duration::from_secs(1)), door.set());
//!     assert_eq!(waited?, Waited::Set(set?));
//!
//!     // The event stays set until somebody clears it.
//!     assert!(door.is_set().await?);
//!     Ok(())
//! }
//! ```
//!
//! The same code runs in a component on a host's key-value store, where many requests, instances and machines share `door`.
//!
//! - To *call* the component, read the [API guide](guide::api). To *deploy* it, read the [deployment guide](guide::deployment).
//!   To use events from *another component* in any language, read the [guide to languages](guide::languages).
//! - To use events from *Rust*, begin with [`event::Events`]. The modules [`event`], [`lease`], [`state`], [`strategy`], [`store`]
//!   and [`clock`] are the library, and follow semantic versioning. The others are the component.
//! - To *change* this crate, read on.
//!
//! # Architecture
//!
//! The crate is a component for hosts of WASI 0.3 or 0.2, with or without compare-and-swap: see [Builds](#builds).
//! `wit/world.wit` names the imports of each build. The logic also builds natively, for unit tests, because only the outer
//! modules know a host. No module depends on one of a group above its own:
//!
//! ```text
//! lib.rs       the component: its parts, by features, and its router    ┐
//! wasi_0_3.rs  store, clock, variables, tasks and HTTP of WASI 0.3      │
//! wasi_0_2.rs  the same of WASI 0.2                                     │
//!              their submodules: HTTP, and the host's SQLite and Redis  │ these know WASI
//! exported.rs  events for other components (`wit/events.wit`)           │
//! atomics.rs   compare-and-swap and counters of `wasi:keyvalue`         ┘
//! routes.rs    all routes; their handlers are in submodules             ┐
//! problem.rs   error responses                                          ┘ these know HTTP
//! service.rs   Service: start, stop, run                                ┐
//! lease.rs     Lease: one holder at a time, whose acts are counted      │
//! event.rs     Event: set, clear, is_set, wait                          │
//! strategy.rs  trait Strategy: how a change is written, with Exact (on  │
//!              compare-and-swap) and Plain (on registers)               │
//! state.rs     Generation, State                                        │
//! number.rs    numbers in the store                                     │
//! sqlite.rs    Sqlite: a store in a table of an SQLite database         │
//! redis.rs     Redis: a store in a Redis database                       │
//! store.rs     traits Store and Atomics, and timeouts                   │ these know neither
//! clock.rs     traits Clock and Calendar                                │ WASI nor HTTP
//! settings.rs  trait Variables, and the settings of an operator         │
//! promises.rs  which build promises what                                ┘
//! ```
//!
//! `tests/harness` is the crate `loopless-host`: the same host interfaces on Wasmtime, as a program and as a library for the
//! tests in `tests/component/`. It does not depend on this crate, because it runs the built component.
//!
//! # The one rule
//!
//! *State crosses requests; futures never do.*
//!
//! A host may run many requests in one instance at the same time, and may drop the instance at any time. A guest that passes a
//! waker, a channel or a future from one request to another is trapped with `Cannot support cross-component-model-task
//! wakeup`, which ends all requests of the instance. So requests share only a value in the host's key-value store. An instance
//! keeps in memory ([`event::Events`]) what it last read of that value, and never a waiter.
//!
//! [`event`] describes the event, and [`strategy`] how it is stored and changed. With compare-and-swap, the
//! [exact](strategy::Exact) strategy is exact even if the host reports wrong results. Without it, the [plain](strategy::Plain)
//! strategy keeps the weaker promises that registers allow. The [`service`] needs compare-and-swap too: its runner is a task that
//! outlives its request, and other requests find it by a [lease](lease::Lease) in the store and two events.
//!
//! # Builds
//!
//! One source makes eight components. The features say what the host has. They are independent, except that `plain`,
//! `store-sqlite` and `store-redis` exclude each other:
//!
//! | features | for | manifest | WASI | strategy |
//! | --- | --- | --- | --- | --- |
//! | | Spin 4.1 and newer | `spin.toml` | 0.3 | [exact](strategy::Exact) |
//! | `plain` | Akamai Functions | `deploy/akamai-functions.toml` | 0.3 | [plain](strategy::Plain) |
//! | `wasi-0-2,plain` | Fermyon Cloud, Spin 2.3 to 3 | `deploy/fermyon-cloud.toml` | 0.2 | plain |
//! | `wasi-0-2` | Spin 3, with a store that has atomics | none | 0.2 | exact, without the service |
//! | `store-sqlite` | Spin 4.1 and newer, in [SQLite](sqlite::Sqlite) | `deploy/spin-sqlite.toml` | 0.3 | exact |
//! | `wasi-0-2,store-sqlite` | Fermyon Cloud, Spin 2.3 to 3, in SQLite | `deploy/fermyon-cloud-sqlite.toml` | 0.2 | exact, without the service |
//! | `store-redis` | Akamai Functions, Spin 4.1 and newer, in [Redis](redis::Redis) | `deploy/akamai-functions-redis.toml` | 0.3 | exact |
//! | `wasi-0-2,store-redis` | Spin 2.4 to 3, in Redis | `deploy/spin-3-redis.toml` | 0.2 | exact, without the service |
//!
//! [`promises`] lists what each build promises. The features choose three things, in this file: the host interface
//! (`wasi_0_3.rs` or `wasi_0_2.rs`), the strategy and the store. To support another form of compare-and-swap, implement
//! [`store::Atomics`]. To make changes in another way, implement [`strategy::Strategy`].
//!
//! # A request
//!
//! 1. The host calls `handle` in a new instance or, with WASI 0.3, in one that has served requests before. The first request of an
//!    instance creates the router, and the first that needs the store opens it. Both are kept for later requests.
//! 2. [`routes`] checks that the request has the token that it needs and does not come from a page of another site. Then it
//!    calls the handler, which reads the event's state. A wait sleeps and reads again. (With WASI 0.3, other requests continue
//!    during a read.)
//! 3. The build's [`strategy`] makes a change. The exact one uses `wasi:keyvalue/atomics`, whose calls block the other requests of
//!    the instance, or a statement of SQLite or a command of Redis. Then it reads whether the change happened. The plain one writes
//!    the next generation with a new tag.
//! 4. An error in any of these steps becomes a [`problem::Problem`]. The instance stays usable.
//!
//! # Changing it
//!
//! - To add a route, edit `src/routes.rs` and `src/openapi.json`, test it in `tests/component/promises/`, and describe it in
//!   `src/guide/api.md`.
//! - To add a promise, edit `src/promises.rs`, the table in `src/guide/deployment.md`, and `contract.rs` in
//!   `tests/harness/src/bin/loopless-host/`, which says where each promise is checked: from outside in `conformance/full.rs`, under
//!   faults in `simulate/events/promises.rs` and `simulate/service/promises.rs`.
//! - If a seed of the simulation fails, it prints the command that replays it. Arbitrary requests are the same in each run:
//!   `PROPTEST_CASES` makes more of them, and `PROPTEST_RNG_SEED` others.
//!
//! # Guides
//!
//! - [API](guide::api), [languages](guide::languages), [service](guide::service) and [deployment](guide::deployment)
//! - [`security`]: the threat model
//! - The protocols on the store, and why they are safe: an event's changes [with compare-and-swap](strategy::Exact) and
//!   [without it](strategy::Plain), and the [lease](lease#protocol)
#![warn(missing_docs)]

#[cfg(all(
    target_os = "wasi",
    not(any(feature = "plain", feature = "store-sqlite", feature = "store-redis"))
))]
pub mod atomics;
pub mod clock;
pub mod event;
#[cfg(all(target_os = "wasi", any(feature = "wasi-0-2", not(target_env = "p1"))))]
mod exported;
pub mod guide;
pub mod lease;
pub(crate) mod number;
pub mod problem;
pub mod promises;
#[cfg(any(feature = "store-redis", not(target_os = "wasi")))]
pub mod redis;
pub mod routes;
pub mod security;
pub mod service;
pub mod settings;
#[cfg(any(feature = "store-sqlite", not(target_os = "wasi")))]
pub mod sqlite;
pub mod state;
pub mod store;
pub mod strategy;
#[cfg(all(target_os = "wasi", feature = "wasi-0-2"))]
pub mod wasi_0_2;
#[cfg(all(target_os = "wasi", not(feature = "wasi-0-2"), not(target_env = "p1")))]
pub mod wasi_0_3;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(target_os = "wasi", target_env = "p1", not(feature = "wasi-0-2")))]
compile_error!(
    "the target wasm32-wasip1 has no WASI 0.3: add --features wasi-0-2, or build for wasm32-wasip2"
);

#[cfg(all(feature = "plain", feature = "store-sqlite"))]
compile_error!(
    "the features plain and store-sqlite exclude each other: SQLite has compare-and-swap, so remove plain"
);

#[cfg(all(feature = "plain", feature = "store-redis"))]
compile_error!(
    "the features plain and store-redis exclude each other: Redis has compare-and-swap, so remove plain"
);

#[cfg(all(feature = "store-sqlite", feature = "store-redis"))]
compile_error!("the features store-sqlite and store-redis exclude each other: remove one");

/// The component: its parts, which the features choose, and its router.
#[cfg(all(target_os = "wasi", any(feature = "wasi-0-2", not(target_env = "p1"))))]
mod component {
    use std::sync::LazyLock;

    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use axum::response::Response;

    use crate::event::Events;
    use crate::promises::Build;
    use crate::routes::{self, App};
    #[cfg(feature = "wasi-0-2")]
    use crate::wasi_0_2 as host;
    #[cfg(not(feature = "wasi-0-2"))]
    use crate::wasi_0_3 as host;

    #[cfg(not(any(feature = "store-sqlite", feature = "store-redis")))]
    use crate::store::Bounded as InTime;
    #[cfg(any(feature = "store-sqlite", feature = "store-redis"))]
    use crate::store::Patient as InTime;

    #[cfg(not(any(feature = "plain", feature = "store-sqlite", feature = "store-redis")))]
    type Inner = crate::atomics::WithAtomics<host::SpinStore>;
    #[cfg(feature = "store-sqlite")]
    type Inner = crate::sqlite::Sqlite<host::SpinDatabase>;
    #[cfg(feature = "store-redis")]
    type Inner = crate::redis::Redis<host::SpinRedis, host::SpinVariables>;
    #[cfg(feature = "plain")]
    type Inner = host::SpinStore;
    type Store = InTime<Inner, host::SpinClock>;

    #[cfg(not(feature = "plain"))]
    type Strategy = crate::strategy::Exact<Store>;
    #[cfg(feature = "plain")]
    type Strategy = crate::strategy::Plain<Store, fn() -> u64>;

    fn strategy() -> Strategy {
        #[cfg(not(feature = "store-redis"))]
        let store = Inner::default();
        #[cfg(feature = "store-redis")]
        let store = Inner::new(host::SpinRedis, host::SpinVariables);
        let store = Store::new(store, host::SpinClock);
        #[cfg(not(feature = "plain"))]
        return crate::strategy::Exact::new(store, host::random);
        #[cfg(feature = "plain")]
        return crate::strategy::Plain::new(store, host::random);
    }

    /// The host that the component is built for.
    #[derive(Clone, Copy, Debug)]
    pub struct Host;

    impl routes::Host for Host {
        type Strategy = Strategy;
        type Clock = host::SpinClock;
        type Variables = host::SpinVariables;

        const BUILD: Build = Build {
            has_wasi_0_3: cfg!(not(feature = "wasi-0-2")),
            has_atomics: cfg!(not(feature = "plain")),
        };

        fn background() -> Router<App<Self>> {
            #[cfg(any(feature = "wasi-0-2", feature = "plain"))]
            return routes::no_background();
            #[cfg(not(any(feature = "wasi-0-2", feature = "plain")))]
            return routes::background();
        }
    }

    #[cfg(not(any(feature = "wasi-0-2", feature = "plain")))]
    impl routes::Background for Host {
        type Store = Store;

        fn spawn(task: impl Future<Output = ()> + Send + 'static) {
            host::spawn(task);
        }

        fn print(line: &str) {
            println!("{line}");
        }
    }

    /// The application, with one store for all requests of an instance.
    pub static APP: LazyLock<App<Host>> = LazyLock::new(|| {
        let events = Events::new(strategy(), host::SpinClock);
        App::new(events, host::SpinVariables)
    });

    static ROUTER: LazyLock<Router> = LazyLock::new(|| routes::router(APP.clone()));

    /// Answers one request.
    pub async fn answer(request: Request<Body>) -> Response {
        routes::answer(&APP, &ROUTER, request).await
    }
}
