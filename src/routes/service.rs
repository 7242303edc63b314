//! The routes of the service: start, stop, status and stream.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::sse::{self, MOST_MISSED, Messages};
use super::{App, Background, Host, request};
use crate::clock::Clock;
use crate::lease::{self, Look};
use crate::problem::Problem;
use crate::service::{
    self, DID_SOMETHING, Error, Runner, STARTED, STOPPED, Service, Started, Status, Stopped,
};
use crate::settings::Settings;

/// How long a stop waits by default.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a stream checks the progress of the service.
const PACE: Duration = Duration::from_millis(100);

/// The service as JSON.
#[derive(Serialize)]
struct View {
    state: service::State,
    ticks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runner: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<String>,
}

fn view(status: Status) -> Response {
    let view = View {
        state: status.state,
        ticks: status.ticks,
        started: status.started.and_then(date),
        runner: status.runner,
        heartbeat: status.heartbeat.and_then(date),
    };
    // Strings and numbers, so serializing cannot fail.
    super::json(serde_json::to_string(&view).unwrap_or_default())
}

/// A date in the format of RFC 3339. `None` after the year 9999.
fn date(since_1970: Duration) -> Option<String> {
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
    let date = std::time::UNIX_EPOCH.checked_add(since_1970)?;
    (since_1970 < YEAR_10000).then(|| humantime::format_rfc3339_millis(date).to_string())
}

/// The service, with these settings.
pub fn service<H: Background>(app: &App<H>, settings: Settings) -> Service<'_, H::Store, H::Clock> {
    Service::new(app.events(), settings.service_lease, settings.polling)
}

/// The response of the service's routes in a build without the service.
pub async fn lacking<H: Host>() -> Problem {
    let what = if H::BUILD.has_atomics {
        "tasks that outlive a request, which WASI 0.2 does not have"
    } else {
        "compare-and-swap, which the key-value store of this build does not have"
    };
    Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        format!("This build does not have the service. It needs {what}."),
    )
}

/// Runs the service in the background.
fn spawn<H: Background>(app: &App<H>, settings: Settings, runner: Runner) {
    let app = app.clone();
    H::spawn(async move { service(&app, settings).run(runner, H::print).await });
}

/// Starts the service. Returns its status, and whether it was not running before.
pub async fn started<H: Background>(
    app: &App<H>,
    settings: Settings,
) -> Result<(Status, bool), Problem> {
    match service(app, settings).start(H::print).await? {
        Started::Already(status) => Ok((status, false)),
        Started::Now(runner) => {
            let status = runner.status();
            spawn(app, settings, runner);
            Ok((status, true))
        }
    }
}

/// Starts the service if it is not running.
pub async fn start<H: Background>(
    State(app): State<App<H>>,
    uri: Uri,
) -> Result<Response, Problem> {
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    let (status, is_new) = started(&app, settings).await?;
    let location = [(header::LOCATION, "/service")];
    let code = if is_new {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((code, location, view(status)).into_response())
}

/// Stops the service, and waits until it has stopped.
pub async fn stop<H: Background>(State(app): State<App<H>>, uri: Uri) -> Result<Response, Problem> {
    let [timeout] = request::parameters(&uri, ["timeout"])?;
    let settings = app.settings().await?;
    let timeout = match timeout {
        Some(timeout) => request::seconds("timeout", &timeout, settings.wait_max)?,
        None => STOP_TIMEOUT.min(settings.wait_max),
    };
    let _place = app.place().await?;
    Ok(view(stopped(&app, settings, timeout).await?))
}

/// Stops the service within `timeout`, or fails with 504.
pub async fn stopped<H: Background>(
    app: &App<H>,
    settings: Settings,
    timeout: Duration,
) -> Result<Status, Problem> {
    match service(app, settings).stop(timeout, H::print).await? {
        Stopped::Yes(status) => Ok(status),
        Stopped::TimedOut(_) => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!(
                "The service was asked to stop, and still ran after {} s. GET /service shows whether it has stopped.",
                timeout.as_secs_f64()
            ),
        )),
    }
}

/// Shows the status of the service. If its runner is lost, this instance takes over.
pub async fn show<H: Background>(State(app): State<App<H>>, uri: Uri) -> Result<Response, Problem> {
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    let service = service(&app, settings);
    let status = service.status().await?;
    if status.state == service::State::Lost
        && let Some(runner) = service.tend(H::print).await?
    {
        spawn(&app, settings, runner);
    }
    Ok(view(status))
}

/// Streams the last line at once, then each new one. With `Last-Event-ID`, streams each line since that one.
pub async fn stream<H: Background>(
    State(app): State<App<H>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let [] = request::parameters(&uri, [])?;
    let settings = app.settings().await?;
    let place = app.place().await?;
    let progress = service(&app, settings).progress(None).await?;
    let sent = sse::last_event_id(&headers)
        .and_then(Line::parse)
        .filter(|line| *line <= last_line(&progress))
        .unwrap_or_else(|| last_line(&progress).before());
    let mut source = Source {
        app: app.clone(),
        settings,
        progress,
        sent,
    };
    let mut messages = Messages::new();
    source.push_since(&mut messages);
    Ok(sse::response(app, settings, place, messages, source))
}

/// The number of a line: the number of its run, and its number in the run, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    run: u64,
    number: u64,
}

impl Line {
    /// Parses the id of a message.
    fn parse(id: &str) -> Option<Self> {
        let (run, number) = id.split_once('.')?;
        let (run, number) = (run.parse().ok()?, number.parse().ok()?);
        (number > 0).then_some(Self { run, number })
    }

    /// The number before this line.
    fn before(self) -> Self {
        Self {
            number: self.number.saturating_sub(1),
            ..self
        }
    }
}

/// The last line of the service. Its number is 0 if the service has never run.
fn last_line(progress: &Look) -> Line {
    let run = progress.run();
    let said = 1 + progress.beats() + u64::from(progress.is_over());
    Line {
        run,
        number: if run == 0 { 0 } else { said },
    }
}

/// The source of one client's stream.
struct Source<H: Background> {
    app: App<H>,
    settings: Settings,
    progress: Look,
    /// The last line that was sent.
    sent: Line,
}

impl<H: Background> sse::Source for Source<H> {
    async fn wait(&mut self, until: Duration, messages: &mut Messages) -> Result<(), Problem> {
        let now = self.app.events().now();
        let pause = PACE.max(self.settings.polling.last);
        let pause = until.saturating_sub(now).min(pause);
        self.app.events().clock().sleep(pause).await;
        let service = service(&self.app, self.settings);
        match service.progress(Some(&self.progress)).await {
            Ok(progress) => self.progress = progress,
            Err(Error::Lease(error @ lease::Error::Foreign { .. })) => return Err(error.into()),
            Err(_) => return Ok(()),
        }
        self.push_since(messages);
        Ok(())
    }
}

impl<H: Background> Source<H> {
    /// Pushes every line since the last one that was sent.
    ///
    /// The text of a line follows from its number. Of the runs in between, only the last one before this run has a known
    /// end.
    fn push_since(&mut self, messages: &mut Messages) {
        let last = last_line(&self.progress);
        // The store went back. Continue from the current last line, as for a client with an unknown id.
        if last < self.sent {
            self.sent = last.before();
        }
        if self.sent.run != last.run {
            if let Some(ticks) = self.progress.previous(self.sent.run) {
                self.push_run(self.sent.run, ticks, ticks + 2, messages);
            }
            self.sent = Line {
                run: last.run,
                number: 0,
            };
        }
        self.push_run(last.run, self.progress.beats(), last.number, messages);
    }

    /// Pushes the lines of a run with this many ticks, up to the line `newest`.
    fn push_run(&mut self, run: u64, ticks: u64, newest: u64, messages: &mut Messages) {
        let first = (self.sent.number + 1).max((newest + 1).saturating_sub(MOST_MISSED));
        for number in first..=newest {
            let text = match number {
                1 => STARTED,
                _ if number <= ticks + 1 => DID_SOMETHING,
                _ => STOPPED,
            };
            messages.push(None, Some(format!("{run}.{number}")), text);
        }
        self.sent.number = self.sent.number.max(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_rfc_3339() {
        let text = |ms| date(Duration::from_millis(ms));
        assert_eq!(text(0).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_827_696_789).unwrap(), "2000-02-29T12:34:56.789Z");
        assert_eq!(text(u64::MAX), None);
    }

    #[test]
    fn an_id_is_a_run_and_a_line() {
        assert_eq!(Line::parse("7.12"), Some(Line { run: 7, number: 12 }));
        for id in ["", "7", "7.", ".1", "7.0", "7.-1", "7.1.2", "x.1"] {
            assert_eq!(Line::parse(id), None, "{id:?}");
        }
    }
}
