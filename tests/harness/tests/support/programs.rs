//! Programs that tests need and cargo does not install.

use std::path::PathBuf;

/// A program on the path: the first of these names that exists. Without one, a test is skipped.
///
/// # Panics
///
/// In CI if there is none: CI skips nothing.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<_> = std::env::split_paths(&path)
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
        .collect();
    installed(&candidates, &format!("put {} on the path", names[0]))
}

/// The first of these files that exists. Otherwise as [`program`], and prints how to install it.
pub fn installed(candidates: &[PathBuf], how: &str) -> Option<PathBuf> {
    let found = candidates.iter().find(|file| file.is_file()).cloned();
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI skips no test: {how}");
        eprintln!("SKIPPED: to run this test, {how}");
    }
    found
}
