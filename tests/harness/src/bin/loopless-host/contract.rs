//! What a component says that it promises: `info.x-loopless` of its `/openapi.json`.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;

/// The promises of one build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The version of WASI that it is built for, such as `0.3`.
    pub wasi: String,
    /// How it makes its changes: `exact` or `plain`.
    pub strategy: String,
    promises: BTreeSet<String>,
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
            ids.map(str::to_owned).collect()
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

    /// Whether it makes the promise of this name.
    pub fn keeps(&self, promise: &str) -> bool {
        self.promises.contains(promise)
    }
}

impl std::fmt::Display for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let with = if self.is_exact() { "with" } else { "without" };
        write!(f, "WASI {} {with} compare-and-swap", self.wasi)
    }
}
