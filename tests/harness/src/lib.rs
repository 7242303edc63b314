//! A native host and test harness for Spin HTTP components of WASI 0.3.
#![warn(missing_docs)]

mod bindings;
pub mod component;
pub mod console;
mod guest;
mod harness;
mod keyvalue;
mod server;
pub mod store;
mod variables;

pub use guest::Reuse;
pub use harness::{Builder, Harness};
pub use server::{GRACE, Server};
pub use variables::is_name as is_variable_name;
