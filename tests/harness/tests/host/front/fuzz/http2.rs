//! Frames of HTTP/2, valid and broken.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::http1::{bytes_of, mutation};

/// The first bytes of a connection of HTTP/2.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(super) const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The headers of a request in HPACK. The method, the scheme and the names are in its static table; the path and the authority
/// are literals.
pub(super) fn head(method: u8, path: &[u8]) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    [&[method, 0x86, 0x04, length], path, &[0x01, 1, b'a']].concat()
}

/// Headers in HPACK, of a request or malformed.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let paths = bytes_of(&[
        b"/",
        b"/events/a",
        b"/events/a/wait",
        b"/events/a/stream",
        b"x",
    ]);
    prop_oneof![
        8 => paths.clone().prop_map(|path| head(GET, &path)),
        3 => paths.prop_map(|path| head(POST, &path)),
        2 => vec(any::<u8>(), 0..60),
        // An invalid index, a table size over the limit, an endless integer, and a string that is longer than the block.
        1 => bytes_of(&[b"\x80", b"\xff\xff\xff\x7f", b"\x3f\xe1\xff\xff\xff\x07", b"\x7f\xff\xff\xff\xff\xff\xff",
            b"\x40\x7f\xff\xff\xff\x07", b"\x04\x85\xff\xff\xff\xff\xff", b"\x82\x82\x86\x84"]),
        // A header that is sent once and referred to thousands of times.
        1 => (0..4_000_usize, 0..8_000_usize).prop_map(|(length, count)| {
            let mut block = vec![0x82, 0x86, 0x84, 0x40, 1, b'x', 0x7f];
            let mut rest = length;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
            block.extend(vec![b'y'; length + 127]);
            block.extend(vec![0xbe; count]);
            block
        }),
    ]
}

fn stream_id() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0),
        8 => select(&[1, 3, 5, 7, 9][..]),
        1 => select(&[2, 4, 0x7fff_ffff, 0x8000_0001, 0xffff_ffff][..]),
        1 => any::<u32>(),
    ]
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![
        3 => select(&[0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS][..]),
        1 => any::<u8>(),
    ]
}

fn setting() -> impl Strategy<Value = [u8; 6]> {
    let value = prop_oneof![
        3 => select(&[0, 1, 100, 0x3fff, 0x4000, 0xffff, 0x00ff_ffff, 0x0100_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX][..]),
        1 => any::<u32>(),
    ];
    (prop_oneof![8 => 0..10_u16, 1 => any::<u16>()], value).prop_map(|(name, value)| {
        let ([a, b], [c, d, e, f]) = (name.to_be_bytes(), value.to_be_bytes());
        [a, b, c, d, e, f]
    })
}

/// The payload of a frame with one number.
fn number() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        3 => select(&[0, 1, 8, 0xffff, 0x7fff_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX][..]),
        1 => any::<u32>(),
    ];
    number.prop_map(|number| number.to_be_bytes().to_vec())
}

fn http2_frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |most| vec(any::<u8>(), 0..most);
    let plain = |kind: u8, payload: BoxedStrategy<Vec<u8>>| {
        (flags(), stream_id(), payload)
            .prop_map(move |(flags, stream, payload)| frame(kind, flags, stream, &payload))
            .boxed()
    };
    let settings = vec(setting(), 0..8)
        .prop_map(|settings| settings.concat())
        .boxed();
    let whole = (
        select(&[1, 3, 5, 7, 9, 11][..]),
        block(),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(stream, block, is_end)| {
            let flags = END_HEADERS | if is_end { END_STREAM } else { 0 };
            frame(HEADERS, flags, stream, &block)
        });
    let lies = (any::<u32>(), any::<u8>(), flags(), stream_id(), bytes(40)).prop_map(
        |(length, kind, flags, stream, payload)| {
            let mut lies = frame(kind % 12, flags, stream, &payload);
            lies[..3].copy_from_slice(&length.to_be_bytes()[1..]);
            lies
        },
    );
    prop_oneof![
        8 => whole,
        3 => plain(HEADERS, block().boxed()),
        2 => plain(CONTINUATION, block().boxed()),
        3 => plain(DATA, bytes(40).boxed()),
        1 => plain(DATA, (0..20_000_usize).prop_map(|length| vec![0; length]).boxed()),
        1 => plain(PRIORITY, vec(any::<u8>(), 5).boxed()),
        2 => plain(RESET, number().boxed()),
        2 => (prop::bool::weighted(0.9), settings.clone()).prop_map(|(is_own, settings)| {
            let settings = if is_own { settings } else { Vec::new() };
            frame(SETTINGS, if is_own { 0 } else { ACK }, 0, &settings)
        }),
        1 => plain(SETTINGS, settings),
        1 => plain(PUSH_PROMISE, bytes(40).boxed()),
        1 => plain(PING, vec(any::<u8>(), 8).boxed()),
        1 => plain(GOAWAY, vec(any::<u8>(), 8..20).boxed()),
        3 => plain(WINDOW_UPDATE, number().boxed()),
        2 => (any::<u8>(), flags(), stream_id(), bytes(40))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
        1 => lies,
    ]
}

pub(super) fn broken_http2() -> impl Strategy<Value = Vec<u8>> {
    let frames = vec(http2_frame(), 0..30);
    let mutations = prop_oneof![6 => Just(Vec::new()), 1 => vec(mutation(), 1..3)];
    (prop::bool::weighted(0.9), frames, mutations).prop_map(|(begins, frames, mutations)| {
        let begin = if begins {
            frame(SETTINGS, 0, 0, &[])
        } else {
            Vec::new()
        };
        let mut bytes = [PREFACE, &begin, &frames.concat()].concat();
        for mutation in mutations {
            mutation.apply(&mut bytes);
        }
        bytes
    })
}
