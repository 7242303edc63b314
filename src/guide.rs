//! Guides for those who call the component, use it from another one, deploy it and run it. There is no code here.

#[doc = include_str!("guide/api.md")]
pub mod api {}

#[doc = include_str!("guide/deployment.md")]
pub mod deployment {}

#[doc = include_str!("guide/languages.md")]
pub mod languages {}

#[doc = include_str!("guide/service.md")]
pub mod service {}
