use std::collections::BTreeSet;
use std::fmt;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncCommands, AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, RedisResult,
    ScanOptions, Script,
};
use anyhow::{Context, bail};
use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt, Shared};

use super::{Error, Numbers, Store};

/// How long connecting may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a reply may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How many keys one step of a scan visits. Redis serves other clients between the steps.
const SCAN_STEP: usize = 1000;

/// A compare-and-swap. Redis executes a script atomically. Without a second argument, there must be no value.
///
/// Spin's store uses WATCH instead, which needs a connection for each swap.
static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local old = ARGV[2] or false
         if redis.call('GET', KEYS[1]) ~= old then return 0 end
         redis.call('SET', KEYS[1], ARGV[1])
         return 1",
    )
});

/// A store in Redis. Any number of hosts, on any number of machines, may share it.
///
/// A key is stored under the same name and a value as a string, as in Spin's Redis store, so Spin and this host can share a
/// database. As on Spin, guests see all keys of the database. Keys that are not UTF-8 are left out.
///
/// All requests share one connection. After a failure, the next operation makes a new one, so the store works again as soon as
/// Redis does. Until then, operations fail within seconds: connecting may take 1 s, and a reply 2 s. A write that failed may
/// have been applied.
///
/// Whether an acknowledged write survives a crash of Redis depends on its configuration. With `appendonly yes` and
/// `appendfsync always` it does, except in a failover to a replica that has not received it.
///
/// Timeouts run on the clock of the tokio runtime. If that is paused, they elapse before Redis can reply.
pub struct Redis {
    client: Client,
    connection: Mutex<Connection>,
}

/// A connection, or the attempt to make it, which all operations share.
type Connection = Shared<BoxFuture<'static, RedisResult<MultiplexedConnection>>>;

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's own implementation shows the password.
        f.debug_struct("Redis")
            .field("address", &self.address())
            .finish()
    }
}

impl Redis {
    /// Connects to the Redis at a URL, `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, and checks that it replies. With
    /// `rediss://`, the connection uses TLS and the machine's root certificates.
    ///
    /// # Errors
    ///
    /// If the URL is not valid, or Redis does not reply. The error names the host and the port, but never the password.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        // The errors of this never contain the password.
        let info = url
            .into_connection_info()
            .context("the URL of the Redis store is not valid")?;
        if let ::redis::ConnectionAddr::Unix(_) = info.addr() {
            bail!("the URL of the Redis store must begin with redis:// or rediss://");
        }
        let client = Client::open(info).context("the URL of the Redis store is not valid")?;
        let store = Self {
            connection: Mutex::new(connection(&client)),
            client,
        };
        let pong: Result<String, _> = store
            .run(|mut redis| async move { redis.ping().await })
            .await;
        match pong {
            Ok(_) => Ok(store),
            Err(error) => bail!("cannot use the Redis store at {}: {error}", store.address()),
        }
    }

    /// Host and port.
    fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    fn current(&self) -> MutexGuard<'_, Connection> {
        // It is replaced in one step, so a panic leaves it consistent.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation. If it fails, the connection is not used again: it may be broken, or lead to a server that has become
    /// a replica or is still loading.
    async fn run<T, F: Future<Output = RedisResult<T>>>(
        &self,
        operation: impl FnOnce(MultiplexedConnection) -> F,
    ) -> RedisResult<T> {
        let used = self.current().clone();
        let result = match used.clone().await {
            Ok(connection) => operation(connection).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            let mut current = self.current();
            if current.ptr_eq(&used) {
                *current = connection(&self.client);
            }
        }
        result
    }

    /// Runs an operation that changes nothing. If the connection is broken, it retries once on a new one, so that a restart
    /// of Redis since the last operation is not an error.
    async fn read<T, F: Future<Output = RedisResult<T>>>(
        &self,
        operation: impl Fn(MultiplexedConnection) -> F,
    ) -> Result<T, Error> {
        let mut result = self.run(&operation).await;
        if let Err(error) = &result
            && error.is_io_error()
            && !error.is_timeout()
        {
            result = self.run(&operation).await;
        }
        result.map_err(error)
    }
}

/// A new connection, which is made when it is first awaited.
fn connection(client: &Client) -> Connection {
    let client = client.clone();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    async move {
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
    .boxed()
    .shared()
}

#[async_trait]
impl Store for Redis {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(|mut redis| async move { redis.get(key).await })
            .await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.run(|mut redis| async move { redis.set(key, value).await })
            .await
            .map_err(error)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.run(|mut redis| async move { redis.del(key).await })
            .await
            .map_err(error)
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        // A scan may return a key twice.
        let keys: BTreeSet<Vec<u8>> = self
            .read(|mut redis| async move {
                let options = ScanOptions::default().with_count(SCAN_STEP);
                let mut scan = redis.scan_options(options).await?;
                let mut keys = BTreeSet::new();
                while let Some(key) = scan.next_item().await {
                    keys.insert(key?);
                }
                Ok(keys)
            })
            .await?;
        Ok(keys
            .into_iter()
            .filter_map(|key| String::from_utf8(key).ok())
            .collect())
    }

    async fn swap(&self, key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool, Error> {
        self.run(|mut redis| async move {
            let mut swap = SWAP.key(key);
            swap.arg(new);
            if let Some(old) = old {
                swap.arg(old);
            }
            swap.invoke_async(&mut redis).await
        })
        .await
        .map_err(error)
    }

    async fn increment(&self, key: &str, delta: i64, numbers: Numbers) -> Result<i64, Error> {
        // INCRBY writes numbers only as text. If the swap fails, another change was applied: this makes progress.
        loop {
            let before = self.get(key).await?;
            let (sum, after) = numbers.add(before.as_deref(), delta)?;
            if self.swap(key, before.as_deref(), &after).await? {
                return Ok(sum);
            }
        }
    }

    fn numbers(&self) -> Numbers {
        Numbers::Text
    }
}

fn error(error: RedisError) -> Error {
    Error(format!("Redis: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::process::Signal;

    use super::super::support::redis_server::RedisServer;
    use super::*;

    #[tokio::test]
    async fn no_increment_and_no_swap_is_lost_between_hosts() {
        let Some(server) = RedisServer::start().await else {
            return;
        };
        let one = Redis::connect(&server.url()).await.unwrap();
        let two = Redis::connect(&server.url()).await.unwrap();
        for (key, numbers) in [("text", Numbers::Text), ("bytes", Numbers::Bytes)] {
            let increments = (0..100).map(|turn| {
                let store = if turn % 2 == 0 { &one } else { &two };
                store.increment(key, 1, numbers)
            });
            let mut sums: Vec<_> = futures_util::future::join_all(increments)
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
            sums.sort_unstable();
            assert_eq!(sums, (1..=100).collect::<Vec<_>>());
        }
        let values: Vec<_> = (0..100_u8).map(|turn| [turn]).collect();
        let swaps = values.iter().map(|value| {
            let store = if value[0] % 2 == 0 { &one } else { &two };
            store.swap("swapped", None, value)
        });
        let answers = futures_util::future::join_all(swaps).await;
        let winners: Vec<_> = (0..100_u8)
            .zip(answers)
            .filter_map(|(turn, answer)| answer.unwrap().then_some(turn))
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(one.get("swapped").await, Ok(Some(winners)));
    }

    #[tokio::test]
    async fn the_keys_are_those_of_the_database_and_values_are_any_bytes() {
        let Some(server) = RedisServer::start().await else {
            return;
        };
        let store = Redis::connect(&server.url()).await.unwrap();
        let client = Client::open(server.url()).unwrap();
        let mut spin = client.get_multiplexed_async_connection().await.unwrap();
        let () = spin.set("event/door", b"\xff\x00\r\n").await.unwrap();
        let () = spin.set(b"\xff", "no name for a guest").await.unwrap();
        let bytes = b"\xff\x00\r\n";
        assert_eq!(store.get("event/door").await, Ok(Some(bytes.to_vec())));
        assert_eq!(store.keys().await, Ok(vec!["event/door".into()]));
        assert_eq!(store.swap("event/door", Some(bytes), b"").await, Ok(true));
        let value: Vec<u8> = spin.get("event/door").await.unwrap();
        assert_eq!(value, b"");
        assert_eq!(store.swap("event/door", None, b"1").await, Ok(false));
        assert_eq!(store.swap("event/door", Some(b""), b"1").await, Ok(true));
    }

    #[tokio::test]
    async fn keys_are_whole_where_a_scan_has_many_steps() {
        let Some(server) = RedisServer::start().await else {
            return;
        };
        let store = Redis::connect(&server.url()).await.unwrap();
        let mut expected: Vec<_> = (0..2500).map(|number| format!("key {number}")).collect();
        let sets = expected.iter().map(|key| store.set(key, b"1"));
        for result in futures_util::future::join_all(sets).await {
            result.unwrap();
        }
        expected.sort_unstable();
        assert_eq!(store.keys().await, Ok(expected));
    }

    #[tokio::test]
    async fn it_works_again_as_soon_as_redis_does() {
        let Some(mut server) = RedisServer::start().await else {
            return;
        };
        let store = Redis::connect(&server.url()).await.unwrap();
        store.set("a", b"1").await.unwrap();
        // A restart between two operations is not noticed.
        server.stop().await;
        server.start_again().await;
        assert_eq!(store.get("a").await, Ok(Some(b"1".to_vec())));

        server.stop().await;
        assert!(store.get("a").await.is_err());
        assert!(store.swap("a", Some(b"1"), b"2").await.is_err());
        assert!(store.increment("a", 1, Numbers::Text).await.is_err());
        assert!(store.keys().await.is_err());
        server.start_again().await;
        assert_eq!(store.swap("a", Some(b"1"), b"2").await, Ok(true));
    }

    #[tokio::test]
    async fn a_redis_that_does_not_answer_is_an_error_soon_and_no_longer_than_it_lasts() {
        let Some(server) = RedisServer::start().await else {
            return;
        };
        let store = Redis::connect(&server.url()).await.unwrap();
        server.signal(Signal::STOP);
        let began = Instant::now();
        let reads = (0..20).map(|_| store.get("a"));
        for result in futures_util::future::join_all(reads).await {
            assert!(result.is_err());
        }
        assert!(store.get("a").await.is_err(), "on a new connection");
        let most = 2 * (CONNECTION_TIMEOUT + RESPONSE_TIMEOUT);
        assert!(began.elapsed() < most, "{:?}", began.elapsed());
        server.signal(Signal::CONT);
        assert_eq!(store.get("a").await, Ok(None));
    }

    #[tokio::test]
    async fn a_password_is_not_shown() {
        let url = "redis://somebody:secret@127.0.0.1:1/0";
        let error = Redis::connect(url).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("127.0.0.1:1"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        for url in [
            "redis://somebody:secret@",
            "redis://u:secret@host:port/",
            "unix:///tmp/x",
        ] {
            let error = format!("{:#}", Redis::connect(url).await.unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
