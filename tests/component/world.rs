//! Each build of the component imports and exports what its world in `wit/` says, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldId, WorldItem, WorldKey};

use crate::support::Build;

/// The builds and their worlds.
const WORLDS: [(Build, &str); 7] = [
    (Build::SPIN, "spin"),
    (Build::AKAMAI_FUNCTIONS, "akamai-functions"),
    (Build::FERMYON_CLOUD, "fermyon-cloud"),
    (Build::SPIN_SQLITE, "spin-sqlite"),
    (Build::FERMYON_CLOUD_SQLITE, "fermyon-cloud-sqlite"),
    (Build::AKAMAI_FUNCTIONS_REDIS, "akamai-functions-redis"),
    (Build::SPIN_3_REDIS, "spin-3-redis"),
];

/// A world in `wit/`.
fn written(world: &str) -> (Resolve, WorldId) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(project.join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    (resolve, world)
}

/// The world of a built component.
fn built(build: Build) -> (Resolve, WorldId) {
    let built = std::fs::read(build.path()).unwrap();
    let component = loopless_host::component::encode(&built).unwrap();
    match wit_component::decode(&component).unwrap() {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => panic!("a package, not a component"),
    }
}

/// The name of an interface, without the patch version: Rust's standard library may import a newer patch release, such as
/// `wasi:cli/exit@0.2.7`.
fn name(resolve: &Resolve, key: &WorldKey) -> String {
    let name = resolve.name_world_key(key);
    match name.split_once('@') {
        Some((interface, version)) if !version.contains('-') => {
            let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
            format!("{interface}@{minor}")
        }
        _ => name,
    }
}

fn imports(resolve: &Resolve, world: WorldId) -> BTreeSet<String> {
    let imports = resolve.worlds[world].imports.keys();
    imports.map(|key| name(resolve, key)).collect()
}

fn exports(resolve: &Resolve, world: WorldId) -> BTreeSet<String> {
    let exports = resolve.worlds[world].exports.keys();
    exports.map(|key| name(resolve, key)).collect()
}

/// The functions of the interfaces that a world imports.
fn functions(resolve: &Resolve, world: WorldId) -> BTreeSet<String> {
    let mut functions = BTreeSet::new();
    for (key, item) in &resolve.worlds[world].imports {
        if let WorldItem::Interface { id, .. } = item {
            for function in resolve.interfaces[*id].functions.keys() {
                functions.insert(format!("{}.{function}", name(resolve, key)));
            }
        }
    }
    functions
}

#[test]
fn a_component_has_no_import_that_its_world_does_not_name() {
    for (build, world) in WORLDS {
        let ((written, named), (built, used)) = (written(world), built(build));
        let (names, uses) = (imports(&written, named), imports(&built, used));
        let unnamed: Vec<_> = uses.difference(&names).collect();
        assert!(unnamed.is_empty(), "{world} does not name {unnamed:?}");

        let (names, uses) = (functions(&written, named), functions(&built, used));
        let unnamed: Vec<_> = uses.difference(&names).collect();
        assert!(unnamed.is_empty(), "{world}: not in wit/deps: {unnamed:?}");
    }
}

#[test]
fn a_world_names_no_import_that_its_component_does_not_use() {
    for (build, world) in WORLDS {
        let ((written, named), (built, used)) = (written(world), built(build));
        let (names, uses) = (imports(&written, named), imports(&built, used));
        let unused: Vec<_> = names.difference(&uses).collect();
        assert!(unused.is_empty(), "{world} names {unused:?}, for nothing");
    }
}

#[test]
fn a_component_exports_what_its_world_does() {
    for (build, world) in WORLDS {
        let ((written, named), (built, used)) = (written(world), built(build));
        assert_eq!(exports(&built, used), exports(&written, named), "{world}");
    }
}

#[test]
fn the_builds_for_wasi_0_2_need_only_version_0_2_0() {
    for build in [
        Build::FERMYON_CLOUD,
        Build::FERMYON_CLOUD_SQLITE,
        Build::SPIN_3_REDIS,
    ] {
        let (resolve, world) = built(build);
        let world = &resolve.worlds[world];
        let mut packages = BTreeSet::new();
        for key in world.imports.keys().chain(world.exports.keys()) {
            let name = resolve.name_world_key(key);
            let (interface, version) = name.split_once('@').unwrap();
            let namespace = interface.split(':').next().unwrap();
            packages.insert(format!("{namespace}@{version}"));
        }
        let expected = ["fermyon@2.0.0", "loopless@0.1.0", "wasi@0.2.0"];
        assert!(packages.iter().eq(&expected), "{packages:?}");
    }
}

#[test]
fn only_the_build_for_spin_imports_compare_and_swap() {
    for (build, world) in WORLDS {
        let (resolve, used) = built(build);
        let keyvalue: Vec<_> = imports(&resolve, used)
            .into_iter()
            .filter(|name| name.starts_with("wasi:keyvalue/"))
            .collect();
        let expected: &[&str] = match world {
            "spin" => &[
                "wasi:keyvalue/atomics@0.2.0-draft2",
                "wasi:keyvalue/store@0.2.0-draft2",
            ],
            _ => &[],
        };
        assert_eq!(keyvalue, expected, "{world}");
    }
}

#[test]
fn a_build_imports_exactly_one_kind_of_store() {
    const KEY_VALUE: &[&str] = &[
        "wasi:keyvalue/",
        "spin:key-value/",
        "fermyon:spin/key-value",
    ];
    const SQLITE: &[&str] = &["spin:sqlite/", "fermyon:spin/sqlite"];
    const REDIS: &[&str] = &["spin:redis/", "fermyon:spin/redis"];

    for (build, world) in WORLDS {
        let (resolve, used) = built(build);
        let imports = imports(&resolve, used);
        let stores = [KEY_VALUE, SQLITE, REDIS].map(|store| {
            let is_of = |import: &String| store.iter().any(|name| import.starts_with(name));
            imports.iter().any(is_of)
        });
        let is_of = |store: &str| world.ends_with(store);
        let expected = [
            !is_of("sqlite") && !is_of("redis"),
            is_of("sqlite"),
            is_of("redis"),
        ];
        assert_eq!(stores, expected, "{world}");
    }
}

#[test]
fn an_import_that_the_world_does_not_name_is_found() {
    let ((mut written, world), (built, component)) = (written("spin"), built(Build::SPIN));
    let keys: Vec<_> = written.worlds[world].imports.keys().cloned().collect();
    let atomics = keys
        .iter()
        .find(|key| name(&written, key).contains("atomics"))
        .unwrap();
    written.worlds[world].imports.shift_remove(atomics);
    let named = imports(&written, world);
    let unnamed: Vec<_> = imports(&built, component)
        .difference(&named)
        .cloned()
        .collect();
    assert_eq!(unnamed, ["wasi:keyvalue/atomics@0.2.0-draft2"]);
}
