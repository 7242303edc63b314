//! What this crate's unit tests and its integration tests share.

pub mod programs;
pub mod redis_server;
