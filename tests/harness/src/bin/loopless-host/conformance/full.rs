//! Every route and every promise of the guides that can be seen from outside.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::client::{Answer, Target};
use super::report::{Failure, Outcome, Report, equal};
use super::seed;
use crate::contract::Contract;

/// How far apart the pulses are that are to end a wait: longer than a request to another continent takes.
const BETWEEN_PULSES: Duration = Duration::from_millis(500);

/// A server's clock may be coarser than ours.
const COARSE: Duration = Duration::from_millis(10);

/// A body that is too long, by one byte.
const TOO_LONG: usize = 1025;

/// What the server says that it promises.
pub async fn contract(target: &Target) -> anyhow::Result<Contract> {
    let answer = target.get("/openapi.json").await;
    let document = answer.and_then(|answer| answer.json());
    Contract::read(&document.unwrap_or_default())
}

/// Whether the server lets this client look and change at all.
pub async fn admission(target: &Target) -> anyhow::Result<()> {
    let answer = target.send(Method::POST, "/change_event", &[], "").await?;
    anyhow::ensure!(
        answer.status != 401,
        "the server wants a token, or another one: give its write_token with --token"
    );
    Ok(())
}

/// Checks what the `contract` has, and that the rest is refused. Without a contract, there is nothing that it may
/// refuse.
pub async fn check(report: &mut Report, target: &Target, contract: Option<&Contract>) {
    let keeps = |promise| contract.is_none_or(|contract| contract.keeps(promise));
    demo(report, target).await;
    state(report, target).await;
    conditions(report, target).await;
    if keeps("conditions") {
        conditional_changes(report, target).await;
    } else {
        no_conditional_changes(report, target).await;
    }
    waits(report, target).await;
    polls(report, target).await;
    streams(report, target, keeps("counted")).await;
    forgets(report, target, keeps("counted")).await;
    lists(report, target).await;
    report.capability("The service and the lifespan");
    if keeps("service") {
        service(report, target).await;
    } else {
        no_service(report, target).await;
    }
    lifespan(report, target).await;
    health(report, target).await;
    browsers(report, target).await;
    refusals(report, target).await;
    description(report, target).await;
}

/// The demo's promises that the original does not make.
async fn demo(report: &mut Report, target: &Target) {
    let promise = "no cache keeps the page";
    let page = async { target.get("/").await?.status(200)?.not_stored().map(drop) };
    report.check(promise, page).await;

    let promise = "a body that is neither True nor False is 400 and changes nothing";
    let neither = async {
        let before = seed::offered(target).await?;
        for body in ["", "true", "True ", "1"] {
            post(target, body).await?.problem(400)?;
        }
        equal("a button that offers", before, seed::offered(target).await?)
    };
    report.check(promise, neither).await;

    let promise = "a body of more than 1 KiB is 413";
    let long = async {
        let body = "x".repeat(TOO_LONG);
        post(target, &body).await?.problem(413).map(drop)
    };
    report.check(promise, long).await;
}

async fn post(target: &Target, body: &str) -> Outcome<Answer> {
    Ok(target
        .send(Method::POST, "/change_event", &[], body)
        .await?)
}

/// Looking at an event, and changing it.
async fn state(report: &mut Report, target: &Target) {
    report.capability("Named events");
    let promise = "an event that nobody has set is clear, in generation 0, which is its ETag";
    let fresh = async {
        let path = format!("/events/{}", target.name("fresh"));
        target.get(&path).await?.not_stored()?.state(0).map(drop)
    };
    report.check(promise, fresh).await;

    let promise = "each change adds one to the generation; what is no change adds nothing";
    let changes = async {
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
    };
    report.check(promise, changes).await;

    let promise = "a name has up to 64 characters, A-Z a-z 0-9 . _ ~ -";
    let names = async {
        let mut name = target.name("Az.09_~-");
        // Nobody sets this one: there is nothing to forget.
        name.extend(std::iter::repeat_n('x', 64 - name.len()));
        let path = format!("/events/{name}");
        target.get(&path).await?.state(0).map(drop)
    };
    report.check(promise, names).await;

    let promise = "a browser gets a page with one button";
    let browser = async {
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
    };
    report.check(promise, browser).await;

    let promise = "HEAD answers as GET, without a body";
    let head = async {
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
    };
    report.check(promise, head).await;
}

/// `If-None-Match` and `If-Match`.
async fn conditions(report: &mut Report, target: &Target) {
    report.capability("Conditional requests");
    let promise = "If-None-Match with the current generation is 304, without a body";
    let known = async {
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
    };
    report.check(promise, known).await;

    let promise = "If-None-Match with another generation is 200, with the state";
    let unknown = async {
        let name = target.name("unknown");
        let path = format!("/events/{name}");
        let set = target.put(&name, true).await?.state(1)?;
        let unquoted = set.etag().trim_matches('"');
        for known in ["\"0\"", "\"2\"", "\"01\"", unquoted] {
            let answer = target.get_with(&path, &[("if-none-match", known)]).await?;
            answer.state(1)?;
        }
        Ok(())
    };
    report.check(promise, unknown).await;
}

/// `If-Match`, where it can be had.
async fn conditional_changes(report: &mut Report, target: &Target) {
    let promise = "If-Match with the current generation changes the event";
    let current = async {
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
    };
    report.check(promise, current).await;

    let promise = "If-Match with another generation is 412, and changes nothing";
    let stale = async {
        let name = target.name("stale");
        let set = target.put(&name, true).await?.state(1)?;
        let tag = set.etag();
        let unquoted = tag.trim_matches('"');
        for tag in ["\"0\"", "\"2\"", &format!("W/{tag}"), unquoted] {
            let condition = [("if-match", tag)];
            target
                .put_if(&name, false, &condition)
                .await?
                .problem(412)?;
        }
        let path = format!("/events/{name}");
        target.get(&path).await?.state(1).map(drop)
    };
    report.check(promise, stale).await;
}

/// `If-Match`, where it cannot be had.
async fn no_conditional_changes(report: &mut Report, target: &Target) {
    let promise = "If-Match is rejected with 501, and changes nothing";
    let refused = async {
        let name = target.name("conditional");
        let set = target.put(&name, true).await?.state(1)?;
        for tag in [set.etag(), "\"0\"", "*"] {
            let condition = [("if-match", tag)];
            target
                .put_if(&name, false, &condition)
                .await?
                .problem(501)?;
        }
        let path = format!("/events/{name}");
        target.get(&path).await?.state(1).map(drop)
    };
    report.check(promise, refused).await;
}

/// `GET /events/{name}/wait`.
async fn waits(report: &mut Report, target: &Target) {
    report.capability("Waiting");
    let promise = "a wait for an event that is set is 200 at once, with its state";
    let set = async {
        let name = target.name("wait-set");
        target.put(&name, true).await?.state(1)?;
        let path = format!("/events/{name}/wait?timeout=0");
        target.get(&path).await?.state(1).map(drop)
    };
    report.check(promise, set).await;

    let promise = "a wait ends with the set of another client";
    let crosses = async {
        let name = target.name("wait-crosses");
        let path = format!("/events/{name}/wait");
        let setter = target.another_client();
        let change = async {
            sleep(BETWEEN_PULSES).await;
            setter.put(&name, true).await?.state(1)
        };
        let (answer, changed) = tokio::join!(target.get(&path), change);
        changed?;
        answer?.state(1).map(drop)
    };
    report.check(promise, crosses).await;

    let promise = "a pulse, a set followed at once by a clear, ends a wait that is under way";
    let pulse = async {
        let name = target.name("wait-pulse");
        let path = format!("/events/{name}/wait");
        let answer = while_pulsing(target, &name, target.get(&path)).await?;
        let state = answer.status(200)?.json()?;
        // One that is clear again, as a rule.
        equal("name", Some(&*name), state["name"].as_str())
    };
    report.check(promise, pulse).await;

    let promise = "a wait for an event that nobody sets is 408, and not before its timeout";
    let timeout = async {
        let path = format!("/events/{}/wait?timeout=0.5", target.name("wait-timeout"));
        let answer = target.get(&path).await?.problem(408)?;
        takes(&answer, Duration::from_millis(500))
    };
    report.check(promise, timeout).await;

    let promise = "a timeout that makes no sense is 400";
    let nonsense = async {
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
    };
    report.check(promise, nonsense).await;
}

/// Sends pulses until `wait` ends. From outside it cannot be seen whether a wait has begun: one of the pulses finds it.
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
    if answer.took + COARSE >= least {
        return Ok(());
    }
    Err(Failure::new(
        format_args!("an answer after {} ms", least.as_millis()),
        format_args!("it after {} ms", answer.took.as_millis()),
    ))
}

/// `GET /events/{name}?wait=` with `If-None-Match`.
async fn polls(report: &mut Report, target: &Target) {
    report.capability("Long poll");
    let promise = "with a known generation, ?wait= is 304 at the end of it";
    let unchanged = async {
        let path = format!("/events/{}?wait=1", target.name("poll-unchanged"));
        let known = [("if-none-match", "\"0\"")];
        let answer = target.get_with(&path, &known).await?.status(304)?;
        takes(&answer, Duration::from_secs(1))
    };
    report.check(promise, unchanged).await;

    let promise = "Prefer: wait= ends with the change of another client, and is said to be applied";
    let changed = async {
        let name = target.name("poll-changed");
        let path = format!("/events/{name}");
        let headers = [("if-none-match", "\"0\""), ("prefer", "wait=20")];
        let setter = target.another_client();
        let change = async {
            sleep(BETWEEN_PULSES).await;
            setter.put(&name, true).await?.state(1)
        };
        let (answer, change) = tokio::join!(target.get_with(&path, &headers), change);
        change?;
        let answer = answer?.state(1)?;
        let applied = answer.header("preference-applied");
        if applied.starts_with("wait=") {
            return Ok(());
        }
        Err(Failure::new(
            "Preference-Applied: wait=",
            format_args!("{applied:?}"),
        ))
    };
    report.check(promise, changed).await;

    let promise = "a pulse between two polls is not missed";
    let pulse = async {
        let name = target.name("poll-pulse");
        target.put(&name, true).await?.state(1)?;
        target.put(&name, false).await?.state(2)?;
        let path = format!("/events/{name}?wait=1");
        let known = [("if-none-match", "\"0\"")];
        target.get_with(&path, &known).await?.state(2).map(drop)
    };
    report.check(promise, pulse).await;
}

/// `GET /events/{name}/stream`.
async fn streams(report: &mut Report, target: &Target, is_counted: bool) {
    report.capability("Streams");
    let promise = if is_counted {
        "a stream begins with the state, and has each change, pulses included"
    } else {
        "a stream begins with the state, and then it is set and clear by turns, to the last change"
    };
    let changes = async {
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
            // Of those that came between two looks, a stream that does not count tells the last two.
            let next = generation + 1;
            generation = match message.generation() {
                Some(told) if !is_counted && told % 2 == next % 2 => told.max(next),
                _ => next,
            };
            message.is_state(generation)?;
            if generation == 5 {
                equal("a last message with id", last, &message.id)?;
            }
        }
        Ok(())
    };
    report.check(promise, changes).await;

    let promise = "Last-Event-ID goes on where the client was";
    let resumed = async {
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
    };
    report.check(promise, resumed).await;

    let promise = "a stream ends when its event is forgotten, and says so";
    let forgotten = async {
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
    };
    report.check(promise, forgotten).await;
}

/// `DELETE /events/{name}`.
async fn forgets(report: &mut Report, target: &Target, is_counted: bool) {
    report.capability("Forgetting");
    let promise = if is_counted {
        "a new event of a forgotten name is clear, and its generation goes on"
    } else {
        "a new event of a forgotten name is clear, and its ETag is another one"
    };
    let goes_on = async {
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
            return Err(Failure::new("another ETag", again.etag()));
        }
        let generation = state["generation"].as_u64().unwrap_or_default();
        if generation > 1 || !is_counted {
            return Ok(());
        }
        Err(Failure::new("a generation above 1", generation))
    };
    report.check(promise, goes_on).await;

    let promise = "who waits for an event that is forgotten gets 410";
    let gone = async {
        let name = target.name("gone");
        // A set and a clear first: there is nothing to forget of an event that was never set.
        target.put(&name, true).await?.state(1)?;
        target.put(&name, false).await?.state(2)?;
        let path = format!("/events/{name}/wait");
        let other = target.another_client();
        let forget = async {
            sleep(BETWEEN_PULSES).await;
            other.delete(&name).await?.status(204)
        };
        let (answer, forgotten) = tokio::join!(target.get(&path), forget);
        forgotten?;
        answer?.problem(410).map(drop)
    };
    report.check(promise, gone).await;
}

/// `GET /events`.
async fn lists(report: &mut Report, target: &Target) {
    report.capability("The list");
    let promise = "events are listed in order, by pages; next and Link lead on";
    let pages = async {
        let names = ["list-a", "list-b", "list-c"].map(|suffix| target.name(suffix));
        for name in &names {
            target.put(name, true).await?.state(1)?;
        }
        // The names of other events may follow, none comes between.
        let path = format!("/events?after={}list-&limit=2", target.prefix());
        let first = list(target, &path).await?;
        equal("a page with the events", &names[..2], &first.names)?;
        let Some(next) = &first.next else {
            return Err(Failure::new("a page with a member next", "none"));
        };
        equal("Link", &format!("<{next}>; rel=\"next\""), &first.link)?;
        let second = list(target, next).await?;
        equal("a first event", Some(&names[2]), second.names.first())
    };
    report.check(promise, pages).await;

    let promise = "a forgotten event is not listed";
    let forgotten = async {
        let name = target.name("unlisted");
        // The name itself comes before what begins with it.
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
    };
    report.check(promise, forgotten).await;

    let promise = "a limit that is not from 1 to 200, or an after that is no name, is 400";
    let nonsense = async {
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
    };
    report.check(promise, nonsense).await;
}

/// A page of the list.
struct List {
    names: Vec<String>,
    next: Option<String>,
    link: String,
}

async fn list(target: &Target, path: &str) -> Outcome<List> {
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

/// The service, as far as looking at it changes nothing: a server may have it running.
async fn service(report: &mut Report, target: &Target) {
    let promise = "/service says what the service is doing, and how often it did something";
    let look = async {
        let answer = target.get("/service").await?.status(200)?;
        let answer = answer.media_type("application/json")?.not_stored()?;
        let body = answer.json()?;
        let states = ["stopped", "running", "stopping", "lost"];
        let is_state = body["state"]
            .as_str()
            .is_some_and(|state| states.contains(&state));
        if is_state && body["ticks"].is_u64() {
            Ok(())
        } else {
            Err(Failure::new("a state and ticks", answer.body))
        }
    };
    report.check(promise, look).await;

    let promise = "a time to stop in that makes no sense is 400";
    let nonsense = async {
        for timeout in ["-1", "soon", "1e9", ""] {
            let path = format!("/service/stop?timeout={timeout}");
            let answer = target.send(Method::POST, &path, &[], "").await?;
            answer.problem(400)?;
        }
        Ok(())
    };
    report.check(promise, nonsense).await;
}

/// The service, in a build that has none.
async fn no_service(report: &mut Report, target: &Target) {
    let promise = "/service and what is below it are 501";
    let lacking = async {
        for (method, path) in [
            (Method::GET, "/service"),
            (Method::GET, "/service/stream"),
            (Method::POST, "/service/start"),
            (Method::POST, "/service/stop"),
        ] {
            target.send(method, path, &[], "").await?.problem(501)?;
        }
        Ok(())
    };
    report.check(promise, lacking).await;
}

/// The lifespan, for who is not the operator.
async fn lifespan(report: &mut Report, target: &Target) {
    let promise = "/lifespan answers only to the operator's token: 401, or 403 if none is set";
    let lifespan = async {
        for path in ["/lifespan/startup", "/lifespan/shutdown"] {
            for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
                let answer = target.send(Method::POST, path, headers, "").await?;
                let expected = if answer.status == 403 { 403 } else { 401 };
                answer.problem(expected)?;
            }
        }
        Ok(())
    };
    report.check(promise, lifespan).await;
}

/// `GET /healthz`.
async fn health(report: &mut Report, target: &Target) {
    report.capability("Health");
    let promise = "/healthz makes a round trip to the store, and says how long it took";
    let health = async {
        let answer = target.get("/healthz").await?.status(200)?.not_stored()?;
        let body = answer.json()?;
        equal("status", Some("ok"), body["status"].as_str())?;
        if body["store_ms"].as_f64().is_some_and(|took| took >= 0.0) {
            Ok(())
        } else {
            Err(Failure::new("store_ms", answer.body))
        }
    };
    report.check(promise, health).await;
}

/// What keeps pages of other sites out.
async fn browsers(report: &mut Report, target: &Target) {
    report.capability("Browsers");
    let promise = "a page of another site changes nothing: 403";
    let cross_site = async {
        let name = target.name("cross-site");
        let path = format!("/events/{name}");
        let origin = ("origin", "https://conformance.invalid");
        for headers in [
            &[origin][..],
            &[("sec-fetch-site", "cross-site"), origin],
            &[("sec-fetch-site", "same-site"), origin],
        ] {
            let change = target.send(Method::PUT, &path, headers, "{\"set\": true}");
            change.await?.problem(403)?;
            let change = target.send(Method::POST, "/change_event", headers, "True");
            change.await?.problem(403)?;
        }
        target.get(&path).await?.state(0).map(drop)
    };
    report.check(promise, cross_site).await;

    let promise = "a browser runs nothing that is not of this server, and shows it in no frame";
    let headers = async {
        for path in ["/", "/events", "/nothing"] {
            let answer = target.get(path).await?;
            equal(
                "X-Content-Type-Options",
                "nosniff",
                answer.header("x-content-type-options"),
            )?;
            let policy = answer.header("content-security-policy");
            let is_strict = policy.contains("frame-ancestors 'none'")
                && policy.contains("default-src 'none'")
                && !policy.contains("unsafe");
            if !is_strict {
                let policy = format_args!("{policy:?}").to_string();
                return Err(Failure::new("a strict Content-Security-Policy", policy));
            }
        }
        Ok(())
    };
    report.check(promise, headers).await;
}

/// What is refused, and how.
async fn refusals(report: &mut Report, target: &Target) {
    report.capability("Refusals are problem documents, and change nothing");
    let promise = "what is no name of an event is 400";
    let names = async {
        let long = "x".repeat(65);
        for name in [long.as_str(), "%2E", "%2E%2E", "a%20b", "%C3%A4", "a:b"] {
            for path in ["", "/wait", "/stream"] {
                let path = format!("/events/{name}{path}");
                target.get(&path).await?.problem(400)?;
            }
        }
        Ok(())
    };
    report.check(promise, names).await;

    let promise = "a body that is not {\"set\": true} or {\"set\": false} is 400";
    let bodies = async {
        let name = target.name("bodies");
        let path = format!("/events/{name}");
        for body in [
            "",
            "{",
            "true",
            "{}",
            "{\"set\": 1}",
            "{\"set\": true, \"x\": 1}",
        ] {
            let answer = target.send(Method::PUT, &path, &[], body).await?;
            answer.problem(400)?;
        }
        target.get(&path).await?.state(0).map(drop)
    };
    report.check(promise, bodies).await;

    let promise = "a body of more than 1 KiB is 413 here too";
    let long = async {
        let path = format!("/events/{}", target.name("long"));
        let body = format!("{{\"set\": true{}}}", " ".repeat(TOO_LONG));
        let answer = target.send(Method::PUT, &path, &[], &body).await?;
        answer.problem(413)?;
        target.get(&path).await?.state(0).map(drop)
    };
    report.check(promise, long).await;

    let promise = "a parameter that a route does not have is 400";
    let parameters = async {
        let name = target.name("parameters");
        target
            .get(&format!("/events/{name}?x=1"))
            .await?
            .problem(400)?;
        let path = format!("/events/{name}?set=true");
        let answer = target
            .send(Method::PUT, &path, &[], "{\"set\": true}")
            .await?;
        answer.problem(400)?;
        target
            .get(&format!("/events/{name}"))
            .await?
            .state(0)
            .map(drop)
    };
    report.check(promise, parameters).await;

    let promise = "a path that is not there is 404";
    let unknown = async {
        for path in ["/nothing", "/events/a/b", "/events/a/wait/b", "/index.html"] {
            target.get(path).await?.problem(404)?;
        }
        Ok(())
    };
    report.check(promise, unknown).await;

    let promise = "a method that a path does not take is 405, and Allow says which it takes";
    let methods = async {
        for (method, path, allowed) in [
            (Method::POST, "/", &["GET"][..]),
            (Method::GET, "/change_event", &["POST"]),
            (Method::DELETE, "/events", &["GET"]),
            (Method::PATCH, "/events/a", &["GET", "PUT", "DELETE"]),
            (Method::PUT, "/events/a/wait", &["GET"]),
            (Method::PUT, "/events/a/stream", &["GET"]),
            (Method::POST, "/service", &["GET"]),
            (Method::GET, "/service/start", &["POST"]),
            (Method::GET, "/service/stop", &["POST"]),
            (Method::PUT, "/openapi.json", &["GET"]),
        ] {
            let answer = target.send(method, path, &[], "").await?.problem(405)?;
            let allow = answer.header("allow");
            for method in allowed {
                if !allow.split(',').any(|allowed| allowed.trim() == *method) {
                    return Err(Failure::new(
                        format_args!("Allow with {method} at {path}"),
                        format_args!("{allow:?}"),
                    ));
                }
            }
        }
        Ok(())
    };
    report.check(promise, methods).await;
}

/// `GET /openapi.json`.
async fn description(report: &mut Report, target: &Target) {
    report.capability("The description");
    let promise = "/openapi.json is OpenAPI 3.1, and has every route";
    let routes = async {
        let answer = target.get("/openapi.json").await?.status(200)?;
        let document = answer
            .media_type("application/json")?
            .not_stored()?
            .json()?;
        let version = document["openapi"].as_str().unwrap_or_default();
        if !version.starts_with("3.1.") {
            return Err(Failure::new("OpenAPI 3.1", format_args!("{version:?}")));
        }
        for (path, methods) in [
            ("/", &["get"][..]),
            ("/change_event", &["post"]),
            ("/events", &["get"]),
            ("/events/{name}", &["get", "put", "delete"]),
            ("/events/{name}/wait", &["get"]),
            ("/events/{name}/stream", &["get"]),
            ("/service", &["get"]),
            ("/service/start", &["post"]),
            ("/service/stop", &["post"]),
            ("/service/stream", &["get"]),
            ("/lifespan/startup", &["post"]),
            ("/lifespan/shutdown", &["post"]),
            ("/healthz", &["get"]),
            ("/openapi.json", &["get"]),
        ] {
            for method in methods {
                if !matches!(document["paths"][path][method], Value::Object(_)) {
                    return Err(Failure::new(format_args!("{method} {path}"), "none"));
                }
            }
        }
        Ok(())
    };
    report.check(promise, routes).await;
}

/// Forgets all events that were made here.
pub async fn tidy(target: &Target) -> Outcome {
    for name in target.names() {
        target.delete(&name).await?.status(204)?;
    }
    let path = format!("/events?after={}&limit=1", target.prefix());
    let left = list(target, &path).await?;
    let left = left
        .names
        .into_iter()
        .find(|name| name.starts_with(target.prefix()));
    match left {
        None => Ok(()),
        Some(name) => Err(Failure::new("no event of these left", name)),
    }
}
