//! The host's client of Redis, `fermyon:spin/redis`.

use crate::redis::{Client, Failure, Reply, conversions};

/// The Redis interface of Spin 2 and 3.
mod bindings {
    wit_bindgen::generate!({
        world: "spin-two-redis",
        path: "wit",
        generate_all,
    });
}

use bindings::fermyon::spin::redis as spin;

conversions!();

/// The host's client of Redis.
#[derive(Clone, Copy, Debug)]
pub struct SpinRedis;

impl Client for SpinRedis {
    type Connection = spin::Connection;

    async fn open(&self, url: String) -> Result<spin::Connection, Failure> {
        spin::Connection::open(&url).map_err(from_spin)
    }

    async fn execute(
        &self,
        connection: &spin::Connection,
        command: &'static str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Reply>, Failure> {
        let arguments = arguments.into_iter().map(spin::RedisParameter::Binary);
        let arguments: Vec<_> = arguments.collect();
        let replies = connection.execute(command, &arguments);
        Ok(replies.map_err(from_spin)?.into_iter().map(reply).collect())
    }
}
