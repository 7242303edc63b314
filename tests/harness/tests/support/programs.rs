//! Programs that tests need and cargo does not bring.

use std::path::PathBuf;

/// A program on the path, by the first of these names that is there. A test that gets none has nothing to do: that is
/// said here, and in CI it is a failure.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path)
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)));
    let found = candidates.find(|candidate| candidate.is_file());
    if found.is_none() {
        let name = names[0];
        assert!(
            std::env::var_os("CI").is_none(),
            "no {name} on the path; CI must have it"
        );
        eprintln!("SKIPPED: no {name} on the path");
    }
    found
}
