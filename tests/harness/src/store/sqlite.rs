mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Params, params};

use self::writer::Writer;
use super::{Error, Numbers, Store};
use crate::keyvalue::LABEL;

/// How long a statement waits for other processes to release the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store in an SQLite file in write-ahead mode. Any number of processes on one machine may share it.
///
/// The table is the one that Spin keeps in `.spin/sqlite_key_value.db`. A write is on the disk when it returns.
///
/// # Group commit
///
/// One thread writes. It takes all waiting writes, runs them in order in one transaction, and acknowledges them when the
/// transaction is on the disk. So concurrent writes share one sync of the disk. A write that fails does not affect the
/// others; if the transaction fails, all its writes fail.
///
/// Clients that are answered together are likely to write again together. So a group waits until it is as large as the
/// last one, but at most for a quarter of the time that the last one took. After a group of one, a write does not wait.
pub struct Sqlite {
    path: PathBuf,
    /// In write-ahead mode, a reader with a connection of its own never waits for writers.
    reader: Mutex<Connection>,
    /// Further connections for readers, so that there is one for each processor.
    more_readers: Vec<Mutex<Connection>>,
    writer: Writer,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish()
    }
}

impl Sqlite {
    /// Opens the file. Creates it, its directory and the table if they are missing.
    ///
    /// # Errors
    ///
    /// If that fails. The error names the file.
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
        let reader = || {
            let reader = Connection::open(path)?;
            reader.busy_timeout(BUSY_TIMEOUT)?;
            // The first read opens the write-ahead log.
            value(&reader, "")?;
            rusqlite::Result::Ok(Mutex::new(reader))
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let more_readers = (1..processors).map(|_| reader());
        let more_readers = more_readers.collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            path: path.into(),
            reader: reader()?,
            more_readers,
            writer: Writer::start(writer)?,
        })
    }

    /// Reads on the caller's thread: handing a read to another thread takes longer than the read.
    fn read<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        Ok(run(&self.reader())?)
    }

    /// A connection that nobody else reads from. Waits if there is none.
    fn reader(&self) -> MutexGuard<'_, Connection> {
        let free = |reader| match Mutex::try_lock(reader) {
            Ok(reader) => Some(reader),
            // A panic of another reader leaves the connection usable.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let mut more = self.more_readers.iter();
        more.find_map(free)
            .unwrap_or_else(|| self.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|connection| value(connection, key))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.writer
            .write(move |connection| Ok(put(connection, &key, &value)?))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let key = key.to_owned();
        self.writer
            .write(move |connection| {
                let delete = "DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2";
                execute(connection, delete, params![LABEL, key])?;
                Ok(())
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
        self.writer
            .write(move |connection| {
                let rows = match old {
                    Some(old) => execute(
                        connection,
                        "UPDATE spin_key_value SET value = ?4
                         WHERE store = ?1 AND key = ?2 AND value = ?3",
                        params![LABEL, key, old, new],
                    ),
                    None => execute(
                        connection,
                        "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO NOTHING",
                        params![LABEL, key, new],
                    ),
                };
                Ok(rows? == 1)
            })
            .await
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        let key = key.to_owned();
        self.writer
            .write(move |connection| {
                let before = value(connection, &key)?;
                let (sum, after) = numbers.add(before.as_deref(), delta)?;
                put(connection, &key, &after)?;
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
    let put = "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
               ON CONFLICT DO UPDATE SET value = ?3";
    execute(connection, put, params![LABEL, key, value]).map(drop)
}

/// Executes a statement that returns no rows. Returns how many rows it changed.
fn execute(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
) -> rusqlite::Result<usize> {
    connection.prepare_cached(statement)?.execute(parameters)
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self(format!("SQLite: {error}"))
    }
}
