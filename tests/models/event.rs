//! The event's protocols, model-checked: every order in which a few processes take their steps on the store, with false answers
//! to swaps, a process that dies between any two steps, and a store that fails.
//!
//! The processes execute the code that ships, `loopless::event`: see `replay.rs`.

mod process;
mod protocol;
mod value;

use std::io::{self, Write};
use std::sync::Once;

use process::Code;
use process::Operation::{Clear, Forget, IsSet, Set, Wait};
use protocol::Protocol;
use stateright::{Checker, Model};

/// Checks the properties in every state, with compare-and-swap on both kinds of store, and on registers.
fn holds(name: &str, protocol: Protocol) {
    holds_on("Redis", name, protocol.clone());
    holds_on("SQLite", name, protocol.clone().on_sqlite());
    holds_on("registers", name, protocol.with(Code::Plain));
}

/// Announces this slow suite. The test harness captures what macros print, but not this.
fn announce() {
    static ANNOUNCED: Once = Once::new();
    ANNOUNCED.call_once(|| {
        let what =
            "The model checker explores every order of steps of small programs: a few seconds";
        _ = writeln!(io::stderr(), "{what}");
    });
}

fn holds_on(store: &str, name: &str, protocol: Protocol) {
    announce();
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}, {store}: {} states, at most {} steps",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// Checks that there is a counterexample to this property.
fn fails(protocol: Protocol, property: &'static str) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    let path = checker.assert_any_discovery(property);
    println!(
        "{property}: fails after {} steps",
        path.into_actions().len()
    );
}

const LINEAR: &str = "the generation never goes back";
const MISSES_NOTHING: &str = "no wait misses a set";
const ENDS_WITH_A_SET: &str = "no wait returns without a set";

#[test]
fn the_properties_hold_for_two_setters_and_a_reader() {
    let protocol = Protocol::new(&[&[Set], &[Set], &[IsSet, IsSet]]);
    holds(
        "two setters, one reader, lies, one death",
        protocol.lies().deaths(1),
    );
}

#[test]
fn the_properties_hold_for_a_set_a_pulse_and_a_wait() {
    holds(
        "set, pulse, wait",
        Protocol::new(&[&[Set], &[Set, Clear], &[Wait]]),
    );
}

#[test]
fn the_properties_hold_for_a_pulse_and_two_waits() {
    let protocol = Protocol::new(&[&[Set, Clear], &[Wait], &[Wait]]);
    holds(
        "pulse, two waits, lies, one death",
        protocol.lies().deaths(1),
    );
}

#[test]
fn the_properties_hold_for_three_writers() {
    let protocol = Protocol::new(&[&[Set], &[Clear], &[Set]]);
    holds("three writers, lies, one death", protocol.lies().deaths(1));
}

#[test]
fn the_properties_hold_for_three_writers_and_a_wait() {
    let protocol = Protocol::new(&[&[Set], &[Clear], &[Set], &[Wait]]);
    holds("three writers, one wait, lies", protocol.lies());
}

#[test]
fn the_properties_hold_for_two_setters_and_two_waits() {
    let protocol = Protocol::new(&[&[Set], &[Set], &[Wait], &[Wait]]);
    holds("two setters, two waits, one death", protocol.deaths(1));
}

#[test]
fn the_properties_hold_on_a_store_that_fails_before_or_after_it_does_a_step() {
    let protocol = Protocol::new(&[&[Set], &[Set, Clear], &[IsSet]]);
    holds("set, pulse, read, one fault", protocol.faults(1));
}

#[test]
fn the_properties_hold_for_an_event_that_is_forgotten_during_a_wait() {
    holds(
        "set and forget, set, wait",
        Protocol::new(&[&[Set, Forget], &[Set], &[Wait]]),
    );
}

#[test]
fn the_properties_hold_for_two_clears_that_race_with_a_set_and_a_wait() {
    let protocol = Protocol::new(&[&[Set, Clear], &[Clear], &[Wait]]);
    holds("pulse, clear, wait, one death", protocol.deaths(1));
}

#[test]
fn the_properties_hold_on_registers_that_fail() {
    let protocol = Protocol::new(&[&[Set, Clear], &[Clear], &[Set, Forget], &[Wait]]);
    holds_on(
        "registers",
        "pulse, clear, set and forget, wait, one fault",
        protocol.with(Code::Plain).faults(1),
    );
}

#[test]
fn the_model_checker_finds_that_the_answer_to_a_swap_cannot_be_trusted() {
    let protocol = Protocol::new(&[&[Set], &[Clear]]).with(Code::TrustsTheSwap);
    fails(protocol.lies(), LINEAR);
}

#[test]
fn the_model_checker_finds_that_a_wait_for_an_odd_generation_misses_a_pulse() {
    let protocol = Protocol::new(&[&[Set, Clear], &[Wait]]);
    fails(protocol.with(Code::WaitsForOdd), MISSES_NOTHING);
}

#[test]
fn the_model_checker_finds_that_a_read_and_a_write_are_no_swap() {
    let protocol = Protocol::new(&[&[Set], &[Set, Clear]]);
    fails(protocol.with(Code::GetsThenSets), LINEAR);
}

#[test]
fn the_model_checker_finds_that_a_swap_from_no_value_is_blind_on_sqlite() {
    let protocol = Protocol::new(&[&[Set], &[Set, Clear]]);
    fails(protocol.with(Code::SwapsFromAbsent).on_sqlite(), LINEAR);
}

#[test]
fn the_model_checker_finds_that_changes_on_registers_need_tags() {
    // A clear that has read the first set writes after the second one.
    let protocol = Protocol::new(&[&[Set, Clear, Set], &[Clear], &[Wait]]);
    fails(protocol.with(Code::HasNoTags), MISSES_NOTHING);
}

#[test]
fn the_model_checker_finds_that_generations_on_registers_cannot_be_compared() {
    let protocol = Protocol::new(&[&[Set, Clear, Set], &[Clear], &[Wait]]);
    fails(protocol.with(Code::ComparesGenerations), MISSES_NOTHING);
}

#[test]
fn the_model_checker_finds_that_a_clear_must_read_before_it_writes() {
    let protocol = Protocol::new(&[&[Clear], &[Wait]]);
    fails(protocol.with(Code::ClearsBlindly), ENDS_WITH_A_SET);
}

#[test]
fn the_model_checker_finds_that_registers_cannot_keep_the_promises_of_compare_and_swap() {
    let two_clears = Protocol::new(&[&[Set, Clear], &[Clear], &[Wait]]);
    fails(two_clears.with(Code::Plain).strict(), ENDS_WITH_A_SET);
    let forgotten_at_once = Protocol::new(&[&[Set, Forget], &[Wait]]);
    fails(forgotten_at_once.with(Code::Plain).strict(), MISSES_NOTHING);
}
