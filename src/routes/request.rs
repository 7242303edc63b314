//! Parsing requests: names, bodies, parameters, times, conditions and preferences.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};

use super::BODY_LIMIT;
use crate::event::{Name, State};
use crate::problem::Problem;

/// A 400, with a text that says what is accepted.
pub fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// Parses the event's name in the path.
pub fn name(path: Result<Path<String>, PathRejection>) -> Result<Name, Problem> {
    let name = path.ok().and_then(|Path(name)| Name::new(&name));
    name.ok_or_else(|| {
        bad(format!(
            "The path does not have the name of an event. {}",
            names()
        ))
    })
}

/// The rules for names, in a sentence.
pub fn names() -> String {
    format!(
        "A name has 1 to {} of the characters A-Z a-z 0-9 . _ ~ - and is neither . nor ..",
        Name::LONGEST
    )
}

/// Returns the body, if it is complete and not too long.
pub fn body(body: Result<Bytes, BytesRejection>, accepted: &str) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is longer than {BODY_LIMIT} bytes. {accepted}."),
        ),
        _ => bad(format!("The body is not complete. {accepted}.")),
    })
}

/// Parses the body of the page's form: whether to set the event. `None` for any other body.
pub fn pressed(body: &[u8]) -> Option<bool> {
    match body {
        b"state=True" => Some(true),
        b"state=False" => Some(false),
        _ => None,
    }
}

/// Parses the parameters of the query. Unknown parameters are rejected, because they are likely misspelt, and so are
/// duplicates.
pub fn parameters<const N: usize>(
    uri: &Uri,
    known: [&str; N],
) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let Some(index) = known.iter().position(|known| *known == name) else {
            let accepted = match known.join(" and ") {
                accepted if accepted.is_empty() => "none".to_owned(),
                accepted => accepted,
            };
            return Err(bad(format!(
                "The parameter {name:?} does not exist here. Accepted parameters: {accepted}."
            )));
        };
        if values[index].replace(value.into_owned()).is_some() {
            return Err(bad(format!("The parameter {name} is given twice.")));
        }
    }
    Ok(values)
}

/// Parses a time in seconds, such as `20` or `0.5`.
pub fn seconds(parameter: &str, text: &str, most: Duration) -> Result<Duration, Problem> {
    // `f64` also parses infinity and NaN.
    let is_decimal = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let time = text
        .parse::<f64>()
        .ok()
        .filter(|_| is_decimal)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match time {
        Some(time) if time <= most => Ok(time),
        _ => Err(bad(format!(
            "The parameter {parameter} must be a number of seconds from 0 to {}, not {text:?}.",
            most.as_secs()
        ))),
    }
}

/// Parses the seconds of `Prefer: wait=` (RFC 7240). A preference that is not valid is ignored.
pub fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    const PREFER: HeaderName = HeaderName::from_static("prefer");

    list(headers, &PREFER)
        .filter_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            let is_wait = name.trim().eq_ignore_ascii_case("wait");
            is_wait.then(|| value.trim().trim_matches('"').parse().ok())
        })
        .next()?
}

/// Whether HTML comes first in `Accept`, as in the requests of browsers.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let first = list(headers, &header::ACCEPT).next();
    let kind = first.and_then(|range| range.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// An entity tag in `If-Match` or `If-None-Match`.
enum Tag<'a> {
    /// `*`, which matches any.
    Any,
    /// The text between the quotes.
    Opaque { text: &'a [u8], is_weak: bool },
}

/// Parses a list of entity tags (RFC 9110, 8.8.3 and 13.1). `None` if the header is not one.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<Tag<'a>>> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        // Tags may contain commas and bytes beyond ASCII.
        let mut rest = value.as_bytes();
        loop {
            rest = rest.trim_ascii_start();
            if let Some(after) = rest.strip_prefix(b",") {
                rest = after;
                continue;
            }
            if rest.is_empty() {
                break;
            }
            let (tag, after) = tag(rest)?;
            let after = after.trim_ascii_start();
            if !after.is_empty() && !after.starts_with(b",") {
                return None;
            }
            tags.push(tag);
            rest = after;
        }
    }
    Some(tags)
}

/// Parses the tag at the start of `text`. Returns it with the rest.
fn tag(text: &[u8]) -> Option<(Tag<'_>, &[u8])> {
    if let Some(after) = text.strip_prefix(b"*") {
        return Some((Tag::Any, after));
    }
    let (opaque, is_weak) = match text.strip_prefix(b"W/") {
        Some(opaque) => (opaque, true),
        None => (text, false),
    };
    let opaque = opaque.strip_prefix(b"\"")?;
    let end = opaque.iter().position(|byte| *byte == b'"')?;
    let (text, after) = opaque.split_at(end);
    Some((Tag::Opaque { text, is_weak }, &after[1..]))
}

/// Whether the client knows this state, according to `If-None-Match`.
///
/// A header that is not a list of entity tags matches nothing, so the client gets a full response.
pub fn is_known(headers: &HeaderMap, state: State) -> bool {
    let tags = tags(headers, &header::IF_NONE_MATCH).unwrap_or_default();
    let known = state.to_string();
    tags.iter().any(|tag| match tag {
        Tag::Any => true,
        Tag::Opaque { text, .. } => *text == known.as_bytes(),
    })
}

/// The condition in `If-Match`.
pub enum Condition {
    /// The event must exist.
    Exists,
    /// The entity tag must be one of these.
    Tags(Vec<Vec<u8>>),
}

impl Condition {
    /// Whether an event in this state may be changed.
    pub fn allows(&self, state: State) -> bool {
        match self {
            Self::Exists => state.exists(),
            Self::Tags(tags) => {
                let current = state.to_string();
                tags.iter().any(|tag| *tag == current.as_bytes())
            }
        }
    }
}

/// Parses `If-Match`. A header that is not a list of entity tags matches nothing.
pub fn condition(headers: &HeaderMap) -> Option<Condition> {
    if !headers.contains_key(header::IF_MATCH) {
        return None;
    }
    let tags = tags(headers, &header::IF_MATCH).unwrap_or_default();
    if tags.iter().any(|tag| matches!(tag, Tag::Any)) {
        return Some(Condition::Exists);
    }
    let tags = tags.iter().filter_map(|tag| match tag {
        // RFC 9110 (13.1.1) requires the strong comparison, in which weak tags never match.
        Tag::Opaque {
            text,
            is_weak: false,
        } => Some(text.to_vec()),
        _ => None,
    });
    Some(Condition::Tags(tags.collect()))
}

/// The members of a list header. None of the members that are of interest contains a comma.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}
