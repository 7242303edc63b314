//! `spin:key-value@3.0.0`, the same of Spin 2 and 3, and `wasi:keyvalue`, over one [`Store`]: what the three
//! have in common.

mod spin_2;
mod spin_3;
mod wasi;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use wasmtime::AsContextMut;
use wasmtime::component::{Accessor, GuestTaskId, HasData, ResourceTable};

use crate::call::Asker;
use crate::redis::Outbound;
use crate::sqlite::Databases;
use crate::store::{Error, Quirks, Store};

/// The one label that guests may open.
pub const LABEL: &str = "default";

/// The handles of all instances of a host.
#[derive(Debug, Default)]
pub struct Handles {
    open: AtomicUsize,
    most_in_instance: AtomicUsize,
}

impl Handles {
    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The most that one instance has had open at the same time, of all instances so far.
    pub fn most_in_instance(&self) -> usize {
        self.most_in_instance.load(Ordering::Relaxed)
    }
}

/// The handles of one instance.
#[derive(Debug)]
struct Own {
    open: AtomicUsize,
    all: Arc<Handles>,
}

impl Own {
    /// Counts one more, until that is dropped: by the guest, or with its instance.
    fn open(self: &Arc<Self>) -> Opened {
        let own = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.all.open.fetch_add(1, Ordering::Relaxed);
        self.all.most_in_instance.fetch_max(own, Ordering::Relaxed);
        Opened(self.clone())
    }
}

/// A handle that is counted.
#[derive(Debug)]
pub struct Opened(Arc<Own>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.all.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open store, in either interface.
#[derive(Debug)]
pub struct Handle {
    _opened: Opened,
}

/// A compare-and-swap that has not been swapped yet.
#[derive(Debug)]
pub struct Cas {
    key: String,
    /// What `current` saw. A swap without it is a blind write, on every host.
    seen: Option<Option<Vec<u8>>>,
    _opened: Opened,
}

/// One instance's part of the key-value host.
#[derive(Debug)]
pub struct KeyValue {
    store: Arc<dyn Store>,
    quirks: Quirks,
    cas_slots: usize,
    names_requests: bool,
    /// Cancelled when what abandoned requests ask is answered.
    released: CancellationToken,
    handles: Arc<Own>,
}

impl KeyValue {
    /// Over this store, which is told whose calls it gets ([`current_request`]) if it `names_requests`. It gets no calls
    /// of abandoned requests: they are held back until they are `released`, and then answered with an error. Its handles
    /// are counted among `handles`.
    pub fn new(
        store: Arc<dyn Store>,
        quirks: Quirks,
        names_requests: bool,
        released: CancellationToken,
        handles: Arc<Handles>,
    ) -> Self {
        Self {
            store,
            quirks,
            cas_slots: 0,
            names_requests,
            released,
            handles: Arc::new(Own {
                open: AtomicUsize::new(0),
                all: handles,
            }),
        }
    }

    /// A handle of the guest's for the store.
    fn handle(&self) -> Handle {
        Handle {
            _opened: self.open(),
        }
    }

    /// Counts one more handle of the guest's.
    pub fn open(&self) -> Opened {
        self.handles.open()
    }
}

tokio::task_local! {
    static REQUEST: u64;
}

/// The number of the request that a store is working for, where that is known. A call of `wasi:keyvalue` stops its
/// instance, which tells nothing of who made it.
pub fn current_request() -> Option<u64> {
    REQUEST.try_get().ok()
}

/// What the interfaces of stores borrow from an instance's state.
pub struct View<'a> {
    pub keyvalue: &'a mut KeyValue,
    pub databases: &'a Databases,
    pub outbound: &'a Arc<Outbound>,
    pub table: &'a mut ResourceTable,
    pub requests: &'a HashMap<GuestTaskId, Asker>,
}

/// Names [`View`] to the linker.
pub struct Data;

impl HasData for Data {
    type Data<'a> = View<'a>;
}

/// Asks the store of an instance, or another one, in the name of the request that asks.
pub async fn ask<T: Send, V, F: Future<Output = Result<V, Error>>>(
    accessor: &Accessor<T, Data>,
    call: impl FnOnce(Arc<dyn Store>) -> F,
) -> wasmtime::Result<F::Output> {
    let (store, asker, names_requests) = accessor.with(|mut access| {
        let task = access.as_context_mut().async_call_stack()?.last();
        let View {
            keyvalue, requests, ..
        } = access.get();
        let asker = task.and_then(|task| requests.get(&task).cloned());
        wasmtime::error::Ok((keyvalue.store.clone(), asker, keyvalue.names_requests))
    })?;
    if asker.as_ref().is_some_and(Asker::is_abandoned) {
        // Not an error at once: a guest that tries again would take the place of those that somebody waits for.
        let released = accessor.with(|mut access| access.get().keyvalue.released.clone());
        released.cancelled().await;
        return Ok(Err(Error("nobody waits for this request any more".into())));
    }
    let call = call(store);
    Ok(match asker.filter(|_| names_requests) {
        None => call.await,
        Some(Asker { request, .. }) => REQUEST.scope(request, call).await,
    })
}

impl View<'_> {
    /// Makes a call in the name of the one request that there can be in an instance of WASI 0.2.
    pub fn name_request<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        let request = self.requests.values().next().map(|asker| asker.request);
        let request = request.filter(|_| self.keyvalue.names_requests);
        async move {
            match request {
                Some(request) => REQUEST.scope(request, call).await,
                None => call.await,
            }
        }
    }

    /// Asks the store in the name of that request.
    fn ask_now<F: Future, C: FnOnce(Arc<dyn Store>) -> F>(
        &self,
        call: C,
    ) -> impl Future<Output = F::Output> + use<F, C> {
        self.name_request(call(self.keyvalue.store.clone()))
    }
}
