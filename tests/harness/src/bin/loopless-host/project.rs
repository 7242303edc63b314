//! The project that this program was built from: without other arguments, its component is what there is to run.

use std::path::{Path, PathBuf};

use anstream::eprintln;
use anyhow::Context;
use loopless_host::component;

/// Builds the component of a package of the project, and says so. cargo shows how far it is.
pub fn build(what: &str, package: &str) -> anyhow::Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("the project has no directory")?;
    eprintln!("Building {what} in release mode (the first time takes a minute)");
    component::build(&project.join(package))
}
