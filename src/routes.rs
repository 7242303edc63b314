//! All routes of the application. Their handlers are in the submodules.

mod access;
mod demo;
mod events;
mod lifespan;
mod page;
mod request;
mod service;
mod sse;
mod stream;

use std::future::Future;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::clock::{Calendar, Clock};
use crate::event::{Event, Events, Name};
use crate::problem::Problem;
use crate::promises::Build;
use crate::settings::{self, Access, Settings, Variables};
use crate::store::Atomics;
use crate::strategy::{Exact, Strategy};

use page::Page;

/// The maximum size of a request body, in bytes.
const BODY_LIMIT: usize = 1024;

/// Creates the router of the application for any host. Use [`answer`] to call it.
///
/// The router has no layers: each would wrap every route again, at each start of an instance and for each request.
pub fn router<H: Host>(app: App<H>) -> Router {
    Router::new()
        .route("/", get(demo::index::<H>))
        .route("/change_event", post(demo::change::<H>))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/events", get(events::list::<H>))
        .route(
            "/events/{name}",
            get(events::show::<H>)
                .put(events::change::<H>)
                .post(events::press::<H>)
                .delete(events::forget::<H>),
        )
        .route("/events/{name}/wait", get(events::wait::<H>))
        .route("/events/{name}/stream", get(stream::stream::<H>))
        .merge(H::background())
        .route("/healthz", get(health::<H>))
        .route("/openapi.json", get(openapi::<H>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

/// The routes of the service and the lifespan, for builds that have the service.
pub fn background<H: Background>() -> Router<App<H>> {
    Router::new()
        .route("/service", get(service::show::<H>))
        .route("/service/start", post(service::start::<H>))
        .route("/service/stop", post(service::stop::<H>))
        .route("/service/stream", get(service::stream::<H>))
        .route("/lifespan/startup", post(lifespan::startup::<H>))
        .route("/lifespan/shutdown", post(lifespan::shutdown::<H>))
}

/// The same routes for builds that do not have the service.
pub fn no_background<H: Host>() -> Router<App<H>> {
    Router::new()
        .route("/service", get(service::lacking::<H>))
        .route("/service/start", post(service::lacking::<H>))
        .route("/service/stop", post(service::lacking::<H>))
        .route("/service/stream", get(service::lacking::<H>))
        .route("/lifespan/startup", post(lifespan::nothing_to_do::<H>))
        .route("/lifespan/shutdown", post(lifespan::nothing_to_do::<H>))
}

/// The host that the routes run on.
pub trait Host: Sized + 'static {
    /// How events are stored and changed.
    type Strategy: Strategy + 'static;
    /// The clock.
    type Clock: Clock + 'static;
    /// The variables.
    type Variables: Variables + 'static;

    /// What the component is built for.
    const BUILD: Build;

    /// Returns [`background`] or [`no_background`].
    fn background() -> Router<App<Self>>;
}

/// A host that can run the service.
pub trait Background: Host<Strategy = Exact<Self::Store>, Clock: Calendar> {
    /// The store.
    type Store: Atomics + 'static;

    /// Runs `task` in this instance, also after the response was sent.
    fn spawn(task: impl Future<Output = ()> + Send + 'static);

    /// Prints a line to the host's log.
    fn print(line: &str);
}

/// What the requests of an instance share: values, never futures.
struct Shared<H: Host> {
    events: Events<H::Strategy, H::Clock>,
    variables: H::Variables,
    settings: OnceLock<Settings>,
    access: OnceLock<Access>,
    /// Every wait and stream that is under way holds a clone.
    places: Arc<()>,
}

/// One of the limited places for waits and streams of an instance. Dropping it frees the place.
pub struct Place {
    _of: Arc<()>,
}

/// The application, which is the state of the router.
pub struct App<H: Host>(Arc<Shared<H>>);

impl<H: Host> std::fmt::Debug for App<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}

impl<H: Host> Clone for App<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H: Host> App<H> {
    /// Creates the application with the events and the variables of its host.
    pub fn new(events: Events<H::Strategy, H::Clock>, variables: H::Variables) -> Self {
        Self(Arc::new(Shared {
            events,
            variables,
            settings: OnceLock::new(),
            access: OnceLock::new(),
            places: Arc::new(()),
        }))
    }

    /// Returns the settings. The first request of an instance that needs them reads them from the host.
    pub(crate) async fn settings(&self) -> Result<Settings, settings::Error> {
        if let Some(settings) = self.0.settings.get() {
            return Ok(*settings);
        }
        let settings = Settings::read(&self.0.variables).await?;
        Ok(*self.0.settings.get_or_init(|| settings))
    }

    /// Returns the access rules. The first request of an instance reads them from the host.
    async fn access(&self) -> Result<&Access, Problem> {
        if let Some(access) = self.0.access.get() {
            return Ok(access);
        }
        let access = Access::read(&self.0.variables).await?;
        Ok(self.0.access.get_or_init(|| access))
    }

    /// Takes a place for a wait or a stream, or fails with 429.
    async fn place(&self) -> Result<Place, Problem> {
        let most = self.settings().await?.instance_waits;
        let of = self.0.places.clone();
        // The count includes the application's own clone and this one.
        if Arc::strong_count(&of) > most + 1 {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "This instance already has {most} waits and streams, which is the maximum (the Spin variable instance_waits_max). Try again later."
                ),
            ));
        }
        Ok(Place { _of: of })
    }

    /// All events.
    fn events(&self) -> &Events<H::Strategy, H::Clock> {
        &self.0.events
    }

    /// The event called `name`.
    pub(crate) fn event(&self, name: &Name) -> Event<'_, H::Strategy, H::Clock> {
        self.0.events.named(name)
    }

    /// The variables.
    fn variables(&self) -> &H::Variables {
        &self.0.variables
    }
}

/// Answers one request with the [`router`] of `app`.
pub async fn answer<H: Host>(
    app: &App<H>,
    router: &Router,
    mut request: Request<Body>,
) -> Response {
    DefaultBodyLimit::max(BODY_LIMIT).apply(&mut request);
    let mut response = access::guard(app, router, request).await;
    if [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status()) {
        // axum sets a Content-Length on every response. RFC 9110 (8.6) forbids it for 204, and this value for 304.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// The OpenAPI description of the routes, without indentation, which is a third of its size.
static OPENAPI: &str = {
    const SOURCE: &[u8] = include_bytes!("openapi.json");
    const LENGTH: usize = unindent(SOURCE, &mut []);
    static DOCUMENT: [u8; LENGTH] = {
        let mut document = [0; LENGTH];
        unindent(SOURCE, &mut document);
        document
    };
    match str::from_utf8(&DOCUMENT) {
        Ok(document) => document,
        Err(_) => panic!("the description is not UTF-8"),
    }
};

/// Writes `source` without line breaks and indentation, as far as there is room. Returns its full length.
const fn unindent(source: &[u8], into: &mut [u8]) -> usize {
    let (mut length, mut at, mut is_indentation) = (0, 0, false);
    while at < source.len() {
        let byte = source[at];
        is_indentation = byte == b'\n' || (is_indentation && byte == b' ');
        if !is_indentation {
            if length < into.len() {
                into[length] = byte;
            }
            length += 1;
        }
        at += 1;
    }
    length
}

/// The OpenAPI description of the routes.
async fn openapi<H: Host>(State(app): State<App<H>>, uri: Uri) -> Result<Response, Problem> {
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    // These two depend on the settings and on the build. A test checks that the placeholders exist.
    let most = format!("\"maximum\": {}", settings.wait_max.as_secs());
    let build = format!("\"x-loopless\": {}", H::BUILD.document());
    let document = OPENAPI
        .replace("\"maximum\": 25", &most)
        .replace("\"x-loopless\": {}", &build);
    Ok(json(document))
}

/// A response in JSON.
fn json(document: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

async fn unknown_path(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("There is nothing at {path}."),
    )
}

/// axum adds the `Allow` header.
async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "{path} does not accept {method}. The Allow header lists the methods that it accepts."
        ),
    )
}

/// Checks that the store answers, and measures how long that takes.
async fn health<H: Host>(State(app): State<App<H>>, uri: Uri) -> Result<Response, Problem> {
    let [] = request::parameters(&uri, [])?;
    let began = app.events().now();
    app.events().probe().await?;
    let took = app.events().now().saturating_sub(began);
    let health =
        serde_json::json!({ "status": "ok", "store_ms": took.as_micros() as f64 / 1000.0 });
    Ok(json(health.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_description_loses_its_indentation_and_nothing_else() {
        let source = include_str!("openapi.json");
        let parse = |document| serde_json::from_str::<Value>(document).unwrap();
        assert_eq!(parse(OPENAPI), parse(source));
        assert!(!OPENAPI.contains('\n'));
    }
}
