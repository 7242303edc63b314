//! The doorbell for WASI 0.2: a component that uses events through `loopless:event/blocking-events`.
#![cfg(target_os = "wasi")]

use spin_sdk::http::{Method, Request, Response};
use spin_sdk::http_component;

spin_sdk::wit_bindgen::generate!({
    path: "../../wit/blocking-events.wit",
    world: "blocking-imports",
    runtime_path: "spin_sdk::wit_bindgen::rt",
});

use loopless::event::blocking_events::{Error, Event, Waited};

#[http_component]
fn handle(request: Request) -> Response {
    let path = request.path().trim_start_matches('/').to_owned();
    let parts: Vec<_> = path.split('/').collect();
    match answer(request.method(), &parts) {
        Ok(text) => Response::new(200, text),
        Err(error) => Response::new(500, format!("{error:?}")),
    }
}

fn answer(method: &Method, path: &[&str]) -> Result<String, Error> {
    let event = Event::open(path[0])?;
    match (method, &path[1..]) {
        (Method::Get, []) => return Ok(event.is_set()?.to_string()),
        (Method::Put, []) => event.set()?,
        (Method::Delete, []) => event.clear()?,
        (Method::Get, ["wait", ms]) => {
            let ms: u64 = ms.parse().unwrap_or_default();
            let waited = event.wait(ms * 1_000_000)?;
            return Ok(shown(waited).into());
        }
        _ => return Ok("There is nothing here.".into()),
    }
    Ok("done".into())
}

/// The name in the interface.
fn shown(waited: Waited) -> &'static str {
    match waited {
        Waited::Set => "set",
        Waited::TimedOut => "timed-out",
        Waited::Forgotten => "forgotten",
    }
}
