//! The gotcha: an event in a `static`, which works on one's own machine, the first time.
//!
//! In a native server, this code would be right. In a component, it fails in two ways. Each instance has an event of its own. And
//! a request that sets the event while another request of its instance waits wakes a future of another task: the instance
//! traps, and all of its requests fail.
#![cfg(target_os = "wasi")]

use std::sync::LazyLock;
use std::time::Duration;

use spin_sdk::http::{HeaderMap, HeaderValue, IntoResponse, Method, Request, StatusCode};
use spin_sdk::wasip3::random::random::get_random_u64;
use spin_sdk::{http_service, time};
use tokio::sync::watch;

/// The event, which seems to be the same for all requests.
static EVENT: LazyLock<watch::Sender<bool>> = LazyLock::new(watch::Sender::default);

/// The name of this instance.
static INSTANCE: LazyLock<String> = LazyLock::new(|| {
    let name = format!("{:04x}", get_random_u64() & 0xffff);
    println!("This is instance {name}");
    name
});

/// The timeout of a wait, and the time of work that does not use the event.
const LONGEST: Duration = Duration::from_secs(3);

/// Waits until the event is set.
async fn is_set() {
    // It fails only if the sender is dropped, and a static never is.
    _ = EVENT.subscribe().wait_for(|is_set| *is_set).await;
}

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let instance = INSTANCE.as_str();
    println!("{} {}", request.method(), request.uri().path());
    let status = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => return html(include_str!("page.html")),
        (&Method::GET, "/event") => StatusCode::OK,
        (&Method::GET, "/wait") => tokio::select! {
            () = is_set() => StatusCode::OK,
            () = time::sleep(LONGEST) => StatusCode::REQUEST_TIMEOUT,
        },
        (&Method::GET, "/wait/forever") => {
            is_set().await;
            StatusCode::OK
        }
        (&Method::POST, "/set") => {
            EVENT.send_replace(true);
            StatusCode::OK
        }
        (&Method::POST, "/clear") => {
            EVENT.send_replace(false);
            StatusCode::OK
        }
        (&Method::GET, "/bystander") => {
            time::sleep(LONGEST).await;
            StatusCode::OK
        }
        _ => StatusCode::NOT_FOUND,
    };
    let is_set = *EVENT.borrow();
    let answer = format!("{{\"instance\":\"{instance}\",\"set\":{is_set}}}\n");
    respond(status, "application/json", answer)
}

fn html(page: &str) -> (StatusCode, HeaderMap, String) {
    respond(StatusCode::OK, "text/html; charset=utf-8", page.into())
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    body: String,
) -> (StatusCode, HeaderMap, String) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(kind));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    (status, headers, body)
}
