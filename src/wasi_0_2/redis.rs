//! The host's client of Redis, `fermyon:spin/redis`.

use std::future::{self, Future};

use crate::redis::{Client, Failure, Reply, conversions};

/// Redis in Spin's versions 2 and 3.
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

    fn open(&self, url: String) -> impl Future<Output = Result<spin::Connection, Failure>> + Send {
        future::ready(spin::Connection::open(&url).map_err(from_spin))
    }

    fn execute(
        &self,
        connection: &spin::Connection,
        command: &'static str,
        arguments: Vec<Vec<u8>>,
    ) -> impl Future<Output = Result<Vec<Reply>, Failure>> + Send {
        let arguments = arguments.into_iter().map(spin::RedisParameter::Binary);
        let arguments: Vec<_> = arguments.collect();
        let replies = connection.execute(command, &arguments).map_err(from_spin);
        future::ready(replies.map(|replies| replies.into_iter().map(reply).collect()))
    }
}
