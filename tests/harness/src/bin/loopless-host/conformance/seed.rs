//! What this project and the Python original have in common: a page with one button, and what the button does.
//!
//! Behaviour in which they differ is not checked here. For example, the original clears the event on any body but `True`.

use std::time::Duration;

use http::Method;

use super::client::{Answer, CLOCK_ERROR, Target};
use super::report::{Failure, Outcome, Report, equal, heading};

/// How long the page waits for an event that is clear.
const INDEX_WAIT: Duration = Duration::from_millis(100);

/// How much faster the page has to be while the event is set: half of [`INDEX_WAIT`].
const MARGIN: Duration = Duration::from_millis(50);

/// How many requests are timed. Only the fastest counts, because others may be delayed on the way.
const TIMED: usize = 10;

/// The effect of the button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Set,
    Clear,
}

impl Offer {
    /// The body that the button sends.
    fn body(self) -> &'static str {
        match self {
            Self::Set => "True",
            Self::Clear => "False",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Set => Self::Clear,
            Self::Clear => Self::Set,
        }
    }
}

/// The effect of the only button of a page. The button's label and the rest of the page are not checked.
pub fn offer_on(page: &Answer) -> Outcome<Offer> {
    let body = &page.body;
    let mut buttons = body.match_indices("<button").map(|(at, _)| &body[at..]);
    let (Some(button), None) = (buttons.next(), buttons.next()) else {
        return Err(Failure::new("a page with one button", body));
    };
    let tag = button.split('>').next().unwrap_or_default();
    let offers = [Offer::Set, Offer::Clear];
    let mut offers = offers.into_iter().filter(|offer| {
        let body = offer.body();
        // The first form is the original's.
        tag.contains(&format!("changeEvent('{body}')"))
            || tag.contains(&format!("value=\"{body}\""))
    });
    match (offers.next(), offers.next()) {
        (Some(offer), None) => Ok(offer),
        _ => Err(Failure::new(
            "a button with the value True or False, or one that calls changeEvent('True') or changeEvent('False')",
            tag,
        )),
    }
}

async fn page(target: &Target) -> Outcome<Answer> {
    target.get("/").await?.status(200)?.media_type("text/html")
}

/// Reads which effect the page's button has now.
pub async fn offered(target: &Target) -> Outcome<Offer> {
    offer_on(&page(target).await?)
}

/// Sends what the button sends.
async fn change(target: &Target, offer: Offer) -> Outcome {
    let answer = target
        .send(Method::POST, "/change_event", &[], offer.body())
        .await?;
    answer.status(204).map(drop)
}

async fn offers(target: &Target, expected: Offer) -> Outcome {
    equal("a button that offers", expected, offered(target).await?)
}

pub async fn check(report: &mut Report, target: &Target) {
    heading("The page");
    let promise = "GET / answers 200 with an HTML page with one button";
    let page = async { offered(target).await.map(drop) };
    report.check(promise, page).await;
    let promise = "POST True to /change_event answers 204, and the button offers False";
    report.check(promise, changes(target, Offer::Set)).await;
    let promise = "POST False answers 204, and the button offers True";
    report.check(promise, changes(target, Offer::Clear)).await;
    let promise = "setting or clearing twice has the effect of once";
    report.check(promise, twice(target)).await;
    let promise = "every client sees the same event";
    report.check(promise, everybody(target)).await;
    let promise = "the page waits 100 ms for the event while it is clear";
    report.check(promise, waits(target)).await;
    let promise = "the page does not wait while the event is set";
    report.check(promise, does_not_wait(target)).await;
}

async fn changes(target: &Target, offer: Offer) -> Outcome {
    change(target, offer.other()).await?;
    change(target, offer).await?;
    offers(target, offer.other()).await
}

async fn twice(target: &Target) -> Outcome {
    for offer in [Offer::Set, Offer::Clear] {
        change(target, offer).await?;
        change(target, offer).await?;
        offers(target, offer.other()).await?;
    }
    Ok(())
}

async fn everybody(target: &Target) -> Outcome {
    for offer in [Offer::Set, Offer::Clear] {
        change(&target.another_client(), offer).await?;
        offers(target, offer.other()).await?;
        offers(&target.another_client(), offer.other()).await?;
    }
    Ok(())
}

/// The fastest of several requests for the page.
async fn fastest(target: &Target) -> Outcome<Duration> {
    let mut fastest = Duration::MAX;
    for _ in 0..TIMED {
        fastest = fastest.min(page(target).await?.took);
    }
    Ok(fastest)
}

async fn waits(target: &Target) -> Outcome {
    change(target, Offer::Clear).await?;
    let took = fastest(target).await?;
    if took + CLOCK_ERROR >= INDEX_WAIT {
        return Ok(());
    }
    Err(Failure::new(
        "at least 100 ms while the event is clear",
        format_args!("{} ms", took.as_millis()),
    ))
}

/// Compares the times in both states, because the time on the network is the same in both.
async fn does_not_wait(target: &Target) -> Outcome {
    change(target, Offer::Clear).await?;
    let clear = fastest(target).await?;
    change(target, Offer::Set).await?;
    let set = fastest(target).await?;
    if set + MARGIN <= clear {
        return Ok(());
    }
    Err(Failure::new(
        format_args!(
            "at least {} ms less than the {} ms while the event is clear",
            MARGIN.as_millis(),
            clear.as_millis()
        ),
        format_args!("{} ms", set.as_millis()),
    ))
}

/// Restores the demo's event to what the page offered when the run began.
pub async fn restore(target: &Target, found: Option<Offer>) -> Outcome {
    let found = found.ok_or_else(|| {
        Failure::new(
            "a page that shows its state at first",
            "none: it is not restored",
        )
    })?;
    change(target, found.other()).await?;
    offers(target, found).await
}
