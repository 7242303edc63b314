//! The demo, where it promises more than the original.

use http::Method;

use super::TOO_LONG;
use crate::conformance::client::{Answer, Target};
use crate::conformance::report::{Outcome, equal};
use crate::conformance::seed;

pub async fn page(target: &Target) -> Outcome {
    target.get("/").await?.status(200)?.not_stored().map(drop)
}

pub async fn neither(target: &Target) -> Outcome {
    let before = seed::offered(target).await?;
    for body in ["", "true", "True ", "1"] {
        post(target, body).await?.problem(400)?;
    }
    equal("a button that offers", before, seed::offered(target).await?)
}

pub async fn long(target: &Target) -> Outcome {
    let body = "x".repeat(TOO_LONG);
    post(target, &body).await?.problem(413).map(drop)
}

async fn post(target: &Target, body: &str) -> Outcome<Answer> {
    Ok(target
        .send(Method::POST, "/change_event", &[], body)
        .await?)
}
