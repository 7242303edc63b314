//! The promises hold in every world that a few hundred seeds make, and the search finds what breaks them.

mod mutants;

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Once;

use self::mutants::{Mutation, mutant};
use crate::memo::Memo;
use crate::support::{component, project};

/// A build whose worlds are searched: its manifest, and how many seeds.
type Build = (&'static str, u64);

const SPIN: Build = ("spin.toml", 300);
const AKAMAI_FUNCTIONS: Build = ("deploy/akamai-functions.toml", 200);
const FERMYON_CLOUD: Build = ("deploy/fermyon-cloud.toml", 200);
const SPIN_SQLITE: Build = ("deploy/spin-sqlite.toml", 200);
const FERMYON_CLOUD_SQLITE: Build = ("deploy/fermyon-cloud-sqlite.toml", 100);

const BUILDS: [Build; 5] = [
    SPIN,
    AKAMAI_FUNCTIONS,
    FERMYON_CLOUD,
    SPIN_SQLITE,
    FERMYON_CLOUD_SQLITE,
];

fn simulate(arguments: &[&str]) -> Output {
    // It computes, and other tests have deadlines.
    Command::new("nice")
        .arg(env!("CARGO_BIN_EXE_loopless-host"))
        .arg("simulate")
        .args(arguments)
        .output()
        .unwrap()
}

/// The result of a simulation with these arguments, which runs once in this process.
fn search(arguments: &[&str]) -> Output {
    static FOUND: Memo<String, Output> = Memo::new();

    let found = FOUND.get_or_make(arguments.join(" "), || Ok(simulate(arguments)));
    found.unwrap()
}

/// If all tests run, worlds are searched while the first tests wait for what takes its time.
pub fn search_ahead() {
    static STARTED: Once = Once::new();

    let is_filtered = std::env::args().len() > 1;
    if is_filtered {
        return;
    }
    STARTED.call_once(|| {
        std::thread::spawn(|| {
            for mutation in mutants::ALL {
                search_for(mutation);
            }
            for build in BUILDS {
                search_build(build);
            }
        });
    });
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
fn search_build((manifest, seeds): Build) -> Output {
    static SAID: Once = Once::new();

    say(
        &SAID,
        "The simulation searches 1,000 worlds: a minute or two",
    );
    let manifest = project().join(manifest);
    let manifest = ["--manifest", manifest.to_str().unwrap()];
    search(&[&manifest[..], &["--seeds", &seeds.to_string()]].concat())
}

fn keeps_every_promise(build: Build) {
    let output = search_build(build);
    let (found, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}{found}");
    let (_, seeds) = build;
    assert!(found.starts_with(&format!("{seeds} seeds")), "{found}");
    assert!(found.ends_with("all promises kept\n"), "{found}");
    println!("{found}");
}

#[test]
fn the_component_keeps_every_promise() {
    keeps_every_promise(SPIN);
}

#[test]
fn it_keeps_what_it_promises_without_compare_and_swap() {
    keeps_every_promise(AKAMAI_FUNCTIONS);
}

#[test]
fn it_keeps_what_it_promises_on_wasi_0_2() {
    keeps_every_promise(FERMYON_CLOUD);
}

#[test]
fn it_keeps_every_promise_on_sqlite() {
    keeps_every_promise(SPIN_SQLITE);
}

#[test]
fn it_keeps_the_exact_promises_on_sqlite_on_wasi_0_2() {
    keeps_every_promise(FERMYON_CLOUD_SQLITE);
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

/// The arguments that name worlds of the component that has this mistake.
fn worlds_of(mutation: &Mutation) -> [String; 4] {
    let [option, path] = on(&mutant(mutation));
    [option, path, "--about".into(), mutation.about.into()]
}

/// Searches worlds of the component that has this mistake, until one shows it.
fn search_for(mutation: &Mutation) -> Output {
    let worlds = worlds_of(mutation);
    let worlds = worlds.each_ref().map(String::as_str);
    let first = mutation.first_seed().to_string();
    let seeds = ["--seeds", "3000", "--fail-fast", "--from", &first];
    search(&[&worlds[..], &seeds].concat())
}

/// Checks that the search finds the mistake, and that the seed that it names shows it again.
fn is_caught(mutation: &Mutation) {
    let output = search_for(mutation);
    let (found, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{errors}{found}");
    let (_, seed) = errors.split_once("--seed ").unwrap();
    let (seed, _) = seed.split_once(' ').unwrap();
    println!("{}, after {}", mutation.name, found.lines().next().unwrap());
    println!("{errors}");

    let worlds = worlds_of(mutation);
    let worlds = worlds.each_ref().map(String::as_str);
    let replay = simulate(&[&worlds[..], &["--seed", seed, "--trace"]].concat());
    assert_eq!(replay.status.code(), Some(1));
    assert!(text(&replay.stdout).contains("broken: "));
}

#[test]
fn it_finds_what_trusting_the_swap_does() {
    is_caught(&mutants::TRUSTS_THE_SWAP);
}

#[test]
fn it_finds_what_forgetting_to_read_again_does() {
    is_caught(&mutants::FORGETS_TO_READ_AGAIN);
}

#[test]
fn it_finds_what_reading_rows_and_not_their_error_does() {
    is_caught(&mutants::READS_NO_ERROR);
}

#[test]
fn it_finds_what_a_swap_in_sqlite_that_does_not_compare_does() {
    is_caught(&mutants::SWAPS_BLINDLY);
}

#[test]
fn it_finds_what_waiting_for_odd_does() {
    is_caught(&mutants::WAITS_FOR_ODD);
}

#[test]
fn it_finds_what_caching_the_state_does() {
    is_caught(&mutants::CACHES_THE_STATE);
}

#[test]
fn it_finds_what_creating_by_writing_does() {
    is_caught(&mutants::CREATES_BY_WRITING);
}

#[test]
fn it_finds_what_taking_no_last_look_does() {
    is_caught(&mutants::TAKES_NO_LAST_LOOK);
}

#[test]
fn it_finds_what_ticking_without_a_lease_does() {
    is_caught(&mutants::TICKS_WITHOUT_A_LEASE);
}

#[test]
fn it_finds_what_a_takeover_without_a_seal_does() {
    is_caught(&mutants::TAKES_OVER_UNSEALED);
}

#[test]
fn it_finds_what_comparing_generations_does() {
    is_caught(&mutants::COMPARES_GENERATIONS);
}

#[test]
fn it_finds_what_writing_no_tag_does() {
    is_caught(&mutants::WRITES_NO_TAG);
}

#[test]
fn it_finds_what_clearing_blindly_does() {
    is_caught(&mutants::CLEARS_BLINDLY);
}

#[test]
fn it_finds_what_taking_readings_that_were_under_way_does() {
    is_caught(&mutants::TAKES_READINGS_UNDER_WAY);
}

#[test]
fn it_finds_what_believing_a_reading_of_before_does_when_the_store_goes_back() {
    is_caught(&mutants::BELIEVES_WHAT_IT_READ_BEFORE);
}

#[test]
fn it_finds_what_expecting_that_no_store_goes_back_does() {
    is_caught(&mutants::EXPECTS_NO_STORE_TO_GO_BACK);
}

#[test]
fn it_finds_what_waiting_for_a_store_that_hangs_does() {
    is_caught(&mutants::WAITS_FOR_THE_STORE);
}

#[test]
fn it_finds_what_calls_that_cannot_be_given_up_do() {
    is_caught(&mutants::STOPS_ITS_INSTANCE);
}

#[test]
fn it_finds_what_saying_a_tick_that_was_counted_twice_does() {
    is_caught(&mutants::SAYS_WHAT_IT_DID_TWICE);
}
