//! Every promise, on the real component of each build that makes it.
//!
//! The files beside this one are compiled once for each build. If a build does not make a promise, they check what it does
//! instead.
#![allow(clippy::duplicate_mod, reason = "the same tests, on another build")]

#[path = "."]
mod spin {
    const BUILD: crate::support::Build = crate::support::Build::SPIN;

    #[path = "all.rs"]
    mod all;
}

#[path = "."]
mod akamai_functions {
    const BUILD: crate::support::Build = crate::support::Build::AKAMAI_FUNCTIONS;

    #[path = "all.rs"]
    mod all;
}

#[path = "."]
mod fermyon_cloud {
    const BUILD: crate::support::Build = crate::support::Build::FERMYON_CLOUD;

    #[path = "all.rs"]
    mod all;
}

#[path = "."]
mod spin_sqlite {
    const BUILD: crate::support::Build = crate::support::Build::SPIN_SQLITE;

    #[path = "all.rs"]
    mod all;
}

#[path = "."]
mod fermyon_cloud_sqlite {
    const BUILD: crate::support::Build = crate::support::Build::FERMYON_CLOUD_SQLITE;

    #[path = "all.rs"]
    mod all;
}

#[path = "."]
mod akamai_functions_redis {
    const BUILD: crate::support::Build = crate::support::Build::AKAMAI_FUNCTIONS_REDIS;

    #[path = "all.rs"]
    mod all;
}

#[path = "."]
mod spin_3_redis {
    const BUILD: crate::support::Build = crate::support::Build::SPIN_3_REDIS;

    #[path = "all.rs"]
    mod all;
}
