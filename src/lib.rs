//! `asyncio.Event` for WebAssembly components: an event that no loop owns.
#![warn(missing_docs)]

pub mod clock;
pub mod event;
pub mod problem;
pub mod routes;
#[cfg(target_os = "wasi")]
pub mod spin;
pub mod store;

/// The component: `wasi:http/handler` to the router, nothing else.
#[cfg(target_os = "wasi")]
mod component {
    use std::sync::LazyLock;

    use axum::Router;
    use axum::body::Body;
    use axum::response::Response;
    use spin_sdk::http::Request;

    use crate::event::Events;
    use crate::routes;
    use crate::spin::{SpinClock, SpinStore};

    /// One router, and so one opened store, for all requests of an instance.
    static ROUTER: LazyLock<Router> =
        LazyLock::new(|| routes::router(Events::new(SpinStore::default(), SpinClock)));

    #[spin_sdk::http_service]
    async fn handle(request: Request) -> Response {
        routes::answer(&ROUTER, request.map(Body::new)).await
    }
}
