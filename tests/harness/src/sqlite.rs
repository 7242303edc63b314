//! SQLite databases for guests, which `spin:sqlite` and its predecessor of Spin 2 and 3 open.
//!
//! [`Builder::database`](crate::Builder::database) gives a host one.

mod connection;
pub(crate) mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use anyhow::ensure;
use async_trait::async_trait;

pub use connection::Connection;
pub(crate) use connection::execute;
pub use rusqlite::types::Value;

use crate::store::{Error, Operation};

/// The label of the database that every host has.
pub const DEFAULT: &str = "default";

/// An SQLite database, as the host sees it. All guests that open it share it.
#[async_trait]
pub trait Database: fmt::Debug + Send + Sync + 'static {
    /// A guest opens the database. Called for each handle that it opens.
    async fn open(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Executes one statement.
    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer;

    /// How many rows the last statement has changed that changed any, whoever's it was.
    fn changes(&self) -> u64;

    /// The row that was inserted last, by whomever.
    fn last_insert_rowid(&self) -> i64;
}

/// Keep one, give the host the other.
#[async_trait]
impl<D: Database + ?Sized> Database for Arc<D> {
    async fn open(&self) -> Result<(), Error> {
        (**self).open().await
    }

    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer {
        (**self).execute(statement, parameters).await
    }

    fn changes(&self) -> u64 {
        (**self).changes()
    }

    fn last_insert_rowid(&self) -> i64 {
        (**self).last_insert_rowid()
    }
}

/// What comes of a statement.
///
/// An error comes last, after the rows that there were before it: a statement that cannot be prepared has no rows, and then an
/// error. So it is in Spin 4.1: who does not look at [`end`](Self::end) sees an empty answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<Value>>,
    /// Whether that was all.
    pub end: Result<(), Error>,
}

impl From<Error> for Answer {
    /// An error, and no rows.
    fn from(error: Error) -> Self {
        Self {
            columns: Vec::new(),
            rows: Vec::new(),
            end: Err(error),
        }
    }
}

/// What a statement does to a table of keys and values, and to which key: empty, if to none.
///
/// The key is the statement's first parameter that is a text. For who observes such a table, and fails its operations.
pub(crate) fn operation<'a>(statement: &str, parameters: &'a [Value]) -> (Operation, &'a str) {
    let key = parameters.iter().find_map(|parameter| match parameter {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let verb = statement.split_whitespace().next().unwrap_or_default();
    let operation = match verb.to_ascii_uppercase().as_str() {
        "SELECT" if key.is_none() => Operation::Keys,
        "SELECT" => Operation::Get,
        "INSERT" if statement.contains("RETURNING") => Operation::Increment,
        "INSERT" => Operation::Set,
        "UPDATE" => Operation::Swap,
        "DELETE" => Operation::Delete,
        // Such as one that makes a table.
        _ => Operation::Open,
    };
    (operation, key.unwrap_or_default())
}

/// The databases of an application.
#[derive(Clone, Debug, Default)]
pub(crate) struct Databases {
    /// Those that the component may open. `None`: all.
    granted: Option<BTreeSet<String>>,
    known: BTreeMap<String, Arc<dyn Database>>,
}

/// Why a database cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    NotGranted,
    Unknown,
}

impl Databases {
    pub fn add(&mut self, label: impl Into<String>, database: Arc<dyn Database>) {
        self.known.insert(label.into(), database);
    }

    /// Lets the component open these only.
    ///
    /// # Errors
    ///
    /// If the host does not have one of them, as on Spin.
    pub fn grant(&mut self, labels: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let granted: BTreeSet<_> = labels.into_iter().collect();
        for label in &granted {
            ensure!(
                label == DEFAULT || self.known.contains_key(label),
                "the manifest grants the SQLite database {label:?}, which this host does not have: give it one with --database {label}=PATH"
            );
        }
        self.granted = Some(granted);
        Ok(())
    }

    /// One that the component may open, called `default`.
    pub fn one(database: Arc<dyn Database>) -> Self {
        let mut databases = Self::default();
        databases.add(DEFAULT, database);
        databases
    }

    /// Sees to it that there is one called `default`.
    pub fn complete(&mut self) -> anyhow::Result<()> {
        if !self.known.contains_key(DEFAULT) {
            self.add(DEFAULT, Arc::new(Connection::memory()?));
        }
        Ok(())
    }

    fn get(&self, label: &str) -> Result<Arc<dyn Database>, Closed> {
        let is_granted = |granted: &BTreeSet<_>| granted.contains(label);
        if !self.granted.as_ref().is_none_or(is_granted) {
            return Err(Closed::NotGranted);
        }
        self.known.get(label).cloned().ok_or(Closed::Unknown)
    }
}
