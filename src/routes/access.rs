//! Access control: tokens, cross-site requests, and the security headers of every response.

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tower_service::Service;

use super::{App, Host, Page, request};
use crate::problem::Problem;
use crate::settings::Access;

/// The maximum length of path and query together, in bytes.
const LONGEST_TARGET: usize = 1024;

/// The maximum length of all header fields together, in bytes.
const LONGEST_FIELDS: usize = 16 << 10;

/// Paths that need no token. They say nothing about events.
const PUBLIC: [&str; 3] = ["/healthz", "/page.css", "/page.js"];

/// The prefix of the operator's paths, whose handlers check the operator's token.
const OPERATORS: &str = "/lifespan/";

/// What a browser may load for a page, and who may show the page in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The headers that a page of an allowed origin may send, in addition to those that every page may send.
const ALLOWED_HEADERS: &str =
    "authorization, content-type, if-match, if-none-match, last-event-id, prefer";

/// The response headers that a page of an allowed origin may read.
const EXPOSED_HEADERS: &str = "etag, link, location, preference-applied, retry-after";

/// Rejects requests without access, calls `router` with the others, and adds the security headers to every response.
pub async fn guard<H: Host>(app: &App<H>, router: &Router, request: Request<Body>) -> Response {
    let mut response = match app.access().await {
        Ok(access) => admitted(access, router, request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    let mut insert = |name, value| headers.insert(name, HeaderValue::from_static(value));
    // Responses, including errors, describe the current state. Without this, a cache may keep a 404.
    insert(header::CACHE_CONTROL, "no-store");
    insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    // With `no-referrer`, a form of our own page would have the origin `null`, as one of another site can.
    insert(header::REFERRER_POLICY, "same-origin");
    insert(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// The response to a request, or the reason for its rejection, with the CORS headers for a page of an allowed origin.
async fn admitted(access: &Access, router: &Router, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let origin = parts.headers.get(header::ORIGIN).cloned();
    let origin = origin.filter(|origin| is_allowed(access, origin));
    let mut response = if origin.is_some() && is_preflight(&parts) {
        preflight()
    } else {
        match check(access, &parts) {
            Ok(()) => {
                let request = Request::from_parts(parts, body);
                match router.clone().call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(problem) if is_for_page(&parts) => Page::locked(&problem).into_response(),
            Err(problem) => problem.into_response(),
        }
    };
    let headers = response.headers_mut();
    if !access.allowed_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = origin {
        let exposed = HeaderValue::from_static(EXPOSED_HEADERS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// Whether a browser requests a page.
fn is_for_page(parts: &Parts) -> bool {
    parts.method == Method::GET && request::prefers_html(&parts.headers)
}

/// Checks whether a request has access.
fn check(access: &Access, parts: &Parts) -> Result<(), Problem> {
    check_length(parts)?;
    let path = parts.uri.path();
    let is_change = !parts.method.is_safe();
    if is_change && is_cross_site(access, parts) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "A page of another site may not change anything here unless the Spin variable allowed_origins has its origin. Nothing was changed.",
        ));
    }
    if PUBLIC.contains(&path) || path.starts_with(OPERATORS) {
        return Ok(());
    }
    let (realm, token) = if is_change {
        ("write", &access.write_token)
    } else {
        ("read", &access.read_token)
    };
    // The write token also gives read access.
    let is_writer = bears(&parts.headers, access.write_token.as_deref());
    let is_reader = !is_change && bears(&parts.headers, access.read_token.as_deref());
    if token.is_none() || is_writer || is_reader {
        return Ok(());
    }
    Err(Problem::unauthorized(
        realm,
        format!(
            "This request needs a token. Send the header Authorization: Bearer with the value of the Spin variable {realm}_token."
        ),
    ))
}

/// Rejects requests that are longer than any valid one, which also bounds everything that is made from their parts.
fn check_length(parts: &Parts) -> Result<(), Problem> {
    let target = parts.uri.path_and_query();
    if target.is_some_and(|target| target.as_str().len() > LONGEST_TARGET) {
        return Err(Problem::new(
            StatusCode::URI_TOO_LONG,
            format!("The path and the query are longer than {LONGEST_TARGET} bytes."),
        ));
    }
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
    if fields.sum::<usize>() > LONGEST_FIELDS {
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("The headers are longer than {LONGEST_FIELDS} bytes together."),
        ));
    }
    Ok(())
}

/// Whether a browser sends this request for a page of another site that is not allowed.
///
/// Browsers send `Sec-Fetch-Site` to servers with TLS and to their own machine. Older browsers, and any browser over plain
/// HTTP, send `Origin` with every change. Other clients send neither. (`CrossOriginProtection` of Go's `net/http` does the
/// same; its documentation has the reasons.)
fn is_cross_site(access: &Access, parts: &Parts) -> bool {
    let site = parts.headers.get(SEC_FETCH_SITE);
    let origin = parts.headers.get(header::ORIGIN);
    let is_same = match (site, origin) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, Some(origin)) => is_host(origin, parts),
        (None, None) => true,
    };
    !is_same && !origin.is_some_and(|origin| is_allowed(access, origin))
}

/// Whether this origin has the host of the request. The scheme is not compared, because TLS may end before the host.
fn is_host(origin: &HeaderValue, parts: &Parts) -> bool {
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let host = parts.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let host = parts.uri.authority().map(|host| host.as_str()).or(host);
    match (origin, host) {
        (Some((_, origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn is_allowed(access: &Access, origin: &HeaderValue) -> bool {
    let mut allowed = access.allowed_origins.iter();
    allowed.any(|allowed| origin == allowed)
}

/// Whether this is a CORS preflight request.
fn is_preflight(parts: &Parts) -> bool {
    let asks = header::ACCESS_CONTROL_REQUEST_METHOD;
    parts.method == Method::OPTIONS && parts.headers.contains_key(asks)
}

/// The response to a preflight request of an allowed origin, which may do everything. Cookies are never needed.
fn preflight() -> Response {
    let allowed = [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, POST, PUT, DELETE",
        ),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        // How long the browser may remember this, in seconds.
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// Whether a request has this token. The comparison takes constant time.
pub fn bears(headers: &HeaderMap, token: Option<&str>) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
        .map(|(_, given)| given);
    match (given, token) {
        (Some(given), Some(token)) => given.ct_eq(token.as_bytes()).into(),
        _ => false,
    }
}
