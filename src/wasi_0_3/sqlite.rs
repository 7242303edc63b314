//! The host's SQLite database, `spin:sqlite`. Its calls are asynchronous, so other requests of the instance continue.

use std::fmt;
use std::sync::OnceLock;

use spin_sdk::sqlite as spin;

use crate::sqlite::{Database, Failure, Rows, Value, conversions};
use crate::store::LABEL;

conversions!();

/// The host's database, opened on first use and kept as long as the instance lives.
#[derive(Default)]
pub struct SpinDatabase(OnceLock<spin::Connection>);

/// [`spin::Connection`] does not implement `Debug`.
impl fmt::Debug for SpinDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpinDatabase")
    }
}

impl SpinDatabase {
    async fn opened(&self) -> Result<&spin::Connection, Failure> {
        if self.0.get().is_none() {
            // Two concurrent first requests may both open it. One handle is kept, the other is closed.
            let opened = spin::Connection::open(LABEL).await.map_err(from_spin)?;
            _ = self.0.set(opened);
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
        let answer = self.opened().await?.execute(statement, parameters).await;
        // `collect` also awaits the future that holds an error. There is no other way to learn of one.
        let rows = answer
            .map_err(from_spin)?
            .collect()
            .await
            .map_err(from_spin)?;
        let rows = rows.into_iter();
        Ok(rows
            .map(|row| row.values.into_iter().map(value).collect())
            .collect())
    }
}
