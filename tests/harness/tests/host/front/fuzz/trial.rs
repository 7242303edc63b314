//! A host that is sent whatever bytes come, in whatever pieces, and that has to go on serving.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestError;
use rustix::process::Signal;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::arbitrary::runner;
use super::http2::{DATA, GOAWAY, HEADERS, PING, RESET, SETTINGS, WINDOW_UPDATE};
use crate::front::{PATIENCE, get};
use crate::support::{Host, command, component};

/// Clients that stay are cut off after a second or two. No more of them at once than a process may have files.
const MOST_THAT_STAY: usize = 200;

/// What a client does when it has sent all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// It goes, whatever it has not been told.
    HangsUp,
    /// It says that nothing more will come, and takes what does.
    Closes,
    /// It takes what comes until the front ends the connection.
    Stays,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) bytes: Bytes,
    /// Where it is cut into pieces, each of them sent on its own.
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
pub(super) async fn tell(address: String, input: Input) -> Vec<u8> {
    let mut told = Vec::new();
    // If nobody listens any more, the request of every case says so.
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
pub(super) struct Trial<'a> {
    /// Where it listens.
    address: String,
    /// How long it may take for whatever it does.
    patience: Duration,
    /// A file with what it says on standard error: nothing.
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

    /// These come at the same time. Then, an ordinary request is answered.
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

    pub(super) async fn serves(&self) -> Result<(), String> {
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
    pub(super) async fn finish(&mut self) -> Result<(), String> {
        let staying = std::mem::take(&mut self.staying);
        self.ends(staying, 0).await?;
        self.serves().await
    }
}

/// A host, and a file with what it says on standard error.
pub(super) struct Tried {
    pub(super) runtime: Runtime,
    host: Host,
    directory: TempDir,
}

impl Tried {
    /// Starts it. Whoever sends it a part of something does not wait for long.
    pub(super) fn start() -> Self {
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

    pub(super) fn address(&self) -> &str {
        self.host.url.strip_prefix("http://").unwrap()
    }

    pub(super) fn errors(&self) -> PathBuf {
        self.directory.path().join("errors")
    }

    /// Sends it cases of such bytes, and returns what was answered.
    pub(super) fn withstands(self, cases: u32, bytes: impl Strategy<Value = Vec<u8>>) -> Answers {
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

pub(super) fn fails_not<T: std::fmt::Debug>(tried: Result<(), TestError<T>>) {
    if let Err(error) = tried {
        panic!("{error}");
    }
}
