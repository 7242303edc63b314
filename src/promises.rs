//! The table of promises, and which build keeps which.
//!
//! `/openapi.json` lists the promises of the build that serves it, in `info.x-loopless`. The [deployment
//! guide](crate::guide::deployment) has the same table, which a test compares. The conformance suite checks the promises of a
//! server, and `tests/component/promises` those of each build.

use std::fmt;

/// What the host of a build has, according to the build's features. See [Builds](crate#builds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Whether the host runs WASI 0.3: an instance serves many requests, and tasks can outlive them.
    pub has_wasi_0_3: bool,
    /// Whether the store has compare-and-swap and counters.
    pub has_atomics: bool,
}

impl Build {
    /// For Spin 4.1 and newer: no feature, `store-sqlite` or `store-redis`. For Akamai Functions with Redis too.
    pub const SPIN: Self = Self {
        has_wasi_0_3: true,
        has_atomics: true,
    };

    /// For Akamai Functions: `plain`.
    pub const AKAMAI_FUNCTIONS: Self = Self {
        has_atomics: false,
        ..Self::SPIN
    };

    /// For Fermyon Cloud, and for Spin 2.3 to 3: `wasi-0-2` and `plain`.
    pub const FERMYON_CLOUD: Self = Self {
        has_wasi_0_3: false,
        ..Self::AKAMAI_FUNCTIONS
    };

    /// For Spin 2 and 3, and for Fermyon Cloud with SQLite: `wasi-0-2`, and `store-sqlite` or `store-redis`.
    pub const WASI_0_2: Self = Self {
        has_wasi_0_3: false,
        ..Self::SPIN
    };

    /// Returns whether this build has the service, which needs a lease and tasks that outlive their request.
    pub fn has_service(self) -> bool {
        self.has_atomics && self.has_wasi_0_3
    }

    /// Returns whether this build keeps `promise`.
    pub fn keeps(self, promise: &Promise) -> bool {
        (self.has_atomics || !promise.needs_atomics)
            && (self.has_wasi_0_3 || !promise.needs_wasi_0_3)
    }

    /// Returns the description of this build for `/openapi.json`, as JSON.
    pub(crate) fn document(self) -> String {
        let kept = PROMISES.iter().filter(|promise| self.keeps(promise));
        let kept: Vec<_> = kept.map(|promise| promise.id).collect();
        let wasi = if self.has_wasi_0_3 { "0.3" } else { "0.2" };
        let strategy = if self.has_atomics { "exact" } else { "plain" };
        let promises = serde_json::to_value(kept).unwrap_or_default();
        serde_json::json!({ "wasi": wasi, "strategy": strategy, "promises": promises }).to_string()
    }
}

/// A name for people.
impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wasi = if self.has_wasi_0_3 { "0.3" } else { "0.2" };
        let atomics = if self.has_atomics { "with" } else { "without" };
        write!(f, "the build for WASI {wasi} {atomics} compare-and-swap")
    }
}

/// A guarantee that clients can rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The name in `/openapi.json`.
    pub id: &'static str,
    /// The text in the deployment guide.
    pub text: &'static str,
    /// Whether it needs a store with compare-and-swap.
    pub needs_atomics: bool,
    /// Whether it needs WASI 0.3.
    pub needs_wasi_0_3: bool,
}

/// A promise that every build keeps.
const fn always(id: &'static str, text: &'static str) -> Promise {
    Promise {
        id,
        text,
        needs_atomics: false,
        needs_wasi_0_3: false,
    }
}

/// A promise that a build keeps if the store has compare-and-swap.
const fn with_atomics(id: &'static str, text: &'static str) -> Promise {
    Promise {
        needs_atomics: true,
        ..always(id, text)
    }
}

/// All promises.
pub const PROMISES: [Promise; 11] = [
    always(
        "linearizable",
        "Setting, clearing, forgetting and reading are linearizable, as far as the store's own reads and writes are",
    ),
    always(
        "no-lost-wake-up",
        "No wait misses a set or a pulse that completes while it waits",
    ),
    always("unique-etags", "The `ETag` of a change never comes back"),
    always(
        "pulses-in-streams",
        "A stream reports every pulse as a set and a clear",
    ),
    with_atomics(
        "no-early-wake-up",
        "A wait answers 200 only if the event was set while it waited (otherwise: also on a clear that was already under way when it began)",
    ),
    with_atomics(
        "counted",
        "The generation counts every change and never goes back, and a stream reports each one once (otherwise: best effort)",
    ),
    with_atomics(
        "changed",
        "`\"changed\"` is true only if the event was in the other state (otherwise: best effort)",
    ),
    with_atomics(
        "forgotten-sets",
        "A set ends the waits even if the event is forgotten at once",
    ),
    with_atomics(
        "conditions",
        "A change with `If-Match` is made only from the given `ETag` (otherwise: 501)",
    ),
    Promise {
        needs_wasi_0_3: true,
        ..with_atomics("service", "The service runs (otherwise: 501)")
    },
    Promise {
        needs_wasi_0_3: true,
        ..always(
            "shared-reads",
            "All waits on an event in an instance share one stream of reads (otherwise: each has an instance and reads of its own)",
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_keeps_what_its_host_has_what_it_needs_for() {
        let kept = |build: Build| {
            PROMISES
                .iter()
                .filter(|promise| build.keeps(promise))
                .count()
        };
        assert_eq!(kept(Build::SPIN), PROMISES.len());
        assert_eq!(kept(Build::AKAMAI_FUNCTIONS), 5);
        assert_eq!(kept(Build::FERMYON_CLOUD), 4);
        assert_eq!(kept(Build::WASI_0_2), PROMISES.len() - 2);
        assert_eq!(
            Build::FERMYON_CLOUD.document(),
            r#"{"promises":["linearizable","no-lost-wake-up","unique-etags","pulses-in-streams"],"strategy":"plain","wasi":"0.2"}"#
        );
    }
}
