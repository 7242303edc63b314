//! Redis for guests, which `spin:redis` and its predecessor of Spin 2 and 3 connect to.
//!
//! A guest names an address, and reaches whatever Redis is there, if its manifest's `allowed_outbound_hosts` grants that.
//! [`Builder::redis`](crate::Builder::redis) puts another [`Server`] in the place of all of them.

pub(crate) mod host;

use std::fmt;
use std::sync::Arc;

use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo};
use ::redis::{RedisError, aio::MultiplexedConnection};
use async_trait::async_trait;

use crate::outbound::Allowed;
use crate::store::Operation;

/// The value of a reply of Redis.
pub use ::redis::Value;

/// Why a guest gets no connection, or no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// That is not an address, or the guest may not connect to it.
    #[error("the address is not one of a Redis that may be connected to")]
    InvalidAddress,
    /// The host opens no more connections.
    #[error("too many connections")]
    TooManyConnections,
    /// A value is not of the type that the command is for.
    #[error("the value has another type")]
    Type,
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        Self::Other(error.to_string())
    }
}

/// Where guests' connections lead.
#[async_trait]
pub trait Server: fmt::Debug + Send + Sync + 'static {
    /// A guest connects to `url`, which it may.
    async fn connect(&self, url: &str) -> Result<Arc<dyn Connection>, Error>;
}

/// Keep one, give the host the other.
#[async_trait]
impl<S: Server + ?Sized> Server for Arc<S> {
    async fn connect(&self, url: &str) -> Result<Arc<dyn Connection>, Error> {
        (**self).connect(url).await
    }
}

/// A guest's connection. It is closed when it is dropped.
#[async_trait]
pub trait Connection: Send + Sync + 'static {
    /// Executes one command.
    async fn execute(&self, command: &str, arguments: Vec<Vec<u8>>) -> Result<Value, Error>;
}

/// The network: whatever Redis is at the address.
///
/// As in Spin 4.1, a connection that broke stays broken, and nothing limits how long it takes to connect or to answer.
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

/// What a command does to the strings of a database, and to which key: empty, if to none.
///
/// For who observes such a database, and fails its operations. A script is taken to swap the value of its first key.
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

/// What an application may connect to, and where that leads.
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
