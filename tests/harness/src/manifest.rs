//! Spin manifests: how a component is built, its variables, and the databases that it may use.
//!
//! [`Builder::manifest`](crate::Builder::manifest) sets up a host with one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::component;
use crate::outbound::Allowed;

/// A manifest of version 2 with one component, which gets all HTTP requests.
///
/// The build command runs in a shell, in its `workdir`. Relative paths are relative to the manifest. The routes of triggers, and
/// everything about outgoing HTTP and files, are ignored.
#[derive(Clone, Debug)]
pub struct Manifest {
    path: PathBuf,
    variables: BTreeMap<String, Variable>,
    component: Component,
}

/// The version of a manifest, a number or a text. Version 1 has another name for it.
#[derive(Deserialize)]
struct Version {
    #[serde(alias = "spin_version")]
    spin_manifest_version: toml::Value,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    trigger: Triggers,
    component: BTreeMap<String, Component>,
}

/// A variable of the application.
#[derive(Clone, Debug, Deserialize)]
struct Variable {
    default: Option<String>,
}

#[derive(Deserialize)]
struct Triggers {
    #[serde(default)]
    http: Vec<Trigger>,
}

#[derive(Deserialize)]
struct Trigger {
    component: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Component {
    source: PathBuf,
    build: Option<Build>,
    #[serde(default)]
    sqlite_databases: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Templates with the application's variables.
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    /// Templates with the application's variables, such as `https://{{ host }}/`.
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Build {
    command: Commands,
    #[serde(default)]
    workdir: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Commands {
    One(String),
    Several(Vec<String>),
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not a manifest of version 2, or needs something that this host does not have: several
    /// components, a component to download, or another trigger than HTTP.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let read = || {
            let text = std::fs::read_to_string(path)?;
            Self::parse(path, &text)
        };
        read().with_context(|| format!("cannot use the manifest {}", path.display()))
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let Version {
            spin_manifest_version: version,
        } = from_toml(text)?;
        let version = version
            .as_str()
            .map_or_else(|| version.to_string(), str::to_owned);
        ensure!(
            version == "2",
            "its version is {version}, and this host reads version 2 only (`spin doctor` converts version 1)"
        );
        let document: Document = from_toml(text)?;
        let mut names = document
            .trigger
            .http
            .iter()
            .map(|trigger| &trigger.component);
        let Some(name) = names.next() else {
            bail!("it has no HTTP trigger");
        };
        ensure!(
            names.all(|other| other == name),
            "its HTTP triggers name several components; this host serves one"
        );
        let component = document.component.get(name);
        Ok(Self {
            path: path.into(),
            variables: document.variables,
            component: component
                .with_context(|| format!("it has no component called {name:?}"))?
                .clone(),
        })
    }

    /// Whether it has a build command.
    pub fn has_build(&self) -> bool {
        self.component.build.is_some()
    }

    /// Whether the application declares a variable called `name`.
    pub fn declares(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// The labels of the SQLite databases that the component may open.
    pub fn databases(&self) -> Vec<String> {
        self.component.sqlite_databases.clone()
    }

    /// The component's environment variables.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.component.environment.clone()
    }

    /// Builds the component, if there is a build command, and returns its path.
    ///
    /// A command runs once in a process. Its output goes to standard error. If it names a Rust target (`--target`) that is
    /// missing, the target is installed with rustup.
    ///
    /// # Errors
    ///
    /// If the command fails, or there is no component.
    pub fn build(&self) -> anyhow::Result<PathBuf> {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let directory = Path::new(".").join(directory);
        if let Some(Build { command, workdir }) = &self.component.build {
            let commands = match command {
                Commands::One(command) => std::slice::from_ref(command),
                Commands::Several(commands) => commands,
            };
            for command in commands {
                component::run(command, &directory.join(workdir))?;
            }
        }
        let source = directory.join(&self.component.source);
        source.canonicalize().with_context(|| {
            format!(
                "{} names the component {}, which is not there",
                self.path.display(),
                self.component.source.display()
            )
        })
    }

    /// The component's variables: its templates, filled in with the application's variables. An application's variable has the
    /// value in `given`, or its default. Values for variables that the application does not [declare](Self::declares) are
    /// ignored.
    ///
    /// # Errors
    ///
    /// If a template names a variable that has no value, or that the application does not declare.
    pub fn variables(
        &self,
        given: &BTreeMap<String, String>,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let variables = self.component.variables.iter();
        let filled_in =
            variables.map(|(name, template)| Ok((name.clone(), self.fill_in(template, given)?)));
        filled_in.collect()
    }

    /// The addresses to which the component may connect, with the application's variables filled in.
    pub(crate) fn outbound_hosts(
        &self,
        given: &BTreeMap<String, String>,
    ) -> anyhow::Result<Allowed> {
        let hosts = self.component.allowed_outbound_hosts.iter();
        let hosts = hosts.map(|template| self.fill_in(template, given));
        let hosts: Vec<_> = hosts.collect::<anyhow::Result<_>>()?;
        Allowed::parse(hosts.iter().map(String::as_str))
            .with_context(|| format!("cannot use the manifest {}", self.path.display()))
    }

    /// Fills in a template with the application's variables.
    fn fill_in(&self, template: &str, given: &BTreeMap<String, String>) -> anyhow::Result<String> {
        let value = |name: &str| {
            let declared = self.variables.get(name);
            let declared =
                declared.with_context(|| format!("the application has no variable {name:?}"))?;
            let value = given.get(name).or(declared.default.as_ref());
            value.cloned().with_context(|| {
                format!("the variable {name:?} has no default: give it a value with --variable {name}=VALUE")
            })
        };
        fill_in(template, value)
            .with_context(|| format!("cannot use the manifest {}", self.path.display()))
    }
}

/// Parses TOML. An error is one line, and quotes the line of the text in which it is.
fn from_toml<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let index = before.map_or(0, |before| before.matches('\n').count());
        match text.lines().nth(index) {
            // An error in the first line is about the whole document: something is missing.
            Some(line) if index > 0 => {
                anyhow!("line {}, `{}`: {}", index + 1, line.trim(), error.message())
            }
            _ => anyhow!("{}", error.message()),
        }
    })
}

/// Replaces the variables of a template with their values.
fn fill_in(
    template: &str,
    value: impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .with_context(|| format!("{template:?} has {{{{ without }}}}"))?;
        text += before;
        text += &value(name.trim())?;
        rest = after;
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        spin_manifest_version = 2
        application = { name = "a" }
        [variables]
        host = { default = "example.org" }
        token = { required = true, secret = true }
        [[trigger.http]]
        route = "/..."
        component = "c"
        [component.c]
        source = "c.wasm"
        allowed_outbound_hosts = []
        [component.c.variables]
        url = "https://{{ host }}/?{{token}}"
        plain = "text"
    "#;

    fn parse(text: &str) -> anyhow::Result<Manifest> {
        Manifest::parse(Path::new("spin.toml"), text)
    }

    #[test]
    fn templates_are_filled_in_with_the_applications_variables() {
        let manifest = parse(MANIFEST).unwrap();
        let given = BTreeMap::from([("token".into(), "t".into()), ("other".into(), "o".into())]);
        let variables = manifest.variables(&given).unwrap();
        assert_eq!(variables["url"], "https://example.org/?t");
        assert_eq!(variables["plain"], "text");
        assert_eq!(variables.len(), 2);
        let error = manifest.variables(&BTreeMap::new()).unwrap_err();
        assert!(
            format!("{error:#}").contains("--variable token=VALUE"),
            "{error:#}"
        );
    }

    #[test]
    fn what_this_host_cannot_serve_is_an_error_that_names_it() {
        for (from, to, says) in [
            ("spin_manifest_version = 2", "", "spin_manifest_version"),
            ("version = 2", "version = 1", "version 1"),
            ("version = 2", "version = \"1\"", "version 1"),
            (
                "spin_manifest_version = 2",
                "spin_version = \"1\"",
                "version 1",
            ),
            ("trigger.http", "trigger.redis", "no HTTP trigger"),
            ("component = \"c\"", "component = \"d\"", "\"d\""),
            ("source = \"c.wasm\"", "source = { url = \"u\" }", "source"),
            ("[variables]", "[variables", "line 4"),
        ] {
            let error = parse(&MANIFEST.replace(from, to)).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{error:#}");
            assert_eq!(format!("{error:#}").lines().count(), 1, "{error:#}");
        }
        let error = Manifest::read(Path::new("nowhere/spin.toml")).unwrap_err();
        assert!(
            format!("{error:#}").contains("nowhere/spin.toml"),
            "{error:#}"
        );
    }
}
