//! The program `loopless-host`, run as a user runs it.
//!
//! The searches of the last module, `worlds`, compute. If all tests run, they begin with the first test, because most of the others
//! wait.

mod bench;
mod browser;
mod cli;
mod conformance;
mod front;
mod gotcha;
mod guests;
mod lifespan;
#[path = "../../src/memo.rs"]
mod memo;
mod page;
mod several;
#[path = "../support/mod.rs"]
mod shared;
mod soak;
mod support;
mod worlds;
