//! The host's SQLite database, `fermyon:spin/sqlite`.

use std::sync::OnceLock;

use crate::sqlite::{Database, Failure, Rows, Value, conversions};
use crate::store::LABEL;

/// The SQLite interface of Spin 2 and 3.
mod bindings {
    wit_bindgen::generate!({
        world: "spin-two-sqlite",
        path: "wit",
        generate_all,
    });
}

use bindings::fermyon::spin::sqlite as spin;

conversions!();

/// The host's database, opened on first use.
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
}

impl Database for SpinDatabase {
    async fn execute(
        &self,
        statement: &'static str,
        parameters: Vec<Value>,
    ) -> Result<Rows, Failure> {
        let parameters: Vec<_> = parameters.into_iter().map(to_spin).collect();
        let answer = self.opened()?.execute(statement, &parameters);
        let rows = answer.map_err(from_spin)?.rows.into_iter();
        Ok(rows
            .map(|row| row.values.into_iter().map(value).collect())
            .collect())
    }
}
