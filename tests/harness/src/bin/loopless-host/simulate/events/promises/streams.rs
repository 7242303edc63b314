//! The messages of a stream.

use std::convert::Infallible;
use std::time::Duration;

use eventsource_stream::{Event, Eventsource};
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::Value;

use super::Seen;
use crate::contract::Promise;
use crate::simulate::TIMERS;
use crate::simulate::events::truth::Version;
use crate::simulate::scenario::Weather;

impl Seen<'_> {
    pub(super) fn check_stream(&self, last_event_id: Option<Version>) -> Result<(), String> {
        let messages = messages(self.done.exchange.text())?;
        let is_forgotten = messages.iter().any(|message| message.is_forgotten);
        let versions: Vec<_> = messages.iter().map(|message| message.version).collect();
        let told = || {
            let versions: Vec<_> = versions.iter().map(Version::to_string).collect();
            versions.join(", ")
        };
        if versions.is_empty() {
            return match last_event_id {
                Some(_) => Ok(()),
                None => Err("the stream did not begin with the state".into()),
            };
        }
        // The last message of a forgotten event is not a step from one state to the next.
        let steps = &versions[..versions.len() - usize::from(is_forgotten)];
        if self.run.contract.keeps(Promise::Counted) {
            let known = [last_event_id].into_iter();
            let known = known.chain(versions.iter().copied().map(Some));
            for (index, (step, known)) in steps.iter().zip(known).enumerate() {
                let is_next = known.is_some_and(|known| known.generation + 1 == step.generation);
                // The client's last ID may belong to another event, and be ahead of this one.
                let may_reset = self.run.weather == Weather::Forgetful || index == 0;
                let is_reset = messages[index].is_reset && may_reset;
                // A state between two reads has no tag, because the component infers it.
                if step.tag.is_some() {
                    self.was(*step)?;
                }
                if !(index == 0 || is_reset) && (!is_next || messages[index].is_reset) {
                    return Err(format!("the stream's ids are {}", told()));
                }
            }
        } else {
            let flags = last_event_id.iter().chain(steps).map(|step| step.is_set());
            if !flags.is_sorted_by(|one, next| one != next) {
                return Err(format!("the stream does not alternate: {}", told()));
            }
            // A state between two reads has no tag, because the component infers it.
            let was_read = |index: usize, version: &Version| {
                version.tag.is_some()
                    || index + 1 == versions.len()
                    || (index == 0 && last_event_id.is_none())
            };
            for (index, version) in versions.iter().enumerate() {
                if was_read(index, version) {
                    self.was(*version)?;
                }
            }
        }
        let is_healthy = self.run.weather == Weather::Healthy;
        if is_healthy && self.lag().is_zero() && !is_forgotten {
            let bound = self.run.poll_last * 5 / 4 + self.run.longest_call * 2;
            let exchange = &self.done.exchange;
            let instance = self.done.host.acceptance(exchange.request);
            let stopped = instance.map_or(Duration::ZERO, |acceptance| {
                self.stopped(acceptance.instance, exchange.sent.at, exchange.ended.at)
            });
            let until = exchange
                .ended
                .at
                .saturating_sub(bound + stopped + TIMERS + self.run.poll_first);
            let mut later = self.truth.from(until);
            let last = versions.last();
            if until > exchange.sent.at && !later.any(|state| Some(&state.version) == last) {
                return Err(format!(
                    "the stream has {}, and the last state had ended by {:.3} s",
                    told(),
                    until.as_secs_f64()
                ));
            }
        }
        Ok(())
    }
}

/// A message of a stream.
struct Message {
    version: Version,
    is_forgotten: bool,
    is_reset: bool,
}

/// Parses the messages of a stream.
///
/// # Errors
///
/// If a message has no state, or its ID names another one.
fn messages(body: &str) -> Result<Vec<Message>, String> {
    let whole = stream::iter([Ok::<_, Infallible>(body)]).eventsource();
    let events: Vec<_> = whole.collect().now_or_never().unwrap_or_default();
    let read = |event: &Event| {
        let version = Version::parse(&event.id)?;
        let data: Value = serde_json::from_str(&event.data).ok()?;
        let is_one = data["generation"] == version.generation && data["set"] == version.is_set();
        is_one.then_some(Message {
            version,
            is_forgotten: event.event == "forgotten",
            is_reset: event.event == "reset",
        })
    };
    let messages = events.into_iter().map(|event| {
        let event = event.map_err(|error| format!("the stream is invalid: {error}"))?;
        read(&event).ok_or_else(|| format!("the stream has an invalid message: {event:?}"))
    });
    messages.collect()
}
