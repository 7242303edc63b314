//! Every route and every promise of the guides that can be seen from outside: each promise in a sentence, and its check.

mod conditions;
mod demo;
mod events;
mod refusals;
mod service;
mod streams;
mod waits;

use std::time::Duration;

use http::Method;

use super::client::Target;
use super::report::{Failure, Outcome, Report};
use crate::contract::{Contract, Promise};

/// How far apart the pulses are that are to end a wait: longer than a request to another continent takes.
const BETWEEN_PULSES: Duration = Duration::from_millis(500);

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
    let counted = keeps(Promise::Counted);

    // What the original does not promise of the page.
    let promise = "no cache keeps the page";
    report.check(promise, demo::page(target)).await;
    let promise = "a body that is neither True nor False is 400 and changes nothing";
    report.check(promise, demo::neither(target)).await;
    let promise = "a body of more than 1 KiB is 413";
    report.check(promise, demo::long(target)).await;

    report.capability("Named events");
    let promise = "an event that nobody has set is clear, in generation 0, which is its ETag";
    report.check(promise, events::fresh(target)).await;
    let promise = "each change adds one to the generation; what is no change adds nothing";
    report.check(promise, events::changes(target)).await;
    let promise = "a name has up to 64 characters, A-Z a-z 0-9 . _ ~ -";
    report.check(promise, events::names(target)).await;
    let promise = "a browser gets a page with one button";
    report.check(promise, events::browser(target)).await;
    let promise = "HEAD answers as GET, without a body";
    report.check(promise, events::head(target)).await;

    report.capability("Conditional requests");
    let promise = "If-None-Match with the current generation is 304, without a body";
    report.check(promise, conditions::known(target)).await;
    let promise = "If-None-Match with another generation is 200, with the state";
    report.check(promise, conditions::unknown(target)).await;

    if keeps(Promise::Conditions) {
        let promise = "If-Match with the current generation changes the event";
        report.check(promise, conditions::current(target)).await;
        let promise = "If-Match with another generation is 412, and changes nothing";
        report.check(promise, conditions::stale(target)).await;
    } else {
        let promise = "If-Match is rejected with 501, and changes nothing";
        report.check(promise, conditions::refused(target)).await;
    }

    report.capability("Waiting");
    let promise = "a wait for an event that is set is 200 at once, with its state";
    report.check(promise, waits::set(target)).await;
    let promise = "a wait ends with the set of another client";
    report.check(promise, waits::crosses(target)).await;
    let promise = "a pulse, a set followed at once by a clear, ends a wait that is under way";
    report.check(promise, waits::pulse(target)).await;
    let promise = "a wait for an event that nobody sets is 408, and not before its timeout";
    report.check(promise, waits::timeout(target)).await;
    let promise = "a timeout that makes no sense is 400";
    report.check(promise, waits::nonsense(target)).await;

    report.capability("Long poll");
    let promise = "with a known generation, ?wait= is 304 at the end of it";
    report.check(promise, waits::unchanged(target)).await;
    let promise = "Prefer: wait= ends with the change of another client, and is said to be applied";
    report.check(promise, waits::changed(target)).await;
    let promise = "a pulse between two polls is not missed";
    report.check(promise, waits::between_polls(target)).await;

    report.capability("Streams");
    let promise = if counted {
        "a stream begins with the state, and has each change, pulses included"
    } else {
        "a stream begins with the state, and then it is set and clear by turns, to the last change"
    };
    report
        .check(promise, streams::changes(target, counted))
        .await;
    let promise = "Last-Event-ID goes on where the client was";
    report.check(promise, streams::resumed(target)).await;
    let promise = "a stream ends when its event is forgotten, and says so";
    report.check(promise, streams::forgotten(target)).await;

    report.capability("Forgetting");
    let promise = if counted {
        "a new event of a forgotten name is clear, and its generation goes on"
    } else {
        "a new event of a forgotten name is clear, and its ETag is another one"
    };
    report
        .check(promise, events::goes_on(target, counted))
        .await;
    let promise = "who waits for an event that is forgotten gets 410";
    report.check(promise, events::gone(target)).await;

    report.capability("The list");
    let promise = "events are listed in order, by pages; next and Link lead on";
    report.check(promise, events::pages(target)).await;
    let promise = "a forgotten event is not listed";
    report.check(promise, events::unlisted(target)).await;
    let promise = "a limit that is not from 1 to 200, or an after that is no name, is 400";
    report.check(promise, events::nonsense(target)).await;

    report.capability("The service and the lifespan");
    if keeps(Promise::Service) {
        let promise = "/service says what the service is doing, and how often it did something";
        report.check(promise, service::look(target)).await;
        let promise = "a time to stop in that makes no sense is 400";
        report.check(promise, service::nonsense(target)).await;
    } else {
        let promise = "/service and what is below it are 501";
        report.check(promise, service::lacking(target)).await;
    }
    let promise = "/lifespan answers only to the operator's token: 401, or 403 if none is set";
    report.check(promise, service::lifespan(target)).await;

    report.capability("Health");
    let promise = "/healthz makes a round trip to the store, and says how long it took";
    report.check(promise, service::health(target)).await;

    report.capability("Browsers");
    let promise = "a page of another site changes nothing: 403";
    report.check(promise, refusals::cross_site(target)).await;
    let promise = "a browser runs nothing that is not of this server, and shows it in no frame";
    report.check(promise, refusals::headers(target)).await;

    report.capability("Refusals are problem documents, and change nothing");
    let promise = "what is no name of an event is 400";
    report.check(promise, refusals::names(target)).await;
    let promise = "a body that is not {\"set\": true} or {\"set\": false} is 400";
    report.check(promise, refusals::bodies(target)).await;
    let promise = "a body of more than 1 KiB is 413 here too";
    report.check(promise, refusals::long(target)).await;
    let promise = "a parameter that a route does not have is 400";
    report.check(promise, refusals::parameters(target)).await;
    let promise = "a path that is not there is 404";
    report.check(promise, refusals::unknown(target)).await;
    let promise = "a method that a path does not take is 405, and Allow says which it takes";
    report.check(promise, refusals::methods(target)).await;

    report.capability("The description");
    let promise = "/openapi.json is OpenAPI 3.1, and has every route";
    report.check(promise, refusals::routes(target)).await;
}

/// Forgets all events that were made here.
pub async fn tidy(target: &Target) -> Outcome {
    for name in target.names() {
        target.delete(&name).await?.status(204)?;
    }
    let path = format!("/events?after={}&limit=1", target.prefix());
    let left = events::list(target, &path).await?;
    let left = left
        .names
        .into_iter()
        .find(|name| name.starts_with(target.prefix()));
    match left {
        None => Ok(()),
        Some(name) => Err(Failure::new("no event of these left", name)),
    }
}
