//! The page of an event: HTML that works without a script, its style and its script.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::Host;
use crate::event::{Generation, Name, State};
use crate::problem::Problem;

/// A page with one button, which changes the event to the other state.
#[derive(askama::Template)]
#[template(path = "page.html", config = "src/askama.toml")]
pub struct Page<'a> {
    /// `None` if the client needs a token to see it.
    event: Option<Shown<'a>>,
}

/// An event on its page.
struct Shown<'a> {
    name: &'a str,
    is_set: bool,
    generation: Generation,
    /// The path that the button's form posts to.
    action: String,
    has_service: bool,
}

impl<'a> Page<'a> {
    /// The page of an event in this state, with a button that posts to `action`.
    pub fn of<H: Host>(name: &'a Name, state: State, action: String) -> Result<Response, Problem> {
        let event = Some(Shown {
            name: name.as_str(),
            is_set: state.is_set(),
            generation: state.generation,
            action,
            has_service: H::BUILD.has_service(),
        });
        Self { event }.response()
    }

    /// A page that asks for a token, for a browser whose request lacks it. Any other problem is returned as it is.
    pub fn locked(problem: &Problem) -> Result<Response, Problem> {
        let Some(challenge) = problem.challenge() else {
            return Err(problem.clone());
        };
        let page = Self { event: None }.response()?;
        Ok((StatusCode::UNAUTHORIZED, [challenge], page).into_response())
    }

    fn response(&self) -> Result<Response, Problem> {
        match askama::Template::render(self) {
            Ok(html) => Ok(Html(html).into_response()),
            Err(error) => Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("The page could not be rendered: {error}."),
            )),
        }
    }
}

/// The style of the page.
pub async fn css() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, include_str!("../page.css")).into_response()
}

/// The script of the page.
pub async fn js() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (kind, include_str!("../page.js")).into_response()
}
