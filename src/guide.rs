//! Guides to calling the component, using it from another component, deploying it and running the service.

#[doc = include_str!("guide/api.md")]
pub mod api {}

#[doc = include_str!("guide/deployment.md")]
pub mod deployment {}

#[doc = include_str!("guide/languages.md")]
pub mod languages {}

#[doc = include_str!("guide/service.md")]
pub mod service {}
