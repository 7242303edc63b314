//! Mistakes that somebody could make in the component, and the components that have them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use loopless_host::manifest::Manifest;

use super::say;
use crate::support::project;

/// A mistake that somebody could make in the component: its name, and what is written instead of what.
pub struct Mutation {
    pub name: &'static str,
    /// The build that it is made in.
    features: &'static [&'static str],
    /// What the mistake is about: worlds of something else are not searched.
    pub about: &'static str,
    edits: &'static [(&'static str, &'static str, &'static str)],
}

impl Mutation {
    /// The seed with which the search for it begins. If it shows in one world of a thousand, that is shortly before the first.
    pub fn first_seed(&self) -> u64 {
        if self.name == TAKES_OVER_UNSEALED.name {
            1000
        } else {
            0
        }
    }
}

/// Where a change is made: after the store was asked, and before the read that tells what came of it.
const ASKED: &str =
    "        match event.read().await {\n            Ok(after) if after.0.state.generation";

pub const TRUSTS_THE_SWAP: Mutation = Mutation {
    name: "trusts-the-swap",
    features: &[],
    about: "events",
    edits: &[
        (
            "atomics.rs",
            "            Ok(()) | Err(CasError::CasFailed(_)) => Ok(()),",
            "            Ok(()) => Ok(()),
             Err(CasError::CasFailed(_)) => Err(Error::new(\"the swap failed\")),",
        ),
        (
            "atomics.rs",
            "Some(old) {\n            return Ok(());",
            "Some(old) {\n            return Err(Error::new(\"the swap failed\"));",
        ),
        (
            "strategy/exact.rs",
            ASKED,
            "        if value.is_some() {
                if asked.is_ok() {
                    return Ok(Ok(to));
                }
                (seen, value) = event.read().await?;
                continue;
            }
            match event.read().await {\n            Ok(after) if after.0.state.generation",
        ),
    ],
};

pub const FORGETS_TO_READ_AGAIN: Mutation = Mutation {
    name: "forgets-to-read-again",
    features: &[],
    about: "events",
    edits: &[(
        "strategy/exact.rs",
        ASKED,
        "        if value.is_some() {
            return Ok(Ok(to));
        }
        match event.read().await {\n            Ok(after) if after.0.state.generation",
    )],
};

pub const WAITS_FOR_ODD: Mutation = Mutation {
    name: "waits-for-odd",
    features: &[],
    about: "events",
    edits: &[(
        "event.rs",
        "!seen.state.is_version_of(start.state)",
        "!seen.state.is_version_of(start.state) && seen.state.is_set()",
    )],
};

pub const CACHES_THE_STATE: Mutation = Mutation {
    name: "caches-the-state",
    features: &[],
    about: "events",
    edits: &[(
        "event.rs",
        "        Ok(self.look().await?.state)",
        "        let known = self.last_readings().newest(|seen| seen.state.exists());
        if let Some(known) = known {
            return Ok(known.state);
        }
        Ok(self.look().await?.state)",
    )],
};

pub const CREATES_BY_WRITING: Mutation = Mutation {
    name: "creates-by-writing",
    features: &[],
    about: "events",
    edits: &[(
        "strategy/exact.rs",
        "None => store.increment(event.key(), 0).await.map(drop),",
        "None => store.set(event.key(), b\"0\").await,",
    )],
};

pub const TAKES_NO_LAST_LOOK: Mutation = Mutation {
    name: "takes-no-last-look",
    features: &[],
    about: "events",
    edits: &[("event.rs", "readings.began < deadline\n", "false\n")],
};

pub const COMPARES_GENERATIONS: Mutation = Mutation {
    name: "compares-generations",
    features: &["plain"],
    about: "events",
    edits: &[(
        "event.rs",
        "!seen.state.is_version_of(start.state)",
        "seen.state.generation > start.state.generation",
    )],
};

pub const WRITES_NO_TAG: Mutation = Mutation {
    name: "writes-no-tag",
    features: &["plain"],
    about: "events",
    edits: &[(
        "strategy/plain.rs",
        "Some(Tag::Wide(tags()))",
        "Some(Tag::Wide(tags() & 0))",
    )],
};

pub const CLEARS_BLINDLY: Mutation = Mutation {
    name: "clears-blindly",
    features: &["plain"],
    about: "events",
    edits: &[
        (
            "strategy/plain.rs",
            "if state.is_set() == set {",
            "if state.is_set() && set {",
        ),
        (
            "strategy/plain.rs",
            "generation: state.generation.next(),",
            "generation: if state.is_set() == set {
                state.generation.next().next()
            } else {
                state.generation.next()
            },",
        ),
    ],
};

pub const TAKES_READINGS_UNDER_WAY: Mutation = Mutation {
    name: "takes-readings-under-way",
    features: &["plain"],
    about: "events",
    edits: &[(
        "event/readings.rs",
        "self.began > other.ended",
        "self.began > other.began",
    )],
};

pub const TICKS_WITHOUT_A_LEASE: Mutation = Mutation {
    name: "ticks-without-a-lease",
    features: &[],
    about: "service",
    edits: &[(
        "lease.rs",
        "Ok(Some(beats)) if beats == next => {",
        "Ok(Some(beats)) if beats == next || !is_doubtful => {",
    )],
};

pub const TAKES_OVER_UNSEALED: Mutation = Mutation {
    name: "takes-over-unsealed",
    features: &[],
    about: "service",
    edits: &[(
        "lease.rs",
        "if !self.seal(look, beats).await? {",
        "if beats == look.beats {",
    )],
};

pub const BELIEVES_WHAT_IT_READ_BEFORE: Mutation = Mutation {
    name: "believes-what-it-read-before",
    features: &[],
    about: "events",
    edits: &[(
        "event.rs",
        "        while !start.state.is_set() {",
        "        let before = self
            .last_readings()
            .newest(|seen| seen.state.generation > start.state.generation);
        if let Some(before) = before {
            return Ok(Waited::Set(before.state));
        }
        while !start.state.is_set() {",
    )],
};

pub const EXPECTS_NO_STORE_TO_GO_BACK: Mutation = Mutation {
    name: "expects-no-store-to-go-back",
    features: &[],
    about: "events",
    edits: &[(
        "event.rs",
        "!seen.state.is_version_of(start.state)",
        "seen.state.generation > start.state.generation",
    )],
};

pub const WAITS_FOR_THE_STORE: Mutation = Mutation {
    name: "waits-for-the-store",
    features: &["plain"],
    about: "events",
    edits: &[(
        "store/bounded.rs",
        "before(clock, deadline, call).await;",
        "before(clock, Duration::MAX, call).await;",
    )],
};

pub const STOPS_ITS_INSTANCE: Mutation = Mutation {
    name: "stops-its-instance",
    features: &[],
    about: "service",
    edits: &[(
        "store/bounded.rs",
        "self.probe(key).await?;
        self.note(self.store.increment",
        "self.note(self.store.increment",
    )],
};

pub const SAYS_WHAT_IT_DID_TWICE: Mutation = Mutation {
    name: "says-what-it-did-twice",
    features: &[],
    about: "service",
    edits: &[(
        "lease.rs",
        "Ok(Some(beats)) if beats == next => {",
        "Ok(Some(beats @ Beats::Open(count))) if count > beats_so_far => {",
    )],
};

/// On WASI 0.3: the rows of a statement that failed just end.
pub const READS_NO_ERROR: Mutation = Mutation {
    name: "reads-no-error",
    features: &["store-sqlite"],
    about: "events",
    edits: &[(
        "wasi_0_3/sqlite.rs",
        ".collect()\n            .await\n            .map_err(from_spin)?",
        ".collect().await.unwrap_or_default()",
    )],
};

pub const SWAPS_BLINDLY: Mutation = Mutation {
    name: "swaps-blindly",
    features: &["store-sqlite"],
    about: "events",
    edits: &[(
        "sqlite.rs",
        "SET value = ?3 WHERE key = ?1 AND value = ?2",
        "SET value = ?3 WHERE key = ?1 AND ?2 IS NOT NULL",
    )],
};

/// All of them, in the order of their tests.
pub const ALL: [&Mutation; 19] = [
    &SWAPS_BLINDLY,
    &TAKES_OVER_UNSEALED,
    &BELIEVES_WHAT_IT_READ_BEFORE,
    &CACHES_THE_STATE,
    &STOPS_ITS_INSTANCE,
    &CLEARS_BLINDLY,
    &COMPARES_GENERATIONS,
    &CREATES_BY_WRITING,
    &EXPECTS_NO_STORE_TO_GO_BACK,
    &FORGETS_TO_READ_AGAIN,
    &READS_NO_ERROR,
    &SAYS_WHAT_IT_DID_TWICE,
    &TAKES_NO_LAST_LOOK,
    &TAKES_READINGS_UNDER_WAY,
    &TICKS_WITHOUT_A_LEASE,
    &TRUSTS_THE_SWAP,
    &WAITS_FOR_THE_STORE,
    &WAITS_FOR_ODD,
    &WRITES_NO_TAG,
];

/// The component with a mistake in it, built once.
pub fn mutant(mutation: &Mutation) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());

    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let path = built.entry(mutation.name);
    path.or_insert_with(|| build(mutation)).clone()
}

/// Builds the component with a mistake in it, from a copy of its sources.
fn build(mutation: &Mutation) -> PathBuf {
    static SAID: Once = Once::new();

    say(
        &SAID,
        "The mutants are built, each with a mistake that the simulation has to find: a minute or two",
    );
    // One copy for each build of the component. It is changed in place for one mistake after the other, so that what a mistake does
    // not touch is not compiled again.
    let package = match mutation.features {
        [] => "mutant".to_owned(),
        features => format!("mutant-{}", features.join("-")),
    };
    let directory = project().join("target/mutants").join(&package);
    for (file, ..) in mutation.edits {
        assert!(project().join("src").join(file).is_file(), "{file}");
    }
    for part in ["src", "wit"] {
        copy(&project().join(part), &directory.join(part), mutation);
    }
    let manifest = package_manifest(&package, mutation.features);
    write(&directory.join("Cargo.toml"), &manifest.to_string());
    if !directory.join("Cargo.lock").exists() {
        std::fs::copy(project().join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    }
    // In the project's target directory, macros are built for all. What is built for the next mistake gets the same name.
    let name = mutation.name;
    let built = format!("wasm32-wasip2/release/{}.wasm", package.replace('-', "_"));
    let command = format!(
        "nice cargo build --target wasm32-wasip2 --release --target-dir ../.. && cp ../../{built} {name}.wasm"
    );
    let manifest = format!(
        "spin_manifest_version = 2
[application]
name = \"{package}\"
[[trigger.http]]
route = \"/...\"
component = \"mutant\"
[component.mutant]
source = \"{name}.wasm\"
[component.mutant.build]
command = \"{command}\"
"
    );
    let path = directory.join(format!("{name}.toml"));
    write(&path, &manifest);
    Manifest::read(&path).unwrap().build().unwrap()
}

/// The manifest of a copy of the component that has these features.
fn package_manifest(name: &str, features: &[&str]) -> toml::Table {
    let manifest = std::fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let mut manifest: toml::Table = manifest.parse().unwrap();
    manifest.remove("dev-dependencies");
    let workspace = manifest["workspace"].as_table_mut().unwrap();
    workspace.remove("members");
    workspace.remove("default-members");
    // A mistake may leave a variable behind that nothing reads.
    let lints = workspace["lints"]["rust"].as_table_mut().unwrap();
    lints.insert("unused_variables".into(), "allow".into());
    let package = manifest["package"].as_table_mut().unwrap();
    package.insert("name".into(), name.into());
    let defaults = manifest["features"].as_table_mut().unwrap();
    defaults.insert("default".into(), features.to_vec().into());
    // A mistake is as good in code that is not optimized, and is built in a moment. All else is as in the shipped component, so that
    // macros are built once for both. cargo does not optimize while linking, because there are two crate types.
    let mut profile = manifest["profile"]["release"].clone();
    let ours = toml::toml! {
        opt-level = 0
        codegen-units = 256
        incremental = true
    };
    let ours = toml::Table::from_iter([(name.to_owned(), ours.into())]);
    let release = profile.as_table_mut().unwrap();
    release.insert("package".into(), ours.into());
    let profile = toml::Table::from_iter([("release".to_owned(), profile)]);
    manifest.insert("profile".into(), profile.into());
    manifest
}

/// Copies sources, and makes the mistake in the copy.
fn copy(from: &Path, to: &Path, mutation: &Mutation) {
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&from, &to, mutation);
            continue;
        }
        let mut source = std::fs::read_to_string(&from).unwrap();
        for (file, old, new) in mutation.edits {
            if from == project().join("src").join(file) {
                let places = source.matches(old).count();
                assert_eq!(places, 1, "{}: {old:?} in {file}", mutation.name);
                source = source.replace(old, new);
            }
        }
        write(&to, &source);
    }
}

/// Writes a file unless it says that already: cargo would take it for changed.
fn write(path: &Path, contents: &str) {
    if std::fs::read_to_string(path).is_ok_and(|known| known == contents) {
        return;
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}
