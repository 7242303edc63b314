//! What a request says: names, bodies, times, conditions and preferences.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};

use super::BODY_LIMIT;
use crate::event::{Name, State};
use crate::problem::Problem;

/// A request that makes no sense: 400, with what it should have been.
pub fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

/// The event's name, from the path.
pub fn name(path: Result<Path<String>, PathRejection>) -> Result<Name, Problem> {
    let name = path.ok().and_then(|Path(name)| Name::new(&name));
    name.ok_or_else(|| bad(format!("That is not the name of an event. {}", names())))
}

/// What a name is, in a sentence.
pub fn names() -> String {
    format!(
        "A name has 1 to {} of the characters A-Z a-z 0-9 . _ ~ - and is neither . nor ..",
        Name::LONGEST
    )
}

/// The body, if it came whole and is not too long.
pub fn body(body: Result<Bytes, BytesRejection>, accepted: &str) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is longer than {BODY_LIMIT} bytes. {accepted}."),
        ),
        _ => bad(format!("The body did not arrive whole. {accepted}.")),
    })
}

/// What the button of a page's form wants the event to be, if that is what the body says.
pub fn pressed(body: &[u8]) -> Option<bool> {
    match body {
        b"state=True" => Some(true),
        b"state=False" => Some(false),
        _ => None,
    }
}

/// The value of one parameter of the query. A query that has others, or this one twice, is rejected: a parameter that
/// nobody reads is a misspelt one.
pub fn parameters<const N: usize>(
    uri: &Uri,
    known: [&str; N],
) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let Some(index) = known.iter().position(|known| *known == name) else {
            let takes = match known.join(" and ") {
                takes if takes.is_empty() => "none".to_owned(),
                takes => takes,
            };
            return Err(bad(format!(
                "There is no parameter {name:?} here. Parameters here: {takes}."
            )));
        };
        if values[index].replace(value.into_owned()).is_some() {
            return Err(bad(format!("The parameter {name} is there twice.")));
        }
    }
    Ok(values)
}

/// A time in seconds, such as `20` or `0.5`, that a client wants to wait.
pub fn seconds(parameter: &str, text: &str, most: Duration) -> Result<Duration, Problem> {
    // `f64` also reads the names of infinity and NaN.
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
            "{parameter} must be a number of seconds from 0 to {}, not {text:?}.",
            most.as_secs()
        ))),
    }
}

/// The seconds of `Prefer: wait=` (RFC 7240), if there are any. A preference that makes no sense is none.
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

/// Whether the first thing that the client accepts is HTML, as with a browser.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let first = list(headers, &header::ACCEPT).next();
    let kind = first.and_then(|range| range.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// An entity tag as `If-Match` and `If-None-Match` have it.
enum Tag<'a> {
    /// `*`: whatever there is.
    Any,
    /// What stands between the quotes.
    Opaque { text: &'a [u8], is_weak: bool },
}

/// The entity tags of a header, or `None` if it is not a list of them (RFC 9110, 8.8.3 and 13.1).
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<Tag<'a>>> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        // Tags may hold bytes beyond ASCII, and commas.
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

/// The tag at the start of `text`, and what follows it.
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

/// Whether the state is one that `If-None-Match` says the client knows.
///
/// A header that is not a list of entity tags matches nothing: the client gets the whole answer.
pub fn is_known(headers: &HeaderMap, state: State) -> bool {
    let tags = tags(headers, &header::IF_NONE_MATCH).unwrap_or_default();
    let known = state.to_string();
    tags.iter().any(|tag| match tag {
        Tag::Any => true,
        Tag::Opaque { text, .. } => *text == known.as_bytes(),
    })
}

/// What `If-Match` asks for.
pub enum Condition {
    /// That the event exists.
    Exists,
    /// That its entity tag is one of these.
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

/// The condition of a change, if there is one. A header that is not a list of entity tags names none.
pub fn condition(headers: &HeaderMap) -> Option<Condition> {
    if !headers.contains_key(header::IF_MATCH) {
        return None;
    }
    let tags = tags(headers, &header::IF_MATCH).unwrap_or_default();
    if tags.iter().any(|tag| matches!(tag, Tag::Any)) {
        return Some(Condition::Exists);
    }
    let tags = tags.iter().filter_map(|tag| match tag {
        // RFC 9110 (13.1.1) compares strongly here.
        Tag::Opaque {
            text,
            is_weak: false,
        } => Some(text.to_vec()),
        _ => None,
    });
    Some(Condition::Tags(tags.collect()))
}

/// The members of a header that is a list. No member that is looked for has a comma in it.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
}
