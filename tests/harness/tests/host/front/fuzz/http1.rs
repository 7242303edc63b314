//! Requests of HTTP/1.1, valid and broken.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::arbitrary::{Arbitrary, request};
use super::http2::PREFACE;

/// One of these.
pub(super) fn bytes_of(known: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> + Clone {
    select(known).prop_map(<[u8]>::to_vec)
}

/// How a request declares the end of its body.
#[derive(Clone, Debug)]
enum Framing {
    Length,
    /// In chunks of at most so many bytes, with this extension after the size of each chunk.
    Chunks(usize, &'static str),
    /// With these headers, and these bytes as the body.
    Broken(&'static str, Vec<u8>),
}

fn framing() -> impl Strategy<Value = Framing> {
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    let headers = select(
        &[
            CHUNKED,
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked, gzip\r\n",
            "transfer-encoding: gzip\r\n",
            "transfer-encoding:\tchunked\r\n",
            "transfer-encoding : chunked\r\n",
            "content-length: 3, 3\r\n",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: +3\r\n",
            "content-length: 18446744073709551615\r\n",
            "content-length: 99999999999999999999\r\n",
            "expect: 100-continue\r\ncontent-length: 4\r\n",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
            "connection: close, keep-alive\r\n",
        ][..],
    );
    let chunks = bytes_of(&[
        b"4\r\nTrue\r\n0\r\n\r\n",
        b"4\r\nTrue\r\n0\r\nx: y\r\n\r\n",
        b"4\r\nTrue",
        b"4\r\nTrueTrue\r\n0\r\n\r\n",
        b"4 ;a=\"b\r\nTrue\r\n0\r\n\r\n",
        b"-4\r\nTrue\r\n0\r\n\r\n",
        b"0x4\r\nTrue\r\n0\r\n\r\n",
        b"4\nTrue\n0\n\n",
        b"ffffffffffffffff\r\nTrue",
        b"fffffffffffffffff\r\nTrue",
        b"00000000000000000000000000004\r\nTrue\r\n0\r\n\r\n",
        b"\r\n\r\n",
        b"True",
    ]);
    let bytes = prop_oneof![
        6 => chunks,
        1 => (0..100_000_usize).prop_map(|length| {
            format!("4;{}\r\nTrue\r\n0\r\n\r\n", "x".repeat(length)).into_bytes()
        }),
        1 => (0..2_000_usize).prop_map(|count| {
            format!("4\r\nTrue\r\n0\r\n{}\r\n", "x: y\r\n".repeat(count)).into_bytes()
        }),
        1 => (0..2_000_usize).prop_map(|count| "1\r\nx\r\n".repeat(count).into_bytes()),
    ];
    let broken = prop_oneof![
        4 => (Just(CHUNKED), bytes.clone()),
        4 => (headers, bytes),
    ];
    prop_oneof![
        6 => Just(Framing::Length),
        3 => chunks_of(),
        4 => broken.prop_map(|(headers, bytes)| Framing::Broken(headers, bytes)),
    ]
}

fn chunks_of() -> impl Strategy<Value = Framing> {
    let extension = select(&["", ";", ";a", ";a=b", ";a=\"b\""][..]);
    (1..20_usize, extension).prop_map(|(most, extension)| Framing::Chunks(most, extension))
}

/// A request, byte for byte.
fn http1(request: &Arbitrary, more: &str, framing: &Framing) -> Vec<u8> {
    let Arbitrary {
        method,
        target,
        headers,
        body,
    } = request;
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n{more}").into_bytes();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    match framing {
        Framing::Length => {
            bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
            bytes.extend(body);
        }
        Framing::Chunks(most, extension) => {
            bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in body.chunks(*most) {
                bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
                bytes.extend([chunk, b"\r\n"].concat());
            }
            bytes.extend(b"0\r\n\r\n");
        }
        Framing::Broken(headers, body) => {
            bytes.extend([headers.as_bytes(), b"\r\n", body].concat());
        }
    }
    bytes
}

/// More headers, which no ordinary client sends.
fn more_headers() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => Just(String::new()),
        1 => (0..300_usize).prop_map(|count| (0..count).map(|n| format!("x-{n}: y\r\n")).collect()),
        1 => (0..100_000_usize).prop_map(|length| format!("x: {}\r\n", "y".repeat(length))),
        1 => (0..100_000_usize).prop_map(|length| format!("{}: y\r\n", "x".repeat(length))),
        1 => "[\\x00-\\xff]{0,20}\r\n",
    ]
}

/// A change at one place of the bytes.
#[derive(Clone, Debug)]
pub(super) enum Mutation {
    Truncate(Index),
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
}

impl Mutation {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Self::Truncate(index) => bytes.truncate(at(index)),
            Self::Replace(index, new) => {
                let at = at(index);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *new;
                }
            }
            Self::Insert(index, new) => {
                let at = at(index);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(index, length) => {
                let at = at(index);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Self::Repeat(index, length, times) => {
                let at = at(index);
                let part = bytes[at..(at + length).min(bytes.len())].repeat(*times);
                bytes.splice(at..at, part);
            }
        }
    }
}

pub(super) fn mutation() -> impl Strategy<Value = Mutation> {
    let inserted = bytes_of(&[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\r\n\r\n",
        b"\r\n ",
        b": ",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"http://other.example/",
        b"\xff\xfe",
        b"Host: other\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 7\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        PREFACE,
    ]);
    prop_oneof![
        2 => any::<Index>().prop_map(Mutation::Truncate),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(index, byte)| Mutation::Replace(index, byte)),
        4 => (any::<Index>(), inserted).prop_map(|(index, bytes)| Mutation::Insert(index, bytes)),
        2 => (any::<Index>(), 1..30_usize).prop_map(|(index, length)| Mutation::Remove(index, length)),
        1 => (any::<Index>(), 1..60_usize, 1..500_usize)
            .prop_map(|(index, length, times)| Mutation::Repeat(index, length, times)),
    ]
}

/// A few pipelined requests with mutations.
pub(super) fn broken_http1() -> impl Strategy<Value = Vec<u8>> {
    let requests = vec((request(), more_headers(), framing()), 1..5);
    (requests, vec(mutation(), 0..4)).prop_map(|(requests, mutations)| {
        let requests = requests.iter();
        let mut bytes = requests
            .flat_map(|(request, more, framing)| http1(request, more, framing))
            .collect();
        for mutation in mutations {
            mutation.apply(&mut bytes);
        }
        bytes
    })
}

/// A valid request, and the status of its response. 0 is 200 or 408.
pub(super) fn valid_request() -> impl Strategy<Value = (Vec<u8>, u16)> {
    let request = select(
        &[
            ("GET", "/events/a", "", 200),
            ("HEAD", "/events/a", "", 200),
            ("GET", "/nothing", "", 404),
            ("PATCH", "/events/a", "", 405),
            ("PUT", "/events/a", "{\"set\": true}", 200),
            ("PUT", "/events/a", "{\"set\": false}", 200),
            ("PUT", "/events/a", "{\"set\": 1}", 400),
            ("POST", "/change_event", "True", 204),
            ("GET", "/events/a/wait?timeout=0", "", 0),
            ("OPTIONS", "/events/a", "", 405),
        ][..],
    );
    let framing = prop_oneof![Just(Framing::Length), chunks_of()];
    (request, framing).prop_map(|((method, target, body, status), framing)| {
        // A handler that reads no body may answer before the end of an empty chunked one. Then the connection closes.
        let framing = if body.is_empty() {
            Framing::Length
        } else {
            framing
        };
        let request = Arbitrary {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: body.into(),
        };
        (http1(&request, "", &framing), status)
    })
}
