//! The deployment guide agrees with the code.

use http::StatusCode;
use loopless::promises::{Build, PROMISES};
use loopless_host::Harness;
use loopless_host::store::{Memory, Observed, Operation};

use crate::support::set;

const GUIDE: &str = include_str!("../../src/guide/deployment.md");

#[test]
fn the_table_of_promises_is_the_list_in_the_code() {
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
async fn a_wait_on_a_cloud_makes_as_many_reads_as_the_guide_says() {
    assert!(GUIDE.contains("A wait of 25 s makes 94 reads"));
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
        // The intervals have jitter.
        assert!(waiting.abs_diff(94) <= 6, "{manifest}: {waiting} reads");

        set(&host, "door", true).await;
        let changing = store.count(Operation::Get) - waiting;
        let writes = store.count(Operation::Set);
        assert_eq!((changing, writes), (1, 1), "{manifest}");
    }
}
