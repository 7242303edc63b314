use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Error, Numbers, Store};

/// The column `store` of Spin's table: the label that guests open.
const LABEL: &str = "default";

/// How long a writer waits for the writers of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store in an SQLite file, in write-ahead mode. Any number of processes of one machine may share it.
///
/// The table is that of Spin, which keeps its own file at `.spin/sqlite_key_value.db`. A write is on the disk when
/// it returns.
pub struct Sqlite {
    path: PathBuf,
    /// Readers never wait for writers in write-ahead mode, if they have a connection of their own.
    reader: Mutex<Connection>,
    writer: Arc<Mutex<Connection>>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish()
    }
}

impl Sqlite {
    /// Opens the file, and makes it, its directory and the table where they are missing.
    ///
    /// # Errors
    ///
    /// An error that names the file, where that is not possible.
    pub fn open(path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref();
        Self::try_open(path)
            .with_context(|| format!("cannot open the SQLite store {}", path.display()))
    }

    fn try_open(path: &Path) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let writer = Connection::open(path)?;
        writer.busy_timeout(BUSY_TIMEOUT)?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        writer.pragma_update(None, "synchronous", "full")?;
        writer.execute_batch(
            "CREATE TABLE IF NOT EXISTS spin_key_value (
                 store TEXT NOT NULL,
                 key   TEXT NOT NULL,
                 value BLOB NOT NULL,
                 PRIMARY KEY (store, key)
             )",
        )?;
        let reader = Connection::open(path)?;
        reader.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self {
            path: path.into(),
            reader: Mutex::new(reader),
            writer: Arc::new(Mutex::new(writer)),
        })
    }

    /// A read takes microseconds, less than it takes to hand it to another thread.
    fn read<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        run(&lock(&self.reader)).map_err(error)
    }

    /// A write may wait for the disk and for other processes: not on a thread that serves requests.
    async fn write<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let writer = self.writer.clone();
        match tokio::task::spawn_blocking(move || run(&mut lock(&writer))).await {
            Ok(result) => result,
            Err(stopped) => Err(Error(stopped.to_string())),
        }
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|connection| value(connection, key))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.write(move |connection| put(connection, &key, &value).map_err(error))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let key = key.to_owned();
        self.write(move |connection| {
            connection
                .prepare_cached("DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2")
                .and_then(|mut statement| statement.execute(params![LABEL, key]))
                .map(drop)
                .map_err(error)
        })
        .await
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT key FROM spin_key_value WHERE store = ?1 ORDER BY key")?
                .query_map([LABEL], |row| row.get(0))?
                .collect()
        })
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        let (key, old, new) = (key.to_owned(), old.map(<[u8]>::to_vec), new.to_owned());
        self.write(move |connection| {
            let rows = match old {
                Some(old) => connection
                    .prepare_cached(
                        "UPDATE spin_key_value SET value = ?4
                         WHERE store = ?1 AND key = ?2 AND value = ?3",
                    )
                    .and_then(|mut statement| statement.execute(params![LABEL, key, old, new])),
                None => connection
                    .prepare_cached(
                        "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO NOTHING",
                    )
                    .and_then(|mut statement| statement.execute(params![LABEL, key, new])),
            };
            Ok(rows.map_err(error)? == 1)
        })
        .await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let key = key.to_owned();
        self.write(move |connection| {
            // Immediate: the lock is taken before the value is read, so that nobody comes between.
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(error)?;
            let before = value(&transaction, &key).map_err(error)?;
            let (sum, after) = numbers.add(before.as_deref(), delta)?;
            put(&transaction, &key, &after).map_err(error)?;
            transaction.commit().map_err(error)?;
            Ok(sum)
        })
        .await
    }

    fn numbers(&self) -> Numbers {
        Numbers::Bytes
    }
}

fn value(connection: &Connection, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2")?
        .query_row([LABEL, key], |row| row.get(0))
        .optional()
}

fn put(connection: &Connection, key: &str, value: &[u8]) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = ?3",
        )?
        .execute(params![LABEL, key, value])
        .map(drop)
}

/// SQLite rolls a transaction back when it is dropped: after a panic the connection is as good as before.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(error: rusqlite::Error) -> Error {
    Error(format!("SQLite: {error}"))
}
