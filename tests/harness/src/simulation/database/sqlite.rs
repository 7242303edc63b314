//! The database as an SQLite database, over the same [`Connection`].

use std::time::Duration;

use async_trait::async_trait;

use super::connection::{Applied, Connection};
use super::{Inner, Late, Outcome, State, lock};
use crate::sqlite::{self, Answer, Value};
use crate::store::{Error, Operation, Store};

impl State {
    /// Executes a statement. Returns its answer, and the key's new value if it changed: `Some(None)` if it was deleted.
    fn execute(
        &self,
        statement: &str,
        parameters: &[Value],
        key: &str,
        now: Duration,
    ) -> (Answer, Option<Option<Vec<u8>>>) {
        let answer = self.tables.execute(statement, parameters, now);
        let value = self.tables.value(key);
        let is_written = value.as_ref() != self.current(key);
        (answer, is_written.then_some(value))
    }
}

impl Connection {
    async fn execute_once(
        &self,
        (operation, key): (Operation, &str),
        statement: &str,
        parameters: &[Value],
    ) -> Answer {
        let now = || self.database.0.world.0.started.elapsed();
        let late = || -> Option<Late> {
            let is_read = matches!(operation, Operation::Get | Operation::Keys);
            let (statement, parameters) = (statement.to_owned(), parameters.to_vec());
            let (key, now) = (key.to_owned(), now());
            let write = move |state: &State| state.execute(&statement, &parameters, &key, now).1;
            (!is_read).then(|| Box::new(write) as Late)
        };
        let apply = |state: &State| {
            let (answer, write) = state.execute(statement, parameters, key, now());
            let outcome = match (&answer.end, operation) {
                (Err(_), _) => Outcome::Failed,
                (Ok(()), Operation::Get) => Outcome::Read(state.tables.value(key)),
                (Ok(()), _) => Outcome::Done,
            };
            let end = answer.end.clone();
            Applied {
                answer: end.map(|()| answer),
                outcome,
                write,
            }
        };
        let what = || {
            let parameters: Vec<_> = parameters.iter().map(show_parameter).collect();
            format!("{operation:?} {}", parameters.join(", ")).to_lowercase()
        };
        let answer = self.call(operation, key, what, late, apply).await;
        answer.unwrap_or_else(Answer::from)
    }
}

fn show_parameter(parameter: &Value) -> String {
    match parameter {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

#[async_trait]
impl sqlite::Database for Connection {
    async fn open(&self) -> Result<(), Error> {
        Store::open(self).await
    }

    async fn execute(&self, statement: &str, parameters: Vec<Value>) -> Answer {
        let call = sqlite::operation(statement, &parameters);
        let Inner { world, state, .. } = &*self.database.0;
        let doubled = lock(state).faults.doubled;
        if call.0 == Operation::Increment && world.chance(doubled) {
            // The answer to the first increment is lost.
            _ = self.execute_once(call, statement, &parameters).await;
        }
        self.execute_once(call, statement, &parameters).await
    }

    fn changes(&self) -> u64 {
        lock(&self.database.0.state).tables.changes()
    }

    fn last_insert_rowid(&self) -> i64 {
        lock(&self.database.0.state).tables.last_insert_rowid()
    }
}
