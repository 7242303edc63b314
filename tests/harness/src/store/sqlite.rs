use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{Error, Numbers, Store};

/// The column `store` of Spin's table: the label that guests open.
const LABEL: &str = "default";

/// How long a writer waits for the writers of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The most writes that one transaction has. It bounds how long other processes wait for this one.
const LARGEST_GROUP: usize = 256;

/// A store in an SQLite file, in write-ahead mode. Any number of processes of one machine may share it.
///
/// The table is that of Spin, which keeps its own file at `.spin/sqlite_key_value.db`. A write is on the disk when
/// it returns.
///
/// # Group commit
///
/// One thread writes. It takes all writes that are waiting, runs them in order in one transaction, and acknowledges them
/// when that is on the disk. So writes that come at the same time share one synchronisation of the disk. A write that fails
/// fails alone; if the transaction does not reach the disk, all its writes fail.
///
/// Those who had their answers together are likely to write again together. So a group waits until it is as large as the
/// last one, for a quarter of the time that the last one took at the longest. A write that comes alone after one that came alone
/// waits for nobody.
pub struct Sqlite {
    path: PathBuf,
    /// Readers never wait for writers in write-ahead mode, if they have a connection of their own.
    reader: Mutex<Connection>,
    writer: Writer,
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
            writer: Writer::start(writer)?,
        })
    }

    /// A read takes microseconds, less than it takes to hand it to another thread.
    fn read<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        // A connection that was being read from when its reader panicked is as good as before.
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        run(&reader).map_err(error)
    }
}

/// A write that waits for its turn. It makes at most one statement that writes: SQLite undoes a statement that fails, so
/// that what fails leaves nothing in the transaction that it shares. An error says that there is no transaction. Returns what
/// acknowledges it.
type Write = Box<dyn FnOnce(Result<&Connection, Error>) -> Acknowledge + Send>;

/// Answers whoever waits for a write, once it is known whether its transaction is on the disk.
type Acknowledge = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The thread that writes, which waits for the disk and for other processes.
struct Writer {
    /// `None` while it is being dropped.
    queue: Option<Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(mut connection: Connection) -> std::io::Result<Self> {
        let (queue, writes) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || {
                let mut last = Last::default();
                while let Some(group) = next_group(&writes, last) {
                    let (size, began) = (group.len(), Instant::now());
                    commit(&mut connection, group);
                    let took = began.elapsed();
                    last = Last { size, took };
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Returns when the write is on the disk. A future that is dropped leaves the write in the queue.
    async fn write<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = || Error("SQLite: the thread that writes has ended".into());
        let (write, answer) = write(run);
        let queue = self.queue.as_ref().ok_or_else(ended)?;
        queue.send(write).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Writer {
    /// What waits is written, and the file is closed.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // It has said what it panicked with.
            _ = thread.join();
        }
    }
}

/// A write that does this, and where its answer comes.
fn write<T: Send + 'static>(
    run: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
) -> (Write, oneshot::Receiver<Result<T, Error>>) {
    let (answer, answered) = oneshot::channel();
    let write: Write = Box::new(move |connection| {
        let result = connection.and_then(run);
        Box::new(move |committed: Result<(), Error>| {
            // Nobody may want it any more.
            _ = answer.send(result.and_then(|value| committed.map(|()| value)));
        })
    });
    (write, answered)
}

/// The last group: how many writes it had, and how long they took.
#[derive(Clone, Copy, Default)]
struct Last {
    size: usize,
    took: Duration,
}

/// Waits for a write, and takes those that come with it. `None` when there will be no more.
fn next_group(writes: &Receiver<Write>, last: Last) -> Option<Vec<Write>> {
    let mut group = vec![writes.recv().ok()?];
    let deadline = Instant::now() + last.took / 4;
    while group.len() < LARGEST_GROUP {
        let next = if group.len() < last.size {
            writes.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        } else {
            writes.try_recv().map_err(|_| RecvTimeoutError::Timeout)
        };
        match next {
            Ok(write) => group.push(write),
            Err(_) => break,
        }
    }
    Some(group)
}

/// Runs these writes in one transaction, and acknowledges them.
fn commit(connection: &mut Connection, group: Vec<Write>) {
    // Immediate: the lock is taken before anything is read, so that nobody comes between.
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let (group, committed): (Vec<_>, _) = match begun.map_err(error) {
        Err(failure) => {
            let refuse = |write: Write| write(Err(failure.clone()));
            (group.into_iter().map(refuse).collect(), Ok(()))
        }
        Ok(transaction) => {
            let run = |write: Write| write(still_open(&transaction));
            let group = group.into_iter().map(run).collect();
            let committed = match still_open(&transaction) {
                Ok(_) => transaction.commit().map_err(error),
                Err(rolled_back) => Err(rolled_back),
            };
            (group, committed)
        }
    };
    for acknowledge in group {
        acknowledge(committed.clone());
    }
}

/// The connection, unless SQLite has rolled its transaction back by itself, as it does where the disk is full or fails. What is
/// written after that would be in no transaction.
fn still_open(transaction: &Connection) -> Result<&Connection, Error> {
    if transaction.is_autocommit() {
        let what =
            "SQLite: the transaction was rolled back, because a write failed that it had too";
        return Err(Error(what.into()));
    }
    Ok(transaction)
}

#[async_trait]
impl Store for Sqlite {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|connection| value(connection, key))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.writer
            .write(move |connection| put(connection, &key, &value).map_err(error))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let key = key.to_owned();
        self.writer
            .write(move |connection| {
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
        self.writer
            .write(move |connection| {
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
        self.writer
            .write(move |connection| {
                let before = value(connection, &key).map_err(error)?;
                let (sum, after) = numbers.add(before.as_deref(), delta)?;
                put(connection, &key, &after).map_err(error)?;
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

fn error(error: rusqlite::Error) -> Error {
    Error(format!("SQLite: {error}"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn open() -> (tempfile::TempDir, Sqlite) {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(directory.path().join("store.db")).unwrap();
        (directory, store)
    }

    /// A connection as the writer has it.
    fn connection(directory: &tempfile::TempDir) -> Connection {
        let connection = Connection::open(directory.path().join("store.db")).unwrap();
        connection.busy_timeout(BUSY_TIMEOUT).unwrap();
        connection
    }

    fn set(key: &'static str) -> (Write, oneshot::Receiver<Result<(), Error>>) {
        write(move |connection| put(connection, key, b"1").map_err(error))
    }

    #[tokio::test]
    async fn a_write_that_fails_in_a_group_fails_alone() {
        let (directory, store) = open();
        let (first, first_answer) = set("first");
        let (failing, failing_answer) = write(|connection| {
            let statement = "INSERT INTO spin_key_value (store, key, value) VALUES ('default', 'failing', NULL)";
            connection.execute(statement, []).map_err(error)
        });
        let (last, last_answer) = write(|connection| value(connection, "first").map_err(error));
        commit(&mut connection(&directory), vec![first, failing, last]);
        assert_eq!(first_answer.await.unwrap(), Ok(()));
        assert!(failing_answer.await.unwrap().is_err());
        let seen = last_answer.await.unwrap();
        assert_eq!(seen, Ok(Some(b"1".to_vec())), "they run in order");
        assert_eq!(store.keys().await, Ok(vec!["first".to_owned()]));
    }

    #[tokio::test]
    async fn a_commit_that_fails_fails_all_of_its_group() {
        let (directory, store) = open();
        let mut connection = connection(&directory);
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON;
                 CREATE TABLE parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);",
            )
            .unwrap();
        let (first, first_answer) = set("first");
        // It is well until the commit.
        let (orphan, orphan_answer) = write(|connection| {
            let statement = "INSERT INTO child VALUES (1)";
            connection.execute(statement, []).map_err(error)
        });
        commit(&mut connection, vec![first, orphan]);
        assert!(first_answer.await.unwrap().is_err());
        assert!(orphan_answer.await.unwrap().is_err());
        assert_eq!(store.keys().await, Ok(vec![]));

        let (next, next_answer) = set("next");
        commit(&mut connection, vec![next]);
        assert_eq!(next_answer.await.unwrap(), Ok(()));
        assert_eq!(store.keys().await, Ok(vec!["next".to_owned()]));
    }

    #[tokio::test]
    async fn after_a_rollback_of_sqlites_own_nothing_of_the_group_is_written() {
        let (directory, store) = open();
        let (before, before_answer) = set("before");
        // As SQLite does where the disk is full.
        let (failing, failing_answer) = write(|connection| {
            connection.execute_batch("ROLLBACK").map_err(error)?;
            Err::<(), _>(Error("disk full".into()))
        });
        let (after, after_answer) = set("after");
        commit(&mut connection(&directory), vec![before, failing, after]);
        assert!(before_answer.await.unwrap().is_err());
        let failure = failing_answer.await.unwrap();
        assert_eq!(failure, Err(Error("disk full".into())));
        assert!(after_answer.await.unwrap().is_err());
        assert_eq!(store.keys().await, Ok(vec![]));
    }

    #[tokio::test]
    async fn writes_that_wait_share_a_transaction_which_is_synchronised() {
        const WRITES: usize = 100;

        let (directory, store) = open();
        let synchronous = store.writer.write(|connection| {
            let level = connection.pragma_query_value(None, "synchronous", |row| row.get(0));
            level.map_err(error)
        });
        assert_eq!(synchronous.await, Ok(2), "full");

        // While another process writes, they wait. Some may be taken before the others come, so that there are two groups.
        let mut other = connection(&directory);
        let behavior = TransactionBehavior::Immediate;
        let others = other.transaction_with_behavior(behavior).unwrap();
        let keys: Vec<_> = (0..WRITES).map(|number| number.to_string()).collect();
        let mut writes = futures_util::future::join_all(keys.iter().map(|key| store.set(key, b"")));
        assert!((&mut writes).now_or_never().is_none());
        others.commit().unwrap();
        assert!(writes.await.iter().all(Result::is_ok));
        assert_eq!(store.keys().await.unwrap().len(), WRITES);

        // A transaction appends each page that it changes to the log once.
        let log = std::fs::metadata(directory.path().join("store.db-wal")).unwrap();
        let page: u64 = other
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .unwrap();
        assert!(log.len() < page * WRITES as u64, "{} bytes", log.len());
    }

    #[test]
    fn a_group_waits_for_as_many_as_there_were_last_and_not_for_ever() {
        let (queue, writes) = mpsc::channel();
        let add = |count| (0..count).for_each(|_| queue.send(set("a").0).unwrap());
        let next = |last| next_group(&writes, last).map_or(0, |group| group.len());
        let long = Duration::from_secs(600);
        add(1);
        assert_eq!(next(Last::default()), 1);
        add(1);
        assert_eq!(
            next(Last {
                size: 1,
                took: long
            }),
            1,
            "it waits for nobody"
        );
        add(3);
        let took = Duration::from_millis(4);
        assert_eq!(next(Last { size: 5, took }), 3, "not longer than it took");
        add(5);
        assert_eq!(
            next(Last {
                size: 2,
                took: long
            }),
            5,
            "all that are there"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| add(2));
            assert_eq!(
                next(Last {
                    size: 2,
                    took: long
                }),
                2
            );
        });
        add(LARGEST_GROUP + 1);
        assert_eq!(
            next(Last {
                size: 1,
                took: long
            }),
            LARGEST_GROUP
        );
        assert_eq!(next(Last::default()), 1);
        drop(queue);
        assert!(next_group(&writes, Last::default()).is_none());
    }

    #[tokio::test]
    async fn what_waits_is_written_before_the_file_is_closed() {
        let (directory, store) = open();
        let mut write = Box::pin(store.set("a", b"1"));
        assert!(write.as_mut().now_or_never().is_none());
        // Nobody waits for the answer.
        drop(write);
        drop(store);
        let value = value(&connection(&directory), "a").unwrap();
        assert_eq!(value, Some(b"1".to_vec()));
    }

    #[tokio::test]
    async fn a_file_that_others_keep_locked_fails_what_waits_and_is_used_again() {
        let (directory, store) = open();
        let mut blocked = connection(&directory);
        blocked.busy_timeout(Duration::ZERO).unwrap();
        let mut other = connection(&directory);
        let behavior = TransactionBehavior::Immediate;
        let others = other.transaction_with_behavior(behavior).unwrap();
        let (locked, locked_answer) = set("a");
        commit(&mut blocked, vec![locked]);
        assert!(locked_answer.await.unwrap().is_err());
        others.commit().unwrap();
        let (next, next_answer) = set("b");
        commit(&mut blocked, vec![next]);
        assert_eq!(next_answer.await.unwrap(), Ok(()));
        assert_eq!(store.keys().await, Ok(vec!["b".to_owned()]));
    }
}
