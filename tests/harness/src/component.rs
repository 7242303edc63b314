//! Builds components, and makes components of core modules.

use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use wasi_preview1_component_adapter_provider as adapter;
use wit_component::ComponentEncoder;

use crate::memo::Memo;

/// The Rust target of components for WASI 0.2 and 0.3.
pub const TARGET: &str = "wasm32-wasip2";

/// Builds the library of the cargo package in `directory` as a component (with the crate type `cdylib` alone), in release mode, and
/// returns its path.
///
/// The first call for a directory runs cargo, which prints its progress to standard error. Later calls in this process return
/// the same path. If the Rust target is missing, this prints so and installs it with rustup.
///
/// # Errors
///
/// If a command fails. The error says which one and, if known, what to do.
pub fn build(directory: &Path) -> anyhow::Result<PathBuf> {
    static BUILT: Memo<PathBuf, PathBuf> = Memo::new();

    BUILT.get_or_make(directory.into(), || run_cargo(directory))
}

/// Runs a command that builds a component, like `spin build`, unless this process has run it before. Its output goes to standard
/// error.
///
/// If the Rust target that the command names (`--target`) is missing, this prints so and installs it with rustup.
pub(crate) fn run(command: &str, directory: &Path) -> anyhow::Result<()> {
    static RUN: Memo<(String, PathBuf), ()> = Memo::new();

    RUN.get_or_make((command.to_owned(), directory.to_owned()), || {
        run_command(command, directory)
    })
}

fn run_command(command: &str, directory: &Path) -> anyhow::Result<()> {
    let words: Vec<_> = command.split([' ', '=']).collect();
    if let Some([_, target]) = words.windows(2).find(|words| words[0] == "--target") {
        install_target(directory, target)?;
    }
    let status = without_package(Command::new("sh"))
        .args(["-c", command])
        .current_dir(directory)
        .stdout(std::io::stderr())
        .status()
        .context("cannot run sh")?;
    ensure!(
        status.success(),
        "`{command}` failed ({status}); its messages are above"
    );
    Ok(())
}

/// The component in these bytes. A core module becomes a component, as when Spin loads it.
///
/// # Errors
///
/// If they are a core module from which no component can be made.
pub fn encode(bytes: &[u8]) -> anyhow::Result<Cow<'_, [u8]>> {
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    if !bytes.starts_with(MODULE) {
        return Ok(bytes.into());
    }
    let encode = || {
        ComponentEncoder::default()
            .module(bytes)?
            .adapter(
                adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )?
            .encode()
    };
    let component = encode().context("no component can be made from this core module")?;
    Ok(component.into())
}

fn run_cargo(directory: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        directory.join("Cargo.toml").is_file(),
        "there is no Cargo.toml in {}: run this in a checkout, or name a built component",
        directory.display()
    );
    install_target(directory, TARGET)?;

    let directory = directory.canonicalize()?;
    let manifest = directory.join("Cargo.toml");
    let mut cargo = cargo_command(&directory);
    cargo
        .args(["rustc", "--release", "--lib", "--target", TARGET])
        // In a workspace, cargo would look at the other default members too.
        .args(["--package", &package(&directory)?])
        // With other crate types beside it, cargo would not optimize while linking, whatever the profile says.
        .args(["--crate-type", "cdylib"])
        .args(["--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot run cargo")?;
    let mut component = None;
    if let Some(stdout) = child.stdout.take() {
        for message in BufReader::new(stdout).lines() {
            component = artifact(&message?, &manifest).or(component);
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    ensure!(
        status.success(),
        "cargo could not build the component ({status}); its messages are above"
    );
    component.with_context(|| format!("cargo built no component of {}", directory.display()))
}

/// The package ID specification of the package in `directory`.
fn package(directory: &Path) -> anyhow::Result<String> {
    let output = cargo_command(directory)
        .arg("pkgid")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "cargo cannot find the package in {}; its messages are above",
        directory.display()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The component of the package with this manifest, if this message of cargo reports it.
fn artifact(message: &str, manifest: &Path) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_ours = message["reason"] == "compiler-artifact"
        && message["manifest_path"].as_str().map(Path::new) == Some(manifest);
    let files = message["filenames"].as_array().filter(|_| is_ours)?;
    files
        .iter()
        .filter_map(|file| file.as_str())
        .find(|file| file.ends_with(".wasm"))
        .map(PathBuf::from)
}

/// A cargo command in this directory.
fn cargo_command(directory: &Path) -> Command {
    let cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut cargo = without_package(cargo);
    cargo.current_dir(directory);
    cargo
}

/// The command, without the variables that an outer cargo sets for the package that it runs. An inner cargo would take them for
/// changes, and build again.
fn without_package(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let is_of_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name.starts_with("CARGO_BIN_")
                || name.starts_with("CARGO_CFG_")
        });
        if is_of_package {
            command.env_remove(name);
        }
    }
    command
}

/// Installs `target` for the toolchain of `directory`, if it is missing.
fn install_target(directory: &Path, target: &str) -> anyhow::Result<()> {
    // rustup changes one toolchain at a time.
    static INSTALLING: Mutex<()> = Mutex::new(());

    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(directory)
        .output()
        .context("cannot run rustc")?;
    let libraries = String::from_utf8_lossy(&libraries.stdout);
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    eprintln!("The Rust target {target} is missing: running `rustup target add {target}`");
    let installed = Command::new("rustup")
        .args(["target", "add", target])
        .current_dir(directory)
        .status();
    match installed {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!(
            "rustup failed ({status}); check the network, then run: rustup target add {target}"
        ),
        Err(error) => bail!(
            "cannot run rustup ({error}); install the target {target} the way you installed Rust, \
             or install rustup from https://rustup.rs and run: rustup target add {target}"
        ),
    }
}
