//! A component that misbehaves, which a host must withstand.
//!
//! `GET /loop` computes forever. `GET /memory` allocates 200 MiB. `GET /error` returns an error instead of a response, and so does
//! `POST /lifespan/startup` if the operator's token is `unruly`. `GET /` behaves well.
#![cfg(target_os = "wasi")]

use std::hint::black_box;

use spin_sdk::http::{IntoResponse, Request, StatusCode};
use spin_sdk::http_service;
use spin_sdk::wasip3::http::types::ErrorCode;

#[http_service]
async fn handle(request: Request) -> Result<impl IntoResponse, ErrorCode> {
    let token = request.headers().get("authorization");
    let is_unruly = token.is_some_and(|token| token == "Bearer unruly");
    match request.uri().path() {
        "/" => Ok(StatusCode::NO_CONTENT),
        "/loop" => loop {
            black_box(());
        },
        "/memory" => {
            black_box(vec![1_u8; 200 << 20]);
            Ok(StatusCode::NO_CONTENT)
        }
        "/lifespan/startup" if !is_unruly => Ok(StatusCode::NO_CONTENT),
        "/error" | "/lifespan/startup" => {
            Err(ErrorCode::InternalError(Some("nobody is at home".into())))
        }
        _ => Ok(StatusCode::NOT_FOUND),
    }
}
