//! Calls of the store that stop their instance.

use std::time::Duration;

use loopless_host::simulation::{Call, Outcome};

use super::TIMERS;
use crate::simulate::scenario::ms;

/// How long ago the store may have answered whoever makes a call that cannot be given up.
const FRESH: Duration = ms(100);

/// That a call that stops its instance, and cannot be given up, is made only of a store that has just answered this
/// instance.
pub fn check_synchronous(calls: &[Call]) -> Option<String> {
    let is_fresh = |call: &Call| {
        let instance = (&*call.host, call.instance);
        calls
            .iter()
            .filter(|other| (&*other.host, other.instance) == instance)
            .filter_map(|other| Some((other, other.answered?)))
            .filter(|(_, answered)| answered.order < call.asked.order)
            .any(|(other, answered)| {
                let seen = resumed(calls, instance, answered.at);
                let has_answered =
                    other.outcome != Outcome::Failed && seen + FRESH + TIMERS >= call.asked.at;
                // A host may ask its store more than once in one call.
                let is_same = is_synchronous(other) && answered.at == call.asked.at;
                has_answered || is_same
            })
    };
    let mut synchronous = calls.iter().filter(|call| is_synchronous(call));
    let call = synchronous.find(|call| !is_fresh(call))?;
    Some(format!(
        "{}.{} asked for {:?} {} at {:.3} s, and did not know whether the store answers",
        call.host,
        call.instance,
        call.operation,
        call.key,
        call.asked.at.as_secs_f64()
    ))
}

/// Whether it is a call of `wasi:keyvalue`, which stops its instance.
fn is_synchronous(call: &Call) -> bool {
    call.request.is_none()
}

/// When an instance that may be stopped sees what has come to it at this time.
pub fn resumed(calls: &[Call], instance: (&str, u64), came: Duration) -> Duration {
    let its = |call: &&Call| is_synchronous(call) && (&*call.host, call.instance) == instance;
    calls.iter().filter(its).fold(came, |seen, call| {
        match call.answered.map(|answered| answered.at) {
            Some(end) if (call.asked.at..end).contains(&seen) => end,
            _ => seen,
        }
    })
}
