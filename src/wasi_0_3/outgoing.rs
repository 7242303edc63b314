//! Responses on hosts of WASI 0.3.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http_body_util::BodyExt;
use spin_sdk::http::IntoResponse;
use spin_sdk::wasip3::http::types::{self, ErrorCode};
use spin_sdk::wasip3::http_compat::BodyWriter;
use spin_sdk::wasip3::spawn;
use spin_sdk::wasip3::wit_bindgen::StreamResult;

use super::SpinClock;
use crate::clock::{Clock, before};

/// How often an idle stream checks whether the client is still connected.
const PROBE: Duration = Duration::from_secs(1);

/// Sends a response to the host, and its body as long as the client reads it.
///
/// # Errors
///
/// If the host rejects the headers.
pub fn send(response: Response) -> Result<types::Response, ErrorCode> {
    if response.body().size_hint().exact().is_some() {
        return response.into_response();
    }
    let (head, body) = response.into_parts();
    let headers = types::Headers::try_from(head.headers)
        .map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
    let (writer, contents, trailers) = BodyWriter::new();
    let (response, _) = types::Response::new(headers, Some(contents), trailers);
    // Hosts accept every status that `http` accepts.
    _ = response.set_status_code(head.status.as_u16());
    spawn(write(body, writer));
    Ok(response)
}

/// Writes a body of unknown length.
///
/// spin-sdk's own conversion notices that the client has disconnected only at its next write. Until then, a stream that waits
/// for an event would read the store. An empty write also shows whether the client is still connected.
async fn write(mut body: Body, mut writer: BodyWriter) {
    loop {
        let probe_at = SpinClock.now().saturating_add(PROBE);
        match before(&SpinClock, probe_at, body.frame()).await {
            None => {
                let (result, _) = writer.stream_writer.write(Vec::new()).await;
                if result == StreamResult::Dropped {
                    return;
                }
            }
            Some(Some(Ok(frame))) => {
                if writer.send_frame(frame).await.is_err() {
                    return;
                }
            }
            Some(Some(Err(error))) => {
                let error = ErrorCode::InternalError(Some(error.to_string()));
                _ = writer.result_writer.write(Err(error)).await;
                return;
            }
            Some(None) => break,
        }
    }
    drop(writer.stream_writer);
    _ = writer.result_writer.write(Ok(None)).await;
}
