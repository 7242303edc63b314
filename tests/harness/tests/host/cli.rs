//! `loopless-host` on the command line.

mod builds;
mod shutdown;

use tempfile::tempdir;
use wasm_encoder::{
    Component, ComponentImportSection, ComponentTypeRef, ComponentTypeSection, InstanceType,
    PrimitiveValType,
};

use crate::support::{Host, Outcome, component, free_address, serve};

#[tokio::test]
async fn the_help_names_every_option() {
    let help = help(&["--help"]).await;
    for option in [
        "--listen",
        "--store",
        "--component",
        "--from",
        "--host",
        "--without",
        "--quirks",
        "--variable",
        "--request-timeout",
        "--gotcha",
    ] {
        assert!(help.contains(option), "{help}");
    }
    assert!(help.contains("127.0.0.1:9009"), "{help}");
    for help in [help, self::help(&["simulate", "--help"]).await] {
        for host in ["spin", "akamai-functions", "fermyon-cloud"] {
            assert!(help.contains(&format!("- {host}:")), "{help}");
        }
    }
    let soak = self::help(&["soak", "--help"]).await;
    for part in [
        "--url",
        "--token",
        "--minutes",
        "--clients",
        "--seed",
        "--store",
        "--component",
        "--host",
        "--quirks",
        "sqlite:PATH",
        "redis://",
        "Exit code: 0",
    ] {
        assert!(soak.contains(part), "{part}: {soak}");
    }
}

async fn help(arguments: &[&str]) -> String {
    let outcome = Outcome::of(arguments).await;
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.stdout
}

#[tokio::test]
async fn invalid_arguments_are_usage_errors() {
    for arguments in [
        &["--store", "redis"][..],
        &["--store", "sqlite:"],
        &["--store", "redis:"],
        &["--store", "redis://"],
        &["--store", "redis://localhost:port"],
        &["--store", "redis://localhost/first"],
        &["--store", "rediss://"],
        &["--quirks", "none"],
        &["--listen", "9009"],
        &["--variable", "Name=value"],
        &["--variable", "name"],
        &["--max-instance-reuse-count", "0"],
        &["--idle-instance-timeout", "soon"],
        &["--without", "nonsense"],
        &["--host", "nonsense"],
        &["--from", "spin.toml", "--component", "component.wasm"],
        &["simulate", "--host", "nonsense"],
        &[
            "simulate",
            "--host",
            "fermyon-cloud",
            "--component",
            "component.wasm",
        ],
        &["--host", "fermyon-cloud", "simulate"],
        &["serve"],
    ] {
        Outcome::of(arguments).await.is_usage_error();
    }
}

#[tokio::test]
async fn without_a_component_the_host_builds_that_of_this_project() {
    let directory = tempdir().unwrap();
    let host = Host::wait_for(serve(directory.path(), &["--store", "memory"])).await;
    let (status, page) = host.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains(">Set<"), "{page}");
    let errors = host.stop().await;
    assert!(errors.contains("Building the component"), "{errors}");
}

#[tokio::test]
async fn it_serves_http_1_and_http_2() {
    let directory = tempdir().unwrap();
    let host = Host::start(directory.path(), &["--store", "memory"]).await;
    for http2 in [false, true] {
        let send = async |method, path, body| host.send_over(http2, method, path, body).await;
        let (status, _) = send("POST", "/change_event", "True").await;
        assert_eq!(status, 204);
        let (status, page) = send("GET", "/", "").await;
        assert_eq!(status, 200);
        assert!(page.contains(">Clear<"), "{page}");
        let (status, problem) = send("GET", "/nothing", "").await;
        assert_eq!(status, 404, "{problem}");
    }
    let files: Vec<_> = directory.path().read_dir().unwrap().collect();
    assert!(files.is_empty(), "memory leaves no files: {files:?}");
}

#[tokio::test]
async fn the_state_survives_a_restart_in_a_file_of_the_working_directory() {
    let directory = tempdir().unwrap();
    let first = Host::start(directory.path(), &[]).await;
    first.send("POST", "/change_event", "True").await;
    first.stop().await;
    assert!(directory.path().join(".loopless/store.db").is_file());

    let second = Host::start(directory.path(), &[]).await;
    let (_, page) = second.get("/").await;
    assert!(page.contains(">Clear<"), "{page}");
}

#[tokio::test]
async fn a_taken_port_is_one_line() {
    let host = Host::in_memory(&[]).await;
    let component = component();
    let arguments = ["--store", "memory", "--listen", host.address()];
    let arguments = [
        &arguments,
        &["--component", component.to_str().unwrap()][..],
    ]
    .concat();
    let outcome = Outcome::of(&arguments).await;
    outcome.is_error(&[host.address(), "in use", "--listen"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_one_line() {
    let directory = tempdir().unwrap();
    let notes = "no database\n".repeat(200);
    std::fs::write(directory.path().join("notes.txt"), notes).unwrap();
    std::fs::create_dir(directory.path().join("folder")).unwrap();
    for path in ["notes.txt", "folder", "notes.txt/store.db"] {
        let store = format!("sqlite:{path}");
        let command = serve(directory.path(), &["--store", &store]);
        Outcome::of_command(command).await.is_error(&[path]);
    }
}

#[tokio::test]
async fn a_redis_that_does_not_run_is_one_line_without_its_password() {
    let address = free_address().await;
    let store = format!("redis://somebody:secret@{address}/1");
    let outcome = Outcome::of(&["--store", &store]).await;
    outcome.is_error(&[&address]);
    assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_component_that_cannot_be_loaded_is_one_line() {
    let directory = tempdir().unwrap();
    let foreign = importing("foreign:host/interface@1.0.0");
    std::fs::write(directory.path().join("foreign.wasm"), foreign).unwrap();
    std::fs::write(directory.path().join("garbage.wasm"), "garbage").unwrap();
    for (component, says) in [
        ("missing.wasm", "No such file"),
        ("garbage.wasm", "magic"),
        ("foreign.wasm", "foreign:host/interface@1.0.0"),
    ] {
        let arguments = ["--store", "memory", "--component", component];
        let outcome = Outcome::of_command(serve(directory.path(), &arguments)).await;
        outcome.is_error(&[component, says]);
    }
}

/// A component that does nothing, and imports an interface with one function.
fn importing(interface: &str) -> Vec<u8> {
    let mut instance = InstanceType::new();
    let mut function = instance.ty().function();
    let parameters: [(&str, PrimitiveValType); 0] = [];
    function.params(parameters).result(None);
    instance.export("call", ComponentTypeRef::Func(0));
    let mut types = ComponentTypeSection::new();
    types.instance(&instance);
    let mut imports = ComponentImportSection::new();
    imports.import(interface, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

#[tokio::test]
async fn an_interface_that_the_host_lacks_is_one_line_that_names_the_build_without_it() {
    let directory = tempdir().unwrap();
    let batch = importing("wasi:keyvalue/batch@0.2.0-draft2");
    std::fs::write(directory.path().join("batch.wasm"), batch).unwrap();
    let component = component();
    let component = component.to_str().unwrap();
    let atomics = "wasi:keyvalue/atomics@0.2.0-draft2, which";
    for (arguments, component, lacking, advice) in [
        (
            &["--without", "atomics"][..],
            component,
            &[atomics, "this host does not have"][..],
            "this project's build for such a host is deploy/akamai-functions.toml: use --host akamai-functions",
        ),
        (
            &["--without", "wasi-0.3"],
            component,
            &["@0.3.0, which this host does not have"],
            "this project's build for such a host is deploy/fermyon-cloud.toml: use --host fermyon-cloud",
        ),
        (
            &["--without", "wasi-0.3", "--without", "atomics"],
            component,
            &["this host does not have"],
            "this project's build for such a host is deploy/fermyon-cloud.toml: use --host fermyon-cloud",
        ),
        (
            &["--without", "batch"],
            "batch.wasm",
            &["wasi:keyvalue/batch@0.2.0-draft2, which this host does not have"],
            "all of this project's builds work on such a host",
        ),
        (
            &["--host", "akamai-functions"],
            component,
            &[atomics, "Akamai Functions does not have"],
            "this project's build for such a host is deploy/akamai-functions.toml: use --host akamai-functions",
        ),
        (
            &["--host", "fermyon-cloud"],
            component,
            &["Fermyon Cloud does not have"],
            "this project's build for such a host is deploy/fermyon-cloud.toml: use --host fermyon-cloud",
        ),
    ] {
        let all = ["--store", "memory", "--component", component];
        let command = serve(directory.path(), &[&all, arguments].concat());
        let outcome = Outcome::of_command(command).await;
        outcome.is_error(lacking);
        let advice = format!("; {advice}\n");
        assert!(outcome.stderr.ends_with(&advice), "{}", outcome.stderr);
    }
}
