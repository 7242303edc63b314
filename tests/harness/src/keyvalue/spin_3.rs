//! `spin:key-value@3.0.0`.

use wasmtime::component::{Accessor, FutureReader, Resource, StreamReader};

use super::{LABEL, StoreHandle};
use crate::bindings::spin::key_value::key_value as spin;
use crate::store::Error;
use crate::view::{Data, View, ask};

impl From<Error> for spin::Error {
    fn from(error: Error) -> Self {
        Self::Other(error.0)
    }
}

impl spin::Host for View<'_> {}

impl spin::HostStore for View<'_> {
    async fn drop(&mut self, handle: Resource<StoreHandle>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}

impl<T: Send> spin::HostStoreWithStore<T> for Data {
    async fn open(
        accessor: &Accessor<T, Self>,
        label: String,
    ) -> wasmtime::Result<Result<Resource<StoreHandle>, spin::Error>> {
        if label != LABEL {
            return Ok(Err(spin::Error::AccessDenied));
        }
        let opened = ask(accessor, |store| async move { store.open().await }).await?;
        accessor.with(|mut access| access.get().push_opened(opened))
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, spin::Error>> {
        let value = ask(accessor, |store| async move { store.get(&key).await }).await?;
        Ok(value.map_err(Into::into))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        _: Resource<StoreHandle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), spin::Error>> {
        let set = ask(
            accessor,
            |store| async move { store.set(&key, &value).await },
        )
        .await?;
        Ok(set.map_err(Into::into))
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<(), spin::Error>> {
        let deleted = ask(accessor, |store| async move { store.delete(&key).await }).await?;
        Ok(deleted.map_err(Into::into))
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<bool, spin::Error>> {
        let value = ask(accessor, |store| async move { store.get(&key).await }).await?;
        Ok(value.map(|value| value.is_some()).map_err(Into::into))
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        _: Resource<StoreHandle>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), spin::Error>>)> {
        let (keys, end) = match ask(accessor, |store| async move { store.keys().await }).await? {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error.into())),
        };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            let end = FutureReader::new(&mut access, async { wasmtime::error::Ok(end) })?;
            Ok((keys, end))
        })
    }
}
