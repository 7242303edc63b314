//! Components that use events, composed with loopless.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, Once};

use loopless_host::store::{Memory, Observed};
use loopless_host::{Builder, Harness, component};
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeError, PackageId};

use crate::support::Build;
use crate::support::shared::programs::installed;

/// A component that uses events, and the build that is its dependency.
#[derive(Clone, Copy)]
pub struct Pair {
    pub name: &'static str,
    package: &'static str,
    pub build: Build,
}

/// The pairs with WASI 0.3, whose calls are asynchronous.
pub const ASYNC: [Pair; 2] = [
    Pair {
        name: "doorbell-exact",
        package: "tests/doorbell",
        build: Build::SPIN,
    },
    Pair {
        name: "doorbell-plain",
        package: "tests/doorbell",
        build: Build::AKAMAI_FUNCTIONS,
    },
];

/// All pairs. The calls of the last one block: it has WASI 0.2.
pub const ALL: [Pair; 3] = [
    ASYNC[0],
    ASYNC[1],
    Pair {
        name: "doorbell-blocking",
        package: "tests/doorbell-blocking",
        build: Build::FERMYON_CLOUD,
    },
];

impl Pair {
    /// A host of the composed component, with everything that Spin has.
    pub fn builder(self) -> Builder {
        static COMPOSED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

        let doorbell = self.doorbell();
        let path = file(self.name);
        let mut composed = COMPOSED.lock().unwrap();
        if !composed.contains(&path) {
            std::fs::write(&path, compose(&doorbell, self.build)).unwrap();
            composed.push(path.clone());
        }
        Harness::builder().component(path)
    }

    /// A host of the composed component and a host of loopless itself, on one store.
    pub async fn both(self) -> (Harness, Harness, Observed) {
        let store = Observed::new(Memory::default());
        let doorbell = self.builder().store(store.clone()).start();
        let loopless = self.build.builder().store(store.clone()).start();
        (doorbell.await.unwrap(), loopless.await.unwrap(), store)
    }

    /// A host of the composed component, whose dependency inherits only the interfaces `inherited`.
    pub async fn inheriting(self, inherited: &[&str]) -> Harness {
        let composed = self.compose_inheriting(inherited).unwrap();
        let path = file(&format!("{}-{}-inherited", self.name, inherited.len()));
        std::fs::write(&path, composed).unwrap();
        Harness::builder().component(path).start().await.unwrap()
    }

    /// Composes the two as Spin 4.1 does if the dependency inherits only the interfaces `inherited`: for all others, the
    /// dependency gets an adapter (`apply_deny_adapter` in Spin's crate `spin-capabilities`).
    pub fn compose_inheriting(self, inherited: &[&str]) -> Result<Vec<u8>, EncodeError> {
        let doorbell = self.doorbell();
        let adapter = component::build("tests/deny-adapter".as_ref()).unwrap();
        let mut graph = CompositionGraph::new();
        let loopless = register(&mut graph, "loopless", &read(&self.build.path()));
        let adapter = register(&mut graph, "adapter", &read(&adapter));
        let world = |package: PackageId| &graph.types()[graph[package].ty()];
        let imports = &world(loopless).imports;
        let denied: Vec<String> = world(adapter)
            .exports
            .keys()
            .filter(|name| imports.contains_key(*name) && !inherited.contains(&name.as_str()))
            .cloned()
            .collect();
        let exports: Vec<String> = world(loopless).exports.keys().cloned().collect();

        let (instance, adapter) = (graph.instantiate(loopless), graph.instantiate(adapter));
        for name in denied {
            let denial = graph.alias_instance_export(adapter, &name).unwrap();
            graph
                .set_instantiation_argument(instance, &name, denial)
                .unwrap();
        }
        for name in exports {
            let export = graph.alias_instance_export(instance, &name).unwrap();
            graph.export(export, &name).unwrap();
        }
        let loopless = graph.encode(Default::default())?;
        Ok(plug(&read(&doorbell), &loopless))
    }

    /// Builds the component that uses events. Builds of loopless that have target directories of their own start at the same
    /// time, because they need not wait for it.
    fn doorbell(self) -> PathBuf {
        static STARTED: Once = Once::new();

        STARTED.call_once(|| {
            for Pair { build, .. } in ALL {
                std::thread::spawn(move || build.path());
            }
        });
        component::build(self.package.as_ref()).unwrap()
    }
}

/// The component in Python, composed with the build for Spin. `None` without componentize-py.
pub fn in_python() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = project.join("target/python");
    let componentize = installed(
        &[python.join("bin/componentize-py")],
        "python3 -m venv target/python && target/python/bin/pip install componentize-py==0.25.1 spin-sdk==5.0.0",
    )?;
    let doorbell = file("doorbell-python");
    let output = Command::new(componentize)
        .env("VIRTUAL_ENV", &python)
        .current_dir(project.join("tests/doorbell"))
        .args(["-d", "../../wit/events.wit"])
        .args(["-w", "loopless:event/imports@0.1.0"])
        .args(["componentize", "doorbell", "-o"])
        .arg(&doorbell)
        // The world `spin:up/http-trigger` imports everything that Spin has, and this host has less.
        .args(["-m", "spin_sdk=wasi:http/service@0.3.0"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let path = file("doorbell-python-spin");
    std::fs::write(&path, compose(&doorbell, Build::SPIN)).unwrap();
    Some(path)
}

/// A file for a component that the tests make.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.wasm"))
}

/// Composes a component with a build of loopless, as Spin composes a component with its dependency: imports of the component
/// that loopless exports are joined to it, and the host provides all other imports.
fn compose(component: &Path, build: Build) -> Vec<u8> {
    plug(&read(component), &read(&build.path()))
}

fn plug(component: &[u8], loopless: &[u8]) -> Vec<u8> {
    let mut graph = CompositionGraph::new();
    let component = register(&mut graph, "component", component);
    let loopless = register(&mut graph, "loopless", loopless);
    wac_graph::plug(&mut graph, vec![loopless], component).unwrap();
    graph.encode(Default::default()).unwrap()
}

fn register(graph: &mut CompositionGraph, name: &str, component: &[u8]) -> PackageId {
    let package = Package::from_bytes(name, None, component, graph.types_mut()).unwrap();
    graph.register_package(package).unwrap()
}

/// Reads a component that was built.
fn read(path: &Path) -> Vec<u8> {
    let built = std::fs::read(path).unwrap();
    component::encode(&built).unwrap().into_owned()
}
