//! How a soak controls the hosts that it starts: each command is a line of JSON on a host's standard input, and each answer
//! is a line on its standard output.

use std::future::pending;

use anstream::{eprintln, println};
use loopless_host::redis::Network;
use loopless_host::sqlite::Database;
use loopless_host::store::{Observed, Operation, Store};
use loopless_host::{Builder, Harness, Server, Usage};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::runtime::Handle;

/// What the line of an answer begins with.
pub const ANSWER: &str = "control ";

/// What a host is told.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// From now on, this share of what its store is asked fails, as this seed has it.
    Fail { share: f64, seed: u64 },
    /// Its store is well again.
    Recover,
    /// Its instances end, wherever they are.
    KillInstances,
    /// Nothing: the answer is all that is wanted.
    Look,
}

/// What a host answers to each command: what it has in use.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct InUse {
    pub connections: usize,
    pub requests: usize,
    pub instances: usize,
    /// Handles of the store that instances have open.
    pub handles: usize,
    /// The most that one instance has had open at the same time.
    pub most_handles: usize,
    /// Tasks of the runtime.
    pub tasks: usize,
    /// How often the store has been read so far.
    pub reads: u64,
}

/// The store of a host, which fails when a controller wants that.
#[derive(Debug)]
pub struct Controlled(Option<Observed>);

impl Controlled {
    /// Gives a host its store. Nobody can make it fail unless the host `is_controlled`.
    pub fn give(store: impl Store, is_controlled: bool, builder: Builder) -> (Self, Builder) {
        if !is_controlled {
            return (Self(None), builder.store(store));
        }
        let store = Observed::new(store);
        (Self(Some(store.clone())), builder.store(store))
    }

    /// Gives the host a database too, which fails with its store.
    pub fn give_database(&self, label: &str, database: impl Database, builder: Builder) -> Builder {
        match &self.0 {
            None => builder.database(label, database),
            Some(store) => builder.database(label, store.database(database)),
        }
    }

    /// And whatever Redis its component connects to.
    pub fn give_redis(&self, builder: Builder) -> Builder {
        match &self.0 {
            None => builder,
            Some(store) => builder.redis(store.redis(Network)),
        }
    }

    /// Does what the controller says, until it is gone. Without a controller, forever.
    pub async fn obey(&self, harness: &Harness, server: &Server) {
        let Some(store) = &self.0 else {
            return pending().await;
        };
        let mut lines = BufReader::new(stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Command::Fail { share, seed }) => {
                    store.fail_some(share, seed, "it fails by chance");
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
                tasks: Handle::current().metrics().num_alive_tasks(),
                reads: store.count(Operation::Get),
            };
            // Numbers: there is nothing here that JSON could not say.
            println!(
                "{ANSWER}{}",
                serde_json::to_string(&in_use).unwrap_or_default()
            );
        }
    }
}
