//! `spin:key-value@3.0.0`, the same of Spin 2 and 3, and `wasi:keyvalue`, over one [`Store`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::AsContextMut;
use wasmtime::component::{
    Accessor, FutureReader, GuestTaskId, HasData, Resource, ResourceTable, StreamReader,
};

use tokio_util::sync::CancellationToken;

use crate::bindings::fermyon::spin::key_value as two;
use crate::bindings::spin::key_value::key_value as spin;
use crate::bindings::wasi::keyvalue::{atomics, batch, store as wasi};
use crate::call::Asker;
use crate::redis::Outbound;
use crate::sqlite::Databases;
use crate::store::{Error, Quirks, Store};

/// The one label that guests may open.
pub const LABEL: &str = "default";

/// How many compare-and-swap handles Spin has room for in an instance.
const SPIN_CAS_SLOTS: usize = 256;

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
    /// What [`current`](atomics::HostCas::current) saw. A swap without it is a blind write, on every host.
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

fn spin_error(error: Error) -> spin::Error {
    spin::Error::Other(error.0)
}

fn wasi_error(error: Error) -> wasi::Error {
    wasi::Error::Other(error.0)
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

impl spin::Host for View<'_> {}

impl spin::HostStore for View<'_> {
    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send> spin::HostStoreWithStore<T> for Data {
    async fn open(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, spin::Error>> {
        if label != LABEL {
            return Ok(Err(spin::Error::AccessDenied));
        }
        if let Err(error) = ask(accessor, |store| async move { store.open().await }).await? {
            return Ok(Err(spin_error(error)));
        }
        Ok(Ok(accessor.with(|mut access| {
            let View {
                keyvalue, table, ..
            } = access.get();
            table.push(keyvalue.handle())
        })?))
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, spin::Error>> {
        let value = ask(accessor, |store| async move { store.get(&key).await }).await?;
        Ok(value.map_err(spin_error))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        _: Resource<Handle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), spin::Error>> {
        let set = ask(
            accessor,
            |store| async move { store.set(&key, &value).await },
        )
        .await?;
        Ok(set.map_err(spin_error))
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<(), spin::Error>> {
        let deleted = ask(accessor, |store| async move { store.delete(&key).await }).await?;
        Ok(deleted.map_err(spin_error))
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<bool, spin::Error>> {
        let value = ask(accessor, |store| async move { store.get(&key).await }).await?;
        Ok(value.map(|value| value.is_some()).map_err(spin_error))
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        _: Resource<Handle>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), spin::Error>>)> {
        let (keys, end) = match ask(accessor, |store| async move { store.keys().await }).await? {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(spin_error(error))),
        };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            let end = FutureReader::new(&mut access, async { wasmtime::error::Ok(end) })?;
            Ok((keys, end))
        })
    }
}

fn two_error(error: Error) -> two::Error {
    two::Error::Other(error.0)
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

impl two::Host for View<'_> {}

impl two::HostStore for View<'_> {
    async fn open(
        &mut self,
        label: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, two::Error>> {
        if label != LABEL {
            return Ok(Err(two::Error::AccessDenied));
        }
        let opened = self.ask_now(|store| async move { store.open().await });
        if let Err(error) = opened.await {
            return Ok(Err(two_error(error)));
        }
        Ok(Ok(self.table.push(self.keyvalue.handle())?))
    }

    async fn get(
        &mut self,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, two::Error>> {
        let value = self.ask_now(|store| async move { store.get(&key).await });
        Ok(value.await.map_err(two_error))
    }

    async fn set(
        &mut self,
        _: Resource<Handle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let set = self.ask_now(|store| async move { store.set(&key, &value).await });
        Ok(set.await.map_err(two_error))
    }

    async fn delete(
        &mut self,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let deleted = self.ask_now(|store| async move { store.delete(&key).await });
        Ok(deleted.await.map_err(two_error))
    }

    async fn exists(
        &mut self,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<bool, two::Error>> {
        let value = self.ask_now(|store| async move { store.get(&key).await });
        let exists = value.await.map(|value| value.is_some());
        Ok(exists.map_err(two_error))
    }

    async fn get_keys(
        &mut self,
        _: Resource<Handle>,
    ) -> wasmtime::Result<Result<Vec<String>, two::Error>> {
        let keys = self.ask_now(|store| async move { store.keys().await });
        Ok(keys.await.map_err(two_error))
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        _: Resource<Handle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<(String, Option<Vec<u8>>)>, wasi::Error>> {
        let mut values = Vec::new();
        for key in keys {
            match self.keyvalue.store.get(&key).await {
                Ok(value) => values.push((key, value)),
                Err(error) => return Ok(Err(wasi_error(error))),
            }
        }
        Ok(Ok(values))
    }

    async fn set_many(
        &mut self,
        _: Resource<Handle>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        for (key, value) in pairs {
            if let Err(error) = self.keyvalue.store.set(&key, &value).await {
                return Ok(Err(wasi_error(error)));
            }
        }
        Ok(Ok(()))
    }

    async fn delete_many(
        &mut self,
        _: Resource<Handle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        for key in keys {
            if let Err(error) = self.keyvalue.store.delete(&key).await {
                return Ok(Err(wasi_error(error)));
            }
        }
        Ok(Ok(()))
    }
}

impl wasi::Host for View<'_> {
    async fn open(
        &mut self,
        identifier: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, wasi::Error>> {
        if identifier != LABEL {
            return Ok(Err(wasi::Error::AccessDenied));
        }
        if let Err(error) = self.keyvalue.store.open().await {
            return Ok(Err(wasi_error(error)));
        }
        Ok(Ok(self.table.push(self.keyvalue.handle())?))
    }
}

impl wasi::HostBucket for View<'_> {
    async fn get(
        &mut self,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, wasi::Error>> {
        Ok(self.keyvalue.store.get(&key).await.map_err(wasi_error))
    }

    async fn set(
        &mut self,
        _: Resource<Handle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        let set = self.keyvalue.store.set(&key, &value).await;
        Ok(set.map_err(wasi_error))
    }

    async fn delete(
        &mut self,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        Ok(self.keyvalue.store.delete(&key).await.map_err(wasi_error))
    }

    async fn exists(
        &mut self,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<bool, wasi::Error>> {
        let value = self.keyvalue.store.get(&key).await;
        Ok(value.map(|value| value.is_some()).map_err(wasi_error))
    }

    async fn list_keys(
        &mut self,
        _: Resource<Handle>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<wasi::KeyResponse, wasi::Error>> {
        if cursor.is_some() {
            // As Spin answers: a list is always whole.
            return Ok(Err(wasi::Error::Other(
                "list_keys: cursor not supported".into(),
            )));
        }
        let keys = self.keyvalue.store.keys().await;
        Ok(keys
            .map(|keys| wasi::KeyResponse { keys, cursor: None })
            .map_err(wasi_error))
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl View<'_> {
    fn push_cas(&mut self, key: String) -> wasmtime::Result<Result<Resource<Cas>, wasi::Error>> {
        let is_spin = self.keyvalue.quirks != Quirks::Exact;
        if is_spin && self.keyvalue.cas_slots >= SPIN_CAS_SLOTS {
            return Ok(Err(wasi::Error::Other(
                "too many compare_and_swaps opened".into(),
            )));
        }
        self.keyvalue.cas_slots += 1;
        Ok(Ok(self.table.push(Cas {
            key,
            seen: None,
            _opened: self.keyvalue.handles.open(),
        })?))
    }
}

impl atomics::HostCas for View<'_> {
    async fn new(
        &mut self,
        _: Resource<Handle>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<Cas>, wasi::Error>> {
        self.push_cas(key)
    }

    async fn current(
        &mut self,
        cas: Resource<Cas>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, wasi::Error>> {
        let key = self.table.get(&cas)?.key.clone();
        let current = self.keyvalue.store.get(&key).await;
        if let Ok(value) = &current {
            self.table.get_mut(&cas)?.seen = Some(value.clone());
        }
        Ok(current.map_err(wasi_error))
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        self.keyvalue.cas_slots -= 1;
        Ok(())
    }
}

impl atomics::Host for View<'_> {
    async fn increment(
        &mut self,
        _: Resource<Handle>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, wasi::Error>> {
        let KeyValue { store, quirks, .. } = &*self.keyvalue;
        if *quirks == Quirks::SpinSqlite
            && let Ok(Some(value)) = store.get(&key).await
            && value.len() != size_of::<i64>()
        {
            wasmtime::bail!("the host panics: the number under {key:?} has an incorrect length");
        }
        let numbers = quirks.numbers(&**store);
        let sum = store.increment(&key, delta, numbers).await;
        Ok(sum.map_err(wasi_error))
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let cas = self.table.delete(cas)?;
        if self.keyvalue.quirks == Quirks::Exact {
            self.keyvalue.cas_slots -= 1;
        }
        let KeyValue { store, quirks, .. } = &*self.keyvalue;
        let seen = cas.seen.as_ref().map(Option::as_deref);
        match quirks.swap(&**store, &cas.key, seen, &value).await {
            Ok(true) => Ok(Ok(())),
            // A failed swap comes with a handle for the next try, which knows the current value.
            Ok(false) => match self.push_cas(cas.key)? {
                Ok(next) => {
                    let again = Resource::new_borrow(next.rep());
                    Ok(Err(match atomics::HostCas::current(self, again).await? {
                        Ok(_) => atomics::CasError::CasFailed(next),
                        Err(error) => atomics::CasError::StoreError(error),
                    }))
                }
                Err(error) => Ok(Err(atomics::CasError::StoreError(error))),
            },
            Err(error) => Ok(Err(atomics::CasError::StoreError(wasi_error(error)))),
        }
    }
}
