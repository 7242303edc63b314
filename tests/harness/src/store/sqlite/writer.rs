//! [`Writer`]: the thread that writes, with group commit.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::store::Error;

/// The most writes in one transaction. It limits how long other processes wait for this one.
const LARGEST_GROUP: usize = 256;

/// A write in the queue. It gets the connection, or an error if there is no transaction, and returns what acknowledges it.
///
/// It executes at most one statement that writes. SQLite undoes a statement that fails, so a write that fails leaves nothing in
/// the shared transaction.
type Write = Box<dyn FnOnce(Result<&Connection, Error>) -> Acknowledge + Send>;

/// Answers the caller of a write when its transaction is on the disk or has failed.
type Acknowledge = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The thread that writes. It waits for the disk and for other processes.
pub struct Writer {
    /// `None` while it is being dropped.
    queue: Option<Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(mut connection: Connection) -> io::Result<Self> {
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

    /// Runs a write. Returns when it is on the disk.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the write stays in the queue.
    pub async fn write<T: Send + 'static>(
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
    /// Finishes the writes in the queue and closes the file.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, it has printed why.
            _ = thread.join();
        }
    }
}

/// A write that runs `run`, and the receiver of its result.
fn write<T: Send + 'static>(
    run: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
) -> (Write, oneshot::Receiver<Result<T, Error>>) {
    let (answer, answered) = oneshot::channel();
    let write: Write = Box::new(move |connection| {
        let result = connection.and_then(run);
        Box::new(move |committed: Result<(), Error>| {
            // The caller may be gone.
            _ = answer.send(result.and_then(|value| committed.map(|()| value)));
        })
    });
    (write, answered)
}

/// The size of the last group, and how long its transaction took.
#[derive(Clone, Copy, Default)]
struct Last {
    size: usize,
    took: Duration,
}

/// Waits for a write, and takes those that come with it. Returns `None` when the queue is closed.
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
    // Immediate: takes the lock before the first read, so that no other process writes in between.
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let (group, committed): (Vec<_>, _) = match begun.map_err(Error::from) {
        Err(failure) => {
            let fail = |write: Write| write(Err(failure.clone()));
            (group.into_iter().map(fail).collect(), Ok(()))
        }
        Ok(transaction) => {
            let run = |write: Write| write(still_open(&transaction));
            let group = group.into_iter().map(run).collect();
            let committed = match still_open(&transaction) {
                Ok(_) => transaction.commit().map_err(Error::from),
                Err(rolled_back) => Err(rolled_back),
            };
            (group, committed)
        }
    };
    for acknowledge in group {
        acknowledge(committed.clone());
    }
}

/// The connection, or an error if SQLite has rolled its transaction back by itself, as it does if the disk is full or fails.
/// Later writes would be in no transaction.
fn still_open(transaction: &Connection) -> Result<&Connection, Error> {
    if transaction.is_autocommit() {
        let what = "SQLite: the transaction was rolled back, because another write in it failed";
        return Err(Error(what.into()));
    }
    Ok(transaction)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::store::Store;
    use crate::store::sqlite::{BUSY_TIMEOUT, Sqlite, put, value};

    fn open() -> (tempfile::TempDir, Sqlite) {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(directory.path().join("store.db")).unwrap();
        (directory, store)
    }

    /// A connection like the writer's.
    fn connection(directory: &tempfile::TempDir) -> Connection {
        let connection = Connection::open(directory.path().join("store.db")).unwrap();
        connection.busy_timeout(BUSY_TIMEOUT).unwrap();
        connection
    }

    fn set(key: &'static str) -> (Write, oneshot::Receiver<Result<(), Error>>) {
        write(move |connection| Ok(put(connection, key, b"1")?))
    }

    #[tokio::test]
    async fn a_write_that_fails_in_a_group_fails_alone() {
        let (directory, store) = open();
        let (first, first_answer) = set("first");
        let (failing, failing_answer) = write(|connection| {
            let statement = "INSERT INTO spin_key_value (store, key, value) VALUES ('default', 'failing', NULL)";
            Ok(connection.execute(statement, [])?)
        });
        let (last, last_answer) = write(|connection| Ok(value(connection, "first")?));
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
        // It fails only at the commit.
        let (orphan, orphan_answer) = write(|connection| {
            let statement = "INSERT INTO child VALUES (1)";
            Ok(connection.execute(statement, [])?)
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
        // SQLite does this if the disk is full.
        let (failing, failing_answer) = write(|connection| {
            connection.execute_batch("ROLLBACK")?;
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
            Ok(connection.pragma_query_value(None, "synchronous", |row| row.get(0))?)
        });
        assert_eq!(synchronous.await, Ok(2), "full");

        // They wait while another process writes. Some may be taken before the others come: then there are two groups.
        let mut other = connection(&directory);
        let behavior = TransactionBehavior::Immediate;
        let others = other.transaction_with_behavior(behavior).unwrap();
        let keys: Vec<_> = (0..WRITES).map(|number| number.to_string()).collect();
        let mut writes = futures_util::future::join_all(keys.iter().map(|key| store.set(key, b"")));
        assert!((&mut writes).now_or_never().is_none());
        others.commit().unwrap();
        assert!(writes.await.iter().all(Result::is_ok));
        assert_eq!(store.keys().await.unwrap().len(), WRITES);

        // A transaction appends each page that it changes to the log once only.
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
