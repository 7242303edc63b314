//! A native host and test harness for Spin HTTP components of WASI 0.2 and 0.3.
//!
//! It runs a component as Spin does: on Wasmtime, with Spin's interfaces (`spin:key-value@3.0.0`, `spin:variables@3.0.0`,
//! those of Spin 2 and 3 before them, `wasi:keyvalue`), with many requests in an instance and instances that come and go.
//! An instance of WASI 0.2 serves one request. As a program,
//! `loopless-host`, it serves HTTP. As a library, it is a host in a test, and knows nothing of what it runs.
//!
//! # A test
//!
//! In the Cargo.toml of a component, whose library has `crate-type = ["cdylib"]`:
//!
//! ```toml
//! [dev-dependencies]
//! loopless-host = { path = "../loopless/tests/harness" } # where your checkout of it is
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! In a file in `tests/`, here of a guestbook that is signed with `POST /NAME` (its source is `tests/guestbook/src/lib.rs`):
//!
//! ```no_run
#![doc = include_str!("../../guestbook/signing.rs")]
//! ```
//!
//! [`Harness::start`] and [`Harness::builder`] build the package under test as a component (once in a test process;
//! cargo knows when there is nothing to do), and start a host in this process, without a socket. The builder sets what
//! a test wants otherwise. Then requests go in, and responses come out:
//!
//! | to | use |
//! | --- | --- |
//! | send a request, and have the whole response | [`Harness::get`], [`post`](Harness::post), [`send`](Harness::send) |
//! | have the response's head, and its body as it comes | [`Harness::handle`] |
//! | fill the store beforehand and see it afterwards | [`Builder::store`], with a clone of an [`Observed`](store::Observed) |
//! | let the store fail | [`Observed::fail`](store::Observed::fail), [`fail_at`](store::Observed::fail_at), [`fail_next`](store::Observed::fail_next) |
//! | set variables | [`Builder::variable`] |
//! | see what the component printed | [`Harness::printed`]; with the instance that printed it, [`Harness::lines`] |
//! | run a build for another host, as its manifest has it | [`Builder::manifest`] |
//! | have what a cloud has, and no more | [`Builder::platform`] with a [`Platform`](platform::Platform) |
//! | decide when instances are dropped, and count them | [`Builder::reuse`], [`Harness::instances`] |
//! | connect a real client | [`Harness::serve`] |
//! | have several components behind one address | [`Routes`], [`Server::start`] |
//!
//! Where the component traps, every request of its instance is answered with 500, as on Spin, and the trap is among
//! the lines of standard error.
//!
//! # Time
//!
//! A guest's clocks and sleeps are those of the tokio runtime; its calendar starts at the machine's. Where a test pauses it (`start_paused = true`, as above),
//! the guest's time is virtual: it stands still while anybody works, and jumps when all sleep.
//!
//! # Simulation
//!
//! [`simulation`] runs a component on many hosts and one store, in one thread, from one seed: with calls of the store that
//! are slow, fail or lose their answers, and with instances and hosts that die. A seed is one run, to the byte.
//!
//! # Stores
//!
//! The guest's key-value store is a [`store::Store`]: in [memory](store::Memory), in a [SQLite](store::Sqlite) file, in
//! [Redis](store::Redis), or a test's own. [`store::Observed`] counts what a store is asked, and fails on demand. [`store::Quirks`] says whose
//! `wasi:keyvalue/atomics` the guest meets: an exact one, or one of Spin's.
//!
//! # Limits
//!
//! One store, labelled `default`. No outgoing requests, no sockets, no files; no databases, queues or models of Spin's.
//! A component that imports what this host does not have does not start, and the
//! error names the import.
#![warn(missing_docs)]
#![cfg(not(target_family = "wasm"))]

mod bindings;
mod call;
pub mod component;
pub mod console;
mod cpu;
mod front;
mod guest;
mod harness;
mod keyvalue;
pub mod manifest;
pub mod platform;
mod routes;
mod server;
pub mod simulation;
pub mod store;
mod variables;

pub use front::Bounds;
pub use guest::{Limits, Reuse};
pub use harness::{Builder, Harness};
pub use routes::Routes;
pub use server::{GRACE, Server, listen};
pub use variables::is_name as is_variable_name;

/// The body of a response, which may still be on its way.
pub use wasmtime_wasi_http::WasiBody as Body;
