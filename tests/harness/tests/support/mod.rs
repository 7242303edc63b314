//! What this crate's unit tests and its integration tests share.

#![allow(dead_code, reason = "the unit tests need less of it")]

pub mod programs;
pub mod redis_server;
