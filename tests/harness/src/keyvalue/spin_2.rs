//! `key-value` of `fermyon:spin@2.0.0`, for components of Spin 2 and 3.

use wasmtime::component::Resource;

use super::{LABEL, StoreHandle};
use crate::bindings::fermyon::spin::key_value as two;
use crate::store::Error;
use crate::view::View;

impl From<Error> for two::Error {
    fn from(error: Error) -> Self {
        Self::Other(error.0)
    }
}

impl two::Host for View<'_> {}

impl two::HostStore for View<'_> {
    async fn open(
        &mut self,
        label: String,
    ) -> wasmtime::Result<Result<Resource<StoreHandle>, two::Error>> {
        if label != LABEL {
            return Ok(Err(two::Error::AccessDenied));
        }
        let opened = self.ask_now(|store| async move { store.open().await });
        let opened = opened.await;
        self.push_opened(opened)
    }

    async fn get(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, two::Error>> {
        let value = self.ask_now(|store| async move { store.get(&key).await });
        Ok(value.await.map_err(Into::into))
    }

    async fn set(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let set = self.ask_now(|store| async move { store.set(&key, &value).await });
        Ok(set.await.map_err(Into::into))
    }

    async fn delete(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<(), two::Error>> {
        let deleted = self.ask_now(|store| async move { store.delete(&key).await });
        Ok(deleted.await.map_err(Into::into))
    }

    async fn exists(
        &mut self,
        _: Resource<StoreHandle>,
        key: String,
    ) -> wasmtime::Result<Result<bool, two::Error>> {
        let value = self.ask_now(|store| async move { store.get(&key).await });
        let exists = value.await.map(|value| value.is_some());
        Ok(exists.map_err(Into::into))
    }

    async fn get_keys(
        &mut self,
        _: Resource<StoreHandle>,
    ) -> wasmtime::Result<Result<Vec<String>, two::Error>> {
        let keys = self.ask_now(|store| async move { store.keys().await });
        Ok(keys.await.map_err(Into::into))
    }

    async fn drop(&mut self, handle: Resource<StoreHandle>) -> wasmtime::Result<()> {
        self.close(handle)
    }
}
