//! `spin:sqlite@3.1.0`, and its predecessor in `fermyon:spin@2.0.0`, over [`Database`]s.

use std::sync::Arc;

use wasmtime::component::{Accessor, FutureReader, Resource, StreamReader};

use super::{Answer, Database, OpenError, Value};
use crate::bindings::fermyon::spin::sqlite as two;
use crate::bindings::spin::sqlite::sqlite as three;
use crate::handles::Handle;
use crate::store::Error;
use crate::view::{Data, View, ask};

/// A handle to a database, in both interfaces.
pub type DatabaseHandle = Handle<Arc<dyn Database>>;

/// Conversions for the types of both interfaces, which have the same names.
macro_rules! conversions {
    ($interface:ident) => {
        impl From<$interface::Value> for Value {
            fn from(value: $interface::Value) -> Self {
                match value {
                    $interface::Value::Integer(integer) => Self::Integer(integer),
                    $interface::Value::Real(real) => Self::Real(real),
                    $interface::Value::Text(text) => Self::Text(text),
                    $interface::Value::Blob(blob) => Self::Blob(blob),
                    $interface::Value::Null => Self::Null,
                }
            }
        }

        impl From<Value> for $interface::Value {
            fn from(value: Value) -> Self {
                match value {
                    Value::Integer(integer) => Self::Integer(integer),
                    Value::Real(real) => Self::Real(real),
                    Value::Text(text) => Self::Text(text),
                    Value::Blob(blob) => Self::Blob(blob),
                    Value::Null => Self::Null,
                }
            }
        }

        impl From<Vec<Value>> for $interface::RowResult {
            fn from(row: Vec<Value>) -> Self {
                let values = row.into_iter().map(Into::into).collect();
                Self { values }
            }
        }

        impl From<OpenError> for $interface::Error {
            fn from(error: OpenError) -> Self {
                match error {
                    OpenError::NotGranted => Self::AccessDenied,
                    OpenError::Unknown => Self::NoSuchDatabase,
                    OpenError::Failed(error) => error.into(),
                }
            }
        }

        impl From<Error> for $interface::Error {
            fn from(error: Error) -> Self {
                Self::Io(error.0)
            }
        }

        impl From<Answer> for Result<$interface::QueryResult, $interface::Error> {
            fn from(answer: Answer) -> Self {
                answer.end?;
                Ok($interface::QueryResult {
                    columns: answer.columns,
                    rows: answer.rows.into_iter().map(Into::into).collect(),
                })
            }
        }
    };
}

conversions!(two);
conversions!(three);

impl two::Host for View<'_> {}

impl two::HostConnection for View<'_> {
    async fn open(
        &mut self,
        label: String,
    ) -> wasmtime::Result<Result<Resource<DatabaseHandle>, two::Error>> {
        let opened = self.name_request(self.databases.open(&label)).await;
        self.push_opened(opened)
    }

    async fn execute(
        &mut self,
        handle: Resource<DatabaseHandle>,
        statement: String,
        parameters: Vec<two::Value>,
    ) -> wasmtime::Result<Result<two::QueryResult, two::Error>> {
        let database = self.inner(&handle)?;
        let parameters = parameters.into_iter().map(Into::into).collect();
        let answer =
            self.name_request(async move { database.execute(&statement, parameters).await });
        Ok(answer.await.into())
    }

    async fn drop(&mut self, handle: Resource<DatabaseHandle>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

impl three::Host for View<'_> {}

impl three::HostConnection for View<'_> {
    async fn open(
        &mut self,
        label: String,
    ) -> wasmtime::Result<Result<Resource<DatabaseHandle>, three::Error>> {
        let opened = self.databases.open(&label).await;
        self.push_opened(opened)
    }

    async fn execute(
        &mut self,
        handle: Resource<DatabaseHandle>,
        statement: String,
        parameters: Vec<three::Value>,
    ) -> wasmtime::Result<Result<three::QueryResult, three::Error>> {
        let database = self.inner(&handle)?;
        let parameters = parameters.into_iter().map(Into::into).collect();
        Ok(database.execute(&statement, parameters).await.into())
    }

    async fn last_insert_rowid(
        &mut self,
        handle: Resource<DatabaseHandle>,
    ) -> wasmtime::Result<i64> {
        Ok(self.inner(&handle)?.last_insert_rowid())
    }

    async fn changes(&mut self, handle: Resource<DatabaseHandle>) -> wasmtime::Result<u64> {
        Ok(self.inner(&handle)?.changes())
    }

    async fn drop(&mut self, handle: Resource<DatabaseHandle>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

impl<T: Send> three::HostConnectionWithStore<T> for Data {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<DatabaseHandle>, three::Error>> {
        let databases = accessor.with(|mut access| access.get().databases.clone());
        let opened = ask(accessor, |_| databases.open(&label)).await?;
        accessor.with(|mut access| access.get().push_opened(opened))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<DatabaseHandle>,
        statement: String,
        parameters: Vec<three::Value>,
    ) -> wasmtime::Result<
        Result<
            (
                Vec<String>,
                StreamReader<three::RowResult>,
                FutureReader<Result<(), three::Error>>,
            ),
            three::Error,
        >,
    > {
        let database = accessor.with(|mut access| access.get().inner(&handle))?;
        let parameters = parameters.into_iter().map(Into::into).collect();
        let execute = async move { Ok::<_, Error>(database.execute(&statement, parameters).await) };
        let answer = ask(accessor, |_| execute).await?;
        let Answer { columns, rows, end } = answer.unwrap_or_else(Answer::from);
        let rows: Vec<three::RowResult> = rows.into_iter().map(Into::into).collect();
        let end = end.map_err(Into::into);
        accessor.with(|mut access| {
            let rows = StreamReader::new(&mut access, rows)?;
            let end = FutureReader::new(&mut access, async { wasmtime::error::Ok(end) })?;
            Ok(Ok((columns, rows, end)))
        })
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<DatabaseHandle>,
    ) -> wasmtime::Result<i64> {
        accessor.with(|mut access| Ok(access.get().inner(&handle)?.last_insert_rowid()))
    }

    async fn changes_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<DatabaseHandle>,
    ) -> wasmtime::Result<u64> {
        accessor.with(|mut access| Ok(access.get().inner(&handle)?.changes()))
    }
}
