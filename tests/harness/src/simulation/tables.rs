//! The tables of a simulated SQLite database.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use rusqlite::Connection;

use crate::sqlite::{self, Answer, Value};
use crate::store::Error;

/// An SQLite database in memory. The first column of each table has the keys, and the second the values.
#[derive(Default)]
pub(super) struct Tables {
    /// Opened when it is first used: most worlds do not use it.
    connection: OnceCell<Connection>,
    /// The tables that exist, or existed.
    made: RefCell<Vec<Table>>,
}

struct Table {
    name: String,
    /// The statement that creates it.
    statement: String,
    /// When it was last created.
    since: Duration,
    is_there: bool,
}

impl Tables {
    /// Executes a statement at the time `now`.
    pub fn execute(&self, statement: &str, parameters: &[Value], now: Duration) -> Answer {
        let connection = match self.connection.get() {
            Some(connection) => connection,
            None => match Connection::open_in_memory() {
                Ok(opened) => self.connection.get_or_init(|| opened),
                Err(error) => return Error(error.to_string()).into(),
            },
        };
        let answer = sqlite::execute(connection, statement, parameters.to_vec());
        let mut made = self.made.borrow_mut();
        for (name, statement) in tables(connection) {
            let table = Table {
                name,
                statement,
                since: now,
                is_there: true,
            };
            match made.iter_mut().find(|known| known.name == table.name) {
                None => made.push(table),
                Some(known) if !known.is_there => *known = table,
                Some(_) => {}
            }
        }
        answer
    }

    /// The value of a key, as text or as bytes.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        let connection = self.connection.get()?;
        self.made.borrow().iter().find_map(|Table { name, .. }| {
            let keys = column(connection, name, 0)?;
            let select = format!("SELECT * FROM \"{name}\" WHERE {keys} = ?1");
            let answer = sqlite::execute(connection, &select, vec![key.to_owned().into()]);
            match answer.rows.into_iter().next()?.into_iter().nth(1)? {
                Value::Integer(number) => Some(number.to_string().into_bytes()),
                Value::Real(number) => Some(number.to_string().into_bytes()),
                Value::Text(text) => Some(text.into_bytes()),
                Value::Blob(bytes) => Some(bytes),
                Value::Null => None,
            }
        })
    }

    /// Sets a key to a value that it has had before, or deletes it.
    pub fn put(&self, key: &str, value: Option<&[u8]>) {
        let Some(connection) = self.connection.get() else {
            return;
        };
        for table in &mut *self.made.borrow_mut() {
            if value.is_some() && !table.is_there {
                sqlite::execute(connection, &table.statement, Vec::new());
                table.is_there = true;
            }
            let name = &table.name;
            let columns = (column(connection, name, 0), column(connection, name, 1));
            let (Some(keys), Some(values)) = columns else {
                continue;
            };
            let key = Value::Text(key.to_owned());
            let delete = format!("DELETE FROM \"{name}\" WHERE {keys} = ?1");
            sqlite::execute(connection, &delete, vec![key.clone()]);
            if let Some(value) = value {
                let insert = format!("INSERT INTO \"{name}\" ({keys}, {values}) VALUES (?1, ?2)");
                sqlite::execute(connection, &insert, vec![key, stored(value)]);
            }
        }
    }

    /// Drops the empty tables that did not exist at this time.
    pub fn forget_younger_than(&self, time: Duration) {
        let Some(connection) = self.connection.get() else {
            return;
        };
        for table in &mut *self.made.borrow_mut() {
            let select = format!("SELECT 1 FROM \"{}\" LIMIT 1", table.name);
            let rows = sqlite::execute(connection, &select, Vec::new()).rows;
            if table.since > time && rows.is_empty() {
                let drop = format!("DROP TABLE IF EXISTS \"{}\"", table.name);
                sqlite::execute(connection, &drop, Vec::new());
                table.is_there = false;
            }
        }
    }

    /// `changes()` of the connection.
    pub fn changes(&self) -> u64 {
        self.connection.get().map_or(0, Connection::changes)
    }

    /// `last_insert_rowid()` of the connection.
    pub fn last_insert_rowid(&self) -> i64 {
        let connection = self.connection.get();
        connection.map_or(0, Connection::last_insert_rowid)
    }
}

/// The name of each table, and the statement that creates it.
fn tables(connection: &Connection) -> impl Iterator<Item = (String, String)> {
    let select = "SELECT name, sql FROM sqlite_schema WHERE type = 'table'";
    let rows = sqlite::execute(connection, select, Vec::new()).rows;
    rows.into_iter()
        .filter_map(|row| match <[Value; 2]>::try_from(row) {
            Ok([Value::Text(name), Value::Text(statement)]) => Some((name, statement)),
            _ => None,
        })
}

/// The quoted name of a table's column.
fn column(connection: &Connection, table: &str, index: usize) -> Option<String> {
    let statement = format!("SELECT * FROM \"{table}\" LIMIT 0");
    let columns = sqlite::execute(connection, &statement, Vec::new()).columns;
    Some(format!("\"{}\"", columns.get(index)?))
}

/// A value as SQLite stores it: text that is a number becomes an integer.
fn stored(value: &[u8]) -> Value {
    let text = std::str::from_utf8(value).ok();
    let number: Option<i64> = text.and_then(|text| text.parse().ok());
    match (number, text) {
        (Some(number), _) => Value::Integer(number),
        (None, Some(text)) => Value::Text(text.to_owned()),
        (None, None) => Value::Blob(value.to_owned()),
    }
}
