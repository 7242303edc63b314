//! `asyncio.Event` for WebAssembly components: an event that no loop owns.
//!
//! # Architecture
//!
//! The crate is a component for hosts of WASI 0.3: it exports `wasi:http/handler`, and what it imports is named in
//! `wit/world.wit`. Its logic builds natively too, for unit tests. Dependencies point inward:
//!
//! ```text
//! lib.rs       wasi:http/handler -> router, nothing else            ┐
//! spin.rs      Store, Clock, Variables of what the host offers      │ these know WASI
//! outgoing.rs  responses to the host, as long as somebody listens   ┘
//! routes.rs    every route; below it, what they do                  ┐
//! problem.rs   what a client sees of an error                       ┘ these know HTTP
//! service.rs   Service: start, stop, run; the lease of its runner   ┐
//! event.rs     Event: set, clear, is_set, wait                      │
//! state.rs     Generation, and the number that it is stored as      │
//! number.rs    numbers in the store                                 │
//! store.rs     traits Store and Records: what is asked of a store   │ these know nothing
//! clock.rs     traits Clock and Calendar: now, sleep; date          │ but each other
//! settings.rs  trait Variables: what an operator sets               ┘
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
//! How an event is changed and kept, and why that is exact on hosts whose compare-and-swap is not, stands in [`event`]
//! and [`state`]. The [`service`] is kept with the same means: its runner is a task that its request leaves behind, and
//! what others know of it is a lease in the store and two events.
//!
//! # A request
//!
//! 1. The host calls `handle` in an instance, new or used. The instance's first request makes the router, and opens the
//!    store when it first needs it; both stay for the requests that follow.
//! 2. [`routes`] finds the handler. It reads the event's generation (asynchronously: other requests go on), and perhaps
//!    waits, by sleeping and reading again.
//! 3. A change goes through `wasi:keyvalue/atomics`, whose calls stop the instance's other requests while they run;
//!    a read afterwards tells whether it happened.
//! 4. An error of any of these is a [`problem::Problem`], and the instance lives on.
#![warn(missing_docs)]

pub mod clock;
pub mod event;
pub(crate) mod number;
#[cfg(target_os = "wasi")]
pub mod outgoing;
pub mod problem;
pub mod routes;
pub mod service;
pub mod settings;
#[cfg(target_os = "wasi")]
pub mod spin;
pub mod state;
pub mod store;

/// The component: `wasi:http/handler` to the router, nothing else.
#[cfg(target_os = "wasi")]
mod component {
    use std::sync::LazyLock;

    use axum::Router;
    use axum::body::Body;
    use spin_sdk::http::{IntoResponse, Request};

    use crate::event::Events;
    use crate::spin::{Spin, SpinClock, SpinStore, SpinVariables};
    use crate::{outgoing, routes};

    /// One router, and so one opened store, for all requests of an instance.
    static ROUTER: LazyLock<Router> = LazyLock::new(|| {
        let events = Events::new(SpinStore::default(), SpinClock);
        routes::router::<Spin>(events, SpinVariables)
    });

    #[spin_sdk::http_service]
    async fn handle(request: Request) -> impl IntoResponse {
        outgoing::send(routes::answer(&ROUTER, request.map(Body::new)).await)
    }
}
