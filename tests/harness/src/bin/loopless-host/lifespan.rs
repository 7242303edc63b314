//! The application's lifespan: what it does before the first request and after the last one.
//!
//! A component has one if it has the routes `/lifespan/startup` and `/lifespan/shutdown`. They are called with the
//! operator's token, which nobody else knows unless the operator has set it.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::{Request, Response, StatusCode, header};
use loopless_host::Harness;

/// The Spin variable that holds the operator's token.
pub const TOKEN: &str = "operator_token";

/// How long the application may take to start.
const STARTUP: Duration = Duration::from_secs(30);

/// How long it may take to stop. The component itself gives up after 10 s.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// The operator's token, from the variables, or one of our own that is put there.
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

/// The lifespan of the application in one host.
pub struct Lifespan {
    harness: Harness,
    token: String,
}

impl Lifespan {
    /// That of the component in `harness`, whose operator's token this is.
    pub fn new(harness: Harness, token: String) -> Self {
        Self { harness, token }
    }

    /// Starts the application.
    ///
    /// # Errors
    ///
    /// If it says that it cannot start, or says nothing for too long.
    pub async fn startup(&self) -> anyhow::Result<()> {
        let path = "/lifespan/startup";
        let started = self.call(path, STARTUP).await;
        started.context("the application did not start")
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// If it could not stop what it had started, or took too long.
    pub async fn shutdown(&self) -> anyhow::Result<()> {
        let path = "/lifespan/shutdown";
        let stopped = self.call(path, SHUTDOWN).await;
        stopped.context("the application did not stop as it should")
    }

    async fn call(&self, path: &str, most: Duration) -> anyhow::Result<()> {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body("")
            .context("the operator's token cannot be sent in a header")?;
        let answer = tokio::time::timeout(most, self.harness.send(request)).await;
        let Ok(response) = answer else {
            bail!("POST {path} gave no answer within {} s", most.as_secs());
        };
        match response.status() {
            // A component without a lifespan.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            // Its manifest does not hand the token on: nobody may call it, here as on Spin.
            StatusCode::FORBIDDEN => Ok(()),
            status if status.is_success() => Ok(()),
            status => bail!("POST {path} answered {status}: {}", detail(&response)),
        }
    }
}

/// What a problem document says, or the whole body if it is not one.
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
