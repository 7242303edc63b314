//! Redis for guests, which connect with `spin:redis` or its predecessor in `fermyon:spin@2.0.0`.
//!
//! A guest reaches the Redis at the address that it names, if `allowed_outbound_hosts` in its manifest grants it. With
//! [`Builder::redis`](crate::Builder::redis), it reaches a [`Server`] of the test instead, whatever address it names.

pub(crate) mod host;

use std::fmt;
use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ParsingError, RedisError,
};
use async_trait::async_trait;

use crate::outbound::Allowed;
use crate::store::{self, Operation};

/// A reply of Redis.
pub use ::redis::Value;

/// Why a guest gets no connection, or no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address is not valid, or the guest may not connect to it.
    #[error("the address is not valid, or may not be connected to")]
    InvalidAddress,
    /// The host opens no more connections.
    #[error("too many connections")]
    TooManyConnections,
    /// The value is not of the type that the command needs.
    #[error("the value is of another type")]
    Type,
    /// Any other error.
    #[error("{0}")]
    Other(String),
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ParsingError> for Error {
    fn from(error: ParsingError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Other(error.0)
    }
}

/// What guests connect to.
#[async_trait]
pub trait Server: fmt::Debug + Send + Sync + 'static {
    /// Connects a guest to `url`. The manifest has granted it.
    async fn connect(&self, url: &str) -> Result<Arc<dyn Connection>, Error>;
}

/// A test can keep a clone of what it gives the host.
#[async_trait]
impl<S: Server + ?Sized> Server for Arc<S> {
    async fn connect(&self, url: &str) -> Result<Arc<dyn Connection>, Error> {
        (**self).connect(url).await
    }
}

/// A guest's connection, which is closed when it is dropped.
#[async_trait]
pub trait Connection: Send + Sync + 'static {
    /// Executes a command.
    async fn execute(&self, command: &str, arguments: Vec<Vec<u8>>) -> Result<Value, Error>;
}

/// Connects to the Redis at the address, over the network.
///
/// As in Spin 4.1, a broken connection stays broken, and there is no timeout for connecting or for a reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network;

#[async_trait]
impl Server for Network {
    async fn connect(&self, url: &str) -> Result<Arc<dyn Connection>, Error> {
        let info = url.into_connection_info();
        let info = info.map_err(|_| Error::InvalidAddress)?;
        if let ConnectionAddr::Unix(_) = info.addr() {
            return Err(Error::InvalidAddress);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let client = Client::open(info).map_err(|_| Error::InvalidAddress)?;
        let connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Arc::new(connection))
    }
}

#[async_trait]
impl Connection for MultiplexedConnection {
    async fn execute(&self, command: &str, arguments: Vec<Vec<u8>>) -> Result<Value, Error> {
        let mut command = ::redis::cmd(command);
        command.arg(arguments);
        Ok(command.query_async(&mut self.clone()).await?)
    }
}

/// What a command does to a Redis that is used as a store of keys and values. A script counts as a swap.
pub(crate) fn operation(command: &str) -> Operation {
    match command.to_ascii_uppercase().as_str() {
        "GET" => Operation::Get,
        "SET" => Operation::Set,
        "DEL" => Operation::Delete,
        "SCAN" => Operation::Keys,
        "INCRBY" => Operation::Increment,
        "EVAL" => Operation::Swap,
        _ => Operation::Open,
    }
}

/// What an application may connect to, and what it is connected to.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    pub allowed: Allowed,
    pub server: Arc<dyn Server>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            allowed: Allowed::All,
            server: Arc::new(Network),
        }
    }
}

impl Outbound {
    async fn connect(&self, url: &str) -> Result<Arc<dyn Connection>, Error> {
        if !self.allowed.allows(url, "redis") {
            return Err(Error::InvalidAddress);
        }
        self.server.connect(url).await
    }
}
