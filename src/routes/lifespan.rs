//! The application's lifespan: what a server does when it starts and before it ends, for hosts that have no such thing.
//!
//! Whoever owns the host's process calls these: `loopless-host` itself, or a script beside Spin.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};

use super::{App, Background, Host, access, request, service};
use crate::problem::Problem;
use crate::settings::{self, Settings};

/// How long the shutdown waits for the service.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes what the application needs, and starts the service if the operator wants that.
pub async fn startup<H: Background>(
    State(app): State<App<H>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let settings = admitted(&app, &uri, &headers).await?;
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
    let settings = admitted(&app, &uri, &headers).await?;
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

/// Both, in a build without a service: there is nothing to make beforehand, and nothing to end.
pub async fn nothing_to_do<H: Host>(
    State(app): State<App<H>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    if admitted(&app, &uri, &headers).await?.service_autostart {
        return Err(service::lacking::<H>().await);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Lets the operator pass, and nobody else. Returns the settings.
async fn admitted<H: Host>(
    app: &App<H>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Settings, Problem> {
    let Some(token) = settings::operator_token(app.variables()).await? else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "Nobody may do that here: the Spin variable operator_token is not set.",
        ));
    };
    if !access::bears(headers, Some(&token)) {
        return Err(Problem::unauthorized(
            "operator",
            "Only the operator may do that: send Authorization: Bearer with the value of the Spin variable operator_token.",
        ));
    }
    let [] = request::parameters(uri, [])?;
    Ok(app.settings().await?)
}
