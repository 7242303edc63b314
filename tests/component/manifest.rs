//! The manifests agree with the component, and with the limits of the hosts that they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use loopless::settings::{self, Access, Settings, Variables};
use loopless_host::manifest::Manifest;
use toml::{Table, Value};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

const SPIN: &str = "spin.toml";
const SPIN_SQLITE: &str = "deploy/spin-sqlite.toml";
const SPIN_3_REDIS: &str = "deploy/spin-3-redis.toml";
const AKAMAI_FUNCTIONS: &str = "deploy/akamai-functions.toml";
const AKAMAI_FUNCTIONS_REDIS: &str = "deploy/akamai-functions-redis.toml";
const FERMYON_CLOUD: &str = "deploy/fermyon-cloud.toml";
const FERMYON_CLOUD_SQLITE: &str = "deploy/fermyon-cloud-sqlite.toml";

const MANIFESTS: [&str; 7] = [
    SPIN,
    SPIN_SQLITE,
    SPIN_3_REDIS,
    AKAMAI_FUNCTIONS,
    AKAMAI_FUNCTIONS_REDIS,
    FERMYON_CLOUD,
    FERMYON_CLOUD_SQLITE,
];
const CLOUDS: [&str; 4] = [
    AKAMAI_FUNCTIONS,
    AKAMAI_FUNCTIONS_REDIS,
    FERMYON_CLOUD,
    FERMYON_CLOUD_SQLITE,
];
const WASI_0_2: [&str; 3] = [FERMYON_CLOUD, FERMYON_CLOUD_SQLITE, SPIN_3_REDIS];
const SQLITE: [&str; 2] = [SPIN_SQLITE, FERMYON_CLOUD_SQLITE];
const REDIS: [&str; 2] = [AKAMAI_FUNCTIONS_REDIS, SPIN_3_REDIS];
/// The service needs compare-and-swap and WASI 0.3.
const WITHOUT_SERVICE: [&str; 4] = [
    AKAMAI_FUNCTIONS,
    FERMYON_CLOUD,
    FERMYON_CLOUD_SQLITE,
    SPIN_3_REDIS,
];

/// The request timeout of both clouds: developer.fermyon.com/cloud/faq, and techdocs.akamai.com/akamai-functions/docs/quotas-and-limits.
const REQUEST: Duration = Duration::from_secs(30);

fn read(file: &str) -> Table {
    let path = Path::new(PROJECT).join(file);
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// The manifest as the host reads it.
fn manifest(file: &str) -> Manifest {
    Manifest::read(&Path::new(PROJECT).join(file)).unwrap()
}

fn component(file: &str) -> Value {
    let manifest = read(file);
    let components = manifest["component"].as_table().unwrap();
    assert_eq!(components.len(), 1, "{file}");
    components["loopless"].clone()
}

fn keys(table: &Value) -> BTreeSet<&str> {
    table
        .as_table()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn each_manifest_has_version_2_and_sends_every_request_to_the_component() {
    for file in MANIFESTS {
        let manifest = read(file);
        let version = manifest["spin_manifest_version"].as_integer();
        assert_eq!(version, Some(2), "{file}");
        let triggers = manifest["trigger"].as_table().unwrap();
        assert_eq!(triggers.len(), 1, "{file}");
        let routes = triggers["http"].as_array().unwrap();
        assert_eq!(routes.len(), 1, "{file}");
        assert_eq!(routes[0]["route"].as_str(), Some("/..."), "{file}");
        assert_eq!(routes[0]["component"].as_str(), Some("loopless"), "{file}");
        let application = &manifest["application"];
        assert_eq!(application["name"].as_str(), Some("loopless"), "{file}");
        let version = application["version"].as_str();
        assert_eq!(version, Some(env!("CARGO_PKG_VERSION")), "{file}");
    }
}

#[test]
fn each_manifest_grants_the_store_that_the_component_uses_and_no_other() {
    for file in MANIFESTS {
        let component = component(file);
        let (used, granted) = if SQLITE.contains(&file) {
            ("sqlite_databases", &["default"][..])
        } else if REDIS.contains(&file) {
            let hosts = &["redis://{{ redis_host }}", "rediss://{{ redis_host }}"];
            ("allowed_outbound_hosts", &hosts[..])
        } else {
            ("key_value_stores", &["default"][..])
        };
        let all = [
            "allowed_outbound_hosts",
            "key_value_stores",
            "sqlite_databases",
        ];
        for grant in all {
            let grants = component.get(grant).and_then(Value::as_array);
            let grants = grants.into_iter().flatten().filter_map(Value::as_str);
            let expected = if grant == used { granted } else { &[] };
            assert!(grants.eq(expected.iter().copied()), "{file}: {grant}");
        }
    }
}

#[test]
fn each_build_command_makes_its_source() {
    let builds = [
        (SPIN, true, true),
        (SPIN_SQLITE, true, false),
        (AKAMAI_FUNCTIONS, true, false),
        // A module, which the host encodes as a component.
        (FERMYON_CLOUD, false, false),
        (FERMYON_CLOUD_SQLITE, false, false),
        (AKAMAI_FUNCTIONS_REDIS, true, false),
        (SPIN_3_REDIS, false, false),
    ];
    // Side by side: where they share a target directory, cargo lets one wait for the other.
    let sources = std::thread::scope(|scope| {
        let builds = builds.map(|(file, ..)| scope.spawn(move || manifest(file).build().unwrap()));
        builds.map(|build| build.join().unwrap())
    });
    // If two builds shared a source, it would be the one that was built last.
    let distinct: BTreeSet<_> = sources.iter().collect();
    assert_eq!(distinct.len(), MANIFESTS.len(), "{distinct:?}");

    for ((file, is_component, has_atomics), source) in builds.into_iter().zip(sources) {
        assert_eq!(source, built(file), "{file}");
        let bytes = std::fs::read(source).unwrap();
        assert_eq!(&bytes[..4], b"\0asm", "{file}");
        // https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
        assert_eq!(bytes[6] == 1, is_component, "{file}");
        let atomics = b"wasi:keyvalue/atomics";
        let names_atomics = bytes.windows(atomics.len()).any(|bytes| bytes == atomics);
        assert_eq!(names_atomics, has_atomics, "{file}");
    }
}

/// The file that the build command makes, by its arguments.
fn built(file: &str) -> PathBuf {
    let component = component(file);
    let command = component["build"]["command"].as_str().unwrap();
    let words: Vec<_> = command.split(' ').collect();
    let after = |option| {
        let options = words.windows(2).find(|words| words[0] == option);
        options.map(|words| words[1])
    };
    assert_eq!(after("--crate-type"), Some("cdylib"), "{file}");
    let directory = after("--target-dir").unwrap_or("target");
    let target = after("--target").unwrap();
    let built = Path::new(PROJECT).join(directory).join(target);
    let built = built.join("release/loopless.wasm");
    built.canonicalize().unwrap()
}

/// The defaults of a manifest's variables, and the names that the component has read.
struct Defaults {
    values: BTreeMap<String, String>,
    asked: Mutex<BTreeSet<String>>,
}

impl Variables for Defaults {
    async fn get(&self, name: &str) -> Result<Option<String>, String> {
        self.asked.lock().unwrap().insert(name.into());
        Ok(self.values.get(name).cloned())
    }
}

/// The settings of the component if only the required variables are set, and the names that it reads.
async fn settings(file: &str) -> (Settings, BTreeSet<String>) {
    let manifest = read(file);
    let variables = manifest["variables"].as_table().unwrap();
    let defaults = variables.iter().map(|(name, variable)| {
        let is_required = variable.get("required").and_then(Value::as_bool) == Some(true);
        let default = match variable.get("default") {
            Some(default) => default.as_str().unwrap(),
            None => "redis://localhost:6379",
        };
        assert_eq!(
            is_required,
            variable.get("default").is_none(),
            "{file}: {name}"
        );
        (name.clone(), default.to_owned())
    });
    let defaults = Defaults {
        values: defaults.collect(),
        asked: Mutex::default(),
    };
    let settings = Settings::read(&defaults)
        .await
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    // A token with a default in this file would be known to everyone.
    let token = settings::operator_token(&defaults).await;
    assert_eq!(token, Ok(None), "{file}");
    if REDIS.contains(&file) {
        settings::redis_url(&defaults).await.unwrap();
    }
    let access = Access::read(&defaults).await.unwrap();
    assert_eq!((access.write_token, access.read_token), (None, None));
    assert!(access.allowed_origins.is_empty(), "{file}");
    (settings, defaults.asked.into_inner().unwrap())
}

#[tokio::test]
async fn each_manifest_has_the_variables_that_the_component_reads_with_valid_defaults() {
    for file in MANIFESTS {
        let (_, mut read_by_component) = settings(file).await;
        if WITHOUT_SERVICE.contains(&file) {
            read_by_component.retain(|name| !name.starts_with("service_"));
        }
        if WASI_0_2.contains(&file) {
            // With WASI 0.2, an instance serves one request.
            read_by_component.remove("instance_waits_max");
        }
        let manifest = read(file);
        let mut variables = keys(&manifest["variables"]);
        // This variable is for the grant alone. The component does not read it.
        let has_host = variables.remove("redis_host");
        assert_eq!(has_host, REDIS.contains(&file), "{file}");
        assert!(variables.iter().eq(&read_by_component), "{file}");

        let component = component(file);
        let passed_on = component["variables"].as_table().unwrap();
        assert!(passed_on.keys().eq(&read_by_component), "{file}");
        for (name, template) in passed_on {
            let template = template.as_str().unwrap();
            assert_eq!(template, format!("{{{{ {name} }}}}"), "{file}");
        }
        let secrets = ["operator_token", "write_token", "read_token"].into_iter();
        for secret in secrets.chain(REDIS.contains(&file).then_some("redis_url")) {
            let secret = &manifest["variables"][secret];
            assert_eq!(secret["secret"].as_bool(), Some(true), "{file}");
        }
    }
}

#[tokio::test]
async fn on_the_clouds_waits_and_streams_end_before_the_request_timeout() {
    for file in CLOUDS {
        let (settings, _) = settings(file).await;
        // A wait ends at most one interval after its timeout. The store may take a second.
        let late = settings.polling.last + Duration::from_secs(1);
        assert!(settings.wait_max + late < REQUEST, "{file}");
        let stream = settings.stream_max.unwrap_or(Duration::MAX);
        assert!(stream.saturating_add(late) < REQUEST, "{file}");
    }
}

#[test]
fn the_manifests_for_akamai_functions_target_it() {
    for file in [AKAMAI_FUNCTIONS, AKAMAI_FUNCTIONS_REDIS] {
        let targets = read(file)["application"]["targets"].clone();
        assert_eq!(targets, Value::from(vec!["akamai-functions"]));
    }
}

/// Spin rejects a manifest with an unknown key. These are the keys that Spin 2.3 knows and that are of use here, from
/// https://github.com/spinframework/spin/blob/v2.3.0/crates/manifest/src/schema/v2.rs and common.rs beside it, and from
/// crates/http/src/config.rs.
#[test]
fn the_manifests_for_wasi_0_2_have_no_key_that_spin_2_3_does_not_know() {
    fn only(table: &Value, known: &[&str]) {
        let unknown: Vec<_> = keys(table)
            .into_iter()
            .filter(|key| !known.contains(key))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    for file in WASI_0_2 {
        let manifest = Value::from(read(file));
        only(
            &manifest,
            &[
                "spin_manifest_version",
                "application",
                "variables",
                "trigger",
                "component",
            ],
        );
        only(
            &manifest["application"],
            &[
                "name",
                "version",
                "description",
                "authors",
                "trigger",
                "tool",
            ],
        );
        for variable in manifest["variables"].as_table().unwrap().values() {
            only(variable, &["required", "default", "secret"]);
        }
        for trigger in manifest["trigger"]["http"].as_array().unwrap() {
            only(trigger, &["id", "component", "route", "executor"]);
        }
        let component = component(file);
        only(
            &component,
            &[
                "source",
                "description",
                "variables",
                "environment",
                "files",
                "exclude_files",
                "allowed_outbound_hosts",
                "key_value_stores",
                "sqlite_databases",
                "ai_models",
                "build",
                "tool",
            ],
        );
        only(&component["build"], &["command", "workdir", "watch"]);
        // Lists of commands came with Spin 3.
        assert!(component["build"]["command"].is_str());
    }
}

/// https://github.com/spinframework/spin/blob/v2.3.0/crates/trigger/src/runtime_config/key_value.rs
#[test]
fn the_runtime_configuration_keeps_the_default_store_in_redis() {
    let configuration = read("deploy/runtime-config.toml");
    assert_eq!(configuration.len(), 1);
    let stores = configuration["key_value_store"].as_table().unwrap();
    assert_eq!(stores.len(), 1);
    let store = &stores["default"];
    assert_eq!(keys(store), ["type", "url"].into());
    assert_eq!(store["type"].as_str(), Some("redis"));
    let url = store["url"].as_str().unwrap();
    assert!(url.starts_with("redis://"), "{url}");
}
