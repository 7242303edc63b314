//! Every promise, on the real component of each build that makes it.
//!
//! The files in `promises/` are compiled once for each build. If a build promises less, they check what it does
//! instead.
#![allow(clippy::duplicate_mod, reason = "the same tests, on another build")]

mod support;

#[path = "promises"]
mod spin {
    const BUILD: crate::support::Build = crate::support::Build::SPIN;

    mod access;
    mod api;
    mod demo;
    mod errors;
    mod persistence;
    mod store;
    mod stream;
}

#[path = "promises"]
mod akamai_functions {
    const BUILD: crate::support::Build = crate::support::Build::AKAMAI_FUNCTIONS;

    mod access;
    mod api;
    mod demo;
    mod errors;
    mod persistence;
    mod store;
    mod stream;
}

#[path = "promises"]
mod fermyon_cloud {
    const BUILD: crate::support::Build = crate::support::Build::FERMYON_CLOUD;

    mod access;
    mod api;
    mod demo;
    mod errors;
    mod persistence;
    mod store;
    mod stream;
}

#[path = "promises"]
mod spin_sqlite {
    const BUILD: crate::support::Build = crate::support::Build::SPIN_SQLITE;

    mod access;
    mod api;
    mod demo;
    mod errors;
    mod persistence;
    mod store;
    mod stream;
}

#[path = "promises"]
mod fermyon_cloud_sqlite {
    const BUILD: crate::support::Build = crate::support::Build::FERMYON_CLOUD_SQLITE;

    mod access;
    mod api;
    mod demo;
    mod errors;
    mod persistence;
    mod store;
    mod stream;
}

#[path = "promises"]
mod akamai_functions_redis {
    const BUILD: crate::support::Build = crate::support::Build::AKAMAI_FUNCTIONS_REDIS;

    mod access;
    mod api;
    mod demo;
    mod errors;
    mod persistence;
    mod store;
    mod stream;
}

#[path = "promises"]
mod spin_3_redis {
    const BUILD: crate::support::Build = crate::support::Build::SPIN_3_REDIS;

    mod access;
    mod api;
    mod demo;
    mod errors;
    mod persistence;
    mod store;
    mod stream;
}
