//! The program `loopless-host`, run as a user runs it.
//!
//! Tests start in the order of their names. The last module, `worlds`, computes: it uses the processors while earlier tests still
//! wait.

mod bench;
mod browser;
mod cli;
mod conformance;
mod front;
mod gotcha;
mod guests;
mod lifespan;
mod page;
mod several;
#[path = "../support/mod.rs"]
mod shared;
mod soak;
mod support;
mod worlds;
