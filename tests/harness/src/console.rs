//! The [`Console`], which takes what guests print, line by line.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// An output to which a guest prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The longest line, in bytes. A longer one is split, so that a guest that never ends a line does not use up memory.
const LONGEST: usize = 64 << 10;

/// A line that a guest printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of the instance that printed it, from 1 in the order in which the host made them.
    pub instance: u64,
    /// The output to which it was printed.
    pub output: Output,
    /// The line, without its line feed.
    pub text: String,
}

/// Takes the lines that guests print.
#[derive(Clone)]
pub struct Console(Arc<dyn Fn(Line) + Send + Sync>);

impl Console {
    /// Passes each line to `take`, which must not block.
    pub fn new(take: impl Fn(Line) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Prints a text, which may have several lines, for an instance.
    pub(crate) fn print(&self, instance: u64, output: Output, text: &str) {
        for line in text.split('\n') {
            (self.0)(Line {
                instance,
                output,
                text: line.into(),
            });
        }
    }

    /// The stream of an output of an instance.
    pub(crate) fn stream(&self, instance: u64, output: Output) -> Stream {
        Stream {
            console: self.clone(),
            instance,
            output,
            partial: Vec::new(),
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

/// An output of an instance, which is split into lines.
pub(crate) struct Stream {
    console: Console,
    instance: u64,
    output: Output,
    partial: Vec<u8>,
}

impl Stream {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
                continue;
            }
            if self.partial.len() == LONGEST {
                self.end_line();
            }
            self.partial.push(byte);
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        self.console.print(self.instance, self.output, &text);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            self.end_line();
        }
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.console.stream(self.instance, self.output))
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.console.stream(self.instance, self.output))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_a_guest_prints_is_split_into_lines_however_it_was_written() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let console = Console::new({
            let lines = lines.clone();
            move |line| lines.lock().unwrap().push(line)
        });
        let mut stream = console.stream(7, Output::Stderr);
        for part in ["one\ntw", "o", "\n\nth\u{fc}", "ree"] {
            OutputStream::write(&mut stream, Bytes::from(part)).unwrap();
        }
        drop(stream);
        let lines = lines.lock().unwrap();
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "", "th\u{fc}ree"]);
        let ours = |line: &Line| line.instance == 7 && line.output == Output::Stderr;
        assert!(lines.iter().all(ours));
    }

    #[test]
    fn a_line_that_does_not_end_comes_in_parts() {
        let lengths = Arc::new(Mutex::new(Vec::new()));
        let console = Console::new({
            let lengths = lengths.clone();
            move |line| lengths.lock().unwrap().push(line.text.len())
        });
        let mut stream = console.stream(1, Output::Stdout);
        for _ in 0..3 {
            OutputStream::write(&mut stream, vec![b'x'; LONGEST - 1].into()).unwrap();
        }
        OutputStream::write(&mut stream, Bytes::from("xxx\nx")).unwrap();
        drop(stream);
        assert_eq!(*lengths.lock().unwrap(), [LONGEST, LONGEST, LONGEST, 1]);
    }
}
