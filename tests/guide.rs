//! The guides say what the code does.

use http::{Request, StatusCode};
use loopless::promises::{Build, PROMISES};
use loopless_host::Harness;
use loopless_host::store::{Memory, Observed, Operation};

const GUIDE: &str = include_str!("../src/guide/deployment.md");

#[test]
fn its_table_of_promises_is_the_codes() {
    let builds = [
        Build::SPIN,
        Build::WASI_0_2,
        Build::AKAMAI_FUNCTIONS,
        Build::FERMYON_CLOUD,
    ];
    let rows = PROMISES.iter().map(|promise| {
        let kept = builds.map(|build| if build.keeps(promise) { "yes" } else { "no" });
        format!("| {} | {} |\n", promise.text, kept.join(" | "))
    });
    let head = "| | Spin 4.1, also with SQLite or Redis; Akamai Functions with Redis | Fermyon Cloud and Spin 2 and 3 with SQLite; Spin 2.4 to 3 with Redis | Akamai Functions | Fermyon Cloud, Spin 2.3 to 3 |\n| --- | --- | --- | --- | --- |\n";
    let table = format!("{head}{}\n", rows.collect::<String>());
    assert!(
        GUIDE.contains(&table),
        "src/guide/deployment.md should have this table:\n{table}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_a_cloud_costs_what_it_says() {
    for manifest in ["akamai-functions", "fermyon-cloud"] {
        let project = env!("CARGO_MANIFEST_DIR");
        let store = Observed::new(Memory::default());
        let host = Harness::builder()
            .manifest(format!("{project}/deploy/{manifest}.toml"))
            .store(store.clone());
        let host = host.start().await.unwrap();
        let waited = host.get("/events/door/wait").await;
        assert_eq!(waited.status(), StatusCode::REQUEST_TIMEOUT);
        let waiting = store.count(Operation::Get);
        println!("{manifest}: {waiting} reads in a wait of 25 s");
        assert!((90..=100).contains(&waiting), "{manifest}: {waiting} reads");

        let set = Request::put("/events/door")
            .body("{\"set\": true}")
            .unwrap();
        assert_eq!(host.send(set).await.status(), StatusCode::OK);
        let changing = store.count(Operation::Get) - waiting;
        assert_eq!(
            (changing, store.count(Operation::Set)),
            (1, 1),
            "{manifest}"
        );
    }
}
