//! The builds that keep their events in a Redis. If it cannot be used, the error says why, and no value is overwritten.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use loopless_host::Harness;
use loopless_host::console::Output;
use loopless_host::redis::{Connection, Error, Network, Server};
use loopless_host::store::{self, Quirks};
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use crate::support::shared::redis_server::RedisServer;
use crate::support::{Build, has_logged_once, is_unavailable, json, problem, set, try_set};

const BUILDS: [Build; 2] = [Build::AKAMAI_FUNCTIONS_REDIS, Build::SPIN_3_REDIS];

async fn on(build: Build, url: &str) -> Harness {
    let builder = build.builder().redis(Network);
    builder.variable("redis_url", url).start().await.unwrap()
}

async fn asked<T: redis::FromRedisValue>(
    client: &mut MultiplexedConnection,
    command: &[&str],
) -> T {
    let mut asked = redis::cmd(command[0]);
    asked.arg(&command[1..]);
    asked.query_async(client).await.unwrap()
}

/// Checks that every request for the event `door` is 503 with these parts in its problem and in the log.
async fn cannot_be_used(host: &Harness, why: &[&str]) {
    is_unavailable(host, why).await;
    has_logged_once(host, why);
}

#[tokio::test]
async fn without_an_address_the_errors_name_the_variable() {
    for build in BUILDS {
        cannot_be_used(&on(build, "").await, &["redis_url", "redis://"]).await;
        let unset = Harness::builder().component(build.path());
        cannot_be_used(&unset.start().await.unwrap(), &["redis_url"]).await;
    }
}

#[tokio::test]
async fn an_address_that_is_not_granted_is_503_and_the_log_names_the_key_of_the_manifest() {
    for build in BUILDS {
        let host = build.with_manifest(
            "allowed_outbound_hosts = [\"redis://localhost:6379\"]\n\
             variables = { redis_url = \"redis://localhost:6380\" }",
        );
        cannot_be_used(&host.await, &["redis_url", "allowed_outbound_hosts"]).await;
    }
}

#[tokio::test]
async fn too_many_connections_are_503_and_the_log_names_the_limit() {
    #[derive(Debug)]
    struct Full;

    #[async_trait]
    impl Server for Full {
        async fn connect(&self, _: &str) -> Result<Arc<dyn Connection>, Error> {
            Err(Error::TooManyConnections)
        }
    }

    for build in BUILDS {
        let host = build.builder().redis(Full).start().await.unwrap();
        cannot_be_used(&host, &["max_connections"]).await;
    }
}

#[tokio::test]
async fn a_value_that_no_build_writes_is_an_error_and_is_not_overwritten() {
    let Some(server) = RedisServer::start().await else {
        return;
    };
    let mut client = server.client().await;
    for build in BUILDS {
        let () = asked(&mut client, &["FLUSHALL"]).await;
        let () = asked(&mut client, &["HSET", "event/door", "field", "7"]).await;
        let host = on(build, &server.url()).await;
        cannot_be_used(&host, &["event/door", "WRONGTYPE", "delete that key"]).await;
        // Other events can be used, over the same connection.
        set(&host, "gate", true).await;
        let field: String = asked(&mut client, &["HGET", "event/door", "field"]).await;
        assert_eq!(field, "7");

        for value in ["7.3f9c2b8a11d04e55", "seven"] {
            let () = asked(&mut client, &["DEL", "event/door"]).await;
            let () = asked(&mut client, &["SET", "event/door", value]).await;
            let rejected = try_set(&host, "door", true).await;
            let detail = problem(&rejected, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(detail.contains("event/door"), "{detail}");
            let kept: String = asked(&mut client, &["GET", "event/door"]).await;
            assert_eq!(kept, value);
        }
    }
}

#[tokio::test]
async fn a_redis_that_rejects_the_password_is_503_and_nothing_contains_the_password() {
    let Some(server) = RedisServer::start().await else {
        return;
    };
    let url = format!("redis://somebody:s3cret@127.0.0.1:{}/1", server.port());
    for build in BUILDS {
        let host = on(build, &url).await;
        let rejected = try_set(&host, "door", true).await;
        let detail = problem(&rejected, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!detail.contains("s3cret"), "{detail}");
        let log = host.printed(Output::Stderr).join("\n");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[tokio::test]
async fn an_instance_has_one_connection_and_opens_another_when_it_breaks() {
    let Some(server) = RedisServer::start().await else {
        return;
    };
    let mut client = server.client().await;
    for build in BUILDS {
        let host = on(build, &server.url()).await;
        for is_set in [true, false, true, false] {
            set(&host, "door", is_set).await;
            // With WASI 0.2, the connection ends with the request, and Redis notices that a moment later.
            let expected = usize::from(build.has_wasi_0_3());
            let has_expected = async {
                loop {
                    let command = ["CLIENT", "LIST", "TYPE", "normal"];
                    let list: String = asked(&mut client, &command).await;
                    // One line is this client's.
                    if list.lines().count() == 1 + expected {
                        return;
                    }
                }
            };
            let waited = timeout(Duration::from_secs(60), has_expected).await;
            waited.expect("another number of connections");
            let () = asked(&mut client, &["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
        assert_eq!(json(&host.get("/events/door").await)["generation"], 4);
        let () = asked(&mut client, &["DEL", "event/door"]).await;
    }
}

#[tokio::test]
async fn the_build_with_spins_key_value_store_in_the_same_redis_has_the_same_events() {
    let Some(server) = RedisServer::start().await else {
        return;
    };
    let key_value = store::Redis::connect(&server.url()).await.unwrap();
    let key_value = Build::SPIN.builder().store(key_value);
    let key_value = key_value.quirks(Quirks::SpinRedis).start().await.unwrap();
    let mut generation = 0;
    for build in BUILDS {
        let host = on(build, &server.url()).await;
        for (writer, reader) in [(&host, &key_value), (&key_value, &host)] {
            generation += 1;
            set(writer, "door", generation % 2 == 1).await;
            let state = json(&reader.get("/events/door").await);
            assert_eq!(state["generation"], generation);
        }
        let events = json(&host.get("/events").await);
        assert_eq!(events, json(&key_value.get("/events").await));
    }
}
