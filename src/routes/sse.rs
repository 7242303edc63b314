//! Server-sent events: what all streams have in common.
//!
//! The format is that of the [HTML standard].
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::mem;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};

use super::{App, Host, Place};
use crate::problem::Problem;
use crate::settings::Settings;

/// How long a stream is silent at most. Proxies close what is silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client should wait before it comes back, in milliseconds.
const RETRY_MS: u32 = 1000;

/// How much of what a client has missed is sent one by one. Who has missed more gets the last ones.
pub const MOST_MISSED: u64 = 100;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a stream tells.
pub trait Source: Send + 'static {
    /// Waits for news until `until` on the clock of the events, and pushes them.
    ///
    /// A store that fails is asked again, as long as the client stays: only what cannot get better is an error.
    fn wait(
        &mut self,
        until: Duration,
        messages: &mut Messages,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// Messages that are still to be sent.
pub struct Messages {
    pending: String,
    is_over: bool,
}

impl Messages {
    /// None, but for what sets the time of retries.
    pub fn new() -> Self {
        Self {
            pending: format!("retry: {RETRY_MS}\n\n"),
            is_over: false,
        }
    }

    /// A message. `data` is one line.
    pub fn push(&mut self, event: Option<&str>, id: Option<impl Display>, data: &str) {
        let event = event.map_or(String::new(), |event| format!("event: {event}\n"));
        let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
        self.pending += &format!("{event}{id}data: {data}\n\n");
    }

    /// Ends the stream after what was pushed.
    pub fn end(&mut self) {
        self.is_over = true;
    }
}

/// What the client has seen last, if it says so.
pub fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID)?.to_str().ok()
}

/// The stream of `messages`, and then of what `source` tells.
pub fn response<H: Host>(
    app: App<H>,
    settings: Settings,
    place: Place,
    messages: Messages,
    source: impl Source,
) -> Response {
    let now = app.events().now();
    let end = settings
        .stream_max
        .map_or(Duration::MAX, |most| now.saturating_add(most));
    let stream = Stream {
        app,
        end,
        sent: now,
        _place: place,
        messages,
        source,
    };
    let body = futures_util::stream::unfold(stream, |mut stream| async {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), stream))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(body)).into_response()
}

/// One client's stream.
struct Stream<H: Host, T> {
    app: App<H>,
    end: Duration,
    sent: Duration,
    _place: Place,
    messages: Messages,
    source: T,
}

impl<H: Host, T: Source> Stream<H, T> {
    /// What is to be sent next, when it is. `None` at the end.
    async fn next(&mut self) -> Option<String> {
        while self.messages.pending.is_empty() {
            if self.messages.is_over {
                return None;
            }
            let until = self.sent.saturating_add(KEEP_ALIVE).min(self.end);
            let waited = self.source.wait(until, &mut self.messages).await;
            if let Err(problem) = waited {
                let document = problem.document();
                self.messages.push(Some("problem"), None::<u64>, &document);
                self.messages.end();
            }
            let now = self.app.events().now();
            if self.messages.pending.is_empty() && now >= until {
                if now < self.end {
                    self.messages.pending.push_str(":\n\n");
                } else {
                    self.messages.end();
                }
            }
        }
        self.sent = self.app.events().now();
        Some(mem::take(&mut self.messages.pending))
    }
}
