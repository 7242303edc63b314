//! `spin:redis@3.0.0`, and its predecessor in `fermyon:spin@2.0.0`, over [`Connection`]s.

use std::sync::Arc;

use ::redis::{FromRedisValue, from_redis_value};
use wasmtime::component::{Accessor, Resource};

use super::{Connection, Error, Value};
use crate::bindings::fermyon::spin::redis as two;
use crate::bindings::spin::redis::redis as three;
use crate::handles::Handle;
use crate::view::{Data, View, ask};

/// A handle to a connection, in both interfaces.
pub type ConnectionHandle = Handle<Arc<dyn Connection>>;

/// A command with its arguments.
struct Command(String, Vec<Vec<u8>>);

impl Command {
    fn new(name: &str, arguments: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(name.into(), arguments.into_iter().collect())
    }

    /// A command whose first argument is a key.
    fn about(name: &str, key: String, rest: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let arguments = std::iter::once(key.into_bytes()).chain(rest);
        Self::new(name, arguments)
    }

    async fn on(self, connection: Arc<dyn Connection>) -> Result<Value, Error> {
        connection.execute(&self.0, self.1).await
    }
}

fn bytes(texts: Vec<String>) -> impl Iterator<Item = Vec<u8>> {
    texts.into_iter().map(String::into_bytes)
}

/// A reply as the type that the interface returns.
fn converted<T: FromRedisValue, E: From<Error>>(reply: Result<Value, Error>) -> Result<T, E> {
    Ok(from_redis_value(reply?).map_err(Error::from)?)
}

/// Conversions for the types of both interfaces, which have the same names.
macro_rules! conversions {
    ($interface:ident) => {
        impl From<Error> for $interface::Error {
            fn from(error: Error) -> Self {
                match error {
                    Error::InvalidAddress => Self::InvalidAddress,
                    Error::TooManyConnections => Self::TooManyConnections,
                    Error::Type => Self::TypeError,
                    Error::Other(what) => Self::Other(what),
                }
            }
        }

        impl From<$interface::RedisParameter> for Vec<u8> {
            fn from(parameter: $interface::RedisParameter) -> Self {
                match parameter {
                    $interface::RedisParameter::Int64(integer) => integer.to_string().into_bytes(),
                    $interface::RedisParameter::Binary(bytes) => bytes,
                }
            }
        }

        impl $interface::RedisResult {
            /// The parts of a reply. Nested lists are flattened, as in Spin.
            fn parts(reply: Value) -> Result<Vec<Self>, Error> {
                Ok(vec![match reply {
                    Value::Array(values) | Value::Set(values) => {
                        let parts = values.into_iter().map(Self::parts);
                        let parts: Vec<_> = parts.collect::<Result<_, _>>()?;
                        return Ok(parts.into_iter().flatten().collect());
                    }
                    Value::Nil => Self::Nil,
                    Value::Int(integer) => Self::Int64(integer),
                    Value::Boolean(is_true) => Self::Int64(is_true.into()),
                    Value::BulkString(bytes) => Self::Binary(bytes),
                    Value::Double(number) => Self::Binary(number.to_string().into_bytes()),
                    Value::SimpleString(status) => Self::Status(status),
                    Value::Okay => Self::Status("OK".into()),
                    other => {
                        let what = format!("a reply of this type is not supported: {other:?}");
                        return Err(Error::Other(what));
                    }
                }])
            }
        }
    };
}

conversions!(two);
conversions!(three);

impl two::Host for View<'_> {}

impl View<'_> {
    async fn execute<T: FromRedisValue>(
        &mut self,
        handle: Resource<ConnectionHandle>,
        command: Command,
    ) -> wasmtime::Result<Result<T, two::Error>> {
        let reply = command.on(self.inner(&handle)?);
        Ok(converted(self.name_request(reply).await))
    }
}

impl two::HostConnection for View<'_> {
    async fn open(
        &mut self,
        address: String,
    ) -> wasmtime::Result<Result<Resource<ConnectionHandle>, two::Error>> {
        let outbound = self.outbound.clone();
        let opened = self.name_request(async move { outbound.connect(&address).await });
        let opened = opened.await;
        self.push_opened(opened)
    }

    async fn publish(
        &mut self,
        handle: Resource<ConnectionHandle>,
        channel: String,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let command = Command::about("PUBLISH", channel, [payload]);
        self.execute(handle, command).await
    }

    async fn get(
        &mut self,
        handle: Resource<ConnectionHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, two::Error>> {
        self.execute(handle, Command::about("GET", key, [])).await
    }

    async fn set(
        &mut self,
        handle: Resource<ConnectionHandle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let command = Command::about("SET", key, [value]);
        self.execute(handle, command).await
    }

    async fn incr(
        &mut self,
        handle: Resource<ConnectionHandle>,
        key: String,
    ) -> wasmtime::Result<Result<i64, two::Error>> {
        self.execute(handle, Command::about("INCR", key, [])).await
    }

    async fn del(
        &mut self,
        handle: Resource<ConnectionHandle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<u32, two::Error>> {
        self.execute(handle, Command::new("DEL", bytes(keys))).await
    }

    async fn sadd(
        &mut self,
        handle: Resource<ConnectionHandle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, two::Error>> {
        let command = Command::about("SADD", key, bytes(values));
        self.execute(handle, command).await
    }

    async fn smembers(
        &mut self,
        handle: Resource<ConnectionHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Vec<String>, two::Error>> {
        let command = Command::about("SMEMBERS", key, []);
        self.execute(handle, command).await
    }

    async fn srem(
        &mut self,
        handle: Resource<ConnectionHandle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, two::Error>> {
        let command = Command::about("SREM", key, bytes(values));
        self.execute(handle, command).await
    }

    async fn execute(
        &mut self,
        handle: Resource<ConnectionHandle>,
        command: String,
        arguments: Vec<two::RedisParameter>,
    ) -> wasmtime::Result<Result<Vec<two::RedisResult>, two::Error>> {
        let command = Command::new(&command, arguments.into_iter().map(Into::into));
        let value = View::execute(self, handle, command).await?;
        Ok(value.and_then(|value| Ok(two::RedisResult::parts(value)?)))
    }

    async fn drop(&mut self, handle: Resource<ConnectionHandle>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

impl three::Host for View<'_> {}

impl three::HostConnection for View<'_> {
    async fn drop(&mut self, handle: Resource<ConnectionHandle>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

async fn execute<T: Send, A: FromRedisValue>(
    accessor: &Accessor<T, Data>,
    handle: Resource<ConnectionHandle>,
    command: Command,
) -> wasmtime::Result<Result<A, three::Error>> {
    let connection = accessor.with(|mut access| access.get().inner(&handle))?;
    Ok(converted(ask(accessor, |_| command.on(connection)).await?))
}

impl<T: Send> three::HostConnectionWithStore<T> for Data {
    async fn open(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> wasmtime::Result<Result<Resource<ConnectionHandle>, three::Error>> {
        let outbound = accessor.with(|mut access| access.get().outbound.clone());
        let open = async move { outbound.connect(&address).await };
        let opened = ask(accessor, |_| open).await?;
        accessor.with(|mut access| access.get().push_opened(opened))
    }

    async fn publish(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        channel: String,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Result<(), three::Error>> {
        let command = Command::about("PUBLISH", channel, [payload]);
        execute(accessor, handle, command).await
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, three::Error>> {
        execute(accessor, handle, Command::about("GET", key, [])).await
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), three::Error>> {
        execute(accessor, handle, Command::about("SET", key, [value])).await
    }

    async fn incr(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        key: String,
    ) -> wasmtime::Result<Result<i64, three::Error>> {
        execute(accessor, handle, Command::about("INCR", key, [])).await
    }

    async fn del(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<u32, three::Error>> {
        execute(accessor, handle, Command::new("DEL", bytes(keys))).await
    }

    async fn sadd(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, three::Error>> {
        let command = Command::about("SADD", key, bytes(values));
        execute(accessor, handle, command).await
    }

    async fn smembers(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Vec<String>, three::Error>> {
        execute(accessor, handle, Command::about("SMEMBERS", key, [])).await
    }

    async fn srem(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, three::Error>> {
        let command = Command::about("SREM", key, bytes(values));
        execute(accessor, handle, command).await
    }

    async fn execute(
        accessor: &Accessor<T, Self>,
        handle: Resource<ConnectionHandle>,
        command: String,
        arguments: Vec<three::RedisParameter>,
    ) -> wasmtime::Result<Result<Vec<three::RedisResult>, three::Error>> {
        let command = Command::new(&command, arguments.into_iter().map(Into::into));
        let value = execute(accessor, handle, command).await?;
        Ok(value.and_then(|value| Ok(three::RedisResult::parts(value)?)))
    }
}
