//! What a component promises, by the member `info.x-loopless` of its `/openapi.json`, and where each promise is checked.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

/// A promise. Its name in `/openapi.json` is that of the variant in kebab case.
///
/// The component's `src/promises.rs` has its text, and which builds make it. Each variant here says where it is checked: from
/// outside by the suite ([`conformance::full`](crate::conformance)), and under faults by the simulation
/// ([`simulate`](crate::simulate)).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Simulation: over all operations on an event.
    Linearizable,
    /// Suite: a wait ends with a set, and with a pulse. Simulation: no wait and no long poll misses a change.
    NoLostWakeUp,
    /// Suite: a forgotten event and a new one of the same name have different tags. Simulation: the event had every version
    /// that a response names, and a change from an earlier version is rejected.
    UniqueEtags,
    /// Suite and simulation: a stream alternates between set and clear.
    PulsesInStreams,
    /// Simulation: if a wait ends because the event was set, it was set during the wait.
    NoEarlyWakeUp,
    /// Suite: each change adds one, and streams have each. Simulation: the same in the store and in streams.
    Counted,
    /// Suite: the member `changed` of each change. Simulation: it agrees with the state before the change.
    Changed,
    /// Simulation: a wait that begins on an event without a value sees a set that is forgotten.
    ForgottenSets,
    /// Suite: changes from the current version and from another one. Simulation: no change from another version.
    Conditions,
    /// Suite: what the service says of itself. Simulation: the worlds of the service.
    Service,
    /// Not visible from outside: `tests/component/promises/waits.rs` counts the reads of an instance.
    SharedReads,
    /// A promise of a newer component, which is not checked.
    #[serde(other)]
    Unknown,
}

/// The promises of one build.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Contract {
    /// The version of WASI that the build is for, such as `0.3`.
    wasi: String,
    /// How the build changes an event: `exact` or `plain`.
    strategy: String,
    promises: BTreeSet<Promise>,
}

impl Contract {
    /// Reads the contract from an OpenAPI document.
    ///
    /// # Errors
    ///
    /// If the document has none.
    pub fn read(document: &Value) -> anyhow::Result<Self> {
        let contract = Self::deserialize(&document["info"]["x-loopless"]).ok();
        contract.context("/openapi.json does not say what the component promises (info.x-loopless)")
    }

    /// Whether the build uses compare-and-swap.
    pub fn is_exact(&self) -> bool {
        self.strategy == "exact"
    }

    /// Whether an instance serves many requests, and can cancel a call of its host.
    pub fn has_wasi_0_3(&self) -> bool {
        self.wasi == "0.3"
    }

    /// Whether the build makes this promise.
    pub fn keeps(&self, promise: Promise) -> bool {
        self.promises.contains(&promise)
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = if self.is_exact() { "with" } else { "without" };
        write!(f, "WASI {} {with} compare-and-swap", self.wasi)
    }
}
