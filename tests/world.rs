//! The component imports what `wit/` says, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldId, WorldItem, WorldKey};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The world of `wit/`.
fn written() -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(project().join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some("spin")).unwrap();
    (resolve, world)
}

/// The world of the built component.
fn built() -> (Resolve, WorldId) {
    let path = loopless_host::component::build(project()).unwrap();
    let component = std::fs::read(path).unwrap();
    match wit_component::decode(&component).unwrap() {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => panic!("a package, not a component"),
    }
}

/// The name of an interface up to what semantic versioning calls compatible: the standard library's next patch
/// release may name `wasi:cli/exit@0.2.7`.
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
fn the_component_imports_nothing_that_the_world_does_not_name() {
    let ((written, world), (built, component)) = (written(), built());
    let named = imports(&written, world);
    let used = imports(&built, component);
    let unnamed: Vec<_> = used.difference(&named).collect();
    assert!(
        unnamed.is_empty(),
        "not named in wit/world.wit: {unnamed:?}"
    );

    let named = functions(&written, world);
    let used = functions(&built, component);
    let unnamed: Vec<_> = used.difference(&named).collect();
    assert!(unnamed.is_empty(), "not in wit/deps: {unnamed:?}");
}

#[test]
fn the_world_names_nothing_that_the_component_does_not_import() {
    let ((written, world), (built, component)) = (written(), built());
    let used = imports(&built, component);
    let named = imports(&written, world);
    let unused: Vec<_> = named.difference(&used).collect();
    assert!(
        unused.is_empty(),
        "named in wit/world.wit, and not used: {unused:?}"
    );
}

#[test]
fn the_component_exports_what_the_world_does() {
    let ((written, world), (built, component)) = (written(), built());
    assert_eq!(exports(&built, component), exports(&written, world));
    assert_eq!(exports(&written, world).len(), 1);
}

#[test]
fn the_check_sees_an_import_that_is_not_named() {
    let ((mut written, world), (built, component)) = (written(), built());
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
