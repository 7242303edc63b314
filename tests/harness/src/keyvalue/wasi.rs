//! `store`, `batch` and `atomics` of `wasi:keyvalue`.

use wasmtime::component::Resource;

use super::{Cas, CasHandle, KeyValue, LABEL, StoreHandle};
use crate::bindings::wasi::keyvalue::{atomics, batch, store as wasi};
use crate::store::{Error, Quirks};
use crate::view::View;

/// The most compare-and-swap handles that Spin keeps for an instance.
const SPIN_CAS_SLOTS: usize = 256;

impl From<Error> for wasi::Error {
    fn from(error: Error) -> Self {
        Self::Other(error.0)
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        _: Resource<StoreHandle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<(String, Option<Vec<u8>>)>, wasi::Error>> {
        let mut values = Vec::new();
        for key in keys {
            match self.keyvalue.store.get(&key).await {
                Ok(value) => values.push((key, value)),
                Err(error) => return Ok(Err(error.into())),
            }
        }
        Ok(Ok(values))
    }

    async fn set_many(
        &mut self,
        _: Resource<StoreHandle>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        for (key, value) in pairs {
            if let Err(error) = self.keyvalue.store.set(&key, &value).await {
                return Ok(Err(error.into()));
            }
        }
        Ok(Ok(()))
    }

    async fn delete_many(
        &mut self,
        _: Resource<StoreHandle>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        for key in keys {
            if let Err(error) = self.keyvalue.store.delete(&key).await {
                return Ok(Err(error.into()));
            }
        }
        Ok(Ok(()))
    }
}

impl wasi::Host for View<'_> {
    async fn open(
        &mut self,
        identifier: String,
    ) -> wasmtime::Result<Result<Resource<StoreHandle>, wasi::Error>> {
        if identifier != LABEL {
            return Ok(Err(wasi::Error::AccessDenied));
        }
        let opened = self.keyvalue.store.open().await;
        self.push_opened(opened)
    }
}

impl wasi::HostBucket for View<'_> {
    async fn get(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, wasi::Error>> {
        Ok(self.keyvalue.store.get(&key).await.map_err(Into::into))
    }

    async fn set(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        let set = self.keyvalue.store.set(&key, &value).await;
        Ok(set.map_err(Into::into))
    }

    async fn delete(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<(), wasi::Error>> {
        Ok(self.keyvalue.store.delete(&key).await.map_err(Into::into))
    }

    async fn exists(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<bool, wasi::Error>> {
        let value = self.keyvalue.store.get(&key).await;
        Ok(value.map(|value| value.is_some()).map_err(Into::into))
    }

    async fn list_keys(
        &mut self,
        _: Resource<StoreHandle>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<wasi::KeyResponse, wasi::Error>> {
        if cursor.is_some() {
            // Spin's answer: a list is always complete.
            return Ok(Err(wasi::Error::Other(
                "list_keys: cursor not supported".into(),
            )));
        }
        let keys = self.keyvalue.store.keys().await;
        Ok(keys
            .map(|keys| wasi::KeyResponse { keys, cursor: None })
            .map_err(Into::into))
    }

    async fn drop(&mut self, handle: Resource<StoreHandle>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

impl View<'_> {
    fn push_cas(
        &mut self,
        key: String,
    ) -> wasmtime::Result<Result<Resource<CasHandle>, wasi::Error>> {
        let is_spin = self.keyvalue.quirks != Quirks::Exact;
        if is_spin && self.keyvalue.cas_slots >= SPIN_CAS_SLOTS {
            return Ok(Err(wasi::Error::Other(
                "too many compare_and_swaps opened".into(),
            )));
        }
        self.keyvalue.cas_slots += 1;
        Ok(Ok(self.push(Cas { key, seen: None })?))
    }
}

impl atomics::HostCas for View<'_> {
    async fn new(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<CasHandle>, wasi::Error>> {
        self.push_cas(key)
    }

    async fn current(
        &mut self,
        cas: Resource<CasHandle>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, wasi::Error>> {
        let key = self.table.get(&cas)?.inner.key.clone();
        let current = self.keyvalue.store.get(&key).await;
        if let Ok(value) = &current {
            self.table.get_mut(&cas)?.inner.seen = Some(value.clone());
        }
        Ok(current.map_err(Into::into))
    }

    async fn drop(&mut self, cas: Resource<CasHandle>) -> wasmtime::Result<()> {
        self.close(cas)?;
        self.keyvalue.cas_slots -= 1;
        Ok(())
    }
}

impl atomics::Host for View<'_> {
    async fn increment(
        &mut self,
        _: Resource<StoreHandle>,
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
        Ok(sum.map_err(Into::into))
    }

    async fn swap(
        &mut self,
        cas: Resource<CasHandle>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let cas = self.table.delete(cas)?;
        if self.keyvalue.quirks == Quirks::Exact {
            self.keyvalue.cas_slots -= 1;
        }
        let KeyValue { store, quirks, .. } = &*self.keyvalue;
        let Cas { key, seen } = &cas.inner;
        let seen = seen.as_ref().map(Option::as_deref);
        match quirks.swap(&**store, key, seen, &value).await {
            Ok(true) => Ok(Ok(())),
            // A failed swap returns a handle for the next attempt, which has seen the current value.
            Ok(false) => match self.push_cas(cas.inner.key)? {
                Ok(next) => {
                    let again = Resource::new_borrow(next.rep());
                    Ok(Err(match atomics::HostCas::current(self, again).await? {
                        Ok(_) => atomics::CasError::CasFailed(next),
                        Err(error) => atomics::CasError::StoreError(error),
                    }))
                }
                Err(error) => Ok(Err(atomics::CasError::StoreError(error))),
            },
            Err(error) => Ok(Err(atomics::CasError::StoreError(error.into()))),
        }
    }
}
