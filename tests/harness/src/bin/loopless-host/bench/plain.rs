//! `loopless-host plain`: hyper with a fixed response. `bench` starts it as a baseline.

use std::convert::Infallible;
use std::net::SocketAddr;

use anstream::println;
use anyhow::Context;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use loopless_host::listen;
use serde::{Deserialize, Serialize};

/// The response to send.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The response to all requests, as JSON with `headers`, a list of pairs, and `body`
    #[arg(value_name = "ANSWER")]
    answer: String,
}

/// A response, without the headers that hyper adds.
#[derive(Debug, Deserialize, Serialize)]
pub struct Answer {
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// Serves forever.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let answer: Answer = serde_json::from_str(&arguments.answer)
        .context("the argument is not a response in JSON")?;
    let mut response = Response::builder();
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let response = response.body(Full::new(Bytes::from(answer.body)))?;
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("Serving http://{}", listener.local_addr()?);
    loop {
        let (tcp, _) = listener.accept().await?;
        _ = tcp.set_nodelay(true);
        let response = response.clone();
        let service = service_fn(move |_| {
            let response = response.clone();
            async { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async {
            // A client may close its connection at any time.
            _ = http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        });
    }
}
