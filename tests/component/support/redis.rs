//! The Redis of a build that keeps its events in Redis, as a store that tests can observe.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use loopless_host::redis::{Connection, Error, Network, Server, Value};
use loopless_host::store::{self, Memory, Numbers, Store};
use tokio::sync::OnceCell;

use super::shared::redis_server::RedisServer;

/// A Redis of the test's own, which is started when it is first used. Clones share it.
///
/// Virtual time stands still while Redis works. Without `redis-server` on the path, a store in memory executes the component's
/// commands instead, so the tests then check the component, but not how Redis understands it.
#[derive(Clone, Default)]
pub struct Redis(Arc<OnceCell<Backing>>);

enum Backing {
    Server(Box<(RedisServer, store::Redis)>),
    Memory(Arc<Memory>),
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

/// Awaits `call` without advancing virtual time: tokio does not advance a paused clock while a blocking task runs.
async fn held<T>(call: impl Future<Output = T>) -> T {
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let holding = tokio::task::spawn_blocking(move || waits.recv());
    let result = call.await;
    drop(done);
    _ = holding.await;
    result
}

impl Redis {
    async fn backing(&self) -> &Backing {
        let start = async || match RedisServer::start().await {
            Some(server) => {
                let store = store::Redis::connect(&server.url()).await.unwrap();
                Backing::Server(Box::new((server, store)))
            }
            None => Backing::Memory(Arc::default()),
        };
        held(self.0.get_or_init(start)).await
    }

    async fn store(&self) -> &dyn Store {
        match self.backing().await {
            Backing::Server(server) => &server.1,
            Backing::Memory(store) => &**store,
        }
    }
}

#[async_trait]
impl Server for Redis {
    async fn connect(&self, _: &str) -> Result<Arc<dyn Connection>, Error> {
        Ok(match self.backing().await {
            Backing::Memory(store) => Arc::new(Commands(store.clone())),
            Backing::Server(server) => {
                let connection = held(Network.connect(&server.0.url())).await?;
                Arc::new(Held(connection))
            }
        })
    }
}

struct Held(Arc<dyn Connection>);

#[async_trait]
impl Connection for Held {
    async fn execute(&self, command: &str, arguments: Vec<Vec<u8>>) -> Result<Value, Error> {
        held(self.0.execute(command, arguments)).await
    }
}

/// Executes the component's commands on a store in memory.
struct Commands(Arc<Memory>);

#[async_trait]
impl Connection for Commands {
    async fn execute(&self, command: &str, arguments: Vec<Vec<u8>>) -> Result<Value, Error> {
        let Self(store) = self;
        let text = |index: usize| std::str::from_utf8(&arguments[index]).unwrap();
        let answer = match command {
            "GET" => store
                .get(text(0))
                .await
                .map(|value| value.map_or(Value::Nil, Value::BulkString)),
            "SET" => store
                .set(text(0), &arguments[1])
                .await
                .map(|()| Value::Okay),
            "DEL" => store.delete(text(0)).await.map(|()| Value::Int(1)),
            "SCAN" => store.keys().await.map(|keys| {
                let keys = keys.into_iter().map(|key| Value::BulkString(key.into()));
                Value::Array(vec![
                    Value::BulkString("0".into()),
                    Value::Array(keys.collect()),
                ])
            }),
            "INCRBY" => {
                let delta = text(1).parse().unwrap();
                store
                    .increment(text(0), delta, Numbers::Text)
                    .await
                    .map(Value::Int)
            }
            "EVAL" => {
                let (key, old, new) = (text(2), &arguments[3], &arguments[4]);
                store.swap(key, Some(old), new).await.map(|_| Value::Nil)
            }
            _ => panic!("the component does not use {command}"),
        };
        answer.map_err(|error| Error::Other(error.to_string()))
    }
}

#[async_trait]
impl Store for Redis {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, store::Error> {
        held(self.store().await.get(key)).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), store::Error> {
        held(self.store().await.set(key, value)).await
    }

    async fn delete(&self, key: &str) -> Result<(), store::Error> {
        held(self.store().await.delete(key)).await
    }

    async fn keys(&self) -> Result<Vec<String>, store::Error> {
        held(self.store().await.keys()).await
    }

    async fn swap(&self, _: &str, _: Option<&[u8]>, _: &[u8]) -> Result<bool, store::Error> {
        unreachable!("no test swaps")
    }

    async fn increment(&self, _: &str, _: i64, _: Numbers) -> Result<i64, store::Error> {
        unreachable!("no test increments")
    }

    fn numbers(&self) -> Numbers {
        Numbers::Text
    }
}
