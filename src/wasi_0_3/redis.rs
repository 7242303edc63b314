//! The host's client of Redis, `spin:redis`. Its calls are asynchronous, so other requests of the instance continue.

use spin_sdk::redis as spin;

use crate::redis::{Client, Failure, Reply, conversions};

conversions!();

/// The host's client of Redis.
#[derive(Clone, Copy, Debug)]
pub struct SpinRedis;

impl Client for SpinRedis {
    type Connection = spin::Connection;

    async fn open(&self, url: String) -> Result<spin::Connection, Failure> {
        spin::Connection::open(url).await.map_err(from_spin)
    }

    async fn execute(
        &self,
        connection: &spin::Connection,
        command: &'static str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Reply>, Failure> {
        let arguments = arguments.into_iter().map(spin::RedisParameter::Binary);
        let replies = connection.execute(command, arguments).await;
        Ok(replies.map_err(from_spin)?.into_iter().map(reply).collect())
    }
}
