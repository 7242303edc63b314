//! An event's changes as server-sent events.
//!
//! The format is that of the [HTML standard]. Every transition is sent once, in order, also one that a later one has
//! overtaken: from the generations alone it is known what the event was in between.
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use std::convert::Infallible;
use std::mem;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};

use super::events::{NamePath, View};
use super::{App, Host, request};
use crate::event::{self, Generation, Name};
use crate::problem::Problem;
use crate::settings::Settings;

/// How long a stream is silent at the most. Proxies close what is silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client should wait before it comes back, in milliseconds.
const RETRY_MS: u32 = 1000;

/// How many missed transitions are sent one by one. Who has missed more gets the last ones.
const MOST_MISSED: u64 = 100;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The state at once, then each change. With `Last-Event-ID`, each change since.
pub async fn stream<H: Host>(
    State(app): State<App<H>>,
    name: NamePath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = request::name(name)?;
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    let state = app.event(&name).state().await?;
    let now = app.events().now();

    let mut stream = Stream {
        app,
        name,
        settings,
        state,
        began: now,
        changed: now,
        sent: now,
        pending: format!("retry: {RETRY_MS}\n\n"),
        is_over: false,
    };
    // An id from the future is none of this event's.
    match last_event_id(&headers).filter(|known| *known <= state.generation) {
        Some(known) => stream.push_since(known),
        None => stream.push_state(state),
    }
    let body = futures_util::stream::unfold(stream, |mut stream| async {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), stream))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((kind, Body::from_stream(body)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Option<Generation> {
    let id = headers.get(LAST_EVENT_ID)?.to_str().ok()?;
    Generation::new(id.parse().ok()?)
}

/// One client's stream.
struct Stream<H: Host> {
    app: App<H>,
    name: Name,
    settings: Settings,
    /// The state that was sent last, or will be by what is pending.
    state: event::State,
    began: Duration,
    changed: Duration,
    sent: Duration,
    pending: String,
    is_over: bool,
}

impl<H: Host> Stream<H> {
    /// What is to be sent next, when it is. `None` at the end.
    async fn next(&mut self) -> Option<String> {
        while self.pending.is_empty() {
            if self.is_over {
                return None;
            }
            self.wait().await;
        }
        self.sent = self.app.events().now();
        Some(mem::take(&mut self.pending))
    }

    /// Waits for a change, for the time of a keep-alive, or for the end.
    async fn wait(&mut self) {
        let end = self
            .settings
            .stream_max
            .map_or(Duration::MAX, |most| self.began.saturating_add(most));
        let until = self.sent.saturating_add(KEEP_ALIVE).min(end);
        let event = self.app.event(&self.name);
        let event = event.with_polling(self.settings.polling);
        let timeout = until.saturating_sub(self.changed);
        match event.newer(self.state, self.changed, timeout).await {
            Ok(Some(state)) => {
                let known = self.state.generation;
                self.state = state;
                self.changed = self.app.events().now();
                self.push_since(known);
            }
            // A store that fails is asked again, as long as the client stays.
            Ok(None) if self.app.events().now() < end => self.pending.push_str(":\n\n"),
            Ok(None) => self.is_over = true,
            Err(error) => {
                let problem = Problem::from(error);
                self.push(Some("problem"), None, &problem.document());
                self.is_over = true;
            }
        }
    }

    /// Every transition from `known` to the current state.
    fn push_since(&mut self, known: Generation) {
        if self.state.is_forgotten {
            let view = View::new(&self.name, self.state).json();
            let generation = self.state.generation;
            if generation > known {
                self.push(Some("forgotten"), Some(generation), &view);
                self.is_over = true;
            }
            return;
        }
        let newest = self.state.generation.changes();
        let first = (known.changes() + 1).max(newest.saturating_sub(MOST_MISSED - 1));
        for generation in (first..=newest).filter_map(Generation::new) {
            self.push_state(event::State {
                generation,
                is_forgotten: false,
            });
        }
    }

    fn push_state(&mut self, state: event::State) {
        let view = View::new(&self.name, state).json();
        self.push(None, Some(state.generation), &view);
    }

    /// A message. `data` is one line.
    fn push(&mut self, event: Option<&str>, id: Option<Generation>, data: &str) {
        let event = event.map_or(String::new(), |event| format!("event: {event}\n"));
        let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
        self.pending += &format!("{event}{id}data: {data}\n\n");
    }
}
