//! The builds that keep their events in a Redis: what goes wrong with it is a clear error, and nothing is overwritten.

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use http::{Response, StatusCode};
use loopless_host::Harness;
use loopless_host::console::Output;
use loopless_host::redis::{Connection, Error, Network, Server};
use loopless_host::store::{self, Quirks};
use redis::aio::MultiplexedConnection;
use support::shared::redis_server::RedisServer;
use support::{Build, json, problem, send};

const BUILDS: [Build; 2] = [Build::AKAMAI_FUNCTIONS_REDIS, Build::SPIN_3_REDIS];

async fn on(build: Build, url: &str) -> Harness {
    let builder = build.builder().redis(Network);
    builder.variable("redis_url", url).start().await.unwrap()
}

/// A connection of the test's own.
async fn client(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn asked<T: redis::FromRedisValue>(
    client: &mut MultiplexedConnection,
    command: &[&str],
) -> T {
    let mut asked = redis::cmd(command[0]);
    asked.arg(&command[1..]);
    asked.query_async(client).await.unwrap()
}

async fn set(host: &Harness, set: bool) -> Response<bytes::Bytes> {
    let body = format!("{{\"set\": {set}}}");
    send(host, "PUT", "/events/door", &[], &body).await
}

/// Every way to ask for the event is 503 and says why, and so does the log: once an instance.
async fn is_misused(build: Build, host: &Harness, why: &[&str]) {
    for response in [
        host.get("/events/door").await,
        host.get("/events/door/wait?timeout=0").await,
        set(host, true).await,
        set(host, false).await,
    ] {
        let said = problem(&response, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.iter().all(|part| said.contains(part)), "{said}");
    }
    let log = host.printed(Output::Stderr);
    assert!(why.iter().all(|part| log[0].contains(part)), "{log:?}");
    assert_eq!(log.len() == 1, build.has_wasi_0_3(), "{log:?}");
}

#[tokio::test]
async fn without_an_address_the_errors_name_the_variable() {
    for build in BUILDS {
        is_misused(build, &on(build, "").await, &["redis_url", "redis://"]).await;
        let none = Harness::builder().component(build.path());
        is_misused(build, &none.start().await.unwrap(), &["redis_url"]).await;
    }
}

#[tokio::test]
async fn an_address_that_is_not_granted_is_503_and_the_log_says_where_to_name_it() {
    let directory = tempfile::tempdir().unwrap();
    for build in BUILDS {
        let manifest = directory.path().join("spin.toml");
        let component = build.path();
        let text = format!(
            "spin_manifest_version = 2\n\
             [application]\nname = \"loopless\"\n\
             [[trigger.http]]\nroute = \"/...\"\ncomponent = \"loopless\"\n\
             [component.loopless]\nsource = {component:?}\n\
             allowed_outbound_hosts = [\"redis://localhost:6379\"]\n\
             variables = {{ redis_url = \"redis://localhost:6380\" }}\n"
        );
        std::fs::write(&manifest, text).unwrap();
        let host = Harness::builder().manifest(manifest).start().await.unwrap();
        is_misused(build, &host, &["redis_url", "allowed_outbound_hosts"]).await;
    }
}

#[tokio::test]
async fn no_more_connections_is_503_and_the_log_says_what_to_raise() {
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
        is_misused(build, &host, &["max_connections"]).await;
    }
}

#[tokio::test]
async fn a_value_that_no_build_writes_is_an_error_and_left_alone() {
    let Some(server) = RedisServer::start().await else {
        return;
    };
    let mut client = client(&server).await;
    for build in BUILDS {
        let () = asked(&mut client, &["FLUSHALL"]).await;
        let () = asked(&mut client, &["HSET", "event/door", "field", "7"]).await;
        let host = on(build, &server.url()).await;
        let why = ["event/door", "WRONGTYPE", "delete that key"];
        is_misused(build, &host, &why).await;
        // Others go on, over the same connection.
        let gate = send(&host, "PUT", "/events/gate", &[], "{\"set\": true}").await;
        assert_eq!(gate.status(), StatusCode::OK);
        let field: String = asked(&mut client, &["HGET", "event/door", "field"]).await;
        assert_eq!(field, "7");

        for value in ["7.3f9c2b8a11d04e55", "seven"] {
            let () = asked(&mut client, &["DEL", "event/door"]).await;
            let () = asked(&mut client, &["SET", "event/door", value]).await;
            let detail = problem(&set(&host, true).await, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(detail.contains("event/door"), "{detail}");
            let kept: String = asked(&mut client, &["GET", "event/door"]).await;
            assert_eq!(kept, value);
        }
    }
}

#[tokio::test]
async fn a_redis_that_refuses_is_503_in_its_own_words_without_the_password() {
    let Some(server) = RedisServer::start().await else {
        return;
    };
    let url = format!("redis://somebody:s3cret@127.0.0.1:{}/1", server.port());
    for build in BUILDS {
        let host = on(build, &url).await;
        let detail = problem(&set(&host, true).await, StatusCode::SERVICE_UNAVAILABLE);
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
    let mut client = client(&server).await;
    let connections = async |client: &mut MultiplexedConnection| {
        let list: String = asked(client, &["CLIENT", "LIST", "TYPE", "normal"]).await;
        list.lines().count() - 1
    };
    for build in BUILDS {
        let host = on(build, &server.url()).await;
        for is_set in [true, false, true, false] {
            assert_eq!(set(&host, is_set).await.status(), StatusCode::OK);
            let open = connections(&mut client).await;
            let expected = usize::from(build.has_wasi_0_3());
            // With WASI 0.2, it ends with the request, and Redis sees that soon.
            assert!(open == expected || !build.has_wasi_0_3(), "{open}");
            let () = asked(&mut client, &["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
        assert_eq!(json(&host.get("/events/door").await)["generation"], 4);
        let () = asked(&mut client, &["DEL", "event/door"]).await;
    }
}

#[tokio::test]
async fn spins_key_value_store_in_the_same_redis_has_the_same_events() {
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
            let state = set(writer, generation % 2 == 1).await;
            assert_eq!(state.status(), StatusCode::OK);
            let state = json(&reader.get("/events/door").await);
            assert_eq!(state["generation"], generation);
        }
        let events = json(&host.get("/events").await);
        assert_eq!(events, json(&key_value.get("/events").await));
    }
}
