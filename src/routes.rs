//! Every route, on one screen.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use tower_service::Service;

use crate::clock::Clock;
use crate::event::Events;
use crate::problem::Problem;
use crate::store::Store;

/// The name of the demo's event.
const DEMO: &str = "event";

/// How long `GET /` waits for the event, as the original does.
const INDEX_WAIT: Duration = Duration::from_millis(100);

/// The largest request body, in bytes.
const BODY_LIMIT: usize = 1024;

/// The application, over any store and clock.
pub fn router<S: Store + 'static, C: Clock + 'static>(events: Events<S, C>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/change_event", post(change_event))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::map_response(never_stored))
        .with_state(Arc::new(events))
}

/// Answers one request.
pub async fn answer(router: &Router, request: Request<Body>) -> Response {
    let mut response = match router.clone().call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.status() == StatusCode::NO_CONTENT {
        // axum gives every response a length. RFC 9110 (8.6) forbids it here.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// What the handlers share.
type App<S, C> = State<Arc<Events<S, C>>>;

/// The page: one button that offers the other state.
#[derive(Template)]
#[template(path = "page.html", config = "src/askama.toml")]
struct Page {
    state: &'static str,
    action: &'static str,
    next: &'static str,
}

/// Waits a moment for the event, then shows its state.
async fn index<S: Store, C: Clock>(State(events): App<S, C>) -> Result<Response, Problem> {
    let waited = events.named(DEMO).wait(INDEX_WAIT).await?;
    let page = if waited.generation().is_set() {
        Page {
            state: "set",
            action: "Clear",
            next: "False",
        }
    } else {
        Page {
            state: "clear",
            action: "Set",
            next: "True",
        }
    };
    match page.render() {
        Ok(html) => Ok(Html(html).into_response()),
        Err(error) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("The page could not be made: {error}."),
        )),
    }
}

/// Sets the event on `True`, clears it on `False`.
async fn change_event<S: Store, C: Clock>(
    State(events): App<S, C>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is longer than {BODY_LIMIT} bytes. Send True or False."),
        ),
        _ => Problem::new(
            StatusCode::BAD_REQUEST,
            "The body did not arrive whole. Send True or False.",
        ),
    })?;
    let event = events.named(DEMO);
    match &*body {
        b"True" => event.set().await?,
        b"False" => event.clear().await?,
        _ => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "The body must be True, which sets the event, or False, which clears it. Nothing was changed.",
            ));
        }
    };
    Ok(StatusCode::NO_CONTENT)
}

async fn unknown_path(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("There is nothing at {path}."),
    )
}

/// axum adds `Allow` to what this says.
async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not take {method}. The Allow header says what it takes."),
    )
}

/// Answers are about this moment. Errors are too: without this, a cache may keep a 404.
async fn never_stored(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
