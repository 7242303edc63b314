//! A component that calls every function of Spin's SQLite and Redis interfaces, and responds with their results.
//!
//! `GET /sqlite` and `GET /redis?URL`.
#![cfg(target_os = "wasi")]

use spin_sdk::http::{IntoResponse, Request, StatusCode};
use spin_sdk::redis::{self, RedisParameter};
use spin_sdk::{http_service, sqlite};

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let said = match request.uri().path() {
        "/sqlite" => sqlite().await.map_err(|error| format!("{error:?}")),
        _ => redis(request.uri().query().unwrap_or_default())
            .await
            .map_err(|error| format!("{error:?}")),
    };
    match said {
        Ok(said) => (StatusCode::OK, said),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

async fn sqlite() -> Result<String, sqlite::Error> {
    let database = sqlite::Connection::open_default().await?;
    let make = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL)";
    database.execute(make, []).await?.result().await?;
    for name in ["ada", "ben"] {
        let insert = "INSERT INTO people (name) VALUES (?)";
        let inserted = database.execute(insert, [name.to_owned().into()]).await?;
        inserted.result().await?;
    }
    let (row, changes) = (database.last_insert_rowid().await, database.changes().await);
    let select = "SELECT id, name FROM people ORDER BY id";
    let mut people = database.execute(select, []).await?;
    let mut said = format!("{row} {changes} {}", people.columns().join(","));
    while let Some(person) = people.next().await {
        let (id, name) = (person.get::<i64>(0), person.get::<&str>(1));
        said += &format!(" {}:{}", id.unwrap_or_default(), name.unwrap_or_default());
    }
    people.result().await?;
    Ok(said)
}

async fn redis(url: &str) -> Result<String, redis::Error> {
    let channel = std::env::var("REDIS_CHANNEL").unwrap_or_default();
    let redis = redis::Connection::open(url).await?;
    redis.set("name", "ada").await?;
    let name = redis.get("name").await?.unwrap_or_default();
    let counts = (redis.incr("visits").await?, redis.incr("visits").await?);
    let added = redis.sadd("people", ["ada", "ben"]).await?;
    let removed = redis.srem("people", ["ben", "cy"]).await?;
    let people = redis.smembers("people").await?;
    redis.publish(&channel, &name).await?;
    let keys = ["name", "people", "nothing"];
    let arguments = ["name", "nothing", "visits"].map(|key| RedisParameter::Binary(key.into()));
    let values = redis.execute("MGET", arguments).await?;
    let deleted = redis.del(keys).await?;
    let set = [
        RedisParameter::Binary(b"visits".to_vec()),
        RedisParameter::Int64(-7),
    ];
    let status = redis.execute("SET", set).await?;
    let sum = redis.execute("INCR", [RedisParameter::Binary(b"visits".to_vec())]);
    Ok(format!(
        "{} {counts:?} {added} {removed} {people:?} {values:?} {deleted} {status:?} {:?}",
        String::from_utf8_lossy(&name),
        sum.await?
    ))
}
