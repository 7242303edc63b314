//! The promises hold in every world that a few hundred seeds make, and the search finds what breaks them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, Once, PoisonError};

use loopless_host::manifest::Manifest;

use crate::support::{component, project};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loopless-host"))
        .arg("simulate")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The arguments that name this component.
fn on(component: &Path) -> [String; 2] {
    ["--component".into(), component.to_str().unwrap().to_owned()]
}

/// Says what takes long. The test harness captures what is printed by macros, and not this.
fn say(said: &Once, what: &str) {
    said.call_once(|| _ = writeln!(io::stderr(), "{what}"));
}

/// Searches worlds of this build.
fn keeps_every_promise([option, build]: [&str; 2], seeds: u64) {
    static SAID: Once = Once::new();

    say(
        &SAID,
        "The simulation searches 1,000 worlds: a minute or two",
    );
    let count = seeds.to_string();
    let output = simulate(&[option, build, "--seeds", &count]);
    let (found, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}{found}");
    assert!(found.starts_with(&format!("{seeds} seeds")), "{found}");
    assert!(found.ends_with("all promises kept\n"), "{found}");
    println!("{found}");
}

#[test]
fn the_component_keeps_every_promise() {
    keeps_every_promise(["--host", "spin"], 300);
}

#[test]
fn it_keeps_what_it_promises_without_compare_and_swap() {
    keeps_every_promise(["--host", "akamai-functions"], 200);
}

#[test]
fn it_keeps_what_it_promises_on_wasi_0_2() {
    keeps_every_promise(["--host", "fermyon-cloud"], 200);
}

#[test]
fn it_keeps_every_promise_on_sqlite() {
    let manifest = project().join("deploy/spin-sqlite.toml");
    keeps_every_promise(["--manifest", manifest.to_str().unwrap()], 200);
}

#[test]
fn it_keeps_the_exact_promises_on_sqlite_on_wasi_0_2() {
    let manifest = project().join("deploy/fermyon-cloud-sqlite.toml");
    keeps_every_promise(["--manifest", manifest.to_str().unwrap()], 100);
}

#[test]
fn there_is_no_world_of_a_service_that_a_build_does_not_have() {
    let output = simulate(&["--host", "fermyon-cloud", "--about", "service"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    let says = "error: this component has no service: it is a build for WASI 0.2 without compare-and-swap\n";
    assert!(errors.ends_with(says), "{errors}");
}

#[test]
fn one_seed_is_one_run() {
    let [option, path] = on(&component());
    for [option, build] in [[&option, &path[..]], ["--host", "fermyon-cloud"]] {
        let output = simulate(&[option, build, "--seeds", "40", "--from", "1000", "--twice"]);
        let (found, errors) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{errors}{found}");
    }

    // In another process too.
    let replay = || simulate(&[&option, &path, "--seed", "1007", "--trace"]).stdout;
    let trace = replay();
    assert!(trace == replay());
    let trace = text(&trace);
    for part in [
        "client 1",
        "sends request 1 to",
        "takes request 1",
        "get event/",
        "for request 1",
    ] {
        assert!(trace.contains(part), "{trace}");
    }
    let other = simulate(&[&option, &path, "--seed", "1008", "--trace"]).stdout;
    assert!(trace != text(&other));
}

/// A mistake that somebody could make in the component: its name, and what is written instead of what.
struct Mutation {
    name: &'static str,
    /// The build that it is made in.
    features: &'static [&'static str],
    /// What the mistake is about: worlds of something else are not searched.
    about: &'static str,
    edits: &'static [(&'static str, &'static str, &'static str)],
}

/// Where a change is made: after the store was asked, and before the read that tells what came of it.
const ASKED: &str =
    "        match event.read().await {\n            Ok(after) if after.0.state.generation";

const TRUSTS_THE_SWAP: Mutation = Mutation {
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

const FORGETS_TO_READ_AGAIN: Mutation = Mutation {
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

const WAITS_FOR_ODD: Mutation = Mutation {
    name: "waits-for-odd",
    features: &[],
    about: "events",
    edits: &[(
        "event.rs",
        "!seen.state.is_version_of(start.state)",
        "!seen.state.is_version_of(start.state) && seen.state.is_set()",
    )],
};

const CACHES_THE_STATE: Mutation = Mutation {
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

const CREATES_BY_WRITING: Mutation = Mutation {
    name: "creates-by-writing",
    features: &[],
    about: "events",
    edits: &[(
        "strategy/exact.rs",
        "None => store.increment(event.key(), 0).await.map(drop),",
        "None => store.set(event.key(), b\"0\").await,",
    )],
};

const TAKES_NO_LAST_LOOK: Mutation = Mutation {
    name: "takes-no-last-look",
    features: &[],
    about: "events",
    edits: &[("event.rs", "readings.began < deadline\n", "false\n")],
};

const COMPARES_GENERATIONS: Mutation = Mutation {
    name: "compares-generations",
    features: &["plain"],
    about: "events",
    edits: &[(
        "event.rs",
        "!seen.state.is_version_of(start.state)",
        "seen.state.generation > start.state.generation",
    )],
};

const WRITES_NO_TAG: Mutation = Mutation {
    name: "writes-no-tag",
    features: &["plain"],
    about: "events",
    edits: &[(
        "strategy/plain.rs",
        "Some(Tag::Wide(tags()))",
        "Some(Tag::Wide(tags() & 0))",
    )],
};

const CLEARS_BLINDLY: Mutation = Mutation {
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

const TAKES_READINGS_UNDER_WAY: Mutation = Mutation {
    name: "takes-readings-under-way",
    features: &["plain"],
    about: "events",
    edits: &[(
        "event/readings.rs",
        "self.began > other.ended",
        "self.began > other.began",
    )],
};

const TICKS_WITHOUT_A_LEASE: Mutation = Mutation {
    name: "ticks-without-a-lease",
    features: &[],
    about: "service",
    edits: &[(
        "lease.rs",
        "Ok(Some(beats)) if beats == next => {",
        "Ok(Some(beats)) if beats == next || !is_doubtful => {",
    )],
};

const TAKES_OVER_UNSEALED: Mutation = Mutation {
    name: "takes-over-unsealed",
    features: &[],
    about: "service",
    edits: &[(
        "lease.rs",
        "if !self.seal(look, beats).await? {",
        "if beats == look.beats {",
    )],
};

const BELIEVES_WHAT_IT_READ_BEFORE: Mutation = Mutation {
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

const EXPECTS_NO_STORE_TO_GO_BACK: Mutation = Mutation {
    name: "expects-no-store-to-go-back",
    features: &[],
    about: "events",
    edits: &[(
        "event.rs",
        "!seen.state.is_version_of(start.state)",
        "seen.state.generation > start.state.generation",
    )],
};

const WAITS_FOR_THE_STORE: Mutation = Mutation {
    name: "waits-for-the-store",
    features: &["plain"],
    about: "events",
    edits: &[(
        "store/bounded.rs",
        "before(clock, deadline, call).await;",
        "before(clock, Duration::MAX, call).await;",
    )],
};

const STOPS_ITS_INSTANCE: Mutation = Mutation {
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

const SAYS_WHAT_IT_DID_TWICE: Mutation = Mutation {
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
const READS_NO_ERROR: Mutation = Mutation {
    name: "reads-no-error",
    features: &["store-sqlite"],
    about: "events",
    edits: &[(
        "wasi_0_3/sqlite.rs",
        ".collect()\n            .await\n            .map_err(from_spin)?",
        ".collect().await.unwrap_or_default()",
    )],
};

const SWAPS_BLINDLY: Mutation = Mutation {
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
const MUTATIONS: [&Mutation; 19] = [
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

/// If all tests run, the mutants are built while the first of them wait for what takes its time.
pub fn build_mutants_ahead() {
    static STARTED: Once = Once::new();

    let is_filtered = std::env::args().len() > 1;
    if !is_filtered {
        STARTED.call_once(|| drop(std::thread::spawn(|| MUTATIONS.map(mutant))));
    }
}

/// The component with a mistake in it, built once.
fn mutant(mutation: &Mutation) -> PathBuf {
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
    // What they depend on is built once for all. What is built for the next mistake gets the same name.
    let name = mutation.name;
    let built = format!("wasm32-wasip2/release/{}.wasm", package.replace('-', "_"));
    let command = format!(
        "nice cargo build --target wasm32-wasip2 --release --target-dir ../target && cp ../target/{built} {name}.wasm"
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
    let package = manifest["package"].as_table_mut().unwrap();
    package.insert("name".into(), name.into());
    let defaults = manifest["features"].as_table_mut().unwrap();
    defaults.insert("default".into(), features.to_vec().into());
    // A mistake is as good without the shipped component's optimizations, and is built in a moment.
    let profile = toml::toml! {
        opt-level = 1
        codegen-units = 16
        incremental = true
        lto = "off"
        strip = true
    };
    let profile = toml::Table::from_iter([("release".into(), profile.into())]);
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

/// Checks that the search finds the mistake, and that the seed that it names shows it again.
fn is_caught(mutation: &Mutation) {
    is_caught_from(0, mutation);
}

/// The same, if the search begins with this seed.
fn is_caught_from(first: u64, mutation: &Mutation) {
    let [option, path] = on(&mutant(mutation));
    let world = ["--about", mutation.about];
    let first = ["--from", &first.to_string()];
    let search = [
        &[&option, &path, "--seeds", "3000", "--fail-fast"][..],
        &first,
        &world,
    ];
    let output = simulate(&search.concat());
    let (found, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{errors}{found}");
    let (_, seed) = errors.split_once("--seed ").unwrap();
    let (seed, _) = seed.split_once(' ').unwrap();
    println!("{}, after {}", mutation.name, found.lines().next().unwrap());
    println!("{errors}");

    let replay = [&[&option, &path, "--seed", seed, "--trace"][..], &world];
    let replay = simulate(&replay.concat());
    assert_eq!(replay.status.code(), Some(1));
    assert!(text(&replay.stdout).contains("broken: "));
}

#[test]
fn it_finds_what_trusting_the_swap_does() {
    is_caught(&TRUSTS_THE_SWAP);
}

#[test]
fn it_finds_what_forgetting_to_read_again_does() {
    is_caught(&FORGETS_TO_READ_AGAIN);
}

#[test]
fn it_finds_what_reading_rows_and_not_their_error_does() {
    is_caught(&READS_NO_ERROR);
}

#[test]
fn it_finds_what_a_swap_in_sqlite_that_does_not_compare_does() {
    is_caught(&SWAPS_BLINDLY);
}

#[test]
fn it_finds_what_waiting_for_odd_does() {
    is_caught(&WAITS_FOR_ODD);
}

#[test]
fn it_finds_what_caching_the_state_does() {
    is_caught(&CACHES_THE_STATE);
}

#[test]
fn it_finds_what_creating_by_writing_does() {
    is_caught(&CREATES_BY_WRITING);
}

#[test]
fn it_finds_what_taking_no_last_look_does() {
    is_caught(&TAKES_NO_LAST_LOOK);
}

#[test]
fn it_finds_what_ticking_without_a_lease_does() {
    is_caught(&TICKS_WITHOUT_A_LEASE);
}

#[test]
fn it_finds_what_a_takeover_without_a_seal_does() {
    is_caught(&TAKES_OVER_UNSEALED);
}

#[test]
fn it_finds_what_comparing_generations_does() {
    is_caught(&COMPARES_GENERATIONS);
}

#[test]
fn it_finds_what_writing_no_tag_does() {
    is_caught(&WRITES_NO_TAG);
}

#[test]
fn it_finds_what_clearing_blindly_does() {
    is_caught(&CLEARS_BLINDLY);
}

#[test]
fn it_finds_what_taking_readings_that_were_under_way_does() {
    is_caught(&TAKES_READINGS_UNDER_WAY);
}

#[test]
fn it_finds_what_believing_a_reading_of_before_does_when_the_store_goes_back() {
    is_caught(&BELIEVES_WHAT_IT_READ_BEFORE);
}

#[test]
fn it_finds_what_expecting_that_no_store_goes_back_does() {
    is_caught(&EXPECTS_NO_STORE_TO_GO_BACK);
}

#[test]
fn it_finds_what_waiting_for_a_store_that_hangs_does() {
    is_caught(&WAITS_FOR_THE_STORE);
}

#[test]
fn it_finds_what_calls_that_cannot_be_given_up_do() {
    is_caught(&STOPS_ITS_INSTANCE);
}

#[test]
fn it_finds_what_saying_a_tick_that_was_counted_twice_does() {
    is_caught(&SAYS_WHAT_IT_DID_TWICE);
}
