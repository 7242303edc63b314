//! `spin:variables@3.0.0`.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{Accessor, HasData};

use crate::bindings::spin::variables::variables::{Error, Host, HostWithStore};

/// The application's variables: the values by their names.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub Arc<BTreeMap<String, String>>);

/// Names [`Variables`] to the linker.
pub struct Data;

impl HasData for Data {
    type Data<'a> = &'a mut Variables;
}

impl Host for &mut Variables {}

impl<T: Send> HostWithStore<T> for Data {
    async fn get(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<String, Error>> {
        Ok(accessor.with(|mut access| {
            let Variables(values) = access.get();
            if !is_name(&name) {
                return Err(Error::InvalidName(format!(
                    "{name:?} is not lower-case letters, digits and underscores that begin with a letter"
                )));
            }
            values
                .get(&name)
                .cloned()
                .ok_or_else(|| Error::Undefined(format!("no variable {name:?}")))
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
