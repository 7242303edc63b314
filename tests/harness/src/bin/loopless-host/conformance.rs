//! `loopless-host conformance`: whether a server keeps the promises of the guides, seen from outside.
//!
//! The list of them is [`full::check`], and [`seed::check`] for those that the original makes too. [`crate::contract`] says which
//! of them a build need not keep.

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
use report::Report;

/// Which server, and which promises.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the server is, such as http://127.0.0.1:9009 or https://example.fermyon.app
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
    /// What this project and the Python original have in common: the page and its button
    Seed,
    /// Every route
    Full,
}

/// Runs the checks.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let target = Target::new(arguments.url, "conformance", arguments.access.token);
    // What cannot be reached breaks no promise.
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
            Ok(contract) => println!("The server promises what a build for {contract} does"),
            Err(_) => println!("The server does not say what it promises: all of it is checked"),
        }
        seed::check(&mut report, &target).await;
        full::check(&mut report, &target, contract.ok().as_ref()).await;
    } else {
        seed::check(&mut report, &target).await;
    }
    report.capability("Afterwards");
    if arguments.profile == Profile::Full {
        report
            .check("the events made here can be forgotten", full::tidy(&target))
            .await;
    }
    report
        .check(
            "the demo's event can be left as it was",
            seed::restore(&target, found),
        )
        .await;
    Ok(report.finish())
}
