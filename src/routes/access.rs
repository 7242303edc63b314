//! Who may do what: tokens, pages of other sites, and what browsers are told with every response.

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

/// The longest path and query, in bytes.
const LONGEST_TARGET: usize = 1024;

/// The longest header fields of a request together, in bytes.
const LONGEST_FIELDS: usize = 16 << 10;

/// What everyone may have: it says nothing about events.
const PUBLIC: [&str; 3] = ["/healthz", "/page.css", "/page.js"];

/// What begins the paths of the operator, whose token is checked there.
const OPERATORS: &str = "/lifespan/";

/// What a browser may load for a page, and who may show it in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The headers that a page of an allowed origin may send, besides those that every page may.
const ALLOWED_HEADERS: &str =
    "authorization, content-type, if-match, if-none-match, last-event-id, prefer";

/// The headers of a response that a page of an allowed origin may see.
const EXPOSED_HEADERS: &str = "etag, link, location, preference-applied, retry-after";

/// Lets a request pass to its route that may, and adds to every response what browsers have to know.
pub async fn guard<H: Host>(app: &App<H>, router: &Router, request: Request<Body>) -> Response {
    let mut response = match app.access().await {
        Ok(access) => admitted(access, router, request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    let mut insert = |name, value| headers.insert(name, HeaderValue::from_static(value));
    // Responses are about this moment. Errors are too: without this, a cache may keep a 404.
    insert(header::CACHE_CONTROL, "no-store");
    insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    // With `no-referrer`, a form of our own page would come from the origin `null`, as one of another site may.
    insert(header::REFERRER_POLICY, "same-origin");
    insert(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// The response to a request that may pass, or why it may not; with what the page of an allowed origin needs to see it.
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

/// Whether a browser asks for a page.
fn is_for_page(parts: &Parts) -> bool {
    parts.method == Method::GET && request::prefers_html(&parts.headers)
}

/// Whether a request may pass, or what is wrong with it.
fn check(access: &Access, parts: &Parts) -> Result<(), Problem> {
    check_length(parts)?;
    let path = parts.uri.path();
    let is_change = !parts.method.is_safe();
    if is_change && is_cross_site(access, parts) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "A page of another site may not change anything here, unless the Spin variable allowed_origins has its origin. Nothing was changed.",
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
    // Who may change events may look at them.
    let is_writer = bears(&parts.headers, access.write_token.as_deref());
    let is_reader = !is_change && bears(&parts.headers, access.read_token.as_deref());
    if token.is_none() || is_writer || is_reader {
        return Ok(());
    }
    Err(Problem::unauthorized(
        realm,
        format!(
            "This needs a token: send Authorization: Bearer with the value of the Spin variable {realm}_token."
        ),
    ))
}

/// No request that makes sense is longer: what is made of its parts is bounded too.
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

/// Whether a browser sends this request for a page of another site, one that is not allowed.
///
/// Browsers say so in `Sec-Fetch-Site`, to servers with TLS and to those of their own machine. Older ones, and all others
/// over plain HTTP, send the `Origin` with every change. Other clients send neither. (This is what
/// `CrossOriginProtection` of Go's `net/http` does; its documentation has the reasons.)
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

/// Whether this origin is of the host that the request is for. Which scheme it came with, a component does not know: TLS may
/// end before its host.
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

/// Whether this is the request by which a browser asks what a page of another origin may do.
fn is_preflight(parts: &Parts) -> bool {
    let asks = header::ACCESS_CONTROL_REQUEST_METHOD;
    parts.method == Method::OPTIONS && parts.headers.contains_key(asks)
}

/// What a page of an allowed origin may do: everything, with a token where one is needed. Cookies are never needed.
fn preflight() -> Response {
    let allowed = [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, POST, PUT, DELETE",
        ),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        // Seconds, for which the browser need not ask again.
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// Whether a request has this token. How long it takes says nothing about where a wrong one differs.
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
