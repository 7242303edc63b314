//! Generated input: whatever bytes come, in whatever pieces, they are nobody else's trouble.
//!
//! By default some hundred cases of several connections each; as many as `PROPTEST_CASES` says, and others with
//! `PROPTEST_RNG_SEED`. `PROPTEST_CASES=5000 cargo test --test host front::fuzz -- --nocapture` prints what was answered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestError, TestRunner};
use rustix::process::Signal;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{PATIENCE, frame, get};
use crate::support::{Host, command, component};

#[allow(dead_code, reason = "the tests of the router need more of it")]
#[path = "../../../../support/arbitrary.rs"]
mod arbitrary;

use arbitrary::{Arbitrary, request, runner};

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Clients that stay are cut off after a second or two. No more of them at once than a process may have files.
const MOST_THAT_STAY: usize = 200;

// What comes.

/// What a client does when it has sent all.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// It goes, whatever it has not been told.
    HangsUp,
    /// It says that nothing more will come, and takes what does.
    Closes,
    /// It takes what comes until the front ends the connection.
    Stays,
}

/// What a client sends.
#[derive(Clone, Debug)]
struct Input {
    bytes: Bytes,
    /// Where it is cut into pieces, each of them sent on its own.
    cuts: Vec<Index>,
    ending: Ending,
}

impl Input {
    fn pieces(&self) -> Vec<Bytes> {
        let mut cuts: Vec<_> = self
            .cuts
            .iter()
            .map(|cut| cut.index(self.bytes.len() + 1))
            .collect();
        cuts.extend([0, self.bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| self.bytes.slice(cut[0]..cut[1]));
        pieces.filter(|piece| !piece.is_empty()).collect()
    }
}

fn input(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Input> {
    let ending = prop_oneof![
        2 => Just(Ending::HangsUp),
        4 => Just(Ending::Closes),
        2 => Just(Ending::Stays),
    ];
    (bytes, vec(any::<Index>(), 0..6), ending).prop_map(|(bytes, cuts, ending)| Input {
        bytes: bytes.into(),
        cuts,
        ending,
    })
}

/// One of these.
fn bytes_of(known: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> + Clone {
    select(known).prop_map(<[u8]>::to_vec)
}

// HTTP/1.1.

/// How a request says where its body ends.
#[derive(Clone, Debug)]
enum Framing {
    Length,
    /// In chunks of at most so many bytes, with something after each chunk's size.
    Chunks(usize, &'static str),
    /// With these headers, and these bytes for a body.
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

/// Headers that no client has.
fn more_headers() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => Just(String::new()),
        1 => (0..300_usize).prop_map(|count| (0..count).map(|n| format!("x-{n}: y\r\n")).collect()),
        1 => (0..100_000_usize).prop_map(|length| format!("x: {}\r\n", "y".repeat(length))),
        1 => (0..100_000_usize).prop_map(|length| format!("{}: y\r\n", "x".repeat(length))),
        1 => "[\\x00-\\xff]{0,20}\r\n",
    ]
}

/// A change of one place in what a client sends.
#[derive(Clone, Debug)]
enum Mutation {
    Truncate(Index),
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
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

fn mutation() -> impl Strategy<Value = Mutation> {
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

/// Some requests, one behind the other, and changes of them.
fn broken_http1() -> impl Strategy<Value = Vec<u8>> {
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

// HTTP/2.

/// Headers in HPACK: a request, or what is none.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let request = |method: u8, path: &[u8]| {
        let length = u8::try_from(path.len()).unwrap();
        [&[method, 0x86, 0x04, length], path, &[0x01, 1, b'a']].concat()
    };
    let paths = bytes_of(&[
        b"/",
        b"/events/a",
        b"/events/a/wait",
        b"/events/a/stream",
        b"x",
    ]);
    prop_oneof![
        8 => paths.clone().prop_map(move |path| request(0x82, &path)),
        3 => paths.prop_map(move |path| request(0x83, &path)),
        2 => vec(any::<u8>(), 0..60),
        // An index that is none, a size of the table over the limit, an integer without end, and a string longer than all.
        1 => bytes_of(&[b"\x80", b"\xff\xff\xff\x7f", b"\x3f\xe1\xff\xff\xff\x07", b"\x7f\xff\xff\xff\xff\xff\xff",
            b"\x40\x7f\xff\xff\xff\x07", b"\x04\x85\xff\xff\xff\xff\xff", b"\x82\x82\x86\x84"]),
        // A header that is said once and meant a thousand times.
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

/// A number as frames have it.
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

fn broken_http2() -> impl Strategy<Value = Vec<u8>> {
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

// What is answered.

/// How often each kind of answer came.
type Answers = BTreeMap<String, u64>;

/// Counts what a client has been told. It is an error if that is no HTTP, or says that something failed.
fn count(told: &[u8], answers: &mut Answers) -> Result<(), String> {
    let mut add = |kind: String| *answers.entry(kind).or_default() += 1;
    if told.is_empty() {
        add("nothing".into());
        return Ok(());
    }
    if told.starts_with(b"HTTP/1.") {
        for start in told
            .windows(12)
            .filter(|bytes| bytes.starts_with(b"HTTP/1."))
        {
            if let Some(status) = std::str::from_utf8(&start[9..])
                .ok()
                .filter(|it| it.parse::<u16>().is_ok())
            {
                add(status.to_owned());
                if ["500", "502"].contains(&status) {
                    return Err(Bytes::copy_from_slice(told).escape_ascii().to_string());
                }
            }
        }
        return Ok(());
    }
    let mut rest = told;
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        // A client that goes gets no more than a part of the last frame.
        let (payload, next) = after.split_at_checked(length).unwrap_or((after, &[]));
        let code = |from: usize| payload.get(from + 3).copied().unwrap_or_default();
        let kind = match head[3] {
            DATA => "DATA".into(),
            // The first of its headers is the status: an index in the static table, or a literal.
            HEADERS => match payload.first() {
                Some(0x8e) => return Err("a response of HTTP/2 is 500".into()),
                Some(0x88) => "HEADERS 200".into(),
                Some(0x8c) => "HEADERS 400".into(),
                Some(0x8d) => "HEADERS 404".into(),
                _ => "HEADERS of others".into(),
            },
            RESET => format!("RST_STREAM {}", code(0)),
            SETTINGS => "SETTINGS".into(),
            PING => "PING".into(),
            GOAWAY => format!("GOAWAY {}", code(4)),
            WINDOW_UPDATE => "WINDOW_UPDATE".into(),
            _ => {
                return Err(format!(
                    "no frame that a server sends: {}",
                    told.escape_ascii()
                ));
            }
        };
        add(kind);
        rest = next;
    }
    Ok(())
}

/// Sends this over a connection of its own, and returns what came until its end.
async fn tell(address: String, input: Input) -> Vec<u8> {
    let mut told = Vec::new();
    // Where nobody listens any more, the request of every case says so.
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return told;
    };
    _ = stream.set_nodelay(true);
    let (mut read, mut write) = stream.split();
    let sending = async {
        for piece in input.pieces() {
            // The front need not take all of it.
            if write.write_all(&piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        match input.ending {
            Ending::HangsUp => {}
            Ending::Closes => _ = write.shutdown().await,
            Ending::Stays => std::future::pending().await,
        }
    };
    let reading = async { _ = read.read_to_end(&mut told).await };
    match input.ending {
        Ending::HangsUp => tokio::select! {
            () = sending => {}
            () = reading => {}
        },
        Ending::Closes => _ = tokio::join!(sending, reading),
        Ending::Stays => tokio::select! {
            () = sending => {}
            () = reading => {}
        },
    }
    told
}

/// A front under generated input.
struct Trial<'a> {
    /// Where it listens.
    address: String,
    /// How long it may take for whatever it does.
    patience: Duration,
    /// A file with what it says on standard error: nothing.
    errors: Option<&'a Path>,
    staying: JoinSet<Vec<u8>>,
    answers: Answers,
}

impl<'a> Trial<'a> {
    fn new(address: &str, patience: Duration, errors: Option<&'a Path>) -> Self {
        Self {
            address: address.to_owned(),
            patience,
            errors,
            staying: JoinSet::new(),
            answers: Answers::new(),
        }
    }

    /// These come at the same time. Then, an ordinary request is answered.
    async fn tries(&mut self, inputs: Vec<Input>) -> Result<(), String> {
        let mut going = JoinSet::new();
        for input in inputs {
            let telling = tell(self.address.clone(), input.clone());
            if matches!(input.ending, Ending::Stays) {
                self.staying.spawn(telling);
            } else {
                going.spawn(telling);
            }
        }
        self.ends(going, 0).await?;
        if self.staying.len() > MOST_THAT_STAY {
            let staying = std::mem::take(&mut self.staying);
            self.staying = self.ends(staying, MOST_THAT_STAY / 2).await?;
        }
        self.serves().await
    }

    /// Waits until no more than so many of these are left.
    async fn ends(
        &mut self,
        mut clients: JoinSet<Vec<u8>>,
        left: usize,
    ) -> Result<JoinSet<Vec<u8>>, String> {
        while clients.len() > left {
            let Ok(ended) = timeout(self.patience, clients.join_next()).await else {
                return Err(format!("connections do not end within {:?}", self.patience));
            };
            if let Some(told) = ended {
                count(&told.map_err(|error| error.to_string())?, &mut self.answers)?;
            }
        }
        Ok(clients)
    }

    async fn serves(&self) -> Result<(), String> {
        let request = Input {
            bytes: get("/events/other").into(),
            cuts: Vec::new(),
            ending: Ending::Stays,
        };
        let answer = timeout(self.patience, tell(self.address.clone(), request)).await;
        let answer = answer.map_err(|_| {
            format!(
                "an ordinary request is not answered within {:?}",
                self.patience
            )
        })?;
        let answer = String::from_utf8_lossy(&answer);
        if !(answer.starts_with("HTTP/1.1 200") && answer.contains("\"name\":\"other\"")) {
            return Err(format!("an ordinary request gets {answer:?}"));
        }
        let Some(errors) = self.errors else {
            return Ok(());
        };
        match std::fs::read_to_string(errors) {
            Ok(errors) if errors.is_empty() => Ok(()),
            said => Err(format!("the host says {said:?}")),
        }
    }

    /// Waits until all connections are over.
    async fn finish(&mut self) -> Result<(), String> {
        let staying = std::mem::take(&mut self.staying);
        self.ends(staying, 0).await?;
        self.serves().await
    }
}

/// A host, and a file with what it says on standard error.
struct Tried {
    runtime: Runtime,
    host: Host,
    directory: TempDir,
}

impl Tried {
    /// Starts it. Whoever sends it a part of something does not wait for long.
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let directory = tempdir().unwrap();
        let component = component();
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--store", "memory"];
        arguments.extend(["--component", component.to_str().unwrap()]);
        for limit in ["--head-timeout", "--body-timeout", "--write-timeout"] {
            arguments.extend([limit, "2s"]);
        }
        for variable in ["wait_max_seconds=1", "stream_max_seconds=1"] {
            arguments.extend(["--variable", variable]);
        }
        let mut command = command(directory.path(), &arguments);
        command.stderr(std::fs::File::create(directory.path().join("errors")).unwrap());
        let host = runtime.block_on(Host::wait_for(command));
        Self {
            runtime,
            host,
            directory,
        }
    }

    fn address(&self) -> &str {
        self.host.url.strip_prefix("http://").unwrap()
    }

    fn errors(&self) -> PathBuf {
        self.directory.path().join("errors")
    }

    /// Sends it cases of such bytes, and returns what was answered.
    fn withstands(self, cases: u32, bytes: impl Strategy<Value = Vec<u8>>) -> Answers {
        let errors = self.errors();
        let trial = Trial::new(self.address(), PATIENCE, Some(&errors));
        let (began, trial) = (Instant::now(), RefCell::new(trial));
        let mut runner = runner(cases);
        let cases = runner.config().cases;
        let tried = runner.run(&vec(input(bytes), 1..8), |inputs| {
            let tried = self.runtime.block_on(trial.borrow_mut().tries(inputs));
            tried.map_err(TestCaseError::fail)
        });
        fails_not(tried);
        let mut trial = trial.into_inner();
        self.runtime.block_on(trial.finish()).unwrap();
        let answers = trial.answers;
        println!("{cases} cases in {:?}: {answers:?}", began.elapsed());
        let (status, _) = self
            .runtime
            .block_on(self.host.send("GET", "/healthz", "", true));
        assert_eq!(status, 200, "with HTTP/2");
        self.host.signal(Signal::TERM);
        let (status, _) = self.runtime.block_on(self.host.ended());
        assert!(status.success(), "{status}");
        let errors = std::fs::read_to_string(errors).unwrap();
        assert!(
            errors.starts_with("Stopping") && errors.lines().count() == 1,
            "{errors}"
        );
        answers
    }
}

fn fails_not<T: std::fmt::Debug>(tried: Result<(), TestError<T>>) {
    if let Err(error) = tried {
        panic!("{error}");
    }
}

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

/// A request that is answered, and its status.
fn valid_request() -> impl Strategy<Value = (Vec<u8>, u16)> {
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
        // Who needs no body may answer before the end of an empty one, and close the connection then.
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

// Floods.

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

// The check itself.

/// A front that breaks.
#[derive(Clone, Copy, Debug)]
enum Fragile {
    /// It takes a connection when the one before has ended.
    Hangs,
    /// It takes no more connections when it has read a byte that is 0.
    Ends,
}

impl Fragile {
    async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (end, mut ended) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = ended.recv() => return,
                };
                let serving = self.serve(stream, end.clone());
                match self {
                    Self::Hangs => serving.await,
                    Self::Ends => drop(tokio::spawn(serving)),
                }
            }
        });
        address
    }

    async fn serve(self, mut stream: TcpStream, end: mpsc::Sender<()>) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                return;
            }
            if matches!(self, Self::Ends) && seen.contains(&0) {
                _ = end.try_send(());
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"name\":\"other\"}";
        _ = stream.write_all(answer).await;
    }
}

#[test]
fn a_front_that_ends_or_hangs_is_found() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    for (fragile, patience, expected) in [
        (Fragile::Hangs, Duration::from_millis(500), "within 500ms"),
        (Fragile::Ends, PATIENCE, "an ordinary request gets \"\""),
    ] {
        let address = runtime.block_on(fragile.start());
        let trial = Trial::new(&address, patience, None);
        runtime.block_on(trial.serves()).unwrap();
        let trial = RefCell::new(trial);
        // What fails once fails from then on: there is nothing to make smaller.
        let mut runner = TestRunner::new(Config {
            max_shrink_iters: 0,
            ..runner(500).config().clone()
        });
        let tried = runner.run(&vec(input(broken_http1()), 1..8), |inputs| {
            let tried = runtime.block_on(trial.borrow_mut().tries(inputs));
            tried.map_err(TestCaseError::fail)
        });
        let found = tried.expect_err("it is found").to_string();
        assert!(found.contains(expected), "{fragile:?}: {found}");
    }
}
