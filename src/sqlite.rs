//! [`Sqlite`]: a store in an SQLite database of the host, with compare-and-swap and counters as single statements.

use crate::store::{Atomics, Error, LABEL, Misuse, Store};

/// The table. A value that is a number is an `INTEGER`, so that SQLite can count; others are `TEXT` or `BLOB`.
const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS loopless (key TEXT NOT NULL PRIMARY KEY, value NOT NULL)";

const GET: &str = "SELECT value FROM loopless WHERE key = ?1";
const KEYS: &str = "SELECT key FROM loopless";
const SET: &str = "INSERT INTO loopless (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM loopless WHERE key = ?1";
const SWAP: &str = "UPDATE loopless SET value = ?3 WHERE key = ?1 AND value = ?2";
/// If the value is not a number, this does not change it, and returns no row.
const INCREMENT: &str = "INSERT INTO loopless (key, value) VALUES (?1, ?2) \
    ON CONFLICT (key) DO UPDATE SET value = value + excluded.value WHERE typeof(value) = 'integer' RETURNING value";

/// A part of SQLite's message for a missing table, on every host.
const NO_TABLE: &str = "no such table";

/// Parts of SQLite's messages for a table with other columns.
const OTHER_COLUMNS: [&str; 3] = ["no such column", "has no column", "ON CONFLICT clause"];

/// A value in SQLite.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer.
    Integer(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A float or NULL, which this store never writes.
    Other,
}

/// The rows of a result, each with one value per column.
pub type Rows = Vec<Vec<Value>>;

/// Why a statement failed, or why not all of its rows could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The host has no database with this label.
    NoSuchDatabase,
    /// The component may not open the database.
    AccessDenied,
    /// The database could not be opened.
    NotOpened,
    /// The database is full.
    Full,
    /// Any other failure, in SQLite's or the host's words.
    Io(String),
}

/// The conversions from and to a module `spin`: the bindings of Spin's old or new interface, which have the same names.
#[cfg(target_os = "wasi")]
macro_rules! conversions {
    () => {
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
    };
}
#[cfg(target_os = "wasi")]
pub(crate) use conversions;

/// A host's SQLite database.
///
/// # Cancel safety
///
/// The statement of a dropped future may still be executed.
pub trait Database: Send + Sync {
    /// Executes one statement, and returns its rows.
    ///
    /// # Errors
    ///
    /// If the statement was not executed, or not all of its rows could be read. Hosts of WASI 0.3 report errors separately
    /// from the rows: without that report, a locked database looks like an empty one.
    fn execute(
        &self,
        statement: &'static str,
        parameters: Vec<Value>,
    ) -> impl Future<Output = Result<Rows, Failure>> + Send;
}

/// A store in the table `loopless` of an SQLite database.
///
/// All instances share one connection of Spin to a database. So every change is a single statement, because a transaction
/// would include the statements of others. The effect of a statement is read from its rows, because SQLite's `changes()`
/// might report on another statement. With a libSQL server, the answer to an executed statement can be lost.
///
/// The table is created when it is missing: on first use, and after the database was wiped.
#[derive(Debug, Default)]
pub struct Sqlite<D> {
    database: D,
    misuse: Misuse,
}

impl<D: Database> Sqlite<D> {
    /// A store in this database.
    pub fn new(database: D) -> Self {
        Self {
            database,
            misuse: Misuse::default(),
        }
    }

    async fn execute(
        &self,
        statement: &'static str,
        parameters: Vec<Value>,
    ) -> Result<Rows, Error> {
        let mut answer = self.database.execute(statement, parameters.clone()).await;
        if is_without_table(&answer) {
            // Nothing was changed, so the statement can be repeated.
            answer = self.database.execute(TABLE, Vec::new()).await;
            if answer.is_ok() {
                answer = self.database.execute(statement, parameters).await;
            }
        }
        answer.map_err(|failure| self.error(failure))
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::NoSuchDatabase => {
                self.misuse.error(format!("the host has no SQLite database called {LABEL:?}"))
            }
            Failure::AccessDenied => self.misuse.error(format!(
                "the component may not open the SQLite database {LABEL:?}; add it to sqlite_databases in the manifest"
            )),
            Failure::Io(what) if OTHER_COLUMNS.iter().any(|says| what.contains(says)) => self.misuse.error(format!(
                "the table \"loopless\" in the SQLite database {LABEL:?} has unexpected columns ({what}); rename that table, or use another database"
            )),
            Failure::NotOpened => Error::not_opened(),
            Failure::Full => Error::new("the SQLite database is full"),
            Failure::Io(what) => Error::new(what),
        }
    }

    /// The error for a value that this component did not write.
    fn foreign(&self, key: &str) -> Error {
        self.misuse.error(format!(
            "the table \"loopless\" in the SQLite database {LABEL:?} has a value under {key:?} that this component did not write; delete that row, or use another database"
        ))
    }
}

fn is_without_table<T>(answer: &Result<T, Failure>) -> bool {
    matches!(answer, Err(Failure::Io(what)) if what.contains(NO_TABLE))
}

impl<D: Database> Store for Sqlite<D> {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let rows = self.execute(GET, vec![Value::Text(key.into())]).await?;
        match first(rows) {
            None => Ok(None),
            Some(value) => bytes(value).ok_or_else(|| self.foreign(key)).map(Some),
        }
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let parameters = vec![Value::Text(key.into()), sql(value)];
        self.execute(SET, parameters).await.map(drop)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let parameters = vec![Value::Text(key.into())];
        self.execute(DELETE, parameters).await.map(drop)
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let rows = self.execute(KEYS, Vec::new()).await?;
        let keys = rows
            .into_iter()
            .filter_map(|row| match row.into_iter().next() {
                Some(Value::Text(key)) => Some(key),
                // This component does not write such keys.
                _ => None,
            });
        Ok(keys.collect())
    }
}

impl<D: Database> Atomics for Sqlite<D> {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        let parameters = vec![Value::Text(key.into()), Value::Integer(delta)];
        match first(self.execute(INCREMENT, parameters).await?) {
            Some(Value::Integer(sum)) => Ok(sum),
            _ => Err(self.foreign(key)),
        }
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let parameters = vec![Value::Text(key.into()), sql(old), sql(new)];
        self.execute(SWAP, parameters).await.map(drop)
    }
}

/// The value in the first column of the first row.
fn first(rows: Rows) -> Option<Value> {
    rows.into_iter().next()?.into_iter().next()
}

/// Converts a value for the table.
fn sql(value: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(value) else {
        return Value::Blob(value.into());
    };
    match text.parse::<i64>() {
        // A number in another form, such as `07`, stays text.
        Ok(number) if number.to_string() == text => Value::Integer(number),
        _ => Value::Text(text.into()),
    }
}

/// Converts a value from the table. `None` if this component did not write it.
fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        Value::Text(text) => Some(text.into_bytes()),
        Value::Blob(bytes) => Some(bytes),
        Value::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;

    use super::*;

    type Answer = Result<Rows, Failure>;

    /// A database with prepared answers.
    struct Prepared {
        answers: Mutex<Vec<Answer>>,
        asked: Mutex<Vec<&'static str>>,
    }

    impl Database for Prepared {
        async fn execute(&self, statement: &'static str, _: Vec<Value>) -> Answer {
            self.asked.lock().unwrap().push(statement);
            self.answers.lock().unwrap().remove(0)
        }
    }

    fn store<const N: usize>(answers: [Answer; N]) -> Sqlite<Prepared> {
        Sqlite::new(Prepared {
            answers: Mutex::new(answers.into()),
            asked: Mutex::default(),
        })
    }

    fn at_once<T>(call: impl Future<Output = T>) -> T {
        call.now_or_never().unwrap()
    }

    fn no_table() -> Answer {
        Err(Failure::Io("no such table: loopless".into()))
    }

    #[test]
    fn a_value_comes_back_as_it_was_set() {
        for value in [
            &b"7"[..],
            b"-8",
            b"07",
            b"{\"run\":1}",
            b"",
            &[0xff, 0],
            b"7.3f9c2b8a11d04e55",
        ] {
            assert_eq!(bytes(sql(value)), Some(value.to_vec()));
        }
        assert_eq!(sql(b"4294967297"), Value::Integer(4_294_967_297));
    }

    #[test]
    fn a_table_that_is_missing_is_made_and_the_statement_is_executed_again() {
        let rows = vec![vec![Value::Integer(0)]];
        let store = store([no_table(), Ok(Vec::new()), Ok(rows)]);
        assert_eq!(at_once(store.increment("event/door", 0)), Ok(0));
        let asked = store.database.asked.into_inner().unwrap();
        assert_eq!(asked, [INCREMENT, TABLE, INCREMENT]);
    }

    #[test]
    fn a_table_that_cannot_be_made_is_an_error_and_no_empty_one() {
        let store = store([no_table(), Err(Failure::Io("database is locked".into()))]);
        let error = at_once(store.get("event/door")).unwrap_err();
        assert_eq!(error.to_string(), "database is locked");
    }

    #[test]
    fn a_table_of_somebody_else_is_an_error_that_says_what_to_do() {
        for says in [
            "no such column: value",
            "table loopless has no column named key",
            "ON CONFLICT clause does not match any PRIMARY KEY or UNIQUE constraint",
        ] {
            let error =
                at_once(store([Err(Failure::Io(says.into()))]).get("event/door")).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains(says) && error.contains("rename that table"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_number_is_not_counted_and_what_is_no_value_is_not_read() {
        let answers = [Ok(Vec::new()), Ok(Vec::new())];
        let error = at_once(store(answers).increment("event/door", 1)).unwrap_err();
        assert!(error.to_string().contains("\"event/door\""), "{error}");
        let error = at_once(store([Ok(vec![vec![Value::Other]])]).get("event/door")).unwrap_err();
        assert!(error.to_string().contains("\"event/door\""), "{error}");
    }
}
