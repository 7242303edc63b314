//! The host's SQLite database, `fermyon:spin/sqlite`.

use std::future::{self, Future};
use std::sync::OnceLock;

use crate::sqlite::{Database, Failure, Rows, Value};
use crate::store::LABEL;

/// SQLite in Spin's versions 2 and 3.
mod bindings {
    wit_bindgen::generate!({
        world: "spin-two-sqlite",
        path: "wit",
        generate_all,
    });
}

use bindings::fermyon::spin::sqlite as spin;

/// The host's database, opened when it is first used.
#[derive(Debug, Default)]
pub struct SpinDatabase(OnceLock<spin::Connection>);

impl SpinDatabase {
    fn opened(&self) -> Result<&spin::Connection, Failure> {
        if self.0.get().is_none() {
            _ = self
                .0
                .set(spin::Connection::open(LABEL).map_err(from_spin)?);
        }
        self.0.get().ok_or(Failure::NotOpened)
    }

    fn ask(&self, statement: &str, parameters: Vec<Value>) -> Result<Rows, Failure> {
        let parameters: Vec<_> = parameters.into_iter().map(to_spin).collect();
        let answer = self.opened()?.execute(statement, &parameters);
        let rows = answer.map_err(from_spin)?.rows.into_iter();
        Ok(rows
            .map(|row| row.values.into_iter().map(value).collect())
            .collect())
    }
}

impl Database for SpinDatabase {
    fn execute(
        &self,
        statement: &'static str,
        parameters: Vec<Value>,
    ) -> impl Future<Output = Result<Rows, Failure>> + Send {
        future::ready(self.ask(statement, parameters))
    }
}

fn to_spin(value: Value) -> spin::Value {
    match value {
        Value::Integer(integer) => spin::Value::Integer(integer),
        Value::Text(text) => spin::Value::Text(text),
        Value::Blob(blob) => spin::Value::Blob(blob),
        Value::Other => spin::Value::Null,
    }
}

fn value(value: spin::Value) -> Value {
    match value {
        spin::Value::Integer(integer) => Value::Integer(integer),
        spin::Value::Text(text) => Value::Text(text),
        spin::Value::Blob(blob) => Value::Blob(blob),
        spin::Value::Real(_) | spin::Value::Null => Value::Other,
    }
}

fn from_spin(error: spin::Error) -> Failure {
    match error {
        spin::Error::NoSuchDatabase => Failure::NoSuchDatabase,
        spin::Error::AccessDenied => Failure::AccessDenied,
        spin::Error::InvalidConnection => Failure::NotOpened,
        spin::Error::DatabaseFull => Failure::Full,
        spin::Error::Io(what) => Failure::Io(what),
    }
}
