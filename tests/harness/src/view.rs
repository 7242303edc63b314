//! [`View`]: what the implementations of Spin's interfaces see of an instance, and for which request they work.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wasmtime::AsContextMut;
use wasmtime::component::{Accessor, GuestTaskId, HasData, Resource, ResourceTable};

use crate::call::Asker;
use crate::handles::{Handle, InstanceHandles};
use crate::keyvalue::KeyValue;
use crate::redis::Outbound;
use crate::sqlite::Databases;
use crate::store::{Error, Store};
use crate::variables::Variables;

/// What the interfaces borrow from an instance's state.
pub struct View<'a> {
    pub keyvalue: &'a mut KeyValue,
    pub databases: &'a Arc<Databases>,
    pub outbound: &'a Arc<Outbound>,
    pub variables: &'a Variables,
    pub handles: &'a Arc<InstanceHandles>,
    pub table: &'a mut ResourceTable,
    pub requests: &'a Requests,
}

/// Names [`View`] to the linker.
pub struct Data;

impl HasData for Data {
    type Data<'a> = View<'a>;
}

impl View<'_> {
    /// Gives the guest a handle to `inner`.
    pub fn push<T: Send + 'static>(&mut self, inner: T) -> wasmtime::Result<Resource<Handle<T>>> {
        Ok(self.table.push(self.handles.open(inner))?)
    }

    /// Gives the guest a handle to what was opened, or the error.
    pub fn push_opened<T: Send + 'static, E, G: From<E>>(
        &mut self,
        opened: Result<T, E>,
    ) -> wasmtime::Result<Result<Resource<Handle<T>>, G>> {
        match opened {
            Ok(inner) => Ok(Ok(self.push(inner)?)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// What a handle of the guest is to.
    pub fn inner<T: Clone + 'static>(&self, handle: &Resource<Handle<T>>) -> wasmtime::Result<T> {
        Ok(self.table.get(handle)?.inner.clone())
    }

    /// Drops a handle for the guest.
    pub fn close<T: 'static>(&mut self, handle: Resource<Handle<T>>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

/// The requests that an instance serves, by the tasks that serve them.
#[derive(Debug)]
pub struct Requests {
    by_task: HashMap<GuestTaskId, Asker>,
    /// Whether stores may ask for the [`current_request`].
    are_named: bool,
    /// Cancelled when the calls of abandoned requests get their answer, an error.
    released: CancellationToken,
}

impl Requests {
    pub fn new(are_named: bool, released: CancellationToken) -> Self {
        Self {
            by_task: HashMap::new(),
            are_named,
            released,
        }
    }

    /// A task of the guest begins to serve a request.
    pub fn insert(&mut self, task: GuestTaskId, asker: Asker) {
        self.by_task.insert(task, asker);
    }
}

tokio::task_local! {
    static REQUEST: u64;
}

/// The number of the request for which a store is called, if it is known.
///
/// A call of `wasi:keyvalue` blocks its whole instance, and does not tell which request makes it.
pub fn current_request() -> Option<u64> {
    REQUEST.try_get().ok()
}

/// Makes a call for this request.
async fn name<F: Future>(request: Option<u64>, call: F) -> F::Output {
    match request {
        Some(request) => REQUEST.scope(request, call).await,
        None => call.await,
    }
}

/// Makes a call, of the instance's store or of something else, for the request whose task makes it.
///
/// A request that was abandoned makes no more calls: it waits until abandoned requests are released, and gets an error.
pub async fn ask<T: Send, V, E: From<Error>, F: Future<Output = Result<V, E>>>(
    accessor: &Accessor<T, Data>,
    call: impl FnOnce(Arc<dyn Store>) -> F,
) -> wasmtime::Result<F::Output> {
    let (store, asker, are_named) = accessor.with(|mut access| {
        let task = access.as_context_mut().async_call_stack()?.last();
        let View {
            keyvalue, requests, ..
        } = access.get();
        let asker = task.and_then(|task| requests.by_task.get(&task).cloned());
        wasmtime::error::Ok((keyvalue.store.clone(), asker, requests.are_named))
    })?;
    if asker.as_ref().is_some_and(Asker::is_abandoned) {
        // An error at once would let a guest that retries take time from the requests that somebody waits for.
        let released = accessor.with(|mut access| access.get().requests.released.clone());
        released.cancelled().await;
        return Ok(Err(
            Error("the client has cancelled this request".into()).into()
        ));
    }
    let request = asker.filter(|_| are_named).map(|asker| asker.request);
    Ok(name(request, call(store)).await)
}

impl View<'_> {
    /// Makes a call for the only request that an instance of WASI 0.2 serves.
    pub fn name_request<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        let request = self.requests.by_task.values().next();
        let request = request.filter(|_| self.requests.are_named);
        name(request.map(|asker| asker.request), call)
    }
}
