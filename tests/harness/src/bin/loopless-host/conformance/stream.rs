//! A client of an event's stream, and assertions on its messages.

use std::time::Duration;

use anyhow::anyhow;
use eventsource_stream::{Event, EventStream, Eventsource};
use futures_util::StreamExt;
use http::{HeaderMap, Response};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use super::client::{is_version, media_type, not_stored};
use super::report::{Failure, Outcome, equal};

/// How long the next expected message may take.
pub const SILENCE: Duration = Duration::from_secs(10);

/// The stream of an event.
pub struct Stream {
    headers: HeaderMap,
    messages: EventStream<BodyDataStream<Incoming>>,
}

/// A message of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub event: String,
    pub id: String,
    pub data: String,
}

impl Message {
    /// The generation of the state in the message. `None` if the message has no state.
    pub fn generation(&self) -> Option<u64> {
        let state: Value = serde_json::from_str(&self.data).ok()?;
        state["generation"].as_u64()
    }

    /// Checks that the message is the state of an event in this generation.
    pub fn is_state(&self, generation: u64) -> Outcome {
        if !is_version(&self.id, generation) {
            let expected = format!("a message with an id of generation {generation}");
            return Err(Failure::new(expected, format_args!("{:?}", self.id)));
        }
        let state: Value = serde_json::from_str(&self.data)
            .map_err(|_| Failure::new("a message with JSON", &self.data))?;
        equal("generation", Some(generation), state["generation"].as_u64())?;
        equal("set", Some(generation % 2 == 1), state["set"].as_bool())
    }
}

impl Stream {
    /// Reads the stream from a response.
    pub fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            headers: parts.headers,
            messages: BodyDataStream::new(body).eventsource(),
        }
    }

    /// Checks that the response is an event stream that no cache may store.
    pub fn is_stream(&self) -> Outcome {
        media_type(&self.headers, "text/event-stream")?;
        not_stored(&self.headers)
    }

    /// The next message, or `None` at the end.
    pub async fn next(&mut self) -> Outcome<Option<Message>> {
        match timeout(SILENCE, self.messages.next()).await {
            Err(_) => Err(kept_back()),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => Err(anyhow!("the stream was cut off: {error}").into()),
            Ok(Some(Ok(Event {
                event, id, data, ..
            }))) => Ok(Some(Message { event, id, data })),
        }
    }

    /// Checks that the next message is the state in this generation.
    pub async fn next_state(&mut self, generation: u64) -> Outcome {
        match self.next().await? {
            Some(message) => message.is_state(generation),
            None => Err(Failure::new(
                format_args!("a message with generation {generation}"),
                "the end of the stream",
            )),
        }
    }
}

/// The failure if a stream's response or message does not arrive in time.
pub fn kept_back() -> Failure {
    Failure::new(
        "a message",
        format_args!(
            "none within {} s: the server or a proxy delays the stream",
            SILENCE.as_secs()
        ),
    )
}
