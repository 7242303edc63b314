//! The protocol between `soak` or `bench` and the hosts that they start. A command is a line of JSON on a host's standard
//! input, and each is answered with a line on its standard output.

use std::future::pending;

use anstream::{eprintln, println};
use loopless_host::redis::Network;
use loopless_host::sqlite::Database;
use loopless_host::store::{Observed, Operation, Store};
use loopless_host::{Builder, Harness, Server, Threads, Usage};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::runtime::Handle;

/// The prefix of an answer's line.
pub const ANSWER: &str = "control ";

/// Returns the URL in the line that a host prints when it begins to serve. `None` for any other line.
pub fn url(line: &str) -> Option<&str> {
    line.strip_prefix("Serving ")?.split_whitespace().next()
}

/// A command to a host.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Makes this share of the store's calls fail. The seed decides which.
    Fail { share: f64, seed: u64 },
    /// Ends the failures of the store.
    Recover,
    /// Ends all instances at once.
    KillInstances,
    /// Does nothing but answer.
    Look,
}

/// The answer to each command: what the host has in use.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct InUse {
    pub connections: usize,
    pub requests: usize,
    pub instances: usize,
    /// Store handles that instances have open.
    pub handles: usize,
    /// The most store handles that one instance has ever had open at once.
    pub most_handles: usize,
    /// Tasks of the runtime.
    pub tasks: usize,
    /// The number of reads of the store so far.
    pub reads: u64,
}

/// The store of a host, which a controller can make fail.
#[derive(Debug)]
pub struct Controlled(Option<Observed>);

impl Controlled {
    /// Adds the store to a host. It can fail only if the host `is_controlled`.
    pub fn give(store: impl Store, is_controlled: bool, builder: Builder) -> (Self, Builder) {
        if !is_controlled {
            return (Self(None), builder.store(store));
        }
        let store = Observed::new(store);
        (Self(Some(store.clone())), builder.store(store))
    }

    /// Adds a database, which fails together with the store.
    pub fn give_database(&self, label: &str, database: impl Database, builder: Builder) -> Builder {
        match &self.0 {
            None => builder.database(label, database),
            Some(store) => builder.database(label, store.database(database)),
        }
    }

    /// Makes connections to any Redis fail together with the store.
    pub fn give_redis(&self, builder: Builder) -> Builder {
        match &self.0 {
            None => builder,
            Some(store) => builder.redis(store.redis(Network)),
        }
    }

    /// Executes the controller's commands until standard input ends. Never returns if the host is not controlled.
    pub async fn obey(&self, harness: &Harness, server: &Server, threads: &Threads) {
        let Some(store) = &self.0 else {
            return pending().await;
        };
        let mut lines = BufReader::new(stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Command::Fail { share, seed }) => {
                    store.fail_some(share, seed, "a simulated failure");
                }
                Ok(Command::Recover) => store.recover(),
                Ok(Command::KillInstances) => harness.kill_instances(),
                Ok(Command::Look) => {}
                Err(error) => {
                    eprintln!("{line:?} is not a command: {error}");
                    return;
                }
            }
            let Usage {
                requests,
                instances,
                handles,
                most_handles,
            } = harness.usage();
            let in_use = InUse {
                connections: server.connections(),
                requests,
                instances,
                handles,
                most_handles,
                tasks: Handle::current().metrics().num_alive_tasks() + threads.tasks(),
                reads: store.count(Operation::Get),
            };
            // Numbers always serialize.
            let answer = serde_json::to_string(&in_use).unwrap_or_default();
            println!("{ANSWER}{answer}");
        }
    }
}
