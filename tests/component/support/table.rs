//! The table of a build that keeps its events in SQLite, as a store that tests can observe.

use std::sync::Arc;

use async_trait::async_trait;
use loopless_host::sqlite::{Answer, Connection, Database, Value};
use loopless_host::store::{Error, Numbers, Store};

/// The table `loopless` in a database of its own. Clones share the database.
#[derive(Clone, Debug)]
pub struct Table(Arc<Connection>);

impl Table {
    pub async fn new() -> Self {
        let table = Self(Arc::new(Connection::memory().unwrap()));
        // The schema of the component. It is repeated here because databases that exist must stay readable.
        let create = "CREATE TABLE loopless (key TEXT NOT NULL PRIMARY KEY, value NOT NULL)";
        table.rows(create, Vec::new()).await.unwrap();
        table
    }

    async fn rows(&self, statement: &str, parameters: Vec<Value>) -> Result<Vec<Value>, Error> {
        let answer = self.0.execute(statement, parameters).await;
        answer.end?;
        Ok(answer.rows.into_iter().flatten().collect())
    }
}

#[async_trait]
impl Database for Table {
    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer {
        self.0.execute(statement, parameters).await
    }

    fn changes(&self) -> u64 {
        self.0.changes()
    }

    fn last_insert_rowid(&self) -> i64 {
        self.0.last_insert_rowid()
    }
}

#[async_trait]
impl Store for Table {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let select = "SELECT value FROM loopless WHERE key = ?1";
        let rows = self.rows(select, vec![key.to_owned().into()]).await?;
        Ok(rows.into_iter().next().map(|value| match value {
            Value::Integer(number) => number.to_string().into_bytes(),
            Value::Text(text) => text.into_bytes(),
            other => panic!("{key} has the value {other:?}"),
        }))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let text = std::str::from_utf8(value).unwrap();
        let value = match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Text(text.to_owned()),
        };
        let replace = "REPLACE INTO loopless (key, value) VALUES (?1, ?2)";
        self.rows(replace, vec![key.to_owned().into(), value])
            .await?;
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let delete = "DELETE FROM loopless WHERE key = ?1";
        self.rows(delete, vec![key.to_owned().into()]).await?;
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let rows = self
            .rows("SELECT key FROM loopless ORDER BY key", Vec::new())
            .await?;
        let keys = rows.into_iter().map(|key| match key {
            Value::Text(key) => key,
            other => panic!("a key is {other:?}"),
        });
        Ok(keys.collect())
    }

    async fn swap(&self, _: &str, _: Option<&[u8]>, _: &[u8]) -> Result<bool, Error> {
        unreachable!("no test swaps")
    }

    async fn increment(&self, _: &str, _: i64, _: Numbers) -> Result<i64, Error> {
        unreachable!("no test increments")
    }

    fn numbers(&self) -> Numbers {
        Numbers::Text
    }
}
