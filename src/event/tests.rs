//! The contract of the event, on the store of every host.

mod changes;
mod plain;
mod waits;

use std::sync::Arc;

use loopless_host::store::{Operation, Quirks, Store as _};

use super::*;
use crate::clock::Tokio;
use crate::state::GENERATION_BITS;
use crate::store;
use crate::store::host::Host;
use crate::strategy::{self, Exact, Plain};

const KEY: &str = "event/e";

/// The tag that is made from random bits of 0.
const TAG: i64 = 1;

impl Host {
    /// A new instance on this store.
    fn instance(&self) -> Events<Exact<Host>, Tokio> {
        Events::new(Exact::new(self.clone(), || 0), Tokio::default())
    }

    /// A new instance on this store, without compare-and-swap.
    fn plain_instance(&self) -> Events<Plain<Host, impl Fn() -> u64 + Send + Sync + use<>>, Tokio> {
        Events::new(Plain::new(self.clone(), self.random()), Tokio::default())
    }
}

/// The state with this generation and the tag `TAG`. Below 0, it is forgotten.
fn state(generation: i64) -> State {
    strategy::state(generation.signum() * (TAG << GENERATION_BITS) + generation).unwrap()
}

/// The name of the event in the tests.
fn e() -> Name {
    Name::new("e").unwrap()
}

#[test]
fn names_are_what_needs_no_escape_in_a_url() {
    let longest = "x".repeat(64);
    for name in ["a", "Z", "0", "...", "_", "~", "-", "a.b_c~d-e", &longest] {
        assert_eq!(Name::new(name).unwrap().as_str(), name);
    }
    let too_long = "x".repeat(65);
    for name in [
        "", ".", "..", "a b", "a/b", "\u{e9}", "a%", "a?", "a:", "\0", &too_long,
    ] {
        assert_eq!(Name::new(name), None, "{name:?}");
    }
}
