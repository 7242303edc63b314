//! The seed's two routes.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;

use super::{App, Host, Page, request};
use crate::event::Name;
use crate::problem::Problem;

/// How long `GET /` waits for the event, as the original does.
const INDEX_WAIT: Duration = Duration::from_millis(100);

/// What `POST /change_event` takes.
const ACCEPTED: &str = "Send True, which sets the event, or False, which clears it";

/// Waits a moment for the event, then shows its state.
pub async fn index<H: Host>(State(app): State<App<H>>) -> Result<Response, Problem> {
    let polling = app.settings().await?.polling;
    let event = app.event(&Name::DEMO).with_polling(polling);
    let waited = event.wait(INDEX_WAIT).await?;
    let page = Page {
        name: None,
        is_set: waited.state().is_set(),
    };
    page.response()
}

/// Sets the event on `True`, clears it on `False`.
pub async fn change<H: Host>(
    State(app): State<App<H>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let body = request::body(body, ACCEPTED)?;
    let event = app.event(&Name::DEMO);
    match &*body {
        b"True" => event.set().await?,
        b"False" => event.clear().await?,
        _ => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                format!("The body is neither True nor False. {ACCEPTED}. Nothing was changed."),
            ));
        }
    };
    Ok(StatusCode::NO_CONTENT)
}
