//! The tests of one build.

use super::BUILD;

mod access;
mod demo;
mod errors;
mod events;
mod persistence;
mod store;
mod stream;
mod waits;
