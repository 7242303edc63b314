//! The lifespan of the application: startup and shutdown, for hosts without such events.
//!
//! The owner of the host's process calls these routes: `loopless-host` itself, or a script that runs Spin.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};

use super::{App, Background, Host, access, request, service};
use crate::problem::Problem;
use crate::settings::{self, Settings};

/// Prepares the store, and starts the service if `service_autostart` is set.
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
        let timeout = service::STOP_TIMEOUT.min(settings.wait_max);
        service::stopped(&app, settings, timeout).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Startup and shutdown in a build without the service: there is nothing to prepare or to stop.
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

/// Returns the settings, if the request has the operator's token.
async fn admitted<H: Host>(
    app: &App<H>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Settings, Problem> {
    let Some(token) = settings::operator_token(app.variables()).await? else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "Nobody may call this, because the Spin variable operator_token is not set.",
        ));
    };
    if !access::bears(headers, Some(&token)) {
        return Err(Problem::unauthorized(
            "operator",
            "Only the operator may call this. Send the header Authorization: Bearer with the value of the Spin variable operator_token.",
        ));
    }
    let [] = request::parameters(uri, [])?;
    Ok(app.settings().await?)
}
