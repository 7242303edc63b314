//! The binary `loopless-host`, run as a user runs it.
//!
//! Tests start in the order of their names. What computes is in the last module, `worlds`: it uses the processors while tests before
//! it still wait.

mod bench;
mod browser;
mod cli;
mod conformance;
mod front;
mod gotcha;
mod lifespan;
mod page;
mod several;
#[path = "../support/mod.rs"]
mod shared;
mod soak;
mod support;
mod worlds;
