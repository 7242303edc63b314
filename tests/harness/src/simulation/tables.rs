//! The tables of a simulated SQLite database.

use std::cell::RefCell;
use std::time::Duration;

use crate::sqlite::{self, Answer, Value};
use crate::store::Error;

/// An SQLite database in memory. Of each table, the first column has the keys and the second the values.
#[derive(Default)]
pub(super) struct Tables {
    /// Made when it is first used: most worlds have none.
    connection: RefCell<Option<rusqlite::Connection>>,
    /// The tables that there are, or were.
    made: RefCell<Vec<Table>>,
}

/// A table.
struct Table {
    name: String,
    /// The statement that makes it.
    statement: String,
    /// When it was made last.
    since: Duration,
    is_there: bool,
}

impl Tables {
    /// Executes a statement at this time.
    pub fn execute(&self, statement: &str, parameters: &[Value], now: Duration) -> Answer {
        let mut connection = self.connection.borrow_mut();
        if connection.is_none() {
            match rusqlite::Connection::open_in_memory() {
                Ok(opened) => *connection = Some(opened),
                Err(error) => return Error(error.to_string()).into(),
            }
        }
        let Some(connection) = &*connection else {
            return Error("there is no database".into()).into();
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
        let connection = self.connection.borrow();
        let connection = connection.as_ref()?;
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

    /// Gives a key a value that it has had before, or deletes it.
    pub fn put(&self, key: &str, value: Option<&[u8]>) {
        let connection = self.connection.borrow();
        let Some(connection) = &*connection else {
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

    /// Drops the empty tables that were not there at this time.
    pub fn forget_younger_than(&self, time: Duration) {
        let connection = self.connection.borrow();
        let Some(connection) = &*connection else {
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

    /// What `changes()` of the one connection answers.
    pub fn changes(&self) -> u64 {
        self.connection
            .borrow()
            .as_ref()
            .map_or(0, rusqlite::Connection::changes)
    }

    /// What `last_insert_rowid()` of the one connection answers.
    pub fn last_insert_rowid(&self) -> i64 {
        self.connection
            .borrow()
            .as_ref()
            .map_or(0, rusqlite::Connection::last_insert_rowid)
    }
}

/// All tables: their names, and the statements that make them.
fn tables(connection: &rusqlite::Connection) -> impl Iterator<Item = (String, String)> {
    let select = "SELECT name, sql FROM sqlite_schema WHERE type = 'table'";
    let rows = sqlite::execute(connection, select, Vec::new()).rows;
    rows.into_iter()
        .filter_map(|row| match <[Value; 2]>::try_from(row) {
            Ok([Value::Text(name), Value::Text(statement)]) => Some((name, statement)),
            _ => None,
        })
}

/// The name of a table's column, quoted.
fn column(connection: &rusqlite::Connection, table: &str, index: usize) -> Option<String> {
    let statement = format!("SELECT * FROM \"{table}\" LIMIT 0");
    let columns = sqlite::execute(connection, &statement, Vec::new()).columns;
    Some(format!("\"{}\"", columns.get(index)?))
}

/// A value as SQLite had it: numbers are numbers there.
fn stored(value: &[u8]) -> Value {
    let text = std::str::from_utf8(value).ok();
    let number: Option<i64> = text.and_then(|text| text.parse().ok());
    match (number, text) {
        (Some(number), _) => Value::Integer(number),
        (None, Some(text)) => Value::Text(text.to_owned()),
        (None, None) => Value::Blob(value.to_owned()),
    }
}
