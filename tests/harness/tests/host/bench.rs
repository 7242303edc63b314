//! `loopless-host bench`: the shortest possible run measures everything once. The figures depend on the machine, and are not
//! tested.

use serde_json::Value;
use tempfile::tempdir;

use crate::shared::redis_server::RedisServer;
use crate::support::{Host, Outcome, component};

/// Runs a bench that is as short as possible.
async fn bench(arguments: &[&str]) -> Outcome {
    let mut all = vec!["bench", "--time", "50ms", "--rounds", "1"];
    all.extend(["--connections", "1,2", "--waits", "2", "--ages", "50ms"]);
    all.extend(arguments);
    Outcome::of(&all).await
}

/// The rows of a section in a report.
fn rows<'a>(report: &'a Value, section: &str) -> Vec<&'a Value> {
    let rows = report["rows"].as_array().unwrap().iter();
    rows.filter(|row| row["section"] == section).collect()
}

fn figure(row: &Value, name: &str) -> f64 {
    let figure = row["figures"][name].as_f64();
    figure.unwrap_or_else(|| panic!("no {name} in {row}"))
}

#[tokio::test]
async fn a_bench_measures_its_own_hosts_beside_baselines_and_reports_every_figure() {
    let directory = tempdir().unwrap();
    let original = Host::in_memory(&[]).await;
    let json = directory.path().join("bench.json");
    let (component, plots) = (component(), directory.path().join("plots"));
    let outcome = bench(&[
        "--component",
        component.to_str().unwrap(),
        // The command only runs. A host answers in the place of the original.
        "--original",
        "sleep 600",
        "--original-url",
        &original.url,
        "--json",
        json.to_str().unwrap(),
        "--plots",
        plots.to_str().unwrap(),
    ])
    .await;
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();

    // Two stores, three requests and a static route, and two baselines, each over one and two connections.
    let requests = rows(&report, "requests");
    assert_eq!(requests.len(), (2 * 4 + 2) * 2);
    for row in &requests {
        assert!(figure(row, "requests_per_second") > 0.0);
        assert!(figure(row, "p50_ms") <= figure(row, "p99_ms"));
        assert!(figure(row, "times_hyper") > 0.0);
        assert!(figure(row, "times_original") > 0.0);
        let is_own = ["memory", "SQLite"].contains(&row["server"].as_str().unwrap());
        assert_eq!(!row["figures"]["times_static"].is_null(), is_own, "{row}");
    }
    let hyper = requests.iter().filter(|row| row["server"] == "hyper");
    for row in hyper {
        assert_eq!(figure(row, "times_hyper"), 1.0);
    }
    // A wake across processes needs a store that they share, which one in memory is not.
    assert_eq!(rows(&report, "wakes").len(), 2 + 3);
    // In memory, waits on one event and on an event each. In SQLite, on one event.
    let waits = rows(&report, "waits");
    assert_eq!(waits.len(), 2 + 1);
    for row in waits {
        assert_eq!(figure(row, "refused"), 0.0);
        assert!(figure(row, "reads_per_second") > 0.0);
        assert!(figure(row, "all_ms") > 0.0);
    }
    assert_eq!(rows(&report, "starts").len(), 4);

    let lines: Vec<_> = outcome.stdout.lines().collect();
    let tables = lines.iter().filter(|line| line.starts_with("| server"));
    assert_eq!(tables.count(), 4, "{}", outcome.stdout);
    let rows = report["rows"].as_array().unwrap().len();
    // Each of the four tables has a head and a line below it, and an empty line is between two tables.
    assert_eq!(lines.len(), rows + 4 * 2 + 3, "{}", outcome.stdout);
    assert!(!outcome.stdout.contains('\x1b'), "no colours in a pipe");
    for plot in ["bench-requests.svg", "bench-waits.svg"] {
        let plot = std::fs::read_to_string(plots.join(plot)).unwrap();
        assert!(plot.starts_with("<svg") && plot.contains("polyline"));
    }
}

#[tokio::test]
async fn a_bench_compares_the_stores_and_the_builds_that_connect_to_them() {
    let Some(redis) = RedisServer::start().await else {
        return;
    };
    let directory = tempdir().unwrap();
    let json = directory.path().join("bench.json");
    let file = format!("sqlite:{}", directory.path().join("store.db").display());
    let outcome = bench(&[
        "--section",
        "waits",
        "--store",
        "memory",
        "--store",
        &file,
        "--store",
        &redis.url(),
        "--json",
        json.to_str().unwrap(),
    ])
    .await;
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let waits = rows(&report, "waits");
    let servers: Vec<_> = waits.iter().map(|row| &row["server"]).collect();
    assert_eq!(
        servers,
        [
            "memory",
            "memory",
            "SQLite",
            "SQLite database",
            "Redis",
            "Redis itself"
        ]
    );
    for row in waits {
        assert!(figure(row, "reads_per_second") > 0.0);
    }
}

#[tokio::test]
async fn a_bench_measures_a_running_server() {
    let host = Host::in_memory(&[]).await;
    let outcome = bench(&["--url", &host.url]).await;
    let Outcome {
        code,
        stdout,
        stderr,
    } = outcome;
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("PUT /events/x"), "{stdout}");
    assert!(stdout.contains("same server, 50ms old"), "{stdout}");
    assert!(!stdout.contains("starts"), "{stdout}");
}

#[tokio::test]
async fn a_bench_of_no_server_is_an_error_that_names_the_url() {
    let outcome = bench(&["--url", "http://127.0.0.1:1"]).await;
    // Not the only line: this host warns that it is not fully optimized.
    let (_, error) = outcome.stderr.split_once("error: ").unwrap();
    assert!(
        error.contains("cannot connect to http://127.0.0.1:1"),
        "{error}"
    );
    assert_eq!(outcome.code, 1);
}
