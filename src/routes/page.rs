//! The page: HTML that works by itself, and a style and a script beside it.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use crate::event::State;
use crate::problem::Problem;

/// A page with one button, which offers the other state.
#[derive(askama::Template)]
#[template(path = "page.html", config = "src/askama.toml")]
pub struct Page<'a> {
    /// The event's name, if it is not the demo's.
    pub name: Option<&'a str>,
    /// Whether the event is set. `None`: that is only for those who have a token.
    is_set: Option<bool>,
}

impl<'a> Page<'a> {
    /// The page of an event in this state: the demo's, or the one of this name.
    pub fn of(name: Option<&'a str>, state: State) -> Result<Response, Problem> {
        let is_set = Some(state.is_set());
        Self { name, is_set }.response()
    }

    /// What a browser gets instead of a page that is only for those who have a token: it asks for one.
    pub fn locked(problem: Problem) -> Response {
        let page = Self {
            name: None,
            is_set: None,
        };
        match page.response() {
            Ok(page) => (
                StatusCode::UNAUTHORIZED,
                problem.challenge().map(|it| [it]),
                page,
            )
                .into_response(),
            Err(error) => error.into_response(),
        }
    }

    fn response(&self) -> Result<Response, Problem> {
        match askama::Template::render(self) {
            Ok(html) => Ok(Html(html).into_response()),
            Err(error) => Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("The page could not be made: {error}."),
            )),
        }
    }
}

/// Its style.
pub async fn css() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, include_str!("../page.css")).into_response()
}

/// Its script.
pub async fn js() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (kind, include_str!("../page.js")).into_response()
}
