//! The application's lifespan: what it does before the first request and after the last one.
//!
//! A component with a lifespan has the routes `/lifespan/startup` and `/lifespan/shutdown`. The host calls them with the
//! operator's token: the one that the operator has set, or a random one.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::{Request, Response, StatusCode, header};
use loopless_host::Harness;

/// The Spin variable that holds the operator's token.
pub const TOKEN: &str = "operator_token";

/// The time limit of the application's start.
const STARTUP: Duration = Duration::from_secs(30);

/// The time limit of the application's stop. The component itself gives up after 10 s.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// Returns the operator's token. If the variables have none, adds a random one.
pub fn token(variables: &mut Vec<(String, String)>) -> anyhow::Result<String> {
    let set = variables.iter().rfind(|(name, _)| name == TOKEN);
    if let Some((_, token)) = set.filter(|(_, token)| !token.is_empty()) {
        return Ok(token.clone());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("the system has no random numbers: {error}"))?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    variables.push((TOKEN.into(), token.clone()));
    Ok(token)
}

/// The lifespan of the application on this host.
pub struct Lifespan {
    harness: Harness,
    token: String,
}

impl Lifespan {
    /// The lifespan of the component in `harness`, with the operator's token.
    pub fn new(harness: Harness, token: String) -> Self {
        Self { harness, token }
    }

    /// Starts the application.
    ///
    /// # Errors
    ///
    /// If the application reports an error, or does not answer in time.
    pub async fn startup(&self) -> anyhow::Result<()> {
        let started = self.call("/lifespan/startup", STARTUP).await;
        started.context("the application did not start")
    }

    /// Stops the application.
    ///
    /// # Errors
    ///
    /// If the application reports an error, or does not answer in time.
    pub async fn shutdown(&self) -> anyhow::Result<()> {
        let stopped = self.call("/lifespan/shutdown", SHUTDOWN).await;
        stopped.context("the application did not stop cleanly")
    }

    async fn call(&self, path: &str, most: Duration) -> anyhow::Result<()> {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body("")
            .context("the operator's token cannot be sent in a header")?;
        let answer = tokio::time::timeout(most, self.harness.send(request)).await;
        let Ok(response) = answer else {
            bail!("POST {path} was not answered within {} s", most.as_secs());
        };
        match response.status() {
            // The component has no lifespan.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            // The manifest does not pass the token to the component: its lifespan cannot be called, as on Spin.
            StatusCode::FORBIDDEN => Ok(()),
            status if status.is_success() => Ok(()),
            status => bail!("POST {path} answered {status}: {}", detail(&response)),
        }
    }
}

/// The detail of a problem document, or the whole body of any other response.
fn detail(response: &Response<bytes::Bytes>) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(response.body()).ok();
    let detail = document
        .as_ref()
        .and_then(|document| document["detail"].as_str());
    detail.map_or_else(
        || String::from_utf8_lossy(response.body()).into_owned(),
        str::to_owned,
    )
}
