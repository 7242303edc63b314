//! Servers in this process: one that a test scripts, and a proxy that breaks a promise.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertifiedKey, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::Host;

pub type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A server in this process.
///
/// If its code panics, the client sees only a connection that breaks off, which looks like a fault that the test wants to be found.
/// So the test fails when the server is dropped.
pub struct Server {
    pub url: String,
    has_panicked: Arc<AtomicBool>,
}

impl Server {
    /// Starts a server whose responses are those of `answer`.
    pub async fn start<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::start_with(None, answer).await
    }

    /// Starts a proxy of this host.
    pub async fn proxy(host: &Host, fault: Fault) -> Self {
        let upstream: Arc<str> = host.url.as_str().into();
        Self::start(move |request| proxy(fault, upstream.clone(), request)).await
    }

    /// Starts a proxy of this host without a fault, for HTTP/2 over TLS, with this certificate of `localhost`.
    pub async fn proxy_with_tls(host: &Host, pair: &CertifiedKey<KeyPair>) -> Self {
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let upstream: Arc<str> = host.url.as_str().into();
        Self::start_with(Some(Arc::new(config).into()), move |request| {
            proxy(Fault::Nothing, upstream.clone(), request)
        })
        .await
    }

    async fn start_with<F>(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = match tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let has_panicked = Arc::<AtomicBool>::default();
        let panicked = has_panicked.clone();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, panicked, tls) = (answer.clone(), panicked.clone(), tls.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let (answer, watch) = (answer(request), PanicWatch(panicked.clone()));
                        async move {
                            let _watch = watch;
                            Ok::<_, Infallible>(answer.await)
                        }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // It is no failure of the server if a client hangs up.
                    match tls {
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else {
                                return;
                            };
                            let stream = TokioIo::new(stream);
                            _ = builder.serve_connection(stream, service).await;
                        }
                        None => {
                            let stream = TokioIo::new(stream);
                            _ = builder.serve_connection(stream, service).await;
                        }
                    }
                });
            }
        });
        Self { url, has_panicked }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let has_panicked = self.has_panicked.load(Ordering::Relaxed);
        assert!(
            !has_panicked || std::thread::panicking(),
            "the code of the test's own server panicked"
        );
    }
}

/// Records that a panic drops it.
struct PanicWatch(Arc<AtomicBool>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A response with this status, content type and body.
pub fn whole(status: u16, kind: &'static str, body: &str) -> Answer {
    let body = Full::from(body.to_owned()).map_err(|never| match never {});
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .body(body.boxed())
        .unwrap()
}

/// The fault of a proxy.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Nothing,
    DropsConditions,
    DropsLastEventId,
    StripsCacheControl,
    StripsAllow,
    StripsOrigin,
    StripsPolicy,
    CallsProblemsJson,
    AlwaysWaits,
    CachesThePage,
    EndsWaitsAtOnce,
    EndsStreamsEarly,
    KeepsEvents,
    ClaimsMore,
    SaysNothing,
    CutsTags,
}

/// Passes a request on to a server that keeps all promises, and breaks one on the way.
pub async fn proxy(fault: Fault, upstream: Arc<str>, request: Request<Incoming>) -> Answer {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let mut target = parts.uri.path_and_query().unwrap().to_string();
    match fault {
        Fault::DropsConditions => {
            parts.headers.remove(header::IF_MATCH);
            parts.headers.remove(header::IF_NONE_MATCH);
        }
        Fault::DropsLastEventId => drop(parts.headers.remove("last-event-id")),
        Fault::StripsOrigin => {
            parts.headers.remove("sec-fetch-site");
            parts.headers.remove(header::ORIGIN);
        }
        Fault::CachesThePage if (&parts.method, &*path) == (&Method::GET, "/") => {
            let page = "<button onclick=\"changeEvent('True')\">Set</button>";
            let mut answer = whole(200, "text/html", page);
            let headers = answer.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return answer;
        }
        Fault::EndsWaitsAtOnce if path.ends_with("/wait") => target = format!("{path}?timeout=0"),
        Fault::KeepsEvents if parts.method == Method::DELETE && path.starts_with("/events/") => {
            return whole(204, "text/plain", "");
        }
        _ => {}
    }
    parts.uri = Uri::try_from(format!("{upstream}{target}")).unwrap();
    parts.version = Version::HTTP_11;

    let least = tokio::time::sleep(Duration::from_millis(100));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let sent = client.request(Request::from_parts(parts, body)).await;
    let Ok(response) = sent else {
        return whole(502, "text/plain", "no server");
    };
    let (mut parts, body) = response.into_parts();
    match fault {
        Fault::AlwaysWaits if path == "/" => least.await,
        Fault::StripsCacheControl => drop(parts.headers.remove(header::CACHE_CONTROL)),
        Fault::CutsTags => {
            let tag = parts.headers.get(header::ETAG);
            let number = tag.and_then(|tag| tag.to_str().ok()?.split_once('.'));
            if let Some((number, _)) = number {
                let tag = HeaderValue::try_from(format!("{number}\"")).unwrap();
                parts.headers.insert(header::ETAG, tag);
            }
        }
        Fault::StripsAllow => drop(parts.headers.remove(header::ALLOW)),
        Fault::StripsPolicy => drop(parts.headers.remove(header::CONTENT_SECURITY_POLICY)),
        Fault::CallsProblemsJson if parts.status.as_u16() >= 400 => {
            let json = HeaderValue::from_static("application/json");
            parts.headers.insert(header::CONTENT_TYPE, json);
        }
        Fault::EndsStreamsEarly if path.ends_with("/stream") && parts.status == 200 => {
            // The first frame has a message. When the rest is dropped, the stream upstream closes.
            let mut body = body;
            let frame = body.frame().await.unwrap().unwrap();
            let first = Full::from(frame.into_data().unwrap());
            return Response::from_parts(parts, first.map_err(|never| match never {}).boxed());
        }
        _ => {}
    }
    // The suite also tries a method that this path does not have.
    let is_description = path == "/openapi.json" && parts.status == 200;
    if matches!(fault, Fault::ClaimsMore | Fault::SaysNothing) && is_description {
        let document = body.collect().await.unwrap().to_bytes();
        let document = std::str::from_utf8(&document).unwrap();
        let (from, to) = match fault {
            Fault::SaysNothing => ("x-loopless", "x-other"),
            _ => (
                "\"promises\":[",
                "\"promises\":[\"conditions\",\"service\",",
            ),
        };
        assert!(document.contains(from), "{fault:?}: {document}");
        let document = Full::from(document.replace(from, to));
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, document.map_err(|never| match never {}).boxed());
    }
    Response::from_parts(parts, body.boxed())
}
