//! `spin:redis@3.0.0`, and the same of Spin 2 and 3, over [`Connection`]s.

use std::fmt;
use std::sync::Arc;

use wasmtime::component::{Accessor, Resource};

use super::{Connection, Error, Value};
use crate::bindings::fermyon::spin::redis as two;
use crate::bindings::spin::redis::redis as three;
use crate::keyvalue::{Data, Opened, View, ask};

/// An open connection, in either interface.
pub struct Handle {
    connection: Arc<dyn Connection>,
    _opened: Opened,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl View<'_> {
    fn push_connection(
        &mut self,
        connection: Arc<dyn Connection>,
    ) -> wasmtime::Result<Resource<Handle>> {
        let handle = Handle {
            connection,
            _opened: self.keyvalue.open(),
        };
        Ok(self.table.push(handle)?)
    }

    fn connection(&self, handle: &Resource<Handle>) -> wasmtime::Result<Arc<dyn Connection>> {
        Ok(self.table.get(handle)?.connection.clone())
    }
}

/// One command, with its arguments.
struct Command(String, Vec<Vec<u8>>);

impl Command {
    fn new(name: &str, arguments: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(name.into(), arguments.into_iter().collect())
    }

    /// One about a key, and what else belongs to it.
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

/// What a reply is, where it can only be of one type.
trait Answer: Sized {
    fn of(value: Value) -> Result<Self, Error>;
}

impl Answer for () {
    fn of(_: Value) -> Result<Self, Error> {
        Ok(())
    }
}

/// The rest is as the client of Redis converts it.
macro_rules! converted {
    ($($answer:ty),+) => {
        $(impl Answer for $answer {
            fn of(value: Value) -> Result<Self, Error> {
                ::redis::from_redis_value(value).map_err(|error| Error::Other(error.to_string()))
            }
        })+
    };
}

converted!(Option<Vec<u8>>, i64, u32, Vec<String>);

/// Both interfaces have these types, with the same names.
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

        /// The parts of the answer in one list. Those of nested lists follow each other, as in Spin.
        impl Answer for Vec<$interface::RedisResult> {
            fn of(value: Value) -> Result<Self, Error> {
                use $interface::RedisResult;

                let part = match value {
                    Value::Array(values) | Value::Set(values) => {
                        let parts = values.into_iter().map(Self::of);
                        let parts: Vec<Self> = parts.collect::<Result<_, _>>()?;
                        return Ok(parts.into_iter().flatten().collect());
                    }
                    Value::Nil => RedisResult::Nil,
                    Value::Int(integer) => RedisResult::Int64(integer),
                    Value::Boolean(is_true) => RedisResult::Int64(is_true.into()),
                    Value::BulkString(bytes) => RedisResult::Binary(bytes),
                    Value::Double(number) => RedisResult::Binary(number.to_string().into_bytes()),
                    Value::SimpleString(status) => RedisResult::Status(status),
                    Value::Okay => RedisResult::Status("OK".into()),
                    other => {
                        let what = format!("an answer of this type is not supported: {other:?}");
                        return Err(Error::Other(what));
                    }
                };
                Ok(vec![part])
            }
        }
    };
}

conversions!(two);
conversions!(three);

impl two::Host for View<'_> {}

impl View<'_> {
    async fn execute<T: Answer>(
        &mut self,
        handle: Resource<Handle>,
        command: Command,
    ) -> wasmtime::Result<Result<T, two::Error>> {
        let answer = command.on(self.connection(&handle)?);
        let answer = self.name_request(answer).await.and_then(T::of);
        Ok(answer.map_err(Into::into))
    }
}

impl two::HostConnection for View<'_> {
    async fn open(
        &mut self,
        address: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, two::Error>> {
        let outbound = self.outbound.clone();
        let opened = self.name_request(async move { outbound.connect(&address).await });
        match opened.await {
            Ok(connection) => Ok(Ok(self.push_connection(connection)?)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn publish(
        &mut self,
        handle: Resource<Handle>,
        channel: String,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let command = Command::about("PUBLISH", channel, [payload]);
        self.execute(handle, command).await
    }

    async fn get(
        &mut self,
        handle: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, two::Error>> {
        self.execute(handle, Command::about("GET", key, [])).await
    }

    async fn set(
        &mut self,
        handle: Resource<Handle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let command = Command::about("SET", key, [value]);
        self.execute(handle, command).await
    }

    async fn incr(
        &mut self,
        handle: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<i64, two::Error>> {
        self.execute(handle, Command::about("INCR", key, [])).await
    }

    async fn del(
        &mut self,
        handle: Resource<Handle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<u32, two::Error>> {
        self.execute(handle, Command::new("DEL", bytes(keys))).await
    }

    async fn sadd(
        &mut self,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, two::Error>> {
        let command = Command::about("SADD", key, bytes(values));
        self.execute(handle, command).await
    }

    async fn smembers(
        &mut self,
        handle: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Vec<String>, two::Error>> {
        let command = Command::about("SMEMBERS", key, []);
        self.execute(handle, command).await
    }

    async fn srem(
        &mut self,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, two::Error>> {
        let command = Command::about("SREM", key, bytes(values));
        self.execute(handle, command).await
    }

    async fn execute(
        &mut self,
        handle: Resource<Handle>,
        command: String,
        arguments: Vec<two::RedisParameter>,
    ) -> wasmtime::Result<Result<Vec<two::RedisResult>, two::Error>> {
        let command = Command::new(&command, arguments.into_iter().map(Into::into));
        View::execute(self, handle, command).await
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl three::Host for View<'_> {}

impl three::HostConnection for View<'_> {
    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

async fn execute<T: Send, A: Answer>(
    accessor: &Accessor<T, Data>,
    handle: Resource<Handle>,
    command: Command,
) -> wasmtime::Result<Result<A, three::Error>> {
    let connection = accessor.with(|mut access| access.get().connection(&handle))?;
    let answer = ask(
        accessor,
        |_| async move { Ok(command.on(connection).await) },
    )
    .await?;
    let answer = answer.unwrap_or_else(|error| Err(Error::Other(error.0)));
    Ok(answer.and_then(A::of).map_err(Into::into))
}

impl<T: Send> three::HostConnectionWithStore<T> for Data {
    async fn open(
        accessor: &Accessor<T, Self>,
        address: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, three::Error>> {
        let outbound = accessor.with(|mut access| access.get().outbound.clone());
        let open = async move { Ok(outbound.connect(&address).await) };
        let opened = ask(accessor, |_| open).await?;
        match opened.unwrap_or_else(|error| Err(Error::Other(error.0))) {
            Ok(connection) => {
                accessor.with(|mut access| Ok(Ok(access.get().push_connection(connection)?)))
            }
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn publish(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        channel: String,
        payload: Vec<u8>,
    ) -> wasmtime::Result<Result<(), three::Error>> {
        let command = Command::about("PUBLISH", channel, [payload]);
        execute(accessor, handle, command).await
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, three::Error>> {
        execute(accessor, handle, Command::about("GET", key, [])).await
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), three::Error>> {
        execute(accessor, handle, Command::about("SET", key, [value])).await
    }

    async fn incr(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<i64, three::Error>> {
        execute(accessor, handle, Command::about("INCR", key, [])).await
    }

    async fn del(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<u32, three::Error>> {
        execute(accessor, handle, Command::new("DEL", bytes(keys))).await
    }

    async fn sadd(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, three::Error>> {
        let command = Command::about("SADD", key, bytes(values));
        execute(accessor, handle, command).await
    }

    async fn smembers(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Vec<String>, three::Error>> {
        execute(accessor, handle, Command::about("SMEMBERS", key, [])).await
    }

    async fn srem(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        key: String,
        values: Vec<String>,
    ) -> wasmtime::Result<Result<u32, three::Error>> {
        let command = Command::about("SREM", key, bytes(values));
        execute(accessor, handle, command).await
    }

    async fn execute(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
        command: String,
        arguments: Vec<three::RedisParameter>,
    ) -> wasmtime::Result<Result<Vec<three::RedisResult>, three::Error>> {
        let command = Command::new(&command, arguments.into_iter().map(Into::into));
        execute(accessor, handle, command).await
    }
}
