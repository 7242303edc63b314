//! Reading, changing, forgetting and listing events.

use http::Method;

use super::during;
use crate::conformance::client::Target;
use crate::conformance::report::{Failure, Outcome, equal};
use crate::conformance::seed;

pub async fn fresh(target: &Target) -> Outcome {
    let path = format!("/events/{}", target.name("fresh"));
    target.get(&path).await?.not_stored()?.state(0).map(drop)
}

pub async fn changes(target: &Target) -> Outcome {
    let name = target.name("changes");
    let path = format!("/events/{name}");
    for (is_set, generation, changed) in [
        (false, 0, false),
        (true, 1, true),
        (true, 1, false),
        (false, 2, true),
        (true, 3, true),
    ] {
        let answer = target.put(&name, is_set).await?.state(generation)?;
        let body = answer.json()?;
        equal("changed", Some(changed), body["changed"].as_bool())?;
        equal("name", Some(&*name), body["name"].as_str())?;
        target.get(&path).await?.state(generation)?;
    }
    target.another_client().get(&path).await?.state(3).map(drop)
}

pub async fn names(target: &Target) -> Outcome {
    let mut name = target.name("Az.09_~-");
    // This event is never set, so it needs no forgetting.
    name.extend(std::iter::repeat_n('x', 64 - name.len()));
    let path = format!("/events/{name}");
    target.get(&path).await?.state(0).map(drop)
}

pub async fn browser(target: &Target) -> Outcome {
    let name = target.name("browser");
    let path = format!("/events/{name}");
    let accept = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for (is_set, expected) in [(true, seed::Offer::Clear), (false, seed::Offer::Set)] {
        target.put(&name, is_set).await?.status(200)?;
        let page = target.get_with(&path, &accept).await?;
        let page = page.status(200)?.media_type("text/html")?;
        equal("a button that offers", expected, seed::offer_on(&page)?)?;
    }
    Ok(())
}

pub async fn head(target: &Target) -> Outcome {
    let name = target.name("head");
    target.put(&name, true).await?.status(200)?;
    for (path, kind) in [
        ("/".to_owned(), "text/html"),
        (format!("/events/{name}"), "application/json"),
    ] {
        let answer = target.send(Method::HEAD, &path, &[], "").await?;
        let answer = answer.status(200)?.media_type(kind)?.not_stored()?;
        equal("a body of length", 0, answer.body.len())?;
    }
    Ok(())
}

pub async fn recreated(target: &Target, counted: bool) -> Outcome {
    let name = target.name("forgotten");
    let path = format!("/events/{name}");
    let first = target.put(&name, true).await?.state(1)?;
    target.delete(&name).await?.status(204)?;
    target.delete(&name).await?.status(204)?;
    let state = target.get(&path).await?.status(200)?.json()?;
    equal("set", Some(false), state["set"].as_bool())?;
    let again = target.put(&name, true).await?.status(200)?;
    let state = again.json()?;
    equal("set", Some(true), state["set"].as_bool())?;
    if again.etag() == first.etag() {
        return Err(Failure::new("a different ETag", again.etag()));
    }
    let generation = state["generation"].as_u64().unwrap_or_default();
    if generation > 1 || !counted {
        return Ok(());
    }
    Err(Failure::new("a generation above 1", generation))
}

pub async fn gone(target: &Target) -> Outcome {
    let name = target.name("gone");
    // An event that was never set cannot be forgotten.
    target.put(&name, true).await?.state(1)?;
    target.put(&name, false).await?.state(2)?;
    let path = format!("/events/{name}/wait");
    let other = target.another_client();
    let forget = async { other.delete(&name).await?.status(204) };
    let answer = during(forget, target.get(&path)).await?;
    answer.problem(410).map(drop)
}

pub async fn pages(target: &Target) -> Outcome {
    let names = ["list-a", "list-b", "list-c"].map(|suffix| target.name(suffix));
    for name in &names {
        target.put(name, true).await?.state(1)?;
    }
    // Other events may follow these, but none is in between.
    let path = format!("/events?after={}list-&limit=2", target.prefix());
    let first = list(target, &path).await?;
    equal("a page with the events", &names[..2], &first.names)?;
    let Some(next) = &first.next else {
        return Err(Failure::new("a page with a member next", "none"));
    };
    equal("Link", &format!("<{next}>; rel=\"next\""), &first.link)?;
    let second = list(target, next).await?;
    equal("a first event", Some(&names[2]), second.names.first())
}

pub async fn unlisted(target: &Target) -> Outcome {
    let name = target.name("unlisted");
    // The list begins after this prefix of the name.
    let path = format!("/events?after={}unliste&limit=1", target.prefix());
    target.put(&name, true).await?.state(1)?;
    let before = list(target, &path).await?;
    equal("a first event", Some(&name), before.names.first())?;
    target.delete(&name).await?.status(204)?;
    let after = list(target, &path).await?;
    if after.names.contains(&name) {
        return Err(Failure::new("a list without it", after.names.join(" ")));
    }
    Ok(())
}

pub async fn nonsense(target: &Target) -> Outcome {
    for query in [
        "limit=0",
        "limit=201",
        "limit=many",
        "after=",
        "after=a%20b",
        "before=a",
    ] {
        target
            .get(&format!("/events?{query}"))
            .await?
            .problem(400)?;
    }
    Ok(())
}

/// A page of the list.
pub struct List {
    pub names: Vec<String>,
    next: Option<String>,
    link: String,
}

pub async fn list(target: &Target, path: &str) -> Outcome<List> {
    let answer = target.get(path).await?.status(200)?;
    let answer = answer.media_type("application/json")?.not_stored()?;
    let body = answer.json()?;
    let Some(events) = body["events"].as_array() else {
        return Err(Failure::new("a list of events", &answer.body));
    };
    let names = events.iter().filter_map(|event| event["name"].as_str());
    Ok(List {
        names: names.map(str::to_owned).collect(),
        next: body["next"].as_str().map(str::to_owned),
        link: answer.header("link").to_owned(),
    })
}
