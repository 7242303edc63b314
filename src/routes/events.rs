//! The routes of named events: show, wait, change, forget and list.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::{Deserialize, Serialize};

use super::request::{self, bad};
use super::{App, Host, Page};
use crate::event::{self, Changed, Name, Waited};
use crate::problem::Problem;

/// The name in the path, or why axum could not read it.
pub type NamePath = Result<Path<String>, PathRejection>;

/// How many events a page of the list has by default.
const PAGE: usize = 50;

/// How many events a page of the list has at most. Each costs one read.
const LARGEST_PAGE: usize = 200;

/// What `PUT` accepts.
const ACCEPTED: &str =
    "Send {\"set\": true}, which sets the event, or {\"set\": false}, which clears it";

/// An event as JSON.
#[derive(Serialize)]
pub struct View<'a> {
    name: &'a str,
    set: bool,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<bool>,
    #[serde(skip)]
    state: event::State,
}

impl<'a> View<'a> {
    /// The event `name` in this state.
    pub fn new(name: &'a Name, state: event::State) -> Self {
        Self {
            name: name.as_str(),
            set: state.is_set(),
            generation: state.generation.changes(),
            changed: None,
            state,
        }
    }

    /// Returns the JSON on one line.
    pub fn json(&self) -> String {
        // Strings and numbers, so serializing cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn response(&self) -> Response {
        (etag(self.state), super::json(self.json())).into_response()
    }
}

/// The `ETag` header of a state.
fn etag(state: event::State) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{state}\""))]
}

/// The body of a `PUT`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    set: bool,
}

/// Shows an event as JSON, or as a page in a browser. With `wait` and `If-None-Match`, waits for a different state.
pub async fn show<H: Host>(
    State(app): State<App<H>>,
    name: NamePath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = request::name(name)?;
    let [wait] = request::parameters(&uri, ["wait"])?;
    let settings = app.settings().await?;
    let event = app.event(&name).with_polling(settings.polling);

    let (wait, applied) = match wait {
        Some(wait) => {
            let wait = request::seconds("wait", &wait, settings.wait_max)?;
            (Some(wait), None)
        }
        // A preference that is too long is shortened, and the response says so.
        None => {
            let seconds = request::preferred_wait(&headers);
            let applied = seconds.map(|seconds| seconds.min(settings.wait_max.as_secs()));
            (applied.map(Duration::from_secs), applied)
        }
    };
    let is_known = |state| request::is_known(&headers, state);
    let is_waiting = wait.is_some() && headers.contains_key(header::IF_NONE_MATCH);
    let state = match wait {
        Some(wait) if is_waiting => {
            let _place = app.place().await?;
            event.changed(is_known, wait).await?
        }
        _ => event.state().await?,
    };

    let mut response = if is_known(state) {
        (StatusCode::NOT_MODIFIED, etag(state)).into_response()
    } else if is_waiting && state.is_forgotten {
        return Err(forgotten(&name));
    } else if request::prefers_html(&headers) {
        Page::of::<H>(&name, state, format!("/events/{name}"))?
    } else {
        View::new(&name, state).response()
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept, prefer"));
    if let Some(seconds) = applied {
        let applied = HeaderValue::from_str(&format!("wait={seconds}"));
        headers.extend(applied.ok().map(|applied| (PREFERENCE_APPLIED, applied)));
    }
    Ok(response)
}

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Sets or clears the event.
pub async fn change<H: Host>(
    State(app): State<App<H>>,
    name: NamePath,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let name = request::name(name)?;
    let [] = request::parameters(&uri, [])?;
    let condition = request::condition(&headers);
    let body = request::body(body, ACCEPTED)?;
    let wanted: Wanted = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("The body is not valid: {error}. {ACCEPTED}.")))?;

    let event = app.event(&name);
    let changed = match condition {
        None => event.change(wanted.set).await?,
        Some(condition) => {
            let is_allowed = |state| condition.allows(state);
            event.change_if(wanted.set, &is_allowed).await?
        }
    };
    let (state, changed) = match changed {
        Changed::Yes(state) => (state, true),
        Changed::No(state) => (state, false),
        Changed::Refused(state) => return Err(precondition_failed(state)),
    };
    let mut view = View::new(&name, state);
    view.changed = Some(changed);
    Ok(view.response())
}

/// Sets or clears the event for the form of its page, which cannot send a `PUT`, and redirects to the page.
pub async fn press<H: Host>(
    State(app): State<App<H>>,
    name: NamePath,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Redirect, Problem> {
    const ACCEPTED: &str = "Send state=True or state=False, as the page does, or use PUT";

    let name = request::name(name)?;
    let [] = request::parameters(&uri, [])?;
    let body = request::body(body, ACCEPTED)?;
    let pressed = request::pressed(&body);
    let is_set = pressed.ok_or_else(|| bad(format!("The body is not valid. {ACCEPTED}.")))?;
    app.event(&name).change(is_set).await?;
    Ok(Redirect::to(&format!("/events/{name}")))
}

fn precondition_failed(state: event::State) -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_FAILED,
        format!(
            "The event is in generation {}, and If-Match does not name \"{state}\", in quotes. Nothing was changed.",
            state.generation
        ),
    )
}

/// Forgets the event.
pub async fn forget<H: Host>(
    State(app): State<App<H>>,
    name: NamePath,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let name = request::name(name)?;
    let [] = request::parameters(&uri, [])?;
    app.event(&name).forget().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Waits until the event is set.
pub async fn wait<H: Host>(
    State(app): State<App<H>>,
    name: NamePath,
    uri: Uri,
) -> Result<Response, Problem> {
    let name = request::name(name)?;
    let [timeout] = request::parameters(&uri, ["timeout"])?;
    let settings = app.settings().await?;
    let timeout = match timeout {
        Some(timeout) => request::seconds("timeout", &timeout, settings.wait_max)?,
        None => settings.wait_max,
    };
    let event = app.event(&name).with_polling(settings.polling);
    let _place = app.place().await?;
    match event.wait(timeout).await? {
        Waited::Set(state) => Ok(View::new(&name, state).response()),
        Waited::Forgotten(_) => Err(forgotten(&name)),
        Waited::TimedOut(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "The event was not set within {} s. Ask again.",
                timeout.as_secs_f64()
            ),
        )),
    }
}

/// The response to a wait on an event that was forgotten.
fn forgotten(name: &Name) -> Problem {
    Problem::new(
        StatusCode::GONE,
        format!("The event {name} was forgotten during the wait. Setting it creates a new event."),
    )
}

/// A page of the list.
#[derive(Serialize)]
struct List<'a> {
    events: Vec<View<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists the events that exist, in the order of their names.
pub async fn list<H: Host>(State(app): State<App<H>>, uri: Uri) -> Result<Response, Problem> {
    let [after, limit] = request::parameters(&uri, ["after", "limit"])?;
    let after = after
        .map(|after| {
            Name::new(&after).ok_or_else(|| {
                bad(format!(
                    "The parameter after is not the name of an event. {}",
                    request::names()
                ))
            })
        })
        .transpose()?;
    let limit = match limit {
        None => PAGE,
        Some(limit) => match limit.parse() {
            Ok(number) if (1..=LARGEST_PAGE).contains(&number) => number,
            _ => {
                return Err(bad(format!(
                    "The parameter limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit:?}."
                )));
            }
        },
    };
    let page = app.events().list(after.as_ref(), limit).await?;
    let last = page.events.last().filter(|_| page.has_more);
    // Names need no escaping in a URL.
    let next = last.map(|(name, _)| format!("/events?after={name}&limit={limit}"));
    let link = next.as_ref().map(|next| format!("<{next}>; rel=\"next\""));
    let events = page.events.iter();
    let list = List {
        events: events
            .map(|(name, state)| View::new(name, *state))
            .collect(),
        next,
    };
    // Strings and numbers, so serializing cannot fail.
    let mut response = super::json(serde_json::to_string(&list).unwrap_or_default());
    let link = link.and_then(|link| HeaderValue::from_str(&link).ok());
    let headers = response.headers_mut();
    headers.extend(link.map(|link| (header::LINK, link)));
    Ok(response)
}
