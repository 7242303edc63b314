//! `spin:sqlite@3.1.0`, and the same of Spin 2 and 3, over [`Database`]s.

use std::sync::Arc;

use wasmtime::component::{Accessor, FutureReader, Resource, StreamReader};

use super::{Answer, Closed, Database, Value};
use crate::bindings::fermyon::spin::sqlite as two;
use crate::bindings::spin::sqlite::sqlite as three;
use crate::keyvalue::{Data, Opened, View, ask};
use crate::store::Error;

/// An open database, in either interface.
#[derive(Debug)]
pub struct Handle {
    database: Arc<dyn Database>,
    _opened: Opened,
}

impl View<'_> {
    fn push(&mut self, database: Arc<dyn Database>) -> wasmtime::Result<Resource<Handle>> {
        let handle = Handle {
            database,
            _opened: self.keyvalue.open(),
        };
        Ok(self.table.push(handle)?)
    }

    fn database(&self, handle: &Resource<Handle>) -> wasmtime::Result<Arc<dyn Database>> {
        Ok(self.table.get(handle)?.database.clone())
    }
}

/// Both interfaces have these types, with the same names.
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

        impl From<Closed> for $interface::Error {
            fn from(closed: Closed) -> Self {
                match closed {
                    Closed::NotGranted => Self::AccessDenied,
                    Closed::Unknown => Self::NoSuchDatabase,
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
    ) -> wasmtime::Result<Result<Resource<Handle>, two::Error>> {
        let database = match self.databases.get(&label) {
            Ok(database) => database,
            Err(closed) => return Ok(Err(closed.into())),
        };
        let opening = database.clone();
        let opened = self.name_request(async move { opening.open().await });
        if let Err(error) = opened.await {
            return Ok(Err(error.into()));
        }
        Ok(Ok(self.push(database)?))
    }

    async fn execute(
        &mut self,
        handle: Resource<Handle>,
        statement: String,
        parameters: Vec<two::Value>,
    ) -> wasmtime::Result<Result<two::QueryResult, two::Error>> {
        let database = self.database(&handle)?;
        let parameters = parameters.into_iter().map(Into::into).collect();
        let answer =
            self.name_request(async move { database.execute(&statement, parameters).await });
        Ok(answer.await.into())
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl three::Host for View<'_> {}

impl three::HostConnection for View<'_> {
    async fn open(
        &mut self,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, three::Error>> {
        let database = match self.databases.get(&label) {
            Ok(database) => database,
            Err(closed) => return Ok(Err(closed.into())),
        };
        if let Err(error) = database.open().await {
            return Ok(Err(error.into()));
        }
        Ok(Ok(self.push(database)?))
    }

    async fn execute(
        &mut self,
        handle: Resource<Handle>,
        statement: String,
        parameters: Vec<three::Value>,
    ) -> wasmtime::Result<Result<three::QueryResult, three::Error>> {
        let database = self.database(&handle)?;
        let parameters = parameters.into_iter().map(Into::into).collect();
        Ok(database.execute(&statement, parameters).await.into())
    }

    async fn last_insert_rowid(&mut self, handle: Resource<Handle>) -> wasmtime::Result<i64> {
        Ok(self.database(&handle)?.last_insert_rowid())
    }

    async fn changes(&mut self, handle: Resource<Handle>) -> wasmtime::Result<u64> {
        Ok(self.database(&handle)?.changes())
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send> three::HostConnectionWithStore<T> for Data {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, three::Error>> {
        let database = accessor.with(|mut access| access.get().databases.get(&label));
        let database = match database {
            Ok(database) => database,
            Err(closed) => return Ok(Err(closed.into())),
        };
        let opening = database.clone();
        if let Err(error) = ask(accessor, |_| async move { opening.open().await }).await? {
            return Ok(Err(error.into()));
        }
        accessor.with(|mut access| Ok(Ok(access.get().push(database)?)))
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
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
        let database = accessor.with(|mut access| access.get().database(&handle))?;
        let parameters = parameters.into_iter().map(Into::into).collect();
        let execute = async move { Ok(database.execute(&statement, parameters).await) };
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
        handle: Resource<Handle>,
    ) -> wasmtime::Result<i64> {
        accessor.with(|mut access| Ok(access.get().database(&handle)?.last_insert_rowid()))
    }

    async fn changes_async(
        accessor: &Accessor<T, Self>,
        handle: Resource<Handle>,
    ) -> wasmtime::Result<u64> {
        accessor.with(|mut access| Ok(access.get().database(&handle)?.changes()))
    }
}
