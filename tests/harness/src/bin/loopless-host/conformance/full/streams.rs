//! `GET /events/{name}/stream`.

use crate::conformance::client::{Answer, Target};
use crate::conformance::report::{Failure, Outcome, equal};

pub async fn changes(target: &Target, counted: bool) -> Outcome {
    let name = target.name("stream");
    target.put(&name, true).await?.state(1)?;
    let mut stream = target.another_client().stream(&name, &[]).await?;
    stream.is_stream()?;
    stream.next_state(1).await?;
    let mut last = None;
    for generation in 2..=5 {
        last = Some(
            target
                .put(&name, generation % 2 == 1)
                .await?
                .state(generation)?,
        );
    }
    let last = last.as_ref().map_or("", Answer::etag).trim_matches('"');
    let mut generation = 1;
    while generation < 5 {
        let Some(message) = stream.next().await? else {
            return Err(Failure::new("more changes", "the end of the stream"));
        };
        // If several changes happen between two reads, a stream that does not count has only the last two.
        let next = generation + 1;
        generation = match message.generation() {
            Some(told) if !counted && told % 2 == next % 2 => told.max(next),
            _ => next,
        };
        message.is_state(generation)?;
        if generation == 5 {
            equal("a last message with id", last, &message.id)?;
        }
    }
    Ok(())
}

pub async fn resumed(target: &Target) -> Outcome {
    let name = target.name("stream-resumed");
    let mut ids = Vec::new();
    for generation in 1..=4 {
        let changed = target.put(&name, generation % 2 == 1).await?;
        let changed = changed.state(generation)?;
        ids.push(changed.etag().trim_matches('"').to_owned());
    }
    let known = [("last-event-id", &*ids[1])];
    let mut stream = target.another_client().stream(&name, &known).await?;
    stream.next_state(3).await?;
    stream.next_state(4).await?;
    target.put(&name, true).await?.state(5)?;
    stream.next_state(5).await
}

pub async fn forgotten(target: &Target) -> Outcome {
    let name = target.name("stream-forgotten");
    target.put(&name, true).await?.state(1)?;
    let mut stream = target.another_client().stream(&name, &[]).await?;
    stream.next_state(1).await?;
    target.delete(&name).await?.status(204)?;
    let Some(message) = stream.next().await? else {
        return Err(Failure::new(
            "a message of the kind \"forgotten\"",
            "the end of the stream",
        ));
    };
    equal("a message of the kind", "forgotten", &message.event)?;
    match stream.next().await? {
        None => Ok(()),
        Some(more) => Err(Failure::new(
            "the end of the stream",
            format_args!("{more:?}"),
        )),
    }
}
