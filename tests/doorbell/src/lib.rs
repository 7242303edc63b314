//! A component that has loopless as a component dependency, and uses events through `loopless:event/events`, without HTTP.
//!
//! The response is 200 with the result of the interface, or 500 with its error.
#![cfg(target_os = "wasi")]

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join, select};
use spin_sdk::http::{IntoResponse, Method, Request, StatusCode};
use spin_sdk::{http_service, time};

spin_sdk::wit_bindgen::generate!({
    path: "../../wit/events.wit",
    world: "imports",
    runtime_path: "::spin_sdk::wit_bindgen::rt",
});

use loopless::event::events::{Error, Event, Waited};

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let parts: Vec<_> = path.split('/').collect();
    match answer(request.method(), &parts).await {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")),
    }
}

async fn answer(method: &Method, path: &[&str]) -> Result<String, Error> {
    let event = Event::open(path[0])?;
    match (method, &path[1..]) {
        (&Method::GET, []) => return Ok(event.is_set().await?.to_string()),
        (&Method::PUT, []) => event.set().await?,
        (&Method::DELETE, []) => event.clear().await?,
        (&Method::GET, ["wait", ms]) => return Ok(shown(event.wait(nanoseconds(ms)).await?)),
        // A wait and a set at the same time.
        (&Method::POST, ["meet", ms]) => {
            let (waited, set) = join(event.wait(nanoseconds(ms)), event.set()).await;
            set?;
            return Ok(shown(waited?));
        }
        // A wait that is dropped.
        (&Method::GET, ["leave", ms]) => {
            let wait = pin!(event.wait(u64::MAX));
            let time = pin!(time::sleep(Duration::from_nanos(nanoseconds(ms))));
            select(wait, time).await;
        }
        _ => return Ok("There is nothing here.".into()),
    }
    Ok("done".into())
}

fn nanoseconds(ms: &str) -> u64 {
    ms.parse::<u64>().unwrap_or_default() * 1_000_000
}

/// The name in the interface.
fn shown(waited: Waited) -> String {
    let text = match waited {
        Waited::Set => "set",
        Waited::TimedOut => "timed-out",
        Waited::Forgotten => "forgotten",
    };
    text.into()
}
