//! A host that gets arbitrary bytes in arbitrary pieces, and has to go on serving others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestError;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::arbitrary::runner;
use super::http2::{DATA, GOAWAY, HEADERS, PING, RESET, SETTINGS, WINDOW_UPDATE};
use crate::support::connection::get;
use crate::support::{Host, PATIENCE, serve_component};

/// The most clients that stay open at the same time, because a process may open only so many files.
const MOST_THAT_STAY: usize = 200;

/// What a client does after it has sent everything.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// It closes the connection without waiting for answers.
    HangsUp,
    /// It closes its half of the connection, and reads to the end.
    Closes,
    /// It reads until the host ends the connection, which takes a timeout.
    Stays,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) bytes: Bytes,
    /// Where the bytes are cut into pieces, which are sent one by one.
    pub(super) cuts: Vec<Index>,
    pub(super) ending: Ending,
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

pub(super) fn input(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Input> {
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

/// How often each kind of answer came.
pub(super) type Answers = BTreeMap<String, u64>;

/// Checks that answers of these kinds came.
pub(super) fn has_answers(answers: &Answers, kinds: &[&str]) {
    for kind in kinds {
        assert!(
            answers.contains_key(*kind),
            "{kind} is not among {answers:?}"
        );
    }
}

/// Counts the answers that a client has received. It is an error if they are not HTTP, or 500 or 502.
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
        // A client that hangs up may have only a part of the last frame.
        let (payload, next) = after.split_at_checked(length).unwrap_or((after, &[]));
        let code = |from: usize| payload.get(from + 3).copied().unwrap_or_default();
        let kind = match head[3] {
            DATA => "DATA".into(),
            // Its first header is the status, as an index in the static table or as a literal.
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

/// Sends the input over a connection of its own, and returns everything that arrived until its end.
pub(super) async fn tell(address: String, input: Input) -> Vec<u8> {
    let mut told = Vec::new();
    // If the host does not listen any more, the ordinary request after this case fails.
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return told;
    };
    _ = stream.set_nodelay(true);
    let (mut read, mut write) = stream.split();
    let sending = async {
        for piece in input.pieces() {
            // The host may close the connection before it has read everything.
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
        Ending::Closes => _ = tokio::join!(sending, reading),
        Ending::HangsUp | Ending::Stays => tokio::select! {
            () = sending => {}
            () = reading => {}
        },
    }
    told
}

/// A host under arbitrary input.
pub(super) struct Trial<'a> {
    /// The address on which the host listens.
    address: String,
    /// The longest time that anything may take.
    patience: Duration,
    /// A file with the host's standard error, which must stay empty.
    errors: Option<&'a Path>,
    staying: JoinSet<Vec<u8>>,
    pub(super) answers: Answers,
}

impl<'a> Trial<'a> {
    pub(super) fn new(address: &str, patience: Duration, errors: Option<&'a Path>) -> Self {
        Self {
            address: address.to_owned(),
            patience,
            errors,
            staying: JoinSet::new(),
            answers: Answers::new(),
        }
    }

    /// Sends these inputs at the same time, and checks that the host then answers an ordinary request.
    pub(super) async fn tries(&mut self, inputs: Vec<Input>) -> Result<(), String> {
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

    /// Waits until at most `left` of these clients are left.
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

    /// Checks that an ordinary request is answered, and that nothing is on standard error.
    pub(super) async fn serves(&self) -> Result<(), String> {
        let request = Input {
            bytes: get("/events/other").into(),
            cuts: Vec::new(),
            ending: Ending::Stays,
        };
        let answer = timeout(self.patience, tell(self.address.clone(), request)).await;
        let late = |_| {
            format!(
                "no answer to an ordinary request within {:?}",
                self.patience
            )
        };
        let answer = answer.map_err(late)?;
        let answer = String::from_utf8_lossy(&answer);
        if !(answer.starts_with("HTTP/1.1 200") && answer.contains("\"name\":\"other\"")) {
            return Err(format!("an ordinary request gets {answer:?}"));
        }
        let Some(errors) = self.errors else {
            return Ok(());
        };
        match std::fs::read_to_string(errors) {
            Ok(errors) if errors.is_empty() => Ok(()),
            errors => Err(format!("on standard error: {errors:?}")),
        }
    }

    /// Waits until all connections have ended, and checks that the host serves.
    pub(super) async fn finish(&mut self) -> Result<(), String> {
        let staying = std::mem::take(&mut self.staying);
        self.ends(staying, 0).await?;
        self.serves().await
    }
}

/// A host, and a directory with the file of its standard error.
pub(super) struct Tried {
    pub(super) runtime: Runtime,
    pub(super) host: Host,
    directory: TempDir,
}

impl Tried {
    /// Starts a host with short timeouts.
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let directory = tempdir().unwrap();
        let mut arguments = vec!["--store", "memory"];
        for limit in ["--head-timeout", "--body-timeout", "--write-timeout"] {
            arguments.extend([limit, "2s"]);
        }
        for variable in ["wait_max_seconds=1", "stream_max_seconds=1"] {
            arguments.extend(["--variable", variable]);
        }
        let mut command = serve_component(directory.path(), &arguments);
        command.stderr(std::fs::File::create(directory.path().join("errors")).unwrap());
        let host = runtime.block_on(Host::wait_for(command));
        Self {
            runtime,
            host,
            directory,
        }
    }

    pub(super) fn errors(&self) -> PathBuf {
        self.directory.path().join("errors")
    }

    /// Sends the host so many cases of such bytes, and returns the answers.
    pub(super) fn withstands(self, cases: u32, bytes: impl Strategy<Value = Vec<u8>>) -> Answers {
        let errors = self.errors();
        let trial = Trial::new(self.host.address(), PATIENCE, Some(&errors));
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
        self.runtime.block_on(async {
            let health = self.host.send_over(true, "GET", "/healthz", "").await;
            assert_eq!(health.0, 200, "with HTTP/2");
            self.host.stop().await;
        });
        let errors = std::fs::read_to_string(errors).unwrap();
        assert!(
            errors.starts_with("Stopping") && errors.lines().count() == 1,
            "{errors}"
        );
        answers
    }
}

pub(super) fn fails_not<T: std::fmt::Debug>(tried: Result<(), TestError<T>>) {
    if let Err(error) = tried {
        panic!("{error}");
    }
}
