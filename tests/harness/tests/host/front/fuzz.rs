//! Arbitrary bytes in arbitrary pieces: they do not keep the host from serving others.
//!
//! By default, these are a few hundred cases of several connections each. `PROPTEST_CASES` changes their number, and
//! `PROPTEST_RNG_SEED` generates others. `PROPTEST_CASES=5000 cargo test --test host front::fuzz -- --nocapture` prints which
//! answers came how often.

mod floods;
mod fragile;
mod http1;
mod http2;
mod trial;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::connection::get;
use crate::support::soon;
use arbitrary::runner;
use http1::{broken_http1, valid_request};
use http2::broken_http2;
use trial::{Ending, Input, Tried, fails_not, has_answers, tell};

#[allow(dead_code, reason = "the tests of the router need more of it")]
#[path = "../../../../component/support/arbitrary.rs"]
mod arbitrary;

#[test]
fn broken_requests_of_http_1_1_do_not_affect_others() {
    let answers = Tried::start().withstands(150, broken_http1());
    has_answers(
        &answers,
        &[
            "nothing", "200", "204", "400", "404", "405", "408", "414", "431",
        ],
    );
}

#[test]
fn arbitrary_frames_of_http_2_do_not_affect_others() {
    let answers = Tried::start().withstands(150, broken_http2());
    has_answers(
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
        let told = soon(tell(tried.host.address().to_owned(), input));
        let told = tried.runtime.block_on(told);
        let told = String::from_utf8_lossy(&told);
        let statuses: Vec<u16> = told
            .match_indices("HTTP/1.1 ")
            .filter_map(|(at, _)| told.get(at + 9..at + 12)?.parse().ok())
            .collect();
        prop_assert_eq!(statuses.len(), expected.len() + 1, "{}", told);
        for (status, expected) in statuses.iter().zip(expected) {
            // A wait with a timeout of 0 ends at once, whether the event is set or not.
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
