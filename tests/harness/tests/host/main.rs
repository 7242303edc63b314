//! The program `loopless-host`, run as a user runs it.

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
mod simulation;
mod soak;
mod support;
