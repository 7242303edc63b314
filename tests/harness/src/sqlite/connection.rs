use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::Value;
use rusqlite::{Row, params_from_iter};

use super::{Answer, Database};
use crate::store::Error;

/// A database in a file or in memory, behind one connection, as in Spin 4.1 (its crate `sqlite-inproc`).
///
/// The connection serves all requests of all instances. So each statement is atomic, but a transaction that a guest begins
/// includes statements of other requests, and `changes` may report another request's statement. Guests cannot attach files.
pub struct Connection {
    /// `None`: in memory.
    path: Option<PathBuf>,
    connection: Arc<Mutex<rusqlite::Connection>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("path", &self.path)
            .finish()
    }
}

impl Connection {
    /// An empty database in memory.
    ///
    /// # Errors
    ///
    /// If SQLite has no memory.
    pub fn memory() -> anyhow::Result<Self> {
        Ok(Self::new(None, rusqlite::Connection::open_in_memory()?))
    }

    /// Opens a file. Creates it and its directory if they are missing. Other processes may share it: a statement waits up to
    /// 5 s for theirs.
    ///
    /// # Errors
    ///
    /// If that fails. The error names the file.
    pub fn open(path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref();
        let open = || {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let connection = rusqlite::Connection::open(path)?;
            // Fails if the file is not a database.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            anyhow::Ok(connection)
        };
        let connection = open()
            .with_context(|| format!("cannot open the SQLite database {}", path.display()))?;
        Ok(Self::new(Some(path.into()), connection))
    }

    fn new(path: Option<PathBuf>, connection: rusqlite::Connection) -> Self {
        connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
            AuthAction::Attach { filename } if !matches!(filename, "" | ":memory:") => {
                Authorization::Deny
            }
            _ => Authorization::Allow,
        }));
        Self {
            path,
            connection: Arc::new(Mutex::new(connection)),
        }
    }

    /// Sets how long a statement waits for those of other processes, instead of 5 s. After that, it fails: the database is
    /// locked.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn busy_timeout(self, timeout: Duration) -> anyhow::Result<Self> {
        lock(&self.connection).busy_timeout(timeout)?;
        Ok(self)
    }

    /// Limits the size of the database, in bytes. Beyond that, writes fail: the database is full.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn limit(self, bytes: u64) -> anyhow::Result<Self> {
        {
            let connection = lock(&self.connection);
            let page: u64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let pages = (bytes / page).max(1);
            // This PRAGMA returns the limit as a row.
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        Ok(self)
    }
}

/// Executes a statement on a connection.
pub(crate) fn execute(
    connection: &rusqlite::Connection,
    statement: &str,
    parameters: Vec<Value>,
) -> Answer {
    let mut statement = match connection.prepare_cached(statement) {
        Ok(statement) => statement,
        Err(error) => return Error(error.to_string()).into(),
    };
    let columns: Vec<_> = statement
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut found = Vec::new();
    let read = || {
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            found.push(values(row, columns.len())?);
        }
        Ok(())
    };
    let end = read().map_err(|error: rusqlite::Error| Error(error.to_string()));
    Answer {
        columns,
        rows: found,
        end,
    }
}

fn values(row: &Row<'_>, columns: usize) -> rusqlite::Result<Vec<Value>> {
    (0..columns).map(|column| row.get(column)).collect()
}

/// Locks the connection. Statements are atomic, so a panic leaves it consistent.
fn lock(connection: &Mutex<rusqlite::Connection>) -> MutexGuard<'_, rusqlite::Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Database for Connection {
    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer {
        if self.path.is_none() {
            // This does not wait for a disk or another process, and is cheaper than another thread.
            return execute(&lock(&self.connection), statement, parameters);
        }
        let (connection, statement) = (self.connection.clone(), statement.to_owned());
        let execute = move || execute(&lock(&connection), &statement, parameters);
        match tokio::task::spawn_blocking(execute).await {
            Ok(answer) => answer,
            Err(stopped) => Error(stopped.to_string()).into(),
        }
    }

    fn changes(&self) -> u64 {
        lock(&self.connection).changes()
    }

    fn last_insert_rowid(&self) -> i64 {
        lock(&self.connection).last_insert_rowid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rows(database: &Connection, statement: &str) -> Vec<Vec<Value>> {
        let answer = database.execute(statement, Vec::new()).await;
        assert_eq!(answer.end, Ok(()), "{statement}");
        answer.rows
    }

    async fn error(database: &Connection, statement: &str) -> String {
        let answer = database.execute(statement, Vec::new()).await;
        answer.end.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn rows_that_come_before_an_error_come_all_the_same() {
        let database = Connection::memory().unwrap();
        let statement = "SELECT abs(n) FROM (SELECT 1 AS n UNION ALL SELECT ?1)";
        let answer = database.execute(statement, vec![i64::MIN.into()]).await;
        assert_eq!(answer.columns, ["abs(n)"]);
        assert_eq!(answer.rows, [[Value::Integer(1)]]);
        let Error(error) = answer.end.unwrap_err();
        assert!(error.contains("overflow"), "{error}");
    }

    #[tokio::test]
    async fn two_connections_to_a_file_see_each_other_and_lock_each_other_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new").join("database.db");
        let open = || {
            Connection::open(&path)
                .unwrap()
                .busy_timeout(Duration::ZERO)
        };
        let (one, two) = (open().unwrap(), open().unwrap());
        rows(&one, "CREATE TABLE t (a)").await;
        rows(&one, "INSERT INTO t VALUES (1)").await;
        assert_eq!(one.changes(), 1);
        assert_eq!(rows(&two, "SELECT a FROM t").await, [[Value::Integer(1)]]);
        rows(&one, "BEGIN EXCLUSIVE").await;
        assert_eq!(error(&two, "SELECT a FROM t").await, "database is locked");
    }

    #[tokio::test]
    async fn a_database_that_is_full_takes_no_more_and_loses_nothing() {
        let database = Connection::memory().unwrap().limit(16 << 10).unwrap();
        rows(&database, "CREATE TABLE t (a)").await;
        let insert = "INSERT INTO t VALUES (zeroblob(2000))";
        while database.execute(insert, Vec::new()).await.end.is_ok() {}
        assert!(error(&database, insert).await.contains("full"));
        assert!(!rows(&database, "SELECT a FROM t").await.is_empty());
    }

    #[tokio::test]
    async fn a_guest_reaches_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other.db");
        let database = Connection::open(directory.path().join("database.db")).unwrap();
        for statement in ["ATTACH", "VACUUM INTO"] {
            let name = if statement == "ATTACH" {
                " AS other"
            } else {
                ""
            };
            let statement = format!("{statement} '{}'{name}", other.display());
            let error = error(&database, &statement).await;
            assert!(error.contains("authoriz"), "{error}");
        }
        assert!(!other.exists());
    }
}
