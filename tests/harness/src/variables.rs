//! `spin:variables@3.0.0`, and its predecessor in `fermyon:spin@2.0.0`.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::Accessor;

use crate::bindings::fermyon::spin::variables as two;
use crate::bindings::spin::variables::variables::{Error, Host, HostWithStore};
use crate::view::{Data, View};

/// The application's variables: values by name.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub Arc<BTreeMap<String, String>>);

impl Variables {
    fn value(&self, name: &str) -> Result<String, Error> {
        if !is_name(name) {
            return Err(Error::InvalidName(format!(
                "{name:?} is not the name of a variable: lower-case letters, digits and single underscores, beginning with a letter"
            )));
        }
        let Self(values) = self;
        let value = values.get(name).cloned();
        value.ok_or_else(|| Error::Undefined(format!("no variable {name:?}")))
    }
}

impl Host for View<'_> {}

impl<T: Send> HostWithStore<T> for Data {
    async fn get(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<String, Error>> {
        Ok(accessor.with(|mut access| access.get().variables.value(&name)))
    }
}

impl two::Host for View<'_> {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<String, two::Error>> {
        Ok(self.variables.value(&name).map_err(|error| match error {
            Error::InvalidName(what) => two::Error::InvalidName(what),
            Error::Undefined(what) => two::Error::Undefined(what),
            Error::Provider(what) => two::Error::Provider(what),
            Error::Other(what) => two::Error::Other(what),
        }))
    }
}

/// Whether `name` is a valid name of a Spin variable.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
}
