//! Calls of `wasi:keyvalue`, which block their instance until the store answers, and cannot be cancelled.

use std::time::Duration;

use loopless_host::simulation::{Call, Outcome};

use super::TIMERS;
use super::scenario::ms;

/// How recently the store must have answered the instance before such a call.
const FRESH: Duration = ms(100);

/// Checks that an instance makes such calls only just after the store has answered it.
pub fn check_synchronous(calls: &[Call]) -> Option<String> {
    let is_fresh = |call: &Call| {
        let instance = (&*call.host, call.instance);
        // Usually, one of the latest is the one.
        let latest_first = calls.iter().rev();
        latest_first
            .filter(|other| (&*other.host, other.instance) == instance)
            .filter_map(|other| Some((other, other.answered?)))
            .filter(|(_, answered)| answered.order < call.asked.order)
            .any(|(other, answered)| {
                let seen = resumed(calls, instance, answered.at);
                let has_answered =
                    other.outcome != Outcome::Failed && seen + FRESH + TIMERS >= call.asked.at;
                // One call of the component may be several calls of the store.
                let is_same = is_synchronous(other) && answered.at == call.asked.at;
                has_answered || is_same
            })
    };
    let mut synchronous = calls.iter().filter(|call| is_synchronous(call));
    let call = synchronous.find(|call| !is_fresh(call))?;
    Some(format!(
        "{}.{} called {:?} {} at {:.3} s, and the store had not just answered",
        call.host,
        call.instance,
        call.operation,
        call.key,
        call.asked.at.as_secs_f64()
    ))
}

/// Whether this is a call of `wasi:keyvalue`. Only these belong to no known request.
fn is_synchronous(call: &Call) -> bool {
    call.request.is_none()
}

/// When an instance sees an answer that `came` at this time: if it is blocked then, at the end of the blocking call.
pub fn resumed(calls: &[Call], instance: (&str, u64), came: Duration) -> Duration {
    let its = |call: &&Call| is_synchronous(call) && (&*call.host, call.instance) == instance;
    calls.iter().filter(its).fold(came, |seen, call| {
        match call.answered.map(|answered| answered.at) {
            Some(end) if (call.asked.at..end).contains(&seen) => end,
            _ => seen,
        }
    })
}
