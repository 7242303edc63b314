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
    /// The tables, and when they were made.
    made: RefCell<Vec<(String, Duration)>>,
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
        for table in names(connection) {
            if !made.iter().any(|(known, _)| *known == table) {
                made.push((table, now));
            }
        }
        answer
    }

    /// The value of a key, as text or as bytes.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        let connection = self.connection.borrow();
        let connection = connection.as_ref()?;
        let tables = self.made.borrow();
        tables.iter().find_map(|(table, _)| {
            let statement = format!(
                "SELECT * FROM \"{table}\" WHERE {} = ?1",
                column(connection, table, 0)?
            );
            let answer = sqlite::execute(connection, &statement, vec![key.to_owned().into()]);
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
        for (table, _) in &*self.made.borrow() {
            let (Some(keys), Some(values)) =
                (column(connection, table, 0), column(connection, table, 1))
            else {
                continue;
            };
            let key = Value::Text(key.to_owned());
            let delete = format!("DELETE FROM \"{table}\" WHERE {keys} = ?1");
            sqlite::execute(connection, &delete, vec![key.clone()]);
            if let Some(value) = value {
                let insert = format!("INSERT INTO \"{table}\" ({keys}, {values}) VALUES (?1, ?2)");
                sqlite::execute(connection, &insert, vec![key, stored(value)]);
            }
        }
    }

    /// Goes back to what tables there were at this time.
    pub fn forget_younger_than(&self, time: Duration) {
        let connection = self.connection.borrow();
        let Some(connection) = &*connection else {
            return;
        };
        self.made.borrow_mut().retain(|(table, made)| {
            let is_older = *made <= time;
            if !is_older {
                sqlite::execute(connection, &format!("DROP TABLE \"{table}\""), Vec::new());
            }
            is_older
        });
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

/// The names of all tables.
fn names(connection: &rusqlite::Connection) -> Vec<String> {
    let statement = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    let rows = sqlite::execute(connection, statement, Vec::new())
        .rows
        .into_iter();
    rows.filter_map(|row| match row.into_iter().next() {
        Some(Value::Text(name)) => Some(name),
        _ => None,
    })
    .collect()
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
