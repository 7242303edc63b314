//! The two routes of the original app, with one event.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::request::{self, bad};
use super::{App, Host, Page};
use crate::event::Name;
use crate::problem::Problem;

/// How long `GET /` waits for the event, as the original does.
const INDEX_WAIT: Duration = Duration::from_millis(100);

/// What `POST /change_event` accepts.
const ACCEPTED: &str = "Send True, which sets the event, or False, which clears it";

/// Waits up to 100 ms for the event, then shows its page.
pub async fn index<H: Host>(State(app): State<App<H>>) -> Result<Response, Problem> {
    let polling = app.settings().await?.polling;
    let event = app.event(&Name::DEMO).with_polling(polling);
    let waited = event.wait(INDEX_WAIT).await?;
    Page::of::<H>(&Name::DEMO, waited.state(), "/change_event".into())
}

/// Sets the event on `True`, clears it on `False`. A form sends `state=True` or `state=False`, and is redirected to the page.
pub async fn change<H: Host>(
    State(app): State<App<H>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = request::body(body, ACCEPTED)?;
    let pressed = request::pressed(&body);
    let is_set = match &*body {
        b"True" => Some(true),
        b"False" => Some(false),
        _ => pressed,
    };
    let Some(is_set) = is_set else {
        return Err(bad(format!(
            "The body is neither True nor False. {ACCEPTED}. Nothing was changed."
        )));
    };
    app.event(&Name::DEMO).change(is_set).await?;
    Ok(match pressed {
        Some(_) => Redirect::to("/").into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}
