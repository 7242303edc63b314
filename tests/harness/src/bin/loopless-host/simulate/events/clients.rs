//! The actions of clients, and their requests.

use std::time::Duration;

use http::{Request, header};
use loopless_host::simulation::{Exchange, Host};

use super::truth::Version;

/// An operation on an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET /events/NAME`
    Look,
    /// `PUT /events/NAME`, with `If-Match` if `only_from` is set
    Change {
        set: bool,
        only_from: Option<Version>,
    },
    /// `POST /change_event`
    Post { set: bool },
    /// `GET /`
    Page,
    /// `DELETE /events/NAME`
    Forget,
    /// `GET /events/NAME/wait`
    Wait { timeout: Duration },
    /// `GET /events/NAME?wait=` with `If-None-Match`
    LongPoll { known: Version, timeout: Duration },
    /// `GET /events/NAME/stream`, until the component ends it
    Stream { last_event_id: Option<Version> },
    /// `GET /events`
    List,
}

/// An action, and its request and response.
pub struct Done {
    pub client: u64,
    pub name: &'static str,
    pub action: Action,
    pub host: Host,
    pub exchange: Exchange,
}

/// Sends the request of an action, and waits for the response.
pub async fn act(client: u64, name: &'static str, action: Action, host: Host) -> Done {
    let event = format!("/events/{name}");
    let get = |path: String| Request::get(path).body(String::new());
    let request = match &action {
        Action::Look => get(event),
        Action::Change { set, only_from } => {
            let mut request = Request::put(event);
            if let Some(version) = only_from {
                request = request.header(header::IF_MATCH, format!("\"{version}\""));
            }
            request.body(format!("{{\"set\": {set}}}"))
        }
        Action::Post { set } => {
            let body = if *set { "True" } else { "False" };
            Request::post("/change_event").body(body.into())
        }
        Action::Page => get("/".into()),
        Action::Forget => Request::delete(event).body(String::new()),
        Action::Wait { timeout } => get(format!("{event}/wait?timeout={}", timeout.as_secs_f64())),
        Action::LongPoll { known, timeout } => {
            let path = format!("{event}?wait={}", timeout.as_secs_f64());
            let request = Request::get(path).header(header::IF_NONE_MATCH, format!("\"{known}\""));
            request.body(String::new())
        }
        Action::Stream { last_event_id } => {
            let mut request = Request::get(format!("{event}/stream"));
            if let Some(id) = last_event_id {
                request = request.header("last-event-id", id.to_string());
            }
            request.body(String::new())
        }
        Action::List => get("/events".into()),
    };
    // Names and numbers make valid requests.
    let request = request.unwrap_or_default();
    let exchange = host.send(format!("client {client}"), request).await;
    Done {
        client,
        name,
        action,
        host,
        exchange,
    }
}

impl Done {
    /// The version in the response's entity tag.
    pub fn version(&self) -> Option<Version> {
        let response = self.exchange.result.as_ref().ok()?;
        let etag = response.headers().get(header::ETAG)?.to_str().ok()?;
        Version::parse(etag.trim_matches('"'))
    }

    /// Describes the request in a report.
    pub fn describe(&self) -> String {
        format!(
            "request {} of client {} ({:?} of {}, sent at {:.3} s)",
            self.exchange.request,
            self.client,
            self.action,
            self.name,
            self.exchange.sent.at.as_secs_f64()
        )
    }
}
