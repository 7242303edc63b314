//! `loopless-host conformance`: checks from outside that a server keeps the promises of the guides.
//!
//! | module | contents |
//! | --- | --- |
//! | [`seed`] | The checks that the Python original passes too |
//! | [`full`] | All others: the list of promises, with the checks in modules of their own |
//! | [`client`], [`stream`] | The client of the server, and its assertions |
//! | [`report`] | The results, line by line |
//!
//! [`crate::contract`] says which promises a build makes.

pub mod client;
mod full;
pub mod report;
mod seed;
pub mod stream;

use std::process::ExitCode;

use anstream::println;
use anyhow::Context;
use clap::{Args, ValueEnum};

use client::{Access, Base, Target};
use report::{Report, heading};

/// Which server to check, and for which promises.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The server's address, such as http://127.0.0.1:9009 or https://example.fermyon.app
    #[arg(long, value_name = "URL")]
    url: Base,

    #[command(flatten)]
    access: Access,

    /// Which promises to check
    #[arg(long, value_enum, default_value_t = Profile::Full)]
    profile: Profile,
}

/// Which promises to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// What the Python original promises too: the page and its button
    Seed,
    /// Everything
    Full,
}

/// Runs the checks.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let target = Target::new(arguments.url, "conformance", arguments.access.token);
    // A server that cannot be reached breaks no promise.
    target
        .reach()
        .await
        .with_context(|| format!("cannot reach {}; is the server running?", target.base()))?;
    if arguments.profile == Profile::Full {
        full::admission(&target).await?;
    }
    let found = seed::offered(&target).await.ok();

    let mut report = Report::default();
    if arguments.profile == Profile::Full {
        let contract = full::contract(&target).await;
        match &contract {
            Ok(contract) => println!("The server is a build for {contract}"),
            Err(_) => println!("The server does not list its promises: all are checked"),
        }
        seed::check(&mut report, &target).await;
        full::check(&mut report, &target, contract.ok().as_ref()).await;
    } else {
        seed::check(&mut report, &target).await;
    }
    heading("Afterwards");
    if arguments.profile == Profile::Full {
        report
            .check(
                "the events of this run can be forgotten",
                full::tidy(&target),
            )
            .await;
    }
    let promise = "the demo's event can be restored";
    report.check(promise, seed::restore(&target, found)).await;
    Ok(report.finish())
}
