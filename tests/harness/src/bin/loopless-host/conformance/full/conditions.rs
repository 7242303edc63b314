//! `If-None-Match` and `If-Match`.

use crate::conformance::client::Target;
use crate::conformance::report::{Outcome, equal};

pub async fn known(target: &Target) -> Outcome {
    let name = target.name("known");
    let path = format!("/events/{name}");
    let set = target.put(&name, true).await?.state(1)?;
    let tag = set.etag();
    for known in [tag, &format!("W/{tag}"), &format!("\"0\", {tag}"), "*"] {
        let answer = target.get_with(&path, &[("if-none-match", known)]).await?;
        let answer = answer.status(304)?.tag(1)?;
        equal("a body of length", 0, answer.body.len())?;
    }
    Ok(())
}

pub async fn unknown(target: &Target) -> Outcome {
    let name = target.name("unknown");
    let path = format!("/events/{name}");
    let set = target.put(&name, true).await?.state(1)?;
    let unquoted = set.etag().trim_matches('"');
    for known in ["\"0\"", "\"2\"", "\"01\"", unquoted] {
        let answer = target.get_with(&path, &[("if-none-match", known)]).await?;
        answer.state(1)?;
    }
    Ok(())
}

pub async fn current(target: &Target) -> Outcome {
    let name = target.name("current");
    let first = [("if-match", "\"0\"")];
    let set = target.put_if(&name, true, &first).await?.state(1)?;
    let tags = format!("\"0\", {}", set.etag());
    let second = [("if-match", tags.as_str())];
    target
        .put_if(&name, false, &second)
        .await?
        .state(2)
        .map(drop)
}

pub async fn stale(target: &Target) -> Outcome {
    let name = target.name("stale");
    let set = target.put(&name, true).await?.state(1)?;
    let tag = set.etag();
    let unquoted = tag.trim_matches('"');
    let tags = ["\"0\"", "\"2\"", &format!("W/{tag}"), unquoted];
    rejects(target, &name, &tags, 412).await
}

pub async fn refused(target: &Target) -> Outcome {
    let name = target.name("conditional");
    let set = target.put(&name, true).await?.state(1)?;
    rejects(target, &name, &[set.etag(), "\"0\"", "*"], 501).await
}

/// Checks that an event that is set in generation 1 is not cleared under any of these conditions.
async fn rejects(target: &Target, name: &str, tags: &[&str], status: u16) -> Outcome {
    for &tag in tags {
        let cleared = target.put_if(name, false, &[("if-match", tag)]).await?;
        cleared.problem(status)?;
    }
    let path = format!("/events/{name}");
    target.get(&path).await?.state(1).map(drop)
}
