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
//!     // Somebody waits, and somebody else sets it.
//!     let (waited, set) = tokio::join!(door.wait(Duration::from_secs(1)), door.set());
//!     assert_eq!(waited?, Waited::Set(set?));
//!
//!     // Whoever waits from now on finds it set.
//!     assert!(door.is_set().await?);
//!     Ok(())
//! }
//! ```
//!
//! The same code runs in a component on a host's key-value store, where many requests, instances and machines share `door`.
//!
//! - To *call* the component, read the [API guide](guide::api); to use events from *another component*, in any language, the
//!   [guide to languages](guide::languages); to *deploy* it, the [deployment guide](guide::deployment).
//! - To use events from *Rust*, begin with [`event::Events`]. The modules [`event`], [`lease`], [`state`], [`strategy`], [`store`]
//!   and [`clock`] are the library, and follow semantic versioning. The others are the component.
//! - To *change* this crate, read on.
//!
//! # Architecture
//!
//! The crate is a component for hosts of WASI 0.3 or 0.2, with or without compare-and-swap: see [Builds](#builds). What each
//! build imports is named in `wit/world.wit`. The logic builds natively too, for unit tests. Only the edges know a host.
//! Dependencies point inward:
//!
//! ```text
//! lib.rs       the host's handler -> router, nothing else               ┐
//! wasi_0_3.rs  clock, variables, tasks and reads of a WASI 0.3 host;    │
//!              below it, responses, as long as somebody listens         │
//! wasi_0_2.rs  the same of a WASI 0.2 host; below it, HTTP              │
//!              Below both, their host's SQLite and client of Redis      │ these know WASI
//! exported.rs  events for other components (`wit/events.wit`)           │
//! atomics.rs   compare-and-swap and counters of `wasi:keyvalue`         ┘
//! routes.rs    every route; below it, what they do                      ┐
//! problem.rs   what a client sees of an error                           ┘ these know HTTP
//! service.rs   Service: start, stop, run                                ┐
//! lease.rs     Lease: one holder of many, whose acts are counted        │
//! event.rs     Event: set, clear, is_set, wait                          │
//! strategy.rs  trait Strategy: how a change is written; below it, on    │
//!              compare-and-swap (Exact) and on registers (Plain)        │
//! state.rs     Generation, State                                        │
//! number.rs    numbers in the store                                     │
//! sqlite.rs    Sqlite: a store in one table of an SQLite database       │
//! redis.rs     Redis: a store in the keys of a Redis                    │
//! store.rs     traits Store and Atomics: what is asked of a store       │ these know nothing
//! clock.rs     traits Clock and Calendar: now, sleep; date              │ but each other
//! settings.rs  trait Variables: what an operator sets                   │
//! promises.rs  which build promises what                                ┘
//! ```
//!
//! `tests/harness` is a crate of its own, `loopless-host`: the same host interfaces on Wasmtime, as a program and as a
//! library for the tests in `tests/`. It does not depend on this crate: what it runs is the built component.
//!
//! # The one rule
//!
//! *State crosses requests; futures never do.*
//!
//! A host may run many requests in one instance at the same time, and it drops instances as it likes. So nothing here
//! hands a waker, a channel or a future from one request to another: a guest that tries is trapped with `Cannot support
//! cross-component-model-task wakeup`, and with it go all other requests of the instance. What requests share is a value
//! in the host's key-value store. What an instance keeps in memory ([`event::Events`]) is what it last read of that
//! value: never a waiter, and never the truth.
//!
//! [`event`] describes the event, and [`strategy`] how it is changed and kept. With compare-and-swap, the
//! [exact](strategy::Exact) strategy is exact even where the host's answers are not. Without, the [plain](strategy::Plain)
//! strategy keeps the weaker promises that registers allow. The [`service`] needs compare-and-swap too: its runner is a task that
//! its request leaves behind, and what others know of it is a [lease](lease::Lease) in the store and two events.
//!
//! # Builds
//!
//! One source makes eight components. Its features say what the host has. Each is independent of the others, but for `plain`,
//! `store-sqlite` and `store-redis`, which exclude each other:
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
//! [`promises`] has what each of them promises. The features choose three things, in this file: the edge
//! (`wasi_0_3.rs` or `wasi_0_2.rs`), the strategy and the store. To support compare-and-swap in another form, implement
//! [`store::Atomics`]; to make changes in another way, implement [`strategy::Strategy`].
//!
//! # A request
//!
//! 1. The host calls `handle` in an instance, new or (with WASI 0.3) used. The instance's first request makes the router,
//!    and opens the store when it first needs it; both stay for the requests that follow.
//! 2. [`routes`] lets the request pass, if it has the token that it needs and no page of another site sends it, and finds the
//!    handler. That reads the event's state (with WASI 0.3 asynchronously: other requests go on), and
//!    perhaps waits, by sleeping and reading again.
//! 3. A change is made by the build's [`strategy`]. The exact one uses `wasi:keyvalue/atomics`, whose calls stop the
//!    instance's other requests while they run (with SQLite, a statement; with Redis, a command), and reads afterwards whether the
//!    change happened. The plain one writes the next generation with a new tag.
//! 4. An error of any of these is a [`problem::Problem`], and the instance lives on.
//!
//! # Guides
//!
//! The [API](guide::api), [languages](guide::languages), the [service](guide::service), [deployment](guide::deployment), and
//! [`security`]: what is defended, by what, and what is left to the platform.
//!
//! The protocols on the store, and why they are safe: of an event's changes [with compare-and-swap](strategy::Exact) and
//! [without](strategy::Plain), and of the [lease](lease#protocol).
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
    "the features plain and store-sqlite exclude each other: SQLite compares and swaps, so leave out plain"
);

#[cfg(all(feature = "plain", feature = "store-redis"))]
compile_error!(
    "the features plain and store-redis exclude each other: Redis compares and swaps, so leave out plain"
);

#[cfg(all(feature = "store-sqlite", feature = "store-redis"))]
compile_error!("the features store-sqlite and store-redis exclude each other: leave out one");

/// The component: what the features make of the parts, and its router.
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

    /// One application, and so one opened store, for all that an instance does.
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
