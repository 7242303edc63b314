//! Server-sent events, in the format of the [HTML standard].
//!
//! [HTML standard]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use std::convert::Infallible;
use std::fmt::Display;
use std::mem;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};

use super::{App, Host, Place};
use crate::problem::Problem;
use crate::settings::Settings;

/// The longest time without a message or comment. Proxies close connections that are silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client should wait before it reconnects, in milliseconds.
const RETRY_MS: u32 = 1000;

/// How many of the messages that a client has missed are sent. Older ones are skipped.
pub const MOST_MISSED: u64 = 100;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The source of a stream's messages.
pub trait Source: Send + 'static {
    /// Waits for news until `until`, by the clock of the events, and pushes them.
    ///
    /// A failure of the store is not an error, because it may be temporary. The next call retries.
    fn wait(
        &mut self,
        until: Duration,
        messages: &mut Messages,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// Messages that have not been sent yet.
pub struct Messages {
    pending: String,
    is_over: bool,
}

impl Messages {
    /// No message yet, only the time after which clients reconnect.
    pub fn new() -> Self {
        Self {
            pending: format!("retry: {RETRY_MS}\n\n"),
            is_over: false,
        }
    }

    /// Adds a message. `data` must be one line.
    pub fn push(&mut self, event: Option<&str>, id: Option<impl Display>, data: &str) {
        let event = event.map_or(String::new(), |event| format!("event: {event}\n"));
        let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
        self.pending += &format!("{event}{id}data: {data}\n\n");
    }

    /// Ends the stream after these messages.
    pub fn end(&mut self) {
        self.is_over = true;
    }
}

/// The id of the last message that the client has received, if it sends it.
pub fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID)?.to_str().ok()
}

/// A response that streams `messages`, and then those of `source`.
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
    /// Waits for the next chunk. `None` at the end of the stream.
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
