//! A guestbook for Spin 2 and 3, with spin-sdk 5: a core module for WASI 0.2.
//!
//! `POST /NAME` signs it. `GET /` greets and lists the guests, one line a second. `GET /memory` allocates 200 MiB. `GET /sqlite`
//! and `GET /redis?URL` call every function of Spin's interfaces, and respond with their results.
#![cfg(target_os = "wasi")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::SinkExt;
use spin_sdk::http::{Fields, IncomingRequest, Method, OutgoingResponse, ResponseOutparam};
use spin_sdk::http_component;
use spin_sdk::key_value::{Error, Store};
use spin_sdk::redis::{self, RedisParameter};
use spin_sdk::{sqlite, variables};

/// The number of requests that this instance has served.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

#[http_component]
async fn handle(request: IncomingRequest, response: ResponseOutparam) {
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let path = request.path_with_query().unwrap_or_default();
    println!("request {number}: {path}");
    let result = match (request.method(), path.trim_start_matches('/')) {
        (Method::Post, name) => {
            let text = request.into_body().await.unwrap_or_default();
            sign(name, &text).map(|()| vec!["Thank you\n".to_owned()])
        }
        (_, "sqlite") => sqlite().map_err(|error| Error::Other(format!("{error:?}"))),
        (_, path) if path.starts_with("redis?") => {
            redis(&path["redis?".len()..]).map_err(|error| Error::Other(format!("{error:?}")))
        }
        (_, "memory") => Ok(vec![format!(
            "{}\n",
            black_box(vec![1_u8; 200 << 20]).len()
        )]),
        _ => list(),
    };
    let (status, lines) = match result {
        Ok(lines) => (200, lines),
        Err(error) => (503, vec![format!("{error}\n")]),
    };
    let head = OutgoingResponse::new(Fields::new());
    _ = head.set_status_code(status);
    let mut body = head.take_body();
    response.set(head);
    for line in lines {
        _ = body.send(line.into_bytes()).await;
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn list() -> Result<Vec<String>, Error> {
    let mut lines = vec![variables::get("greeting").unwrap_or_default() + "\n"];
    let store = Store::open_default()?;
    for name in store.get_keys()? {
        let text = store.get(&name)?.unwrap_or_default();
        lines.push(format!("{name}: {}\n", String::from_utf8_lossy(&text)));
    }
    Ok(lines)
}

fn sign(name: &str, text: &[u8]) -> Result<(), Error> {
    Store::open_default()?.set(name, text)
}

fn sqlite() -> Result<Vec<String>, sqlite::Error> {
    let database = sqlite::Connection::open_default()?;
    let make = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL)";
    database.execute(make, &[])?;
    for name in ["ada", "ben"] {
        let insert = "INSERT INTO people (name) VALUES (?)";
        database.execute(insert, &[sqlite::Value::Text(name.into())])?;
    }
    let people = database.execute("SELECT id, name FROM people ORDER BY id", &[])?;
    let mut said = people.columns.join(",");
    for person in people.rows() {
        let (id, name) = (person.get::<i64>("id"), person.get::<&str>("name"));
        said += &format!(" {}:{}", id.unwrap_or_default(), name.unwrap_or_default());
    }
    Ok(vec![said + "\n"])
}

fn redis(url: &str) -> Result<Vec<String>, redis::Error> {
    let channel = std::env::var("REDIS_CHANNEL").unwrap_or_default();
    let redis = redis::Connection::open(url)?;
    redis.set("name", &b"ada".to_vec())?;
    let name = redis.get("name")?.unwrap_or_default();
    let counts = (redis.incr("visits")?, redis.incr("visits")?);
    let added = redis.sadd("people", &["ada".into(), "ben".into()])?;
    let removed = redis.srem("people", &["ben".into(), "cy".into()])?;
    let people = redis.smembers("people")?;
    redis.publish(&channel, &name)?;
    let arguments = ["name", "nothing", "visits"].map(|key| RedisParameter::Binary(key.into()));
    let values = redis.execute("MGET", &arguments)?;
    let deleted = redis.del(&["name".into(), "people".into(), "nothing".into()])?;
    let visits = || RedisParameter::Binary(b"visits".to_vec());
    let status = redis.execute("SET", &[visits(), RedisParameter::Int64(-7)])?;
    let sum = redis.execute("INCR", &[visits()])?;
    Ok(vec![format!(
        "{} {counts:?} {added} {removed} {people:?} {values:?} {deleted} {status:?} {sum:?}\n",
        String::from_utf8_lossy(&name)
    )])
}
