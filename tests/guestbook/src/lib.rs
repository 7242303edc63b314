//! A guestbook: a component without events, to test the host with.
//!
//! `POST /NAME` signs it. `GET /` greets and lists the guests. If the store fails, a write is retried once, after a second.
#![cfg(target_os = "wasi")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{IntoResponse, Method, Request, StatusCode};
use spin_sdk::key_value::{Error, Store};
use spin_sdk::{http_service, time, variables};

/// The number of requests that this instance has served.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    println!(
        "request {number}: {} {}",
        request.method(),
        request.uri().path()
    );
    let method = request.method().clone();
    let guest = request.uri().path().trim_start_matches('/').to_owned();
    let result = match (method, guest.is_empty()) {
        (Method::GET, true) => list().await,
        (Method::POST, false) => {
            let body = request.into_body().bytes().await.unwrap_or_default();
            match std::str::from_utf8(&body) {
                Ok(text) if !text.is_empty() => sign(&guest, text).await,
                _ => {
                    eprintln!("{guest} wrote nothing");
                    Ok((StatusCode::BAD_REQUEST, "Write something.\n".into()))
                }
            }
        }
        _ => Ok((StatusCode::NOT_FOUND, "GET / or POST /NAME.\n".into())),
    };
    result.unwrap_or_else(|error| {
        eprintln!("the store failed: {error}");
        let text = "The book cannot be opened now.\n";
        (StatusCode::SERVICE_UNAVAILABLE, text.into())
    })
}

async fn list() -> Result<(StatusCode, String), Error> {
    let mut page = variables::get("greeting").await.unwrap_or("Hello".into()) + "\n";
    let store = Store::open_default().await?;
    for guest in store.get_keys().await.collect().await? {
        let text = store.get(&guest).await?.unwrap_or_default();
        page += &format!("{guest}: {}\n", String::from_utf8_lossy(&text));
    }
    Ok((StatusCode::OK, page))
}

async fn sign(guest: &str, text: &str) -> Result<(StatusCode, String), Error> {
    let store = Store::open_default().await?;
    if store.set(guest, text).await.is_err() {
        time::sleep(Duration::from_secs(1)).await;
        store.set(guest, text).await?;
    }
    Ok((StatusCode::CREATED, format!("Thank you, {guest}.\n")))
}
