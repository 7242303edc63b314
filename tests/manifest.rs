//! spin.toml says what is true of the component.

use std::path::Path;
use std::process::Command;

use toml::Table;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

fn manifest() -> Table {
    let path = Path::new(PROJECT).join("spin.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

#[test]
fn it_is_a_manifest_of_version_2_that_sends_every_request_to_the_component() {
    let manifest = manifest();
    assert_eq!(manifest["spin_manifest_version"].as_integer(), Some(2));
    let triggers = manifest["trigger"]["http"].as_array().unwrap();
    assert_eq!(triggers.len(), 1);
    assert_eq!(triggers[0]["route"].as_str(), Some("/..."));
    assert_eq!(triggers[0]["component"].as_str(), Some("loopless"));
    let application = &manifest["application"];
    assert_eq!(
        application["version"].as_str(),
        Some(env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_component_may_open_the_store_that_it_opens() {
    let manifest = manifest();
    let stores = manifest["component"]["loopless"]["key_value_stores"].as_array();
    let labels: Vec<_> = stores.unwrap().iter().filter_map(|s| s.as_str()).collect();
    assert_eq!(labels, ["default"]);
}

#[test]
fn the_build_command_makes_the_source() {
    let component = &manifest()["component"]["loopless"];
    let command = component["build"]["command"].as_str().unwrap();
    let status = Command::new("sh")
        .args(["-c", command])
        .current_dir(PROJECT)
        .status()
        .unwrap();
    assert!(status.success(), "{command}");
    let source = Path::new(component["source"].as_str().unwrap());
    let built = loopless_host::component::build(Path::new(PROJECT)).unwrap();
    let tail: std::path::PathBuf = source.iter().skip(1).collect();
    assert!(
        built.ends_with(tail),
        "{} is not {source:?}",
        built.display()
    );
}
