//! Every promise, on the real component of each build that makes it.
//!
//! The files in `promises/` are compiled once for each build. If a build does not make a promise, they check what it does
//! instead.
#![allow(clippy::duplicate_mod, reason = "the same tests, on another build")]

mod support;

#[path = "promises"]
mod spin {
    const BUILD: crate::support::Build = crate::support::Build::SPIN;

    #[path = "mod.rs"]
    mod promises;
}

#[path = "promises"]
mod akamai_functions {
    const BUILD: crate::support::Build = crate::support::Build::AKAMAI_FUNCTIONS;

    #[path = "mod.rs"]
    mod promises;
}

#[path = "promises"]
mod fermyon_cloud {
    const BUILD: crate::support::Build = crate::support::Build::FERMYON_CLOUD;

    #[path = "mod.rs"]
    mod promises;
}

#[path = "promises"]
mod spin_sqlite {
    const BUILD: crate::support::Build = crate::support::Build::SPIN_SQLITE;

    #[path = "mod.rs"]
    mod promises;
}

#[path = "promises"]
mod fermyon_cloud_sqlite {
    const BUILD: crate::support::Build = crate::support::Build::FERMYON_CLOUD_SQLITE;

    #[path = "mod.rs"]
    mod promises;
}

#[path = "promises"]
mod akamai_functions_redis {
    const BUILD: crate::support::Build = crate::support::Build::AKAMAI_FUNCTIONS_REDIS;

    #[path = "mod.rs"]
    mod promises;
}

#[path = "promises"]
mod spin_3_redis {
    const BUILD: crate::support::Build = crate::support::Build::SPIN_3_REDIS;

    #[path = "mod.rs"]
    mod promises;
}
