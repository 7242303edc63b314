//! `GET /events/{name}/wait`, and `?wait=` with `If-None-Match`.

use std::time::Duration;

use tokio::time::sleep;

use super::{BETWEEN_PULSES, during};
use crate::conformance::client::{Answer, CLOCK_ERROR, Target};
use crate::conformance::report::{Failure, Outcome, equal};

pub async fn set(target: &Target) -> Outcome {
    let name = target.name("wait-set");
    target.put(&name, true).await?.state(1)?;
    let path = format!("/events/{name}/wait?timeout=0");
    target.get(&path).await?.state(1).map(drop)
}

pub async fn crosses(target: &Target) -> Outcome {
    let name = target.name("wait-crosses");
    let path = format!("/events/{name}/wait");
    let setter = target.another_client();
    let change = async { setter.put(&name, true).await?.state(1) };
    let answer = during(change, target.get(&path)).await?;
    answer.state(1).map(drop)
}

pub async fn pulse(target: &Target) -> Outcome {
    let name = target.name("wait-pulse");
    let path = format!("/events/{name}/wait");
    let answer = while_pulsing(target, &name, target.get(&path)).await?;
    let state = answer.status(200)?.json()?;
    // The event may be set or clear again.
    equal("name", Some(&*name), state["name"].as_str())
}

pub async fn timeout(target: &Target) -> Outcome {
    let path = format!("/events/{}/wait?timeout=0.5", target.name("wait-timeout"));
    let answer = target.get(&path).await?.problem(408)?;
    takes(&answer, Duration::from_millis(500))
}

pub async fn nonsense(target: &Target) -> Outcome {
    let path = format!("/events/{}/wait", target.name("wait-nonsense"));
    for query in [
        "timeout=soon",
        "timeout=-1",
        "timeout=inf",
        "timeout=100000",
        "timeout=",
        "timeout=1&timeout=1",
        "timeuot=1",
    ] {
        target.get(&format!("{path}?{query}")).await?.problem(400)?;
    }
    Ok(())
}

pub async fn unchanged(target: &Target) -> Outcome {
    let path = format!("/events/{}?wait=1", target.name("poll-unchanged"));
    let known = [("if-none-match", "\"0\"")];
    let answer = target.get_with(&path, &known).await?.status(304)?;
    takes(&answer, Duration::from_secs(1))
}

pub async fn changed(target: &Target) -> Outcome {
    let name = target.name("poll-changed");
    let path = format!("/events/{name}");
    let headers = [("if-none-match", "\"0\""), ("prefer", "wait=20")];
    let setter = target.another_client();
    let change = async { setter.put(&name, true).await?.state(1) };
    let answer = during(change, target.get_with(&path, &headers)).await?;
    let answer = answer.state(1)?;
    let applied = answer.header("preference-applied");
    if applied.starts_with("wait=") {
        return Ok(());
    }
    Err(Failure::new(
        "Preference-Applied: wait=",
        format_args!("{applied:?}"),
    ))
}

pub async fn between_polls(target: &Target) -> Outcome {
    let name = target.name("poll-pulse");
    target.put(&name, true).await?.state(1)?;
    target.put(&name, false).await?.state(2)?;
    let path = format!("/events/{name}?wait=1");
    let known = [("if-none-match", "\"0\"")];
    target.get_with(&path, &known).await?.state(2).map(drop)
}

/// Sends pulses until `wait` ends. Whether the wait has begun is not visible from outside, so one pulse may be too early.
async fn while_pulsing(
    target: &Target,
    name: &str,
    wait: impl Future<Output = Outcome<Answer>>,
) -> Outcome<Answer> {
    let pulses = async {
        let client = target.another_client();
        loop {
            sleep(BETWEEN_PULSES).await;
            client.put(name, true).await?.status(200)?;
            client.put(name, false).await?.status(200)?;
        }
    };
    tokio::select! {
        answer = wait => answer,
        failed = pulses => failed,
    }
}

fn takes(answer: &Answer, least: Duration) -> Outcome {
    if answer.took + CLOCK_ERROR >= least {
        return Ok(());
    }
    Err(Failure::new(
        format_args!("an answer after {} ms", least.as_millis()),
        format_args!("one after {} ms", answer.took.as_millis()),
    ))
}
