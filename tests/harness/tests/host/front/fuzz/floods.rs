//! Floods of frames.

use super::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PING, PREFACE, PRIORITY, RESET,
    SETTINGS, WINDOW_UPDATE, frame, head,
};
use super::trial::{Ending, Input, Trial, Tried, has_answers};
use crate::support::PATIENCE;

/// Its name, its bytes, and kinds of answers to it.
type Flood = (&'static str, Vec<u8>, &'static [&'static str]);

/// A `GET` request on this stream, in one frame.
fn get(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &head(GET, path.as_bytes()))
}

#[test]
fn floods_of_frames_do_not_keep_others_from_being_served() {
    const MOST_WINDOW: [u8; 4] = 0x7fff_ffff_u32.to_be_bytes();

    let flood = |begin: &[u8], again: Vec<u8>, times| [begin, &again.repeat(times)].concat();
    let open = get(1, "/events/door/wait", END_HEADERS);
    let ended = get(1, "/events/door/wait", END_HEADERS | END_STREAM);
    let begun = get(1, "/", END_STREAM);
    let window = frame(WINDOW_UPDATE, 0, 1, &0x7000_0000_u32.to_be_bytes());
    let overflowing = [&*ended, &window].concat();
    let largest = [&[0, 4], &MOST_WINDOW[..]].concat();
    let too_large = [&[0, 4], &0x8000_0000_u32.to_be_bytes()[..]].concat();
    let floods: [Flood; 15] = [
        (
            "streams that are reset at once",
            (0..20_000_u32)
                .flat_map(|number| {
                    let stream = number * 2 + 1;
                    let open = get(stream, "/events/door/wait", END_HEADERS | END_STREAM);
                    [open, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
                })
                .collect(),
            // GOAWAY, or the connection is reset.
            &[],
        ),
        (
            "empty CONTINUATION",
            flood(&begun, frame(CONTINUATION, 0, 1, &[]), 100_000),
            &["GOAWAY 11"],
        ),
        (
            "full CONTINUATION",
            flood(
                &begun,
                frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(3_000)),
                1_000,
            ),
            &["GOAWAY 11"],
        ),
        (
            "CONTINUATION without HEADERS",
            flood(&[], frame(CONTINUATION, 0, 1, &[]), 1_000),
            &["GOAWAY 1"],
        ),
        (
            "SETTINGS",
            flood(&[], frame(SETTINGS, 0, 0, &largest), 100_000),
            &["SETTINGS"],
        ),
        (
            "acknowledgements of SETTINGS that were not sent",
            flood(&[], frame(SETTINGS, ACK, 0, &[]), 1_000),
            &["SETTINGS"],
        ),
        (
            "PING",
            flood(&[], frame(PING, 0, 0, &[0; 8]), 100_000),
            &["PING"],
        ),
        (
            "PRIORITY",
            flood(&[], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), 100_000),
            &["SETTINGS"],
        ),
        (
            "empty DATA",
            flood(&open, frame(DATA, 0, 1, &[]), 100_000),
            &["SETTINGS"],
        ),
        (
            "DATA beyond the window",
            flood(&open, frame(DATA, 0, 1, &[0; 16_384]), 1_000),
            &[],
        ),
        (
            "WINDOW_UPDATE of a stream",
            flood(&ended, frame(WINDOW_UPDATE, 0, 1, &MOST_WINDOW), 1_000),
            &["RST_STREAM 3"],
        ),
        (
            "WINDOW_UPDATE of a connection",
            flood(&[], frame(WINDOW_UPDATE, 0, 0, &MOST_WINDOW), 1_000),
            &["GOAWAY 3"],
        ),
        (
            "WINDOW_UPDATE by 0",
            flood(&ended, frame(WINDOW_UPDATE, 0, 0, &[0; 4]), 1_000),
            &["GOAWAY 1"],
        ),
        (
            "SETTINGS with too large a window",
            flood(&[], frame(SETTINGS, 0, 0, &too_large), 1),
            &["GOAWAY 1"],
        ),
        (
            "SETTINGS that make a window overflow",
            flood(&overflowing, frame(SETTINGS, 0, 0, &largest), 1_000),
            &["GOAWAY 3"],
        ),
    ];
    let tried = Tried::start();
    let errors = tried.errors();
    for (name, flood, expected) in floods {
        let mut trial = Trial::new(tried.host.address(), PATIENCE, Some(&errors));
        let flood = Input {
            bytes: [PREFACE, &frame(SETTINGS, 0, 0, &[]), &flood]
                .concat()
                .into(),
            cuts: Vec::new(),
            ending: Ending::Stays,
        };
        let outcome = tried.runtime.block_on(async {
            trial.tries(vec![flood; 4]).await?;
            // The host serves others during the flood too.
            for _ in 0..20 {
                trial.serves().await?;
            }
            trial.finish().await
        });
        assert_eq!(outcome, Ok(()), "{name}");
        println!("{name}: {:?}", trial.answers);
        has_answers(&trial.answers, expected);
    }
}
