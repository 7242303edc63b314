//! `wasi:keyvalue`'s compare-and-swap and counters, beside a host's own key-value interface.

use std::future::{self, Future};
use std::sync::OnceLock;

use crate::store::{Atomics, Error, LABEL, Store};

/// No SDK has bindings for these.
mod bindings {
    wit_bindgen::generate!({
        world: "atomics",
        path: "wit",
        generate_all,
    });
}

use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::store::{self as wasi_store, Bucket};

/// A store of the host's, and `wasi:keyvalue/atomics` on the same one.
///
/// These calls stop the other requests of the instance while they run, because `wasi:keyvalue` has no asynchronous form;
/// there are few of them. The bucket is opened when it is first used, and kept as long as the instance lives.
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

    /// Spin 4.1 never frees the handle of a swap: an instance has 256 of them. It serves 128 requests by default, and a
    /// change takes one swap unless others come between.
    fn swap_now(&self, key: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let cas = Cas::new(self.bucket()?, key).map_err(from_wasi)?;
        // `current` is what starts the transaction, so that it has to be called even by who knows the value.
        if cas.current().map_err(from_wasi)?.as_deref() != Some(old) {
            return Ok(());
        }
        match atomics::swap(cas, new) {
            Err(CasError::StoreError(error)) => Err(from_wasi(error)),
            // On Redis this is also the answer of a swap that was applied.
            Ok(()) | Err(CasError::CasFailed(_)) => Ok(()),
        }
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
    fn increment(&self, key: &str, delta: i64) -> impl Future<Output = Result<i64, Error>> + Send {
        let bucket = self.bucket();
        let sum =
            bucket.and_then(|bucket| atomics::increment(bucket, key, delta).map_err(from_wasi));
        future::ready(sum)
    }

    fn swap(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
    ) -> impl Future<Output = Result<(), Error>> + Send {
        future::ready(self.swap_now(key, old, new))
    }
}

fn from_wasi(error: wasi_store::Error) -> Error {
    match error {
        wasi_store::Error::Other(what) => Error::new(what),
        wasi_store::Error::NoSuchStore => Error::no_such_store(),
        wasi_store::Error::AccessDenied => Error::access_denied(),
    }
}
