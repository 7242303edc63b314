//! Generated input: whatever bytes come, in whatever pieces, they are nobody else's trouble.
//!
//! By default some hundred cases of several connections each; as many as `PROPTEST_CASES` says, and others with
//! `PROPTEST_RNG_SEED`. `PROPTEST_CASES=5000 cargo test --test host front::fuzz -- --nocapture` prints what was answered.

mod floods;
mod fragile;
mod http1;
mod http2;
mod trial;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::time::timeout;

use super::{PATIENCE, get};
use arbitrary::runner;
use http1::{broken_http1, valid_request};
use http2::broken_http2;
use trial::{Answers, Ending, Input, Tried, fails_not, tell};

#[allow(dead_code, reason = "the tests of the router need more of it")]
#[path = "../../../../support/arbitrary.rs"]
mod arbitrary;

fn came(answers: &Answers, kinds: &[&str]) {
    for kind in kinds {
        assert!(
            answers.contains_key(*kind),
            "{kind} is not among {answers:?}"
        );
    }
}

#[test]
fn broken_requests_of_http_1_1_are_nobody_elses_trouble() {
    let answers = Tried::start().withstands(150, broken_http1());
    came(
        &answers,
        &[
            "nothing", "200", "204", "400", "404", "405", "408", "414", "431",
        ],
    );
}

#[test]
fn arbitrary_frames_of_http_2_are_nobody_elses_trouble() {
    let answers = Tried::start().withstands(150, broken_http2());
    came(
        &answers,
        &["nothing", "SETTINGS", "GOAWAY 1", "GOAWAY 6", "GOAWAY 11"],
    );
}

#[test]
fn requests_are_answered_in_their_order_however_they_are_cut_into_pieces() {
    let tried = Tried::start();
    let cuts = vec(any::<Index>(), 0..40);
    let outcome = runner(100).run(&(vec(valid_request(), 1..12), cuts), |(requests, cuts)| {
        let (requests, expected): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let mut bytes = requests.concat();
        bytes.extend(get("/events/last").into_bytes());
        let input = Input {
            bytes: bytes.into(),
            cuts,
            ending: Ending::Stays,
        };
        let telling = tell(tried.address().to_owned(), input);
        let told = tried
            .runtime
            .block_on(async { timeout(PATIENCE, telling).await });
        let told = told.map_err(|_| TestCaseError::fail("no end"))?;
        let told = String::from_utf8_lossy(&told);
        let statuses: Vec<u16> = told
            .match_indices("HTTP/1.1 ")
            .filter_map(|(at, _)| told.get(at + 9..at + 12)?.parse().ok())
            .collect();
        prop_assert_eq!(statuses.len(), expected.len() + 1, "{}", told);
        for (status, expected) in statuses.iter().zip(expected) {
            // A wait without time is over at once, whatever the state.
            let is_expected = match expected {
                0 => [200, 408].contains(status),
                expected => *status == expected,
            };
            prop_assert!(is_expected, "{:?}: {}", statuses, told);
        }
        prop_assert!(told.contains("\"name\":\"last\""), "{}", told);
        Ok(())
    });
    fails_not(outcome);
}
