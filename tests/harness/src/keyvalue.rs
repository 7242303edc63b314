//! `spin:key-value@3.0.0`, its predecessor in `fermyon:spin@2.0.0`, and `wasi:keyvalue`, over one [`Store`].

mod spin_2;
mod spin_3;
mod wasi;

use std::sync::Arc;

use crate::handles::Handle;
use crate::store::{Quirks, Store};
use crate::view::View;

/// The only label that guests may open.
pub const LABEL: &str = "default";

/// A handle to the store, in all three interfaces.
pub type StoreHandle = Handle<()>;

/// A handle to a compare-and-swap.
pub type CasHandle = Handle<Cas>;

/// A compare-and-swap that has not been swapped yet.
#[derive(Debug)]
pub struct Cas {
    key: String,
    /// What `current` returned. If the guest has not called it, the swap is a blind write, on every host.
    seen: Option<Option<Vec<u8>>>,
}

/// The key-value store of one instance.
#[derive(Debug)]
pub struct KeyValue {
    pub store: Arc<dyn Store>,
    quirks: Quirks,
    cas_slots: usize,
}

impl KeyValue {
    pub fn new(store: Arc<dyn Store>, quirks: Quirks) -> Self {
        Self {
            store,
            quirks,
            cas_slots: 0,
        }
    }
}

impl View<'_> {
    /// Calls the store for the only request that an instance of WASI 0.2 serves.
    fn ask_now<F: Future, C: FnOnce(Arc<dyn Store>) -> F>(
        &self,
        call: C,
    ) -> impl Future<Output = F::Output> + use<F, C> {
        self.name_request(call(self.keyvalue.store.clone()))
    }
}
