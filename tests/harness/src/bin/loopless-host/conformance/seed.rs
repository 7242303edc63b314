//! What this project and the Python original have in common: a page with one button, and what the button does.
//!
//! Nothing is checked here that only one of them does: the original clears the event on everything but `True`, for one.

use std::time::Duration;

use http::Method;

use super::client::{Answer, Target};
use super::report::{Failure, Outcome, Report, equal};

/// How long the page waits for the event while it is clear.
const INDEX_WAIT: Duration = Duration::from_millis(100);

/// A server's clock may be coarser than ours.
const COARSE: Duration = Duration::from_millis(10);

/// How much faster the page has to be while the event is set: half of what it does not wait.
const MARGIN: Duration = Duration::from_millis(50);

/// How many requests are timed. The fastest one has met the least of what others do on the way.
const TIMED: usize = 10;

/// What the button does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Set,
    Clear,
}

impl Offer {
    /// What it sends, in the words of the original.
    fn body(self) -> &'static str {
        match self {
            Self::Set => "True",
            Self::Clear => "False",
        }
    }
}

/// What the one button of a page offers. Its words and all else on the page are the server's own affair.
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
        // The first one is the original's.
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

/// What the page offers now.
pub async fn offered(target: &Target) -> Outcome<Offer> {
    offer_on(&page(target).await?)
}

/// Does what the button does.
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
    report.capability("The page");
    let all = "GET / answers 200 with a page in HTML with one button";
    report
        .check(all, async { offered(target).await.map(drop) })
        .await;
    let all = "POST True to /change_event answers 204, and the button offers False";
    report
        .check(all, async {
            change(target, Offer::Clear).await?;
            change(target, Offer::Set).await?;
            offers(target, Offer::Clear).await
        })
        .await;
    let all = "POST False answers 204, and the button offers True";
    report
        .check(all, async {
            change(target, Offer::Set).await?;
            change(target, Offer::Clear).await?;
            offers(target, Offer::Set).await
        })
        .await;
    let all = "to set or clear it twice is to do it once";
    report.check(all, twice(target)).await;
    let all = "every client sees the same event";
    report.check(all, everybody(target)).await;
    let all = "the page waits 100 ms for the event while it is clear";
    report.check(all, waits(target)).await;
    let all = "the page does not wait while the event is set";
    report.check(all, does_not_wait(target)).await;
}

async fn twice(target: &Target) -> Outcome {
    for (offer, then) in [(Offer::Set, Offer::Clear), (Offer::Clear, Offer::Set)] {
        change(target, offer).await?;
        change(target, offer).await?;
        offers(target, then).await?;
    }
    Ok(())
}

async fn everybody(target: &Target) -> Outcome {
    for (offer, then) in [(Offer::Set, Offer::Clear), (Offer::Clear, Offer::Set)] {
        change(&target.another_client(), offer).await?;
        offers(target, then).await?;
        offers(&target.another_client(), then).await?;
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
    if took + COARSE >= INDEX_WAIT {
        return Ok(());
    }
    Err(Failure::new(
        "at least 100 ms while it is clear",
        format_args!("{} ms", took.as_millis()),
    ))
}

/// The way to the server is as long in both states: what counts is the difference.
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
            "less than the {} ms that it takes while the event is clear, by {} ms or more",
            clear.as_millis(),
            MARGIN.as_millis()
        ),
        format_args!("{} ms", set.as_millis()),
    ))
}

/// Leaves the demo's event as it was, where that could be seen.
pub async fn restore(target: &Target, found: Option<Offer>) -> Outcome {
    let found = found
        .ok_or_else(|| Failure::new("a page that shows how it was", "none: it is left as it is"))?;
    let other = match found {
        Offer::Set => Offer::Clear,
        Offer::Clear => Offer::Set,
    };
    change(target, other).await?;
    offers(target, found).await
}
