//! A native host and test harness for Spin HTTP components of WASI 0.2 and 0.3.
//!
//! It runs a component like Spin: on Wasmtime, with Spin's interfaces, in instances that come and go. The program
//! `loopless-host` serves HTTP. The library is a host for tests, without a socket. It runs any component that needs no other
//! interfaces.
//!
//! # A test
//!
//! In the Cargo.toml of the component, whose library has `crate-type = ["cdylib"]`:
//!
//! ```toml
//! [dev-dependencies]
//! loopless-host = { path = "../loopless/tests/harness" } # the path of your checkout
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! In a file in `tests/`. This one tests a guestbook, which is signed with `POST /NAME` (its source is
//! `tests/guestbook/src/lib.rs`):
//!
//! ```no_run
#![doc = include_str!("../../guestbook/signing.rs")]
//! ```
//!
//! [`Harness::start`] and [`Harness::builder`] build the package under test as a component, once in a test process, and start a
//! host in this process. The builder changes the host's settings.
//!
//! | to | use |
//! | --- | --- |
//! | send a request and get the whole response | [`Harness::get`], [`post`](Harness::post), [`send`](Harness::send) |
//! | get the response's head, and then its body as it arrives | [`Harness::handle`] |
//! | fill the store, and read it | [`Builder::store`], with a clone of an [`Observed`](store::Observed) |
//! | let the store fail | [`Observed::fail`](store::Observed::fail), [`fail_at`](store::Observed::fail_at), [`fail_next`](store::Observed::fail_next), [`fail_some`](store::Observed::fail_some), [`lose_answers`](store::Observed::lose_answers) |
//! | let the store be slow, or hang | [`Observed::slow_down`](store::Observed::slow_down), [`hang`](store::Observed::hang), [`recover`](store::Observed::recover) |
//! | let the store go back to an earlier state, or to nothing | [`Observed::backup`](store::Observed::backup), [`restore`](store::Observed::restore), [`wipe`](store::Observed::wipe) |
//! | add an SQLite database, and read it | [`Builder::database`], with a [`sqlite::Connection`] |
//! | use another Redis than the one that the component names | [`Builder::redis`], with a [`redis::Server`] |
//! | let a Redis fail | [`Observed::redis`](store::Observed::redis) |
//! | let an SQLite database fail | [`Observed::database`](store::Observed::database) |
//! | set variables | [`Builder::variable`] |
//! | see what the component printed | [`Harness::printed`]; with the instance that printed it, [`Harness::lines`] |
//! | run the component of a Spin manifest | [`Builder::manifest`] |
//! | imitate another host: its interfaces and its limits | [`Builder::platform`], with a [`Platform`](platform::Platform) |
//! | set when instances are dropped, and count them | [`Builder::reuse`], [`Harness::instances`] |
//! | check for leaks | [`Harness::usage`], [`Server::connections`] |
//! | connect a real client | [`Harness::serve`] |
//! | serve several components at one address | [`Routes`], [`Server::start`] |
//!
//! If the component traps, all requests of its instance are answered with 500, as on Spin, and the trap is printed to standard
//! error.
//!
//! # Components
//!
//! A component's export decides how it is run:
//!
//! | export | an instance serves |
//! | --- | --- |
//! | `wasi:http/handler@0.3` | many requests, several at the same time (see [`Reuse`]); its tasks may outlive them |
//! | `wasi:http/incoming-handler@0.2` | one request, and ends with it |
//!
//! A core module for `wasm32-wasip1`, which spin-sdk makes for Spin 2 and 3, becomes a component when it is loaded:
//! [`component::encode`].
//!
//! Components may import the interfaces of WASI, `spin:key-value@3.0.0`, `spin:redis@3.0.0`, `spin:sqlite@3.1.0` and
//! `spin:variables@3.0.0`, their predecessors in `fermyon:spin@2.0.0`, and `store`, `batch` and `atomics` of
//! `wasi:keyvalue@0.2.0-draft2`. A component that imports anything else does not start, and the error names the import.
//!
//! There is one key-value store, labelled `default`. Outgoing HTTP, sockets and files are not available.
//!
//! # Manifests and platforms
//!
//! A [`manifest::Manifest`] says how a component is built, which variables and environment it gets, which SQLite databases it may
//! open, and which Redis it may connect to. This host ignores everything else in it.
//!
//! A [`platform::Platform`] is another host to imitate. It names the [interfaces](platform::Interface) that this host then
//! lacks, and limits:
//!
//! | limit | what happens beyond it |
//! | --- | --- |
//! | the time of a request | 504 |
//! | the memory of an instance | the guest's allocation fails, and most guests trap: 500 |
//! | the [quotas](store::Quotas) of the store | the operation does nothing, and the guest gets an error: [`store::Limited`] |
//!
//! # Time
//!
//! A guest's clocks and sleeps are those of the tokio runtime. Its date starts at the machine's. If a test pauses the runtime's
//! clock (`start_paused = true`, as above), the guest's time is virtual: it stands still while a task has work, and jumps when
//! all tasks sleep.
//!
//! # Simulation
//!
//! [`simulation`] runs a component on many hosts and one store, in one thread, from one seed. Calls of the store are slow, fail or
//! lose their answers, and instances and hosts die. A seed always gives the same run.
//!
//! # Stores
//!
//! A guest's key-value store is a [`store::Store`]: in [memory](store::Memory), in an [SQLite](store::Sqlite) file, in
//! [Redis](store::Redis), or a test's own. [`store::Observed`] wraps a store, counts its operations, and fails, hangs or goes
//! back on demand. [`store::Limited`] wraps a store and applies quotas. [`store::Quirks`] decides whose `wasi:keyvalue/atomics`
//! the guest gets: an exact one, or one with the faults of Spin's.
//!
//! # SQLite
//!
//! A guest's database is a [`sqlite::Database`], in a file or in memory, behind one [connection](sqlite::Connection), as in Spin.
//! An error comes after the rows that precede it: `execute-async` reports it only in the future that it returns with the rows.
//!
//! # Redis
//!
//! A guest connects to the Redis at the address that it names, if `allowed_outbound_hosts` in the manifest grants it. As in Spin,
//! there are no timeouts, and a broken connection stays broken: the guest has to open another. A simulation has no Redis.
#![warn(missing_docs)]
#![cfg(not(target_family = "wasm"))]

mod bindings;
mod call;
pub mod component;
pub mod console;
mod cpu;
mod front;
mod guest;
mod handles;
mod harness;
mod keyvalue;
pub mod manifest;
mod memo;
mod outbound;
pub mod platform;
pub mod redis;
mod routes;
mod server;
pub mod simulation;
pub mod sqlite;
pub mod store;
mod variables;
mod view;

pub use front::Bounds;
pub use guest::{Limits, Reuse};
pub use harness::{Builder, Harness, Usage};
pub use routes::Routes;
pub use server::{GRACE, Server, Threads, listen};
pub use variables::is_name as is_variable_name;

/// The body of a response. It may still be on its way.
pub use wasmtime_wasi_http::WasiBody as Body;

/// The program: its options and its tools.
#[doc = include_str!("../README.md")]
pub mod program {}
