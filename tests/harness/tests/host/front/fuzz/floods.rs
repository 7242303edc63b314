//! Floods of frames.

use super::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, SETTINGS,
    WINDOW_UPDATE,
};
use super::trial::{Ending, Input, Trial, Tried};
use crate::front::{PATIENCE, frame};

/// The whole of a request of HTTP/2 without a body.
fn request_frame(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    let mut head = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    head.extend(path.as_bytes());
    head.extend([0x01, 1, b'a']);
    frame(HEADERS, flags, stream, &head)
}

/// Its name, what comes first, what comes then and how often, and what the front says of it: kinds of its answer.
type Flood = (
    &'static str,
    Vec<u8>,
    Vec<u8>,
    usize,
    &'static [&'static str],
);

#[test]
fn floods_of_frames_do_not_keep_others_from_being_served() {
    const MOST_WINDOW: [u8; 4] = 0x7fff_ffff_u32.to_be_bytes();

    let open = || request_frame(1, "/events/door/wait", END_HEADERS);
    let ended = || request_frame(1, "/events/door/wait", END_HEADERS | END_STREAM);
    let begun = request_frame(1, "/", END_STREAM);
    let window = frame(WINDOW_UPDATE, 0, 1, &MOST_WINDOW);
    let largest = [&[0, 4], &MOST_WINDOW[..]].concat();
    let too_large = [&[0, 4], &0x8000_0000_u32.to_be_bytes()[..]].concat();
    let floods: [Flood; 14] = [
        (
            "empty CONTINUATION",
            begun.clone(),
            frame(CONTINUATION, 0, 1, &[]),
            100_000,
            &["GOAWAY 11"],
        ),
        (
            "full CONTINUATION",
            begun.clone(),
            frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(3_000)),
            1_000,
            &["GOAWAY 11"],
        ),
        (
            "CONTINUATION of nothing",
            vec![],
            frame(CONTINUATION, 0, 1, &[]),
            1_000,
            &["GOAWAY 1"],
        ),
        (
            "SETTINGS",
            vec![],
            frame(SETTINGS, 0, 0, &largest),
            100_000,
            &["SETTINGS"],
        ),
        (
            "SETTINGS that nobody asked to acknowledge",
            vec![],
            frame(SETTINGS, ACK, 0, &[]),
            1_000,
            &["SETTINGS"],
        ),
        (
            "PING",
            vec![],
            frame(PING, 0, 0, &[0; 8]),
            100_000,
            &["PING"],
        ),
        (
            "PRIORITY",
            vec![],
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
            100_000,
            &["SETTINGS"],
        ),
        (
            "empty DATA",
            open(),
            frame(DATA, 0, 1, &[]),
            100_000,
            &["SETTINGS"],
        ),
        (
            "DATA over the window",
            open(),
            frame(DATA, 0, 1, &[0; 16_384]),
            1_000,
            &[],
        ),
        (
            "WINDOW_UPDATE of a stream",
            ended(),
            window.clone(),
            1_000,
            &["RST_STREAM 3"],
        ),
        (
            "WINDOW_UPDATE of a connection",
            vec![],
            frame(WINDOW_UPDATE, 0, 0, &MOST_WINDOW),
            1_000,
            &["GOAWAY 3"],
        ),
        (
            "WINDOW_UPDATE of nothing",
            ended(),
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            1_000,
            &["GOAWAY 1"],
        ),
        (
            "SETTINGS of too large a window",
            vec![],
            frame(SETTINGS, 0, 0, &too_large),
            1,
            &["GOAWAY 1"],
        ),
        (
            "SETTINGS that make a window overflow",
            [
                ended(),
                frame(WINDOW_UPDATE, 0, 1, &0x7000_0000_u32.to_be_bytes()),
            ]
            .concat(),
            frame(SETTINGS, 0, 0, &largest),
            1_000,
            &["GOAWAY 3"],
        ),
    ];
    let tried = Tried::start();
    let errors = tried.errors();
    for (name, begin, again, times, expected) in floods {
        let mut trial = Trial::new(tried.address(), PATIENCE, Some(&errors));
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &begin].concat();
        let flood = Input {
            bytes: [begin, again.repeat(times)].concat().into(),
            cuts: Vec::new(),
            ending: Ending::Stays,
        };
        let outcome = tried.runtime.block_on(async {
            trial.tries(vec![flood; 4]).await?;
            // Others are served while it goes on, too.
            for _ in 0..20 {
                trial.serves().await?;
            }
            trial.finish().await
        });
        assert_eq!(outcome, Ok(()), "{name}");
        println!("{name}: {:?}", trial.answers);
        let answers = &trial.answers;
        for kind in expected {
            assert!(
                answers.contains_key(*kind),
                "{name}: {kind} is not among {answers:?}"
            );
        }
    }
}
