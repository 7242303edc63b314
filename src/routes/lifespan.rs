//! The application's lifespan: what a server does when it starts and before it ends, for hosts that have no such thing.
//!
//! Whoever owns the host's process calls these: `loopless-host` itself, or a script beside Spin.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use subtle::ConstantTimeEq;

use super::{App, Background, Host, request, service};
use crate::problem::Problem;
use crate::settings;

/// How long the shutdown waits for the service.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes what the application needs, and starts the service if the operator wants that.
pub async fn startup<H: Background>(
    State(app): State<App<H>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    authorized(&app, &headers).await?;
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    service::service(&app, settings).prepare().await?;
    if settings.service_autostart {
        service::started(&app, settings).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Stops the service, and waits until it has stopped.
pub async fn shutdown<H: Background>(
    State(app): State<App<H>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    authorized(&app, &headers).await?;
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    if !service::service(&app, settings)
        .status()
        .await?
        .is_stopped()
    {
        H::print("Stopping service");
        let timeout = STOP_TIMEOUT.min(settings.wait_max);
        service::stopped(&app, settings, timeout).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Both, where there is no service: there is nothing to make beforehand, and nothing to end.
pub async fn nothing_to_do<H: Host>(
    State(app): State<App<H>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    authorized(&app, &headers).await?;
    let [] = request::parameters(&uri, [])?;
    if app.settings().await?.service_autostart {
        return Err(service::lacking::<H>().await);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Lets the operator pass, and nobody else.
async fn authorized<H: Host>(app: &App<H>, headers: &HeaderMap) -> Result<(), Problem> {
    let token = settings::operator_token(app.variables())
        .await
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}.")))?;
    let Some(token) = token else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "Nobody may do that here: the Spin variable operator_token is not set.",
        ));
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
        .map(|(_, given)| given);
    // How long it takes says nothing about where a wrong token differs.
    let is_operator = given.is_some_and(|given| bool::from(given.ct_eq(token.as_bytes())));
    if !is_operator {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "Only the operator may do that: send Authorization: Bearer with the value of the Spin variable operator_token.",
        ));
    }
    Ok(())
}
