//! Every promise of the guides that can be checked from outside, except those of [`seed`](super::seed): [`check`] is the list.

mod conditions;
mod demo;
mod events;
mod refusals;
mod service;
mod streams;
mod waits;

use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use super::client::{Answer, Target};
use super::report::{Failure, Outcome, Report, heading};
use crate::contract::{Contract, Promise};

/// The pause before a change that has to find a wait in progress. A request to another continent takes less.
const BETWEEN_PULSES: Duration = Duration::from_millis(500);

/// The length of a body that is one byte too long.
const TOO_LONG: usize = 1025;

/// Checks the promises of the `contract`, and that the server rejects what it does not promise. Without a contract, checks all
/// promises.
pub async fn check(report: &mut Report, target: &Target, contract: Option<&Contract>) {
    let keeps = |promise| contract.is_none_or(|contract| contract.keeps(promise));
    let counted = keeps(Promise::Counted);

    let promise = "the page is not cached";
    report.check(promise, demo::page(target)).await;
    let promise = "a body that is neither True nor False is rejected with 400 and changes nothing";
    report.check(promise, demo::neither(target)).await;
    let promise = "a body of more than 1 KiB is rejected with 413";
    report.check(promise, demo::long(target)).await;

    heading("Named events");
    let promise = "an event that was never set is clear, in generation 0, which is its ETag";
    report.check(promise, events::fresh(target)).await;
    let promise = "each change adds one to the generation; setting or clearing again adds nothing";
    report.check(promise, events::changes(target)).await;
    let promise = "a name has up to 64 of the characters A-Z a-z 0-9 . _ ~ -";
    report.check(promise, events::names(target)).await;
    let promise = "a browser gets a page with one button";
    report.check(promise, events::browser(target)).await;
    let promise = "HEAD answers like GET, without a body";
    report.check(promise, events::head(target)).await;

    heading("Conditional requests");
    let promise = "If-None-Match with the current generation returns 304 without a body";
    report.check(promise, conditions::known(target)).await;
    let promise = "If-None-Match with another generation returns 200 with the state";
    report.check(promise, conditions::unknown(target)).await;

    if keeps(Promise::Conditions) {
        let promise = "If-Match with the current generation changes the event";
        report.check(promise, conditions::current(target)).await;
        let promise = "If-Match with another generation is rejected with 412 and changes nothing";
        report.check(promise, conditions::stale(target)).await;
    } else {
        let promise = "If-Match is rejected with 501 and changes nothing";
        report.check(promise, conditions::refused(target)).await;
    }

    heading("Waiting");
    let promise = "a wait for an event that is set returns 200 at once, with its state";
    report.check(promise, waits::set(target)).await;
    let promise = "a wait ends when another client sets the event";
    report.check(promise, waits::crosses(target)).await;
    let promise = "a pulse, a set followed at once by a clear, ends a wait";
    report.check(promise, waits::pulse(target)).await;
    let promise = "a wait for an event that is never set ends with 408, not before its timeout";
    report.check(promise, waits::timeout(target)).await;
    let promise = "an invalid timeout is rejected with 400";
    report.check(promise, waits::nonsense(target)).await;

    heading("Long poll");
    let promise = "?wait= with the current generation returns 304 at its end";
    report.check(promise, waits::unchanged(target)).await;
    let promise =
        "Prefer: wait= ends when another client changes the event, and is reported as applied";
    report.check(promise, waits::changed(target)).await;
    let promise = "a pulse between two polls is not missed";
    report.check(promise, waits::between_polls(target)).await;

    heading("Streams");
    let promise = if counted {
        "a stream begins with the state, and has each change, pulses included"
    } else {
        "a stream begins with the state, and alternates between set and clear up to the last change"
    };
    report
        .check(promise, streams::changes(target, counted))
        .await;
    let promise = "Last-Event-ID resumes a stream where the client was";
    report.check(promise, streams::resumed(target)).await;
    let promise = "a stream ends with a message when its event is forgotten";
    report.check(promise, streams::forgotten(target)).await;

    heading("Forgetting");
    let promise = if counted {
        "a new event with a forgotten name is clear, and its generation continues"
    } else {
        "a new event with a forgotten name is clear, and has a different ETag"
    };
    report
        .check(promise, events::recreated(target, counted))
        .await;
    let promise = "a wait for an event that is forgotten meanwhile returns 410";
    report.check(promise, events::gone(target)).await;

    heading("The list");
    let promise = "events are listed in order, in pages; next and Link point to the next page";
    report.check(promise, events::pages(target)).await;
    let promise = "a forgotten event is not listed";
    report.check(promise, events::unlisted(target)).await;
    let promise = "a limit outside 1 to 200, or an invalid after, is rejected with 400";
    report.check(promise, events::nonsense(target)).await;

    heading("The service and the lifespan");
    if keeps(Promise::Service) {
        let promise = "/service returns the state of the service and its number of ticks";
        report.check(promise, service::look(target)).await;
        let promise = "/service/stop rejects an invalid timeout with 400";
        report.check(promise, service::nonsense(target)).await;
    } else {
        let promise = "/service and the routes below it are rejected with 501";
        report.check(promise, service::lacking(target)).await;
    }
    let promise = "/lifespan requires the operator's token: otherwise 401, or 403 if none is set";
    report.check(promise, service::lifespan(target)).await;

    heading("Health");
    let promise = "/healthz makes a round trip to the store, and returns how long it took";
    report.check(promise, service::health(target)).await;

    heading("Browsers");
    let promise = "a request from a page of another site is rejected with 403 and changes nothing";
    report.check(promise, refusals::cross_site(target)).await;
    let promise = "security headers forbid foreign content, scripts and frames";
    report.check(promise, refusals::headers(target)).await;

    heading("Rejected requests get problem documents and change nothing");
    let promise = "an invalid name is rejected with 400";
    report.check(promise, refusals::names(target)).await;
    let promise = "a body that is not {\"set\": true} or {\"set\": false} is rejected with 400";
    report.check(promise, refusals::bodies(target)).await;
    let promise = "a body of more than 1 KiB is rejected with 413 here too";
    report.check(promise, refusals::long(target)).await;
    let promise = "an unknown query parameter is rejected with 400";
    report.check(promise, refusals::parameters(target)).await;
    let promise = "an unknown path returns 404";
    report.check(promise, refusals::unknown(target)).await;
    let promise = "an unsupported method returns 405, and Allow lists the supported ones";
    report.check(promise, refusals::methods(target)).await;

    heading("The description");
    let promise = "/openapi.json is OpenAPI 3.1, and has every route";
    report.check(promise, refusals::routes(target)).await;
}

/// Reads what the server promises.
pub async fn contract(target: &Target) -> anyhow::Result<Contract> {
    let answer = target.get("/openapi.json").await;
    let document = answer.and_then(|answer| answer.json());
    Contract::read(&document.unwrap_or_default())
}

/// Checks that the server lets this client read and change events.
pub async fn admission(target: &Target) -> anyhow::Result<()> {
    let answer = target.send(Method::POST, "/change_event", &[], "").await?;
    anyhow::ensure!(
        answer.status != 401,
        "the server requires its write_token: set it with --token"
    );
    Ok(())
}

/// Forgets all events of this run.
pub async fn tidy(target: &Target) -> Outcome {
    for name in target.names() {
        target.delete(&name).await?.status(204)?;
    }
    let path = format!("/events?after={}&limit=1", target.prefix());
    let left = events::list(target, &path).await?;
    let mut left = left.names.into_iter();
    match left.find(|name| name.starts_with(target.prefix())) {
        None => Ok(()),
        Some(name) => Err(Failure::new("none of these events to be left", name)),
    }
}

/// Makes `change` while `wait` is in progress, and returns the result of the wait.
async fn during(
    change: impl Future<Output = Outcome<Answer>>,
    wait: impl Future<Output = Outcome<Answer>>,
) -> Outcome<Answer> {
    let later = async {
        sleep(BETWEEN_PULSES).await;
        change.await
    };
    let (answer, changed) = tokio::join!(wait, later);
    changed?;
    answer
}
