//! The harness provides SQLite and Redis to any component: here, to components without events, for WASI 0.3 and 0.2.

use http::StatusCode;
use loopless_host::platform::{Interface, Platform};
use loopless_host::{Builder, Harness};
use redis::AsyncCommands;

use crate::support::shared::redis_server::RedisServer;
use crate::support::text;

const GUESTS: [&str; 2] = ["tests/databases/spin.toml", "tests/spin2/spin.toml"];

fn guest(manifest: &str) -> Builder {
    let project = env!("CARGO_MANIFEST_DIR");
    Harness::builder().manifest(format!("{project}/{manifest}"))
}

#[tokio::test]
async fn a_component_uses_every_function_of_spins_sqlite_interface() {
    let host = guest(GUESTS[0]).start().await.unwrap();
    let said = host.get("/sqlite").await;
    assert_eq!(text(&said), "2 1 id,name 1:ada 2:ben");
    // The table exists now.
    let said = host.get("/sqlite").await;
    assert_eq!(said.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&said).contains("already exists"), "{}", text(&said));

    let host = guest(GUESTS[1]).start().await.unwrap();
    let said = host.get("/sqlite").await;
    assert_eq!(text(&said), "id,name 1:ada 2:ben\n");
}

#[tokio::test]
async fn a_component_uses_every_function_of_spins_redis_interface() {
    let Some(server) = RedisServer::start().await else {
        return;
    };
    let mut client = server.client().await;
    let values = "[Binary([97, 100, 97]), Nil, Binary([50])]";
    let said = format!("ada (1, 2) 2 1 [\"ada\"] {values} 2 [Status(\"OK\")] [Int64(-6)]");
    for guest in GUESTS.map(guest) {
        let address = format!("127.0.0.1:{}", server.port());
        let host = guest.variable("host", address).start().await.unwrap();
        let path = format!("/redis?{}", server.url());
        // The SDKs' bindings print values with and without the name of the type.
        let answer = host.get(&path).await;
        let answer = text(&answer).replace("RedisResult::", "");
        assert_eq!(answer.trim_end(), said);
        let keys: Vec<String> = client.keys("*").await.unwrap();
        assert_eq!(keys, ["visits"]);

        // For a value of another type, the error is Redis'.
        let () = client.del("visits").await.unwrap();
        let () = client.sadd("visits", "ada").await.unwrap();
        let rejected = host.get(&path).await;
        assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(text(&rejected).contains("WRONGTYPE"), "{}", text(&rejected));
        let () = client.flushall().await.unwrap();
    }
}

#[tokio::test]
async fn a_component_connects_only_to_what_its_manifest_grants() {
    for manifest in GUESTS {
        let host = guest(manifest).start().await.unwrap();
        for elsewhere in ["redis://127.0.0.1:1", "rediss://localhost:6379", "no-url:x"] {
            let rejected = host.get(&format!("/redis?{elsewhere}")).await;
            assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(text(&rejected).contains("InvalidAddress"), "{elsewhere}");
        }
        // This address is granted. No server listens on it.
        let host = guest(manifest).variable("host", "127.0.0.1:1");
        let host = host.start().await.unwrap();
        let refused = host.get("/redis?redis://127.0.0.1:1").await;
        assert!(text(&refused).contains("refused"), "{}", text(&refused));
    }
    let wrong = guest(GUESTS[0]).variable("host", "localhost/path").start();
    let error = format!("{:#}", wrong.await.unwrap_err());
    assert!(error.contains("allowed_outbound_hosts"), "{error}");
    assert!(error.contains("redis://localhost/path"), "{error}");
}

#[tokio::test]
async fn on_a_host_without_redis_a_component_does_not_start_and_the_error_names_the_import() {
    for manifest in GUESTS {
        let platform = Platform {
            lacks: vec![Interface::Redis],
            ..Platform::spin()
        };
        let host = guest(manifest).platform(platform);
        let error = format!("{:#}", host.start().await.unwrap_err());
        assert!(error.contains("spin") && error.contains("redis"), "{error}");
    }
}
