//! A client of server-sent events.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use loopless_host::Harness;

use super::request;

/// An open stream.
pub struct Client {
    pub response: Response<loopless_host::Body>,
    text: String,
}

impl Client {
    /// Opens the stream at `path`, and checks the head of the response.
    pub async fn connect(host: &Harness, path: &str, headers: &[(&str, &str)]) -> Self {
        let request = request("GET", path, headers, "");
        let response = host.handle(request.map(|_| Full::<Bytes>::default())).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/event-stream"
        );
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next message or comment, or `None` at the end of the stream. The message that sets the retry time is skipped.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.text = rest;
                if message != "retry: 1000" {
                    return Some(message);
                }
                continue;
            }
            let frame = self.response.body_mut().frame().await?.unwrap();
            let data = frame.into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// Checks that the next messages are these.
    pub async fn receives(&mut self, messages: &[&str]) {
        for expected in messages {
            assert_eq!(self.next().await.unwrap(), *expected);
        }
    }
}
