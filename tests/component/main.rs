//! loopless in the host: a file for each capability.
//!
//! `cargo test --test component NAME` runs the tests whose paths contain `NAME`.

mod databases;
mod dependency;
mod fuzz;
mod gotcha;
mod guestbook;
mod guide;
mod manifest;
mod openapi;
mod promises;
mod redis;
mod service;
mod simulation;
mod spin2;
mod sqlite;
mod support;
mod world;
