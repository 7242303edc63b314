//! The binary `loopless-host`, run as a user runs it.

mod browser;
mod cli;
mod lifespan;
mod support;
