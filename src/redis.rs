//! [`Redis`]: a store in a Redis database, with compare-and-swap and counters as single commands.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::settings::{self, Variables};
use crate::store::{Atomics, Error, Misuse, Store};

/// Redis executes a script atomically.
const SWAP: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end";

/// How many keys Redis visits in one step of a scan. It serves other clients between the steps.
const SCAN_STEP: &str = "1000";

/// Parts of Redis' messages for a value that is not a string, and for a string that is not a number. Nothing was changed.
const OTHER_VALUES: [&str; 2] = ["WRONGTYPE", "not an integer"];

/// A part of a reply from Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nil,
    /// A status, such as `OK`.
    Status(String),
    /// An integer.
    Integer(i64),
    /// A value.
    Bytes(Vec<u8>),
}

/// Why a command failed. It may have been executed if the connection broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The variable with the address cannot be used.
    NoAddress(String),
    /// The address is not valid, or the component may not connect to it.
    InvalidAddress,
    /// The host does not open more connections.
    TooManyConnections,
    /// Any other failure, in Redis' or the host's words.
    Other(String),
}

impl Failure {
    /// Whether Redis reported a value that this component did not write. The connection is intact.
    fn is_of_value(&self) -> bool {
        matches!(self, Self::Other(what) if OTHER_VALUES.iter().any(|says| what.contains(says)))
    }

    /// Whether the connection may be broken.
    fn is_of_connection(&self) -> bool {
        matches!(self, Self::Other(_)) && !self.is_of_value()
    }
}

/// The conversions from a module `spin`: the bindings of Spin's old or new interface, which have the same names.
#[cfg(target_os = "wasi")]
macro_rules! conversions {
    () => {
        fn reply(reply: spin::RedisResult) -> Reply {
            match reply {
                spin::RedisResult::Nil => Reply::Nil,
                spin::RedisResult::Status(status) => Reply::Status(status),
                spin::RedisResult::Int64(integer) => Reply::Integer(integer),
                spin::RedisResult::Binary(bytes) => Reply::Bytes(bytes),
            }
        }

        fn from_spin(error: spin::Error) -> Failure {
            match error {
                spin::Error::InvalidAddress => Failure::InvalidAddress,
                spin::Error::TooManyConnections => Failure::TooManyConnections,
                spin::Error::TypeError => Failure::Other("WRONGTYPE".into()),
                spin::Error::Other(what) => Failure::Other(what),
            }
        }
    };
}
#[cfg(target_os = "wasi")]
pub(crate) use conversions;

/// A host's client of Redis.
///
/// # Cancel safety
///
/// The command of a dropped future may still be executed.
pub trait Client: Send + Sync {
    /// An open connection, which is closed when it is dropped.
    type Connection: Send + Sync;

    /// Connects to the Redis at this URL.
    ///
    /// # Errors
    ///
    /// If the URL cannot be used, or the server cannot be reached.
    fn open(&self, url: String) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Executes one command, and returns the parts of its reply in one list. Nested lists are flattened.
    ///
    /// # Errors
    ///
    /// If Redis rejects the command, or the connection is broken. A broken connection stays broken.
    fn execute(
        &self,
        connection: &Self::Connection,
        command: &'static str,
        arguments: Vec<Vec<u8>>,
    ) -> impl Future<Output = Result<Vec<Reply>, Failure>> + Send;
}

/// A store in the Redis database whose URL is in the variable `redis_url`.
///
/// Keys and values are stored as they are, and numbers in the form that Redis counts. So Spin's key-value store in the same
/// database has the same events. Other keys in the database are not changed.
///
/// Every change is a single command. A swap is a script, which Redis executes atomically. An instance has one connection. It is
/// opened on first use, and again after an error or a missing answer, because a broken connection stays broken on all hosts.
pub struct Redis<C: Client, V> {
    client: C,
    variables: V,
    connection: Mutex<Option<Arc<C::Connection>>>,
    misuse: Misuse,
}

/// Shows no fields, because a connection may not implement `Debug`.
impl<C: Client, V> fmt::Debug for Redis<C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl<C: Client, V: Variables> Redis<C, V> {
    /// Creates a store that reads the URL from `variables`, and connects with `client`.
    pub fn new(client: C, variables: V) -> Self {
        Self {
            client,
            variables,
            connection: Mutex::new(None),
            misuse: Misuse::default(),
        }
    }

    /// Executes a command that changes nothing. If the connection broke since its last use, repeats the command on a new
    /// one, so that a restart of Redis is not a failure.
    async fn read(
        &self,
        command: &'static str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Reply>, Failure> {
        let was_open = self.current().is_some();
        match self.execute(command, arguments.clone()).await {
            Err(failure) if was_open && failure.is_of_connection() => {
                self.execute(command, arguments).await
            }
            answer => answer,
        }
    }

    async fn execute(
        &self,
        command: &'static str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Reply>, Failure> {
        let mut used = Used {
            redis: self,
            connection: self.opened().await?,
            is_sound: false,
        };
        let answer = self.client.execute(&used.connection, command, arguments);
        let answer = answer.await;
        used.is_sound = !matches!(&answer, Err(failure) if failure.is_of_connection());
        answer
    }

    async fn opened(&self) -> Result<Arc<C::Connection>, Failure> {
        if let Some(open) = self.current().clone() {
            return Ok(open);
        }
        let url = settings::redis_url(&self.variables).await;
        let url = url.map_err(|error| Failure::NoAddress(error.to_string()))?;
        // Two concurrent first requests may both open one. One connection is kept, the other is closed.
        let opened = Arc::new(self.client.open(url).await?);
        Ok(self.current().get_or_insert(opened).clone())
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::NoAddress(what) => self.misuse.error(what),
            Failure::InvalidAddress => self.misuse.error(
                "the component may not connect to the address in the Spin variable redis_url; it must begin with redis:// or rediss://, \
                 and allowed_outbound_hosts in the manifest must have its host and port".into(),
            ),
            Failure::TooManyConnections => self.misuse.error(
                "the host does not open more Redis connections for this application; each instance needs one: increase max_connections \
                 of outbound_redis in the runtime configuration".into(),
            ),
            Failure::Other(what) => Error::new(what),
        }
    }

    /// The error of a command on `key`.
    fn error_of(&self, key: &str, failure: Failure) -> Error {
        match failure {
            Failure::Other(what) if OTHER_VALUES.iter().any(|says| what.contains(says)) => {
                self.foreign(key, &what)
            }
            failure => self.error(failure),
        }
    }

    /// The error for a value that this component did not write.
    fn foreign(&self, key: &str, what: &str) -> Error {
        self.misuse.error(format!(
            "the Redis database has a value under {key:?} that this component did not write ({what}); delete that key, or use another database"
        ))
    }
}

impl<C: Client, V> Redis<C, V> {
    fn current(&self) -> MutexGuard<'_, Option<Arc<C::Connection>>> {
        // The value is only replaced as a whole, so a poisoned lock is safe to use.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. If the command is dropped or fails, the connection is not used again.
struct Used<'a, C: Client, V> {
    redis: &'a Redis<C, V>,
    connection: Arc<C::Connection>,
    is_sound: bool,
}

impl<C: Client, V> Drop for Used<'_, C, V> {
    fn drop(&mut self) {
        if !self.is_sound {
            let is_this = |current: &mut Arc<_>| Arc::ptr_eq(current, &self.connection);
            self.redis.current().take_if(is_this);
        }
    }
}

impl<C: Client, V: Variables> Store for Redis<C, V> {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let replies = self.read("GET", vec![key.into()]).await;
        let replies = replies.map_err(|failure| self.error_of(key, failure))?;
        match replies.into_iter().next() {
            Some(Reply::Bytes(value)) => Ok(Some(value)),
            Some(Reply::Nil) => Ok(None),
            other => Err(unexpected("GET", other.as_ref())),
        }
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let set = self.execute("SET", vec![key.into(), value.into()]).await;
        set.map(drop).map_err(|failure| self.error(failure))
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let deleted = self.execute("DEL", vec![key.into()]).await;
        deleted.map(drop).map_err(|failure| self.error(failure))
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let mut keys = Vec::new();
        let mut cursor = b"0".to_vec();
        loop {
            let arguments = vec![cursor, "COUNT".into(), SCAN_STEP.into()];
            let replies = self.read("SCAN", arguments).await;
            let mut replies = replies.map_err(|failure| self.error(failure))?.into_iter();
            cursor = match replies.next() {
                Some(Reply::Bytes(cursor)) => cursor,
                other => return Err(unexpected("SCAN", other.as_ref())),
            };
            keys.extend(replies.filter_map(|key| match key {
                // This component only writes keys in UTF-8.
                Reply::Bytes(key) => String::from_utf8(key).ok(),
                _ => None,
            }));
            if cursor == b"0" {
                break;
            }
        }
        // A scan may return a key twice.
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }
}

impl<C: Client, V: Variables> Atomics for Redis<C, V> {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        let arguments = vec![key.into(), delta.to_string().into()];
        let replies = self.execute("INCRBY", arguments).await;
        let replies = replies.map_err(|failure| self.error_of(key, failure))?;
        match replies.into_iter().next() {
            Some(Reply::Integer(sum)) => Ok(sum),
            other => Err(unexpected("INCRBY", other.as_ref())),
        }
    }

    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let arguments = vec![SWAP.into(), "1".into(), key.into(), old.into(), new.into()];
        let swapped = self.execute("EVAL", arguments).await;
        swapped
            .map(drop)
            .map_err(|failure| self.error_of(key, failure))
    }
}

fn unexpected(command: &str, reply: Option<&Reply>) -> Error {
    Error::new(format!("Redis answered {command} with {reply:?}"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    type Answer = Result<Vec<Reply>, Failure>;

    /// A Redis with prepared answers, which counts its connections.
    #[derive(Default)]
    struct Prepared {
        answers: Mutex<Vec<Option<Answer>>>,
        asked: Mutex<Vec<(&'static str, u32)>>,
        opened: Mutex<u32>,
    }

    impl Client for Prepared {
        type Connection = u32;

        async fn open(&self, _: String) -> Result<u32, Failure> {
            let mut opened = self.opened.lock().unwrap();
            *opened += 1;
            Ok(*opened)
        }

        async fn execute(
            &self,
            connection: &u32,
            command: &'static str,
            _: Vec<Vec<u8>>,
        ) -> Answer {
            self.asked.lock().unwrap().push((command, *connection));
            let answer = self.answers.lock().unwrap().remove(0);
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    struct Address(&'static str);

    impl Variables for Address {
        async fn get(&self, name: &str) -> Result<Option<String>, String> {
            assert_eq!(name, "redis_url");
            Ok(Some(self.0.into()))
        }
    }

    fn store<const N: usize>(answers: [Option<Answer>; N]) -> Redis<Prepared, Address> {
        let client = Prepared {
            answers: Mutex::new(answers.into()),
            ..Prepared::default()
        };
        Redis::new(client, Address("redis://localhost"))
    }

    fn at_once<T>(call: impl Future<Output = T>) -> T {
        call.now_or_never().unwrap()
    }

    fn value(text: &str) -> Option<Answer> {
        Some(Ok(vec![Reply::Bytes(text.into())]))
    }

    fn broken() -> Option<Answer> {
        Some(Err(Failure::Other("broken pipe".into())))
    }

    fn asked(store: Redis<Prepared, Address>) -> Vec<(&'static str, u32)> {
        store.client.asked.into_inner().unwrap()
    }

    #[test]
    fn a_connection_is_kept_until_it_breaks() {
        let store = store([value("1"), value("1"), broken(), value("2")]);
        assert_eq!(at_once(store.get("a")), Ok(Some(b"1".to_vec())));
        assert_eq!(at_once(store.get("a")), Ok(Some(b"1".to_vec())));
        // The connection broke since. A read is repeated on a new one.
        assert_eq!(at_once(store.get("a")), Ok(Some(b"2".to_vec())));
        assert_eq!(
            asked(store),
            [("GET", 1), ("GET", 1), ("GET", 1), ("GET", 2)]
        );
    }

    #[test]
    fn what_changes_something_is_asked_once() {
        let store = store([value("1"), broken(), value("1")]);
        at_once(store.get("a")).unwrap();
        assert!(at_once(store.set("a", b"2")).is_err());
        at_once(store.get("a")).unwrap();
        assert_eq!(asked(store), [("GET", 1), ("SET", 1), ("GET", 2)]);
    }

    #[test]
    fn a_connection_that_has_not_answered_is_not_used_again() {
        let store = store([None, value("1")]);
        assert!(store.get("a").now_or_never().is_none());
        at_once(store.get("a")).unwrap();
        assert_eq!(asked(store), [("GET", 1), ("GET", 2)]);
    }

    #[test]
    fn a_value_of_somebody_else_is_an_error_that_names_it_and_breaks_no_connection() {
        let says = "WRONGTYPE: Operation against a key holding the wrong kind of value";
        let wrong = || Some(Err(Failure::Other(says.into())));
        let store = store([wrong(), wrong(), wrong(), value("1")]);
        for error in [
            at_once(store.get("event/door")).unwrap_err(),
            at_once(store.increment("event/door", 0)).unwrap_err(),
            at_once(store.swap("event/door", b"1", b"2")).unwrap_err(),
        ] {
            let error = error.to_string();
            assert!(
                error.contains("\"event/door\"") && error.contains("delete that key"),
                "{error}"
            );
        }
        at_once(store.get("event/gate")).unwrap();
        assert!(
            asked(store)
                .into_iter()
                .all(|(_, connection)| connection == 1)
        );
    }

    #[test]
    fn without_an_address_the_error_names_the_variable() {
        let store = Redis::new(Prepared::default(), Address(""));
        let error = at_once(store.get("a")).unwrap_err().to_string();
        assert!(error.contains("redis_url"), "{error}");
    }

    #[test]
    fn keys_are_those_of_all_steps() {
        let step = |cursor: &str, keys: &[&[u8]]| {
            let replies = [cursor.as_bytes()].into_iter().chain(keys.iter().copied());
            Some(Ok(replies
                .map(|reply| Reply::Bytes(reply.into()))
                .collect()))
        };
        let store = store([
            step("7", &[b"b", b"a"]),
            step("9", &[]),
            step("0", &[b"a", b"\xff", b"c"]),
        ]);
        assert_eq!(
            at_once(store.keys()),
            Ok(vec!["a".into(), "b".into(), "c".into()])
        );
    }
}
