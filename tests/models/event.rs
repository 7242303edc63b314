//! The event's protocols, checked exhaustively: every order in which a few processes can take their steps on the store,
//! with answers of swaps that are lies, a process that dies between any two steps, and a store that fails.
//!
//! What runs is the code that ships, `loopless::event`: see `replay.rs`.

mod process;
mod protocol;
mod value;

use std::io::{self, Write};
use std::sync::Once;

use process::Code;
use process::Operation::{self, Clear, Forget, IsSet, Set, Wait};
use protocol::Protocol;
use stateright::{Checker, Model};

/// Checks every state, with each strategy, and with compare-and-swap on both kinds of store.
fn holds(name: &str, protocol: &Protocol) {
    holds_on("Redis", name, protocol);
    let is_sqlite = true;
    holds_on(
        "SQLite",
        name,
        &Protocol {
            is_sqlite,
            ..protocol.clone()
        },
    );
    let code = Code::Plain;
    holds_on(
        "registers",
        name,
        &Protocol {
            code,
            ..protocol.clone()
        },
    );
}

/// Says what takes long. The test harness captures what is printed by macros, and not this.
fn say_what_takes_long() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let what = "The model checker takes every order of steps of small programs: half a minute";
        _ = writeln!(io::stderr(), "{what}");
    });
}

fn holds_on(store: &str, name: &str, protocol: &Protocol) {
    say_what_takes_long();
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    println!(
        "{name}, {store}: {} states, {} steps at most",
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

#[test]
fn two_writers_that_set_and_a_reader() {
    let programs = [&[Set][..], &[Set], &[IsSet, IsSet]];
    let protocol = Protocol {
        lies: true,
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("two setters, one reader, lies, one death", &protocol);
}

#[test]
fn a_writer_that_sets_against_one_that_clears_and_a_waiter() {
    let programs = [&[Set][..], &[Set, Clear], &[Wait]];
    holds("set, pulse, wait", &Protocol::new(&programs));
}

#[test]
fn a_pulse_and_two_waiters() {
    let programs = [&[Set, Clear][..], &[Wait], &[Wait]];
    let protocol = Protocol {
        lies: true,
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("pulse, two waiters, lies, one death", &protocol);
}

#[test]
fn three_writers() {
    let programs = [&[Set][..], &[Clear], &[Set]];
    let protocol = Protocol {
        lies: true,
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("three writers, lies, one death", &protocol);
}

#[test]
fn three_writers_and_a_waiter() {
    let programs = [&[Set][..], &[Clear], &[Set], &[Wait]];
    let protocol = Protocol {
        lies: true,
        ..Protocol::new(&programs)
    };
    holds("three writers, one waiter, lies", &protocol);
}

#[test]
fn two_writers_and_two_waiters() {
    let programs = [&[Set][..], &[Set], &[Wait], &[Wait]];
    let protocol = Protocol {
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("two writers, two waiters, one death", &protocol);
}

#[test]
fn a_store_that_fails_with_or_without_doing_its_work() {
    let programs = [&[Set][..], &[Set, Clear], &[IsSet]];
    let protocol = Protocol {
        faults: 1,
        ..Protocol::new(&programs)
    };
    holds("set, pulse, read, one fault", &protocol);
}

#[test]
fn an_event_that_is_forgotten_meanwhile() {
    let programs = [&[Set, Forget][..], &[Set], &[Wait]];
    holds("set and forget, set, wait", &Protocol::new(&programs));
}

#[test]
fn the_check_finds_what_trusting_the_swap_does() {
    let protocol = Protocol {
        code: Code::TrustsTheSwap,
        lies: true,
        ..Protocol::new(&[&[Set], &[Clear]])
    };
    fails(protocol, "the generation never goes back");
}

#[test]
fn the_check_finds_what_waiting_for_odd_does() {
    let protocol = Protocol {
        code: Code::WaitsForOdd,
        ..Protocol::new(&[&[Set, Clear], &[Wait]])
    };
    fails(protocol, "no wait misses a set");
}

#[test]
fn the_check_finds_what_get_then_set_does() {
    let protocol = Protocol {
        code: Code::GetsThenSets,
        ..Protocol::new(&[&[Set], &[Set, Clear]])
    };
    fails(protocol, "the generation never goes back");
}

#[test]
fn the_check_finds_what_a_swap_from_no_value_does_on_sqlite() {
    let protocol = Protocol {
        code: Code::SwapsFromAbsent,
        is_sqlite: true,
        ..Protocol::new(&[&[Set], &[Set, Clear]])
    };
    fails(protocol, "the generation never goes back");
}

#[test]
fn the_check_finds_what_a_change_without_a_tag_does() {
    // A clear that has read the first set, and writes after the second one.
    let protocol = Protocol {
        code: Code::HasNoTags,
        ..Protocol::new(&[&[Set, Clear, Set], &[Clear], &[Wait]])
    };
    fails(protocol, "no wait misses a set");
}

#[test]
fn the_check_finds_what_comparing_generations_does_without_compare_and_swap() {
    let protocol = Protocol {
        code: Code::ComparesGenerations,
        ..Protocol::new(&[&[Set, Clear, Set], &[Clear], &[Wait]])
    };
    fails(protocol, "no wait misses a set");
}

#[test]
fn the_check_finds_what_a_blind_clear_does() {
    let protocol = Protocol {
        code: Code::ClearsBlindly,
        ..Protocol::new(&[&[Clear], &[Wait]])
    };
    fails(protocol, "no wait returns without a set");
}

#[test]
fn two_clears_that_race_with_a_set_and_a_waiter() {
    let programs = [&[Set, Clear][..], &[Clear], &[Wait]];
    let protocol = Protocol {
        deaths: 1,
        ..Protocol::new(&programs)
    };
    holds("pulse, clear, wait, one death", &protocol);
}

#[test]
fn three_that_change_and_one_that_waits_on_registers_that_fail() {
    let programs = [&[Set, Clear][..], &[Clear], &[Set, Forget], &[Wait]];
    let protocol = Protocol {
        code: Code::Plain,
        faults: 1,
        ..Protocol::new(&programs)
    };
    holds_on(
        "registers",
        "pulse, clear, set and forget, wait, one fault",
        &protocol,
    );
}

#[test]
fn registers_cannot_keep_the_promises_of_compare_and_swap() {
    let plain = |programs: &[&[Operation]]| Protocol {
        code: Code::Plain,
        is_strict: true,
        ..Protocol::new(programs)
    };
    let two_clears = plain(&[&[Set, Clear], &[Clear], &[Wait]]);
    fails(two_clears, "no wait returns without a set");
    let forgotten_at_once = plain(&[&[Set, Forget], &[Wait]]);
    fails(forgotten_at_once, "no wait misses a set");
}
