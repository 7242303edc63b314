//! A client of the server under test, and assertions on its responses.

use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use clap::Args;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::builderstates::WantsProtocols1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::report::{Failure, Outcome, equal};
use super::stream::{SILENCE, Stream, kept_back};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server may take to answer, waits included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// The longest accepted body, in bytes.
const LONGEST: usize = 1 << 20;

/// How much too early a server may be, because its clock may be coarse.
pub const CLOCK_ERROR: Duration = Duration::from_millis(10);

/// The address of a server: scheme, host and port.
#[derive(Clone, Debug)]
pub struct Base(String);

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("not a URL: {error}"))?;
        let scheme = uri.scheme();
        if scheme != Some(&Scheme::HTTP) && scheme != Some(&Scheme::HTTPS) {
            return Err("expected a URL that begins with http:// or https://".into());
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err("expected a URL without a path and a query".into());
        }
        Ok(Self(text.trim_end_matches('/').into()))
    }
}

impl Base {
    /// The host and the port.
    pub fn authority(&self) -> &str {
        self.0
            .split_once("://")
            .map_or(&*self.0, |(_, authority)| authority)
    }
}

/// The credentials for a server.
#[derive(Clone, Debug, Args)]
pub struct Access {
    /// The write_token of the server at --url, if it requires one
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "url",
        env = "LOOPLESS_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
}

type Connections = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A server, and the names of the events that this run uses there.
#[derive(Debug)]
pub struct Target {
    base: Base,
    client: Connections,
    /// Sent with every request.
    token: Option<String>,
    /// The prefix of the events' names, which nobody else uses.
    prefix: String,
    names: Mutex<Vec<String>>,
}

impl Target {
    /// The server at `base`, with its token if it requires one. The names of events begin with `purpose`.
    pub fn new(base: Base, purpose: &str, token: Option<String>) -> Self {
        let random: u64 = rand::random();
        Self {
            base,
            client: connections(),
            token,
            prefix: format!("{purpose}-{random:016x}-"),
            names: Mutex::default(),
        }
    }

    /// The same server, over separate connections.
    pub fn another_client(&self) -> Self {
        Self {
            base: self.base.clone(),
            client: connections(),
            token: self.token.clone(),
            prefix: self.prefix.clone(),
            names: Mutex::default(),
        }
    }

    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The prefix of the names of this run's events.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the name of an event that nobody else uses, and remembers it.
    pub fn name(&self, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.prefix);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(name.clone());
        name
    }

    /// All names that [`name`](Self::name) has returned.
    pub fn names(&self) -> Vec<String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.clone()
    }

    /// Checks that the server answers, with any status.
    pub async fn reach(&self) -> anyhow::Result<()> {
        self.send(Method::GET, "/", &[], "").await.map(drop)
    }

    pub async fn get(&self, path: &str) -> Outcome<Answer> {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Outcome<Answer> {
        Ok(self.send(Method::GET, path, headers, "").await?)
    }

    pub async fn put(&self, name: &str, is_set: bool) -> Outcome<Answer> {
        self.put_if(name, is_set, &[]).await
    }

    pub async fn put_if(
        &self,
        name: &str,
        is_set: bool,
        headers: &[(&str, &str)],
    ) -> Outcome<Answer> {
        let path = format!("/events/{name}");
        let body = format!("{{\"set\": {is_set}}}");
        Ok(self.send(Method::PUT, &path, headers, &body).await?)
    }

    pub async fn delete(&self, name: &str) -> Outcome<Answer> {
        let path = format!("/events/{name}");
        Ok(self.send(Method::DELETE, &path, &[], "").await?)
    }

    /// Sends a request and reads the whole response.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Answer> {
        let shown = format!("{method} {path}");
        let began = Instant::now();
        let answer = async {
            let response = self.request(method, path, headers, body).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| anyhow!("the response was cut off: {error}"))?;
            anyhow::Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                took: began.elapsed(),
            })
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer.with_context(|| format!("no answer to {shown}")),
            Err(_) => Err(anyhow!(
                "no answer to {shown} within {} s",
                ANSWER_TIMEOUT.as_secs()
            )),
        }
    }

    /// Sends a request and reads the head of the response.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let has_token = headers.iter().any(|(name, _)| *name == "authorization");
        if let Some(token) = self.token.as_ref().filter(|_| !has_token) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body.to_owned()))?;
        Ok(self.client.request(request).await?)
    }

    /// Opens the stream of an event.
    pub async fn stream(&self, name: &str, headers: &[(&str, &str)]) -> Outcome<Stream> {
        let path = format!("/events/{name}/stream");
        let request = self.request(Method::GET, &path, headers, "");
        let Ok(response) = tokio::time::timeout(SILENCE, request).await else {
            return Err(kept_back());
        };
        let response = response.with_context(|| format!("no answer to GET {path}"))?;
        equal("status", 200, response.status().as_u16())?;
        Ok(Stream::of(response))
    }
}

fn connections() -> Connections {
    let https = https().enable_all_versions().wrap_connector(http());
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .build(https)
}

/// Connects over HTTP/1.1, with TLS if the URL is `https`.
pub fn connector() -> HttpsConnector<HttpConnector> {
    https().enable_http1().wrap_connector(http())
}

fn http() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_nodelay(true);
    http.enforce_http(false);
    http
}

fn https() -> HttpsConnectorBuilder<WantsProtocols1> {
    static TLS: LazyLock<ClientConfig> = LazyLock::new(tls);

    HttpsConnectorBuilder::new()
        .with_tls_config(TLS.clone())
        .https_or_http()
}

fn tls() -> ClientConfig {
    // The machine may trust additional roots, such as those of a company.
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    /// The time from the first byte sent to the last byte received.
    pub took: Duration,
}

impl Answer {
    /// Checks the status.
    pub fn status(self, expected: u16) -> Outcome<Self> {
        if self.status.as_u16() == expected {
            Ok(self)
        } else {
            Err(Failure::new(
                format_args!("status {expected}"),
                format_args!("{} {}", self.status.as_u16(), self.body),
            ))
        }
    }

    /// The value of a header. Empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }

    /// Checks the media type.
    pub fn media_type(self, expected: &str) -> Outcome<Self> {
        media_type(&self.headers, expected)?;
        Ok(self)
    }

    /// Checks that no cache may store the response.
    pub fn not_stored(self) -> Outcome<Self> {
        not_stored(&self.headers)?;
        Ok(self)
    }

    /// Parses the body as JSON.
    pub fn json(&self) -> Outcome<Value> {
        serde_json::from_str(&self.body).map_err(|_| Failure::new("JSON", &self.body))
    }

    /// Checks that the response is a problem document (RFC 9457) with this status.
    pub fn problem(self, expected: u16) -> Outcome<Self> {
        let answer = self
            .status(expected)?
            .media_type("application/problem+json")?
            .not_stored()?;
        let document = answer.json()?;
        equal(
            "the member status",
            Some(expected.into()),
            document["status"].as_u64(),
        )?;
        for member in ["type", "title", "detail"] {
            if document[member].as_str().is_none_or(str::is_empty) {
                return Err(Failure::new(
                    format_args!("a problem document with a member {member}"),
                    &answer.body,
                ));
            }
        }
        Ok(answer)
    }

    /// Checks that the response is the state of an event in this generation.
    pub fn state(self, generation: u64) -> Outcome<Self> {
        let answer = self.status(200)?.media_type("application/json")?;
        let state = answer.json()?;
        let is_set = generation % 2 == 1;
        let got = (state["set"].as_bool(), state["generation"].as_u64());
        if got != (Some(is_set), Some(generation)) {
            return Err(Failure::new(
                format_args!("\"set\":{is_set} and \"generation\":{generation}"),
                &answer.body,
            ));
        }
        answer.tag(generation)
    }

    /// Checks that the entity tag names this generation.
    pub fn tag(self, generation: u64) -> Outcome<Self> {
        if is_version(self.etag().trim_matches('"'), generation) {
            return Ok(self);
        }
        let tag = format_args!("{:?}", self.header("etag")).to_string();
        Err(Failure::new(
            format_args!("an ETag of generation {generation}"),
            tag,
        ))
    }

    /// The entity tag, with quotes. A weak tag is returned as a strong one, because a proxy that compresses weakens tags.
    pub fn etag(&self) -> &str {
        let tag = self.header("etag");
        tag.strip_prefix("W/").unwrap_or(tag)
    }
}

/// Whether this text names a version of this generation: the number alone, or with the tag of a change.
pub fn is_version(text: &str, generation: u64) -> bool {
    let (number, tag) = match text.split_once('.') {
        Some((number, tag)) => (number, Some(tag)),
        None => (text, None),
    };
    let is_tag = |tag: &str| {
        [6, 16].contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    number == generation.to_string() && tag.is_none_or(is_tag)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

pub fn media_type(headers: &HeaderMap, expected: &str) -> Outcome {
    let value = header(headers, "content-type");
    let kind = value.split(';').next().unwrap_or_default().trim();
    equal("Content-Type", expected, kind)
}

pub fn not_stored(headers: &HeaderMap) -> Outcome {
    let value = header(headers, "cache-control");
    if value.contains("no-store") {
        return Ok(());
    }
    let value = format!("{value:?}");
    Err(Failure::new("Cache-Control: no-store", value))
}
