//! A native host and test harness for Spin HTTP components of WASI 0.3.
//!
//! It runs a component as Spin does: on Wasmtime, with Spin's interfaces (`spin:key-value@3.0.0`, `wasi:keyvalue` store
//! and atomics, `spin:variables@3.0.0`), with many requests in an instance and instances that come and go. As a program,
//! `loopless-host`, it serves HTTP. As a library, it is a host in a test:
//!
//! ```no_run
//! use loopless_host::Harness;
//!
//! #[tokio::test(start_paused = true)]
//! async fn greets() {
//!     let host = Harness::start().await.unwrap();
//!     let response = host.get("/").await;
//!     assert_eq!(response.status(), 200);
//! }
//! # fn main() {}
//! ```
//!
//! That builds the package under test as a component (once in a test process; cargo knows when there is nothing to do),
//! and starts a host in this process, without a socket. [`Harness::builder`] sets what a test wants otherwise, and
//! [`Harness::serve`] puts a socket in front.
//!
//! # Time
//!
//! A guest's clocks and sleeps are those of the tokio runtime; its calendar starts at the machine's. Where a test pauses it (`start_paused = true`, as above),
//! the guest's time is virtual: it stands still while anybody works, and jumps when all sleep.
//!
//! # Stores
//!
//! The guest's key-value store is a [`store::Store`]: in [memory](store::Memory), in a [SQLite](store::Sqlite) file, in
//! [Redis](store::Redis), or a test's own. [`store::Observed`] counts what a store is asked, and fails on demand. [`store::Quirks`] says whose
//! `wasi:keyvalue/atomics` the guest meets: an exact one, or one of Spin's.
//!
//! # Limits
//!
//! One store, labelled `default`. No outgoing requests, no sockets, no files. Components of WASI 0.2 do not load.
#![warn(missing_docs)]

mod bindings;
pub mod component;
pub mod console;
mod guest;
mod harness;
mod keyvalue;
mod server;
pub mod store;
mod variables;

pub use guest::Reuse;
pub use harness::{Builder, Harness};
pub use server::{GRACE, Server, listen};
pub use variables::is_name as is_variable_name;

/// The body of a response, which may still be on its way.
pub use wasmtime_wasi_http::WasiBody as Body;
