//! The changes of an event as server-sent events.
//!
//! A pulse is sent as a set and a clear, even if it was never read: the states before and after show what happened in
//! between. With compare-and-swap, every change is sent once, in order.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::events::{NamePath, View};
use super::sse::{self, MOST_MISSED, Messages};
use super::{App, Host, request};
use crate::event::{self, Name, Polling, Seen};
use crate::problem::Problem;
use crate::strategy::Strategy;

/// Streams the state at once, then each change. With `Last-Event-ID`, streams each change since that one.
pub async fn stream<H: Host>(
    State(app): State<App<H>>,
    name: NamePath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = request::name(name)?;
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    let place = app.place().await?;
    let seen = app.event(&name).look().await?;

    let source = Source {
        app: app.clone(),
        name,
        polling: settings.polling,
        seen,
        changed: app.events().now(),
    };
    let mut messages = Messages::new();
    let known = sse::last_event_id(&headers).and_then(|id| id.parse().ok());
    source.push_since(known, &mut messages);
    Ok(sse::response(app, settings, place, messages, source))
}

/// The source of one client's stream.
struct Source<H: Host> {
    app: App<H>,
    name: Name,
    polling: Polling,
    /// The last state that was sent.
    seen: Seen,
    changed: Duration,
}

impl<H: Host> sse::Source for Source<H> {
    async fn wait(&mut self, until: Duration, messages: &mut Messages) -> Result<(), Problem> {
        let event = self.app.event(&self.name).with_polling(self.polling);
        let timeout = until.saturating_sub(self.changed);
        if let Some(newer) = event.newer(self.seen, self.changed, timeout).await? {
            let known = self.seen.state;
            self.seen = newer;
            self.changed = self.app.events().now();
            self.push_since(Some(known), messages);
        }
        Ok(())
    }
}

impl<H: Host> Source<H> {
    /// Pushes the changes since `known`. Without it, pushes the current state. If `known` cannot have been a state of this
    /// event, the store went back: pushes the current state as a `reset`.
    fn push_since(&self, known: Option<event::State>, messages: &mut Messages) {
        let now = self.seen.state;
        let since = known.and_then(|known| H::Strategy::since(known, now, MOST_MISSED));
        let is_news = since.is_some();
        let existed = known.is_some_and(event::State::exists);
        for state in since.unwrap_or_else(|| vec![now]) {
            let is_forgotten = is_news && (state.is_forgotten || (existed && !state.exists()));
            let kind = if is_forgotten {
                Some("forgotten")
            } else {
                (known.is_some() && !is_news).then_some("reset")
            };
            let view = View::new(&self.name, state).json();
            messages.push(kind, Some(state), &view);
            if is_forgotten {
                messages.end();
            }
        }
    }
}
