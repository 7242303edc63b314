//! The simulated world: which faults it injects, and what stays possible under them.

use std::time::Duration;

use http::{Request, StatusCode};
use loopless_host::component;
use loopless_host::simulation::{
    Database, Exchange, Faults, Host, Lost, Outcome, Settings, Simulation, World,
};
use loopless_host::store::Quirks;
use tokio::task::JoinHandle;

const EVENT: &str = "event/door";

fn simulation() -> Simulation {
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    Simulation::load(component::build(project).unwrap()).unwrap()
}

/// A healthy database, and a host on it.
fn alone(world: &World) -> (Database, Host) {
    let database = Database::new(world, Faults::default());
    let host = world.host("A", &database, Settings::default()).unwrap();
    (database, host)
}

/// Sends a request in a task of its own.
fn spawn_get(host: &Host, path: &'static str) -> JoinHandle<Exchange> {
    let host = host.clone();
    tokio::spawn(async move { get(&host, path).await })
}

async fn put(host: &Host, set: bool) -> Exchange {
    let body = format!("{{\"set\": {set}}}");
    let request = Request::put("/events/door").body(body).unwrap();
    host.send("client", request).await
}

async fn get(host: &Host, path: &str) -> Exchange {
    let request = Request::get(path).body(String::new()).unwrap();
    host.send("client", request).await
}

fn status(exchange: &Exchange) -> StatusCode {
    exchange.result.as_ref().unwrap().status()
}

fn is_set(exchange: &Exchange) -> bool {
    let response = exchange.result.as_ref().unwrap();
    let event: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    event["set"].as_bool().unwrap()
}

#[test]
fn a_wait_of_ten_minutes_takes_ten_minutes_of_virtual_time() {
    let run = simulation().run(0, async |world| {
        let database = Database::new(&world, Faults::default());
        let mut settings = Settings::default();
        let most = ("wait_max_seconds".to_owned(), "600".to_owned());
        settings.variables.extend([most]);
        let host = world.host("A", &database, settings).unwrap();
        get(&host, "/events/door/wait?timeout=600").await
    });
    let waited = run.unwrap();
    assert_eq!(status(&waited), StatusCode::REQUEST_TIMEOUT);
    let took = waited.ended.at - waited.sent.at;
    let ten_minutes = Duration::from_secs(600);
    assert!(took >= ten_minutes && took < ten_minutes + Duration::from_millis(101));
}

#[test]
fn a_call_that_fails_is_not_done_and_a_call_whose_answer_is_lost_is() {
    let simulation = simulation();
    for is_done in [false, true] {
        let run = simulation.run(0, async |world| {
            let (database, host) = alone(&world);
            database.set_faults(Faults {
                failing: if is_done { 0.0 } else { 1.0 },
                lost_answers: if is_done { 1.0 } else { 0.0 },
                ..Faults::default()
            });
            let changed = put(&host, true).await;
            assert_eq!(status(&changed), StatusCode::SERVICE_UNAVAILABLE);
            database.calls()
        });
        let calls = run.unwrap();
        assert!(!calls.is_empty());
        for call in calls {
            assert_eq!(call.applied.is_some(), is_done);
            assert_eq!(call.outcome, Outcome::Failed);
            assert!(call.answered.is_some());
        }
    }
}

#[test]
fn no_change_is_lost_with_the_answer_to_its_swap() {
    let run = simulation().run(0, async |world| {
        let (database, host) = alone(&world);
        let waiting = spawn_get(&host, "/events/door/wait?timeout=5");
        world.sleep(Duration::from_millis(20)).await;
        let mut tries = 0;
        database.set_faults(Faults {
            lost_answers: 0.3,
            ..Faults::default()
        });
        while status(&put(&host, true).await) != StatusCode::OK {
            tries += 1;
            assert!(tries < 100);
        }
        let number: u64 = String::from_utf8(database.value(EVENT).unwrap())
            .unwrap()
            .parse()
            .unwrap();
        // The generation, below the tag.
        assert_eq!(number % (1 << 40), 1);
        status(&waiting.await.unwrap())
    });
    assert_eq!(run.unwrap(), StatusCode::OK);
}

#[test]
fn a_host_that_crashed_refuses_connections_and_loses_nothing_by_a_restart() {
    let run = simulation().run(0, async |world| {
        let (_database, host) = alone(&world);
        assert_eq!(status(&put(&host, true).await), StatusCode::OK);
        let waiting = spawn_get(&host, "/events/other/wait?timeout=20");
        world.sleep(Duration::from_secs(1)).await;
        host.crash();
        assert_eq!(waiting.await.unwrap().result.unwrap_err(), Lost::Broken);
        let refused = get(&host, "/events/door").await;
        assert_eq!(refused.result.unwrap_err(), Lost::Refused);
        host.restart().unwrap();
        assert!(is_set(&get(&host, "/events/door").await));
        assert_eq!(
            host.lines(),
            [],
            "a crash is not a failure of the component"
        );
    });
    run.unwrap();
}

#[test]
fn an_instance_that_dies_fails_its_requests_and_no_others() {
    let run = simulation().run(0, async |world| {
        let (_database, host) = alone(&world);
        let waiting = [(); 2].map(|()| spawn_get(&host, "/events/door/wait?timeout=20"));
        world.sleep(Duration::from_secs(1)).await;
        assert!(host.kill_an_instance());
        put(&host, true).await;
        let mut lost = 0;
        for waiting in waiting {
            match waiting.await.unwrap().result {
                Ok(response) => assert_eq!(response.status(), StatusCode::OK),
                Err(error) => {
                    assert_eq!(error, Lost::Broken);
                    lost += 1;
                }
            }
        }
        // The waits came at the same moment, so each had an instance of its own.
        assert_eq!(lost, 1);
    });
    run.unwrap();
}

#[test]
fn a_wait_on_a_replica_ends_when_the_replica_has_the_set() {
    let run = simulation().run(0, async |world| {
        let database = Database::new(&world, Faults::default());
        let near = world.host("A", &database, Settings::default()).unwrap();
        let lag = Duration::from_millis(400);
        let far = Settings {
            lag,
            quirks: Quirks::SpinRedis,
            ..Settings::default()
        };
        let far = world.host("B", &database, far).unwrap();
        assert!(!is_set(&get(&far, "/events/door").await));
        let waiting = spawn_get(&far, "/events/door/wait?timeout=5");
        world.sleep(Duration::from_millis(100)).await;
        let changed = put(&near, true).await;
        assert!(is_set(&get(&near, "/events/door").await));
        assert!(!is_set(&get(&far, "/events/door").await), "not yet");
        let woken = waiting.await.unwrap();
        assert_eq!(status(&woken), StatusCode::OK);
        let after = woken.ended.at - changed.ended.at;
        assert!(
            after >= lag && after < lag + Duration::from_millis(130),
            "{after:?}"
        );
    });
    run.unwrap();
}

#[test]
fn a_host_reads_its_own_writes_even_from_a_replica_that_lags() {
    let run = simulation().run(0, async |world| {
        let database = Database::new(&world, Faults::default());
        let settings = Settings {
            lag: Duration::from_secs(1),
            ..Settings::default()
        };
        let host = world.host("A", &database, settings).unwrap();
        assert!(is_set(&put(&host, true).await));
        assert!(is_set(&get(&host, "/events/door").await));
    });
    run.unwrap();
}
