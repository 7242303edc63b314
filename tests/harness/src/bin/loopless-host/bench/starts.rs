//! The start times of an instance and of a host, and the size of the component.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http::Method;
use tokio::time::sleep;

use super::load::{Connection, record, times};
use super::report::{Row, Section};
use super::servers::Server;
use super::{Bench, Kept, MEMORY};

/// The number of instances that are started in each round.
const INSTANCES: u32 = 30;

/// How long these hosts keep an idle instance.
const IDLE: &str = "1ms";

/// After this time without work, an instance has been dropped.
const DROPPED: Duration = Duration::from_millis(30);

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let component = bench.component()?;
    let rounds = bench.arguments.rounds;
    bench.progress.set_position(0);
    bench.progress.set_length(u64::from(rounds));
    bench.show("starts of instances and hosts");
    let (mut hosts, mut cold, mut warm) = (times()?, times()?, times()?);
    for _ in 0..rounds {
        let began = Instant::now();
        let mut kept = Kept::new(MEMORY, component, vec!["--store=memory".into()])?;
        kept.options
            .extend(["--idle-instance-timeout", IDLE].map(str::to_owned));
        let server = Server::host("a host", &kept.options).await?;
        let mut connection = Connection::open(&server.to).await?;
        let mut get = async || {
            let began = Instant::now();
            let get = server
                .to
                .request(Method::GET, &server.to.event(0), Bytes::new())?;
            let status = connection.send(get).await?.status();
            ensure!(status.is_success(), "the host answered a GET with {status}");
            anyhow::Ok(began.elapsed())
        };
        get().await?;
        record(&mut hosts, began.elapsed());
        for _ in 0..INSTANCES {
            sleep(DROPPED).await;
            record(&mut cold, get().await?);
            // The instance that has just responded still exists.
            record(&mut warm, get().await?);
        }
        bench.progress.inc(1);
    }
    let size = std::fs::metadata(component)?.len();
    let row = |what, server| Row::new(Section::Starts, server, what, None);
    Ok(vec![
        row("GET /events/x, no instance yet", "memory").with_times(&cold),
        row("GET /events/x, in an instance", "memory").with_times(&warm),
        row("a host, to its first answer", "memory").with_times(&hosts),
        row("the component", "").with("kilobytes", size as f64 / 1000.0),
    ])
}
