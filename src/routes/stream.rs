//! An event's changes as server-sent events.
//!
//! Every transition is sent once, in order, also one that a later one has overtaken: from the generations alone it is
//! known what the event was in between.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::events::{NamePath, View};
use super::sse::{self, MOST_MISSED, Messages};
use super::{App, Host, request};
use crate::event::{self, Generation, Name, Polling};
use crate::problem::Problem;

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

    let source = Source {
        app: app.clone(),
        name,
        polling: settings.polling,
        state,
        changed: app.events().now(),
    };
    let mut messages = Messages::new();
    // An id from the future is none of this event's.
    match last_event_id(&headers).filter(|known| *known <= state.generation) {
        Some(known) => source.push_since(known, &mut messages),
        None => source.push_state(state, &mut messages),
    }
    Ok(sse::response(app, settings, messages, source))
}

fn last_event_id(headers: &HeaderMap) -> Option<Generation> {
    let id = sse::last_event_id(headers)?;
    Generation::new(id.parse().ok()?)
}

/// What one client is told.
struct Source<H: Host> {
    app: App<H>,
    name: Name,
    polling: Polling,
    /// The state that was told last.
    state: event::State,
    changed: Duration,
}

impl<H: Host> sse::Source for Source<H> {
    async fn wait(&mut self, until: Duration, messages: &mut Messages) -> Result<(), Problem> {
        let event = self.app.event(&self.name).with_polling(self.polling);
        let timeout = until.saturating_sub(self.changed);
        if let Some(state) = event.newer(self.state, self.changed, timeout).await? {
            let known = self.state.generation;
            self.state = state;
            self.changed = self.app.events().now();
            self.push_since(known, messages);
        }
        Ok(())
    }
}

impl<H: Host> Source<H> {
    /// Every transition from `known` to the current state.
    fn push_since(&self, known: Generation, messages: &mut Messages) {
        if self.state.is_forgotten {
            let view = View::new(&self.name, self.state).json();
            let generation = self.state.generation;
            if generation > known {
                messages.push(Some("forgotten"), Some(generation), &view);
                messages.end();
            }
            return;
        }
        let newest = self.state.generation.changes();
        let first = (known.changes() + 1).max(newest.saturating_sub(MOST_MISSED - 1));
        for generation in (first..=newest).filter_map(Generation::new) {
            let state = event::State {
                generation,
                is_forgotten: false,
            };
            self.push_state(state, messages);
        }
    }

    fn push_state(&self, state: event::State, messages: &mut Messages) {
        let view = View::new(&self.name, state).json();
        messages.push(None, Some(state.generation), &view);
    }
}
