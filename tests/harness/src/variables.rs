//! `spin:variables@3.0.0`, and the same of Spin 2 and 3.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{Accessor, HasData};

use crate::bindings::fermyon::spin::variables as two;
use crate::bindings::spin::variables::variables::{Error, Host, HostWithStore};

/// The application's variables: the values by their names.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub Arc<BTreeMap<String, String>>);

/// Names [`Variables`] to the linker.
pub struct Data;

impl HasData for Data {
    type Data<'a> = &'a mut Variables;
}

impl Variables {
    fn value(&self, name: &str) -> Result<String, Error> {
        if !is_name(name) {
            return Err(Error::InvalidName(format!(
                "{name:?} is not lower-case letters, digits and underscores that begin with a letter"
            )));
        }
        let Self(values) = self;
        let value = values.get(name).cloned();
        value.ok_or_else(|| Error::Undefined(format!("no variable {name:?}")))
    }
}

impl Host for &mut Variables {}

impl<T: Send> HostWithStore<T> for Data {
    async fn get(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<String, Error>> {
        Ok(accessor.with(|mut access| access.get().value(&name)))
    }
}

impl two::Host for &mut Variables {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<String, two::Error>> {
        Ok(self.value(&name).map_err(|error| match error {
            Error::InvalidName(what) => two::Error::InvalidName(what),
            Error::Undefined(what) => two::Error::Undefined(what),
            Error::Provider(what) => two::Error::Provider(what),
            Error::Other(what) => two::Error::Other(what),
        }))
    }
}

/// Spin's rule for names.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
}
