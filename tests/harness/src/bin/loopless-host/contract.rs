//! What a component says that it promises: `info.x-loopless` of its `/openapi.json`. And where each promise is checked.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;

/// A promise, by its name in `/openapi.json`. What it says, and which builds make it, is in the component's `src/promises.rs`;
/// where it is checked, here: from outside by the suite (`conformance/full.rs`), and under faults by the simulation
/// (`simulate/promises.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Simulation: over everything that was done with an event.
    Linearizable,
    /// Suite: a wait ends with a set, and with a pulse. Simulation: no wait and no long poll missed a change.
    NoLostWakeUp,
    /// Suite: a forgotten event and a new one of its name have different tags. Simulation: every version that a response names
    /// was the event's at the time, and a change from an earlier version is refused.
    UniqueEtags,
    /// Suite and simulation: a stream is set and clear by turns.
    PulsesInStreams,
    /// Simulation: a wait that says that the event was set ends with a set that was there while it waited.
    NoEarlyWakeUp,
    /// Suite: each change adds one, and streams have each. Simulation: so does the store, and streams leave out none.
    Counted,
    /// Suite: `changed` of each change. Simulation: it is what the event was before.
    Changed,
    /// Simulation: a wait that began without an event knows of a set that was forgotten.
    ForgottenSets,
    /// Suite: changes from the current version and from another one. Simulation: no change from another version.
    Conditions,
    /// Suite: what the service says of itself. Simulation: `service.rs`.
    Service,
    /// How often instances read cannot be seen from outside: `tests/promises/waits.rs` counts it.
    SharedReads,
}

impl Promise {
    const NAMES: [(Self, &'static str); 11] = [
        (Self::Linearizable, "linearizable"),
        (Self::NoLostWakeUp, "no-lost-wake-up"),
        (Self::UniqueEtags, "unique-etags"),
        (Self::PulsesInStreams, "pulses-in-streams"),
        (Self::NoEarlyWakeUp, "no-early-wake-up"),
        (Self::Counted, "counted"),
        (Self::Changed, "changed"),
        (Self::ForgottenSets, "forgotten-sets"),
        (Self::Conditions, "conditions"),
        (Self::Service, "service"),
        (Self::SharedReads, "shared-reads"),
    ];

    /// The promise of this name. `None` for one that a newer component makes, and nobody checks here.
    fn named(name: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(_, its)| *its == name);
        named.map(|(promise, _)| *promise)
    }
}

/// The promises of one build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The version of WASI that it is built for, such as `0.3`.
    pub wasi: String,
    /// How it makes its changes: `exact` or `plain`.
    pub strategy: String,
    promises: BTreeSet<Promise>,
}

impl Contract {
    /// Reads it from an OpenAPI document.
    ///
    /// # Errors
    ///
    /// If the document says nothing of that.
    pub fn read(document: &Value) -> anyhow::Result<Self> {
        let build = &document["info"]["x-loopless"];
        let text = |key: &str| build[key].as_str().map(str::to_owned);
        let promises = build["promises"].as_array().map(|promises| {
            let ids = promises.iter().filter_map(Value::as_str);
            ids.filter_map(Promise::named).collect()
        });
        let contract = (|| {
            Some(Self {
                wasi: text("wasi")?,
                strategy: text("strategy")?,
                promises: promises?,
            })
        })();
        contract.context("/openapi.json does not say what the component promises (info.x-loopless)")
    }

    /// Whether its changes are made by compare-and-swap.
    pub fn is_exact(&self) -> bool {
        self.strategy == "exact"
    }

    /// Whether an instance serves many requests, and can give up a call of its host.
    pub fn has_wasi_0_3(&self) -> bool {
        self.wasi == "0.3"
    }

    /// Whether it makes this promise.
    pub fn keeps(&self, promise: Promise) -> bool {
        self.promises.contains(&promise)
    }
}

impl std::fmt::Display for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let with = if self.is_exact() { "with" } else { "without" };
        write!(f, "WASI {} {with} compare-and-swap", self.wasi)
    }
}
