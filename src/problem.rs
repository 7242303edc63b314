//! Problem documents (RFC 9457): the form of every error response.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::{event, lease, service, settings};

/// An error response: a status, and a text that says what happened and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Which token is needed.
    realm: Option<&'static str>,
}

impl Problem {
    /// Creates a problem with this status. `detail` is for people.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            realm: None,
        }
    }

    /// Creates a 401 for a request without the token of this realm (RFC 6750). `detail` is for people.
    pub fn unauthorized(realm: &'static str, detail: impl Into<String>) -> Self {
        Self {
            realm: Some(realm),
            ..Self::new(StatusCode::UNAUTHORIZED, detail)
        }
    }

    /// Returns the header that says which token is needed.
    pub fn challenge(&self) -> Option<(HeaderName, HeaderValue)> {
        let challenge = format!("Bearer realm=\"{}\"", self.realm?);
        let challenge = HeaderValue::try_from(challenge).ok()?;
        Some((header::WWW_AUTHENTICATE, challenge))
    }

    /// Returns the document as JSON on one line.
    pub fn document(&self) -> String {
        let document = Document {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        // Strings and a number, so serializing cannot fail.
        serde_json::to_string(&document).unwrap_or_default()
    }
}

impl From<event::Error> for Problem {
    fn from(error: event::Error) -> Self {
        let status = match error {
            event::Error::Store(_) | event::Error::Contended => StatusCode::SERVICE_UNAVAILABLE,
            event::Error::Foreign { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            event::Error::Unconditional => StatusCode::NOT_IMPLEMENTED,
        };
        Self::new(status, format!("{error}."))
    }
}

impl From<settings::Error> for Problem {
    fn from(error: settings::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}."))
    }
}

impl From<service::Error> for Problem {
    fn from(error: service::Error) -> Self {
        match error {
            service::Error::Event(error) => error.into(),
            service::Error::Lease(error) => error.into(),
        }
    }
}

impl From<lease::Error> for Problem {
    fn from(error: lease::Error) -> Self {
        let status = match error {
            lease::Error::Store(_) | lease::Error::Contended => StatusCode::SERVICE_UNAVAILABLE,
            lease::Error::Foreign { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, format!("{error}."))
    }
}

/// The members of the document, in the order of RFC 9457. The type `about:blank` means that the status is the type.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.document()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        let is_temporary = [
            // The store restarts, or many clients write at once.
            StatusCode::SERVICE_UNAVAILABLE,
            // Many clients wait at once.
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if is_temporary.contains(&self.status) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        headers.extend(self.challenge());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_work_later_is_503_with_a_time_and_what_needs_somebody_is_500() {
        let store = event::Error::Store(crate::store::Error::new("down"));
        for error in [store, event::Error::Contended] {
            let response = Problem::from(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
        let error = event::Error::Foreign {
            key: "k".into(),
            writer: None,
        };
        let response = Problem::from(error).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
