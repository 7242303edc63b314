//! A native host and test harness for Spin HTTP components of WASI 0.2 and 0.3.
//!
//! It runs a component as Spin does: on Wasmtime, with Spin's interfaces, in instances that come and go. As a program,
//! `loopless-host`, it serves HTTP. As a library, it is a host in a test, without a socket. It knows nothing of the
//! component that it runs.
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
//! | let the store fail | [`Observed::fail`](store::Observed::fail), [`fail_at`](store::Observed::fail_at), [`fail_next`](store::Observed::fail_next), [`fail_some`](store::Observed::fail_some), [`lose_answers`](store::Observed::lose_answers) |
//! | let the store be slow, or hang | [`Observed::slow_down`](store::Observed::slow_down), [`hang`](store::Observed::hang), [`recover`](store::Observed::recover) |
//! | let the store go back to an earlier state, or to nothing | [`Observed::backup`](store::Observed::backup), [`restore`](store::Observed::restore), [`wipe`](store::Observed::wipe) |
//! | give it an SQLite database, or see one | [`Builder::database`] with a [`sqlite::Connection`] |
//! | have another Redis than the one that the component names | [`Builder::redis`] with a [`redis::Server`] |
//! | let a Redis fail | [`Observed::redis`](store::Observed::redis) |
//! | let an SQLite database fail | [`Observed::database`](store::Observed::database) |
//! | set variables | [`Builder::variable`] |
//! | see what the component printed | [`Harness::printed`]; with the instance that printed it, [`Harness::lines`] |
//! | run the component of a Spin manifest | [`Builder::manifest`] |
//! | imitate another host: its interfaces and its limits | [`Builder::platform`] with a [`Platform`](platform::Platform) |
//! | decide when instances are dropped, and count them | [`Builder::reuse`], [`Harness::instances`] |
//! | see that nothing is left in use | [`Harness::usage`], [`Server::connections`] |
//! | connect a real client | [`Harness::serve`] |
//! | have several components behind one address | [`Routes`], [`Server::start`] |
//!
//! If the component traps, every request of its instance is answered with 500, as on Spin, and the trap is among
//! the lines of standard error.
//!
//! # Components
//!
//! What a component exports says how it is run:
//!
//! | export | an instance serves |
//! | --- | --- |
//! | `wasi:http/handler@0.3` | many requests, several of them at the same time, as [`Reuse`] says; its tasks may outlive them |
//! | `wasi:http/incoming-handler@0.2` | one request, and ends with it |
//!
//! A core module for `wasm32-wasip1`, which is what spin-sdk makes for Spin 2 and 3, becomes a component when it is loaded:
//! [`component::encode`].
//!
//! Both kinds may import, besides WASI's own interfaces, `spin:key-value@3.0.0`, `spin:redis@3.0.0`,
//! `spin:sqlite@3.1.0` and `spin:variables@3.0.0`, their predecessors in `fermyon:spin@2.0.0`, and `store`, `batch` and `atomics` of
//! `wasi:keyvalue@0.2.0-draft2`. A component that imports anything else does not start, and the error names the import.
//!
//! # Manifests and platforms
//!
//! A [`manifest::Manifest`] says how a component is built, which variables and environment it gets, which SQLite databases it may
//! open, and which Redis it may connect to. This host reads no more of it: outgoing HTTP and files are passed over.
//!
//! A [`platform::Platform`] is another host to imitate. It names the [interfaces](platform::Interface) that this host then
//! leaves out, and limits:
//!
//! | limit | what happens beyond it |
//! | --- | --- |
//! | the time of a request | 504 |
//! | the memory of an instance | the guest's allocation fails, and most guests trap: 500 |
//! | the [quotas](store::Quotas) of the store | the operation does nothing, and the guest gets an error: [`store::Limited`] |
//!
//! # Time
//!
//! A guest's clocks and sleeps are those of the tokio runtime; its calendar starts at the machine's. If a test pauses the
//! runtime's clock (`start_paused = true`, as above), the guest's time is virtual: it stands still while a task has work, and
//! jumps when all of them sleep.
//!
//! # Simulation
//!
//! [`simulation`] runs a component on many hosts and one store, in one thread, from one seed: with calls of the store that
//! are slow, fail or lose their answers, and with instances and hosts that die. A seed is one run, to the byte.
//!
//! # Stores
//!
//! The guest's key-value store is a [`store::Store`]: in [memory](store::Memory), in a [SQLite](store::Sqlite) file, in
//! [Redis](store::Redis), or a test's own. Two wrap another one: [`store::Observed`] counts its operations, and fails, hangs or goes back on demand;
//! [`store::Limited`] holds it to quotas. [`store::Quirks`] says whose `wasi:keyvalue/atomics` the guest meets: an exact one, or
//! one of Spin's.
//!
//! # SQLite
//!
//! A guest's database is a [`sqlite::Database`], in a file or in memory, behind one [connection](sqlite::Connection) as in Spin. What
//! goes wrong with a statement comes after its rows: `execute-async` reports it in the future beside them, and nowhere else.
//!
//! # Redis
//!
//! A guest connects to whatever Redis is at the address that it names, if `allowed_outbound_hosts` in the manifest grants it, with
//! the variables of the application in it. As in Spin, nothing limits how long that Redis may take, and a connection that broke
//! stays broken: the guest has to open another. A simulation has none.
//!
//! # Limits
//!
//! One store, labelled `default`. No outgoing HTTP, no sockets, no files; of Spin's databases, SQLite and Redis only; no queues or
//! models.
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

pub use front::Bounds;
pub use guest::{Limits, Reuse};
pub use harness::{Builder, Harness, Usage};
pub use routes::Routes;
pub use server::{GRACE, Server, Threads, listen};
pub use variables::is_name as is_variable_name;

/// The body of a response, which may still be on its way.
pub use wasmtime_wasi_http::WasiBody as Body;

/// The program: its options, and the tools that test a server and a component.
#[doc = include_str!("../README.md")]
pub mod program {}
