//! SQLite databases for guests, which open them with `spin:sqlite` or its predecessor in `fermyon:spin@2.0.0`.
//!
//! [`Builder::database`](crate::Builder::database) gives one to a host.

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

/// An SQLite database of a host. All guests that open it share it.
#[async_trait]
pub trait Database: fmt::Debug + Send + Sync + 'static {
    /// Called for each handle that a guest opens.
    async fn open(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Executes a statement.
    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer;

    /// How many rows the last INSERT, UPDATE or DELETE changed, of all guests.
    fn changes(&self) -> u64;

    /// The ID of the row that was inserted last, by any guest.
    fn last_insert_rowid(&self) -> i64;
}

/// A test can keep a clone of what it gives the host.
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

/// The result of a statement.
///
/// As in Spin 4.1, an error comes after the rows that precede it. A statement that cannot be prepared has no rows, so a caller
/// that does not check [`end`](Self::end) takes it for an empty result.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<Value>>,
    /// Whether these are all rows, or an error came after them.
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

/// What a statement does to a database that is used as a store of keys and values, and to which key.
///
/// The key is the first parameter that is a text. It is empty if there is none.
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
        // For example, CREATE TABLE.
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

/// Why a guest cannot open a database.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OpenError {
    NotGranted,
    Unknown,
    Failed(Error),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Databases {
    pub fn add(&mut self, label: impl Into<String>, database: Arc<dyn Database>) {
        self.known.insert(label.into(), database);
    }

    /// Lets the component open only these databases.
    ///
    /// # Errors
    ///
    /// If the host does not have one of them. Spin does not start either then.
    pub fn grant(&mut self, labels: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let granted: BTreeSet<_> = labels.into_iter().collect();
        for label in &granted {
            ensure!(
                label == DEFAULT || self.known.contains_key(label),
                "the manifest grants the SQLite database {label:?}, which this host does not have: add it with --database {label}=PATH"
            );
        }
        self.granted = Some(granted);
        Ok(())
    }

    /// A single database, labelled `default`, which the component may open.
    pub fn one(database: Arc<dyn Database>) -> Self {
        let mut databases = Self::default();
        databases.add(DEFAULT, database);
        databases
    }

    /// Adds an empty database labelled `default`, unless there is one.
    pub fn complete(&mut self) -> anyhow::Result<()> {
        if !self.known.contains_key(DEFAULT) {
            self.add(DEFAULT, Arc::new(Connection::memory()?));
        }
        Ok(())
    }

    /// Opens a database for the guest.
    async fn open(&self, label: &str) -> Result<Arc<dyn Database>, OpenError> {
        let is_granted = |granted: &BTreeSet<_>| granted.contains(label);
        if !self.granted.as_ref().is_none_or(is_granted) {
            return Err(OpenError::NotGranted);
        }
        let database = self.known.get(label).ok_or(OpenError::Unknown)?;
        database.open().await?;
        Ok(database.clone())
    }
}
