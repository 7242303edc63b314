//! Compare-and-swap and counters of `wasi:keyvalue`, in addition to the host's own key-value interface.

use std::sync::OnceLock;

use crate::store::{Atomics, Error, LABEL, Store};

/// No SDK has bindings for this interface.
mod bindings {
    wit_bindgen::generate!({
        world: "atomics",
        path: "wit",
        generate_all,
    });
}

use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::store::{self as wasi_store, Bucket};

/// A store of the host, with `wasi:keyvalue/atomics` on the same data.
///
/// `wasi:keyvalue` has no asynchronous form, so `increment` and `swap` block the other requests of the instance. The bucket
/// is opened on first use and kept as long as the instance lives.
#[derive(Debug, Default)]
pub struct WithAtomics<S> {
    store: S,
    bucket: OnceLock<Bucket>,
}

impl<S> WithAtomics<S> {
    fn bucket(&self) -> Result<&Bucket, Error> {
        if self.bucket.get().is_none() {
            _ = self.bucket.set(wasi_store::open(LABEL).map_err(from_wasi)?);
        }
        self.bucket.get().ok_or_else(Error::not_opened)
    }
}

impl<S: Store> Store for WithAtomics<S> {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Error>> + Send {
        self.store.get(key)
    }

    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Error>> + Send {
        self.store.set(key, value)
    }

    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Error>> + Send {
        self.store.delete(key)
    }

    fn keys(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send {
        self.store.keys()
    }
}

impl<S: Store> Atomics for WithAtomics<S> {
    async fn increment(&self, key: &str, delta: i64) -> Result<i64, Error> {
        atomics::increment(self.bucket()?, key, delta).map_err(from_wasi)
    }

    /// Spin 4.1 never frees the handle of a swap, and an instance has 256 of them. That is enough: an instance serves 128
    /// requests by default, and an uncontended change takes one swap.
    async fn swap(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let cas = Cas::new(self.bucket()?, key).map_err(from_wasi)?;
        // `current` starts the transaction, so it must be called even though the value is known.
        if cas.current().map_err(from_wasi)?.as_deref() != Some(old) {
            return Ok(());
        }
        match atomics::swap(cas, new) {
            Err(CasError::StoreError(error)) => Err(from_wasi(error)),
            // Redis answers `CasFailed` even if the swap was applied.
            Ok(()) | Err(CasError::CasFailed(_)) => Ok(()),
        }
    }
}

fn from_wasi(error: wasi_store::Error) -> Error {
    match error {
        wasi_store::Error::Other(what) => Error::new(what),
        wasi_store::Error::NoSuchStore => Error::no_such_store(),
        wasi_store::Error::AccessDenied => Error::access_denied(),
    }
}
