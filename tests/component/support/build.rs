//! The builds of the component, with the hosts and stores that they run on.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use loopless::event::{State, Tag};
use loopless::promises::{self, PROMISES};
use loopless_host::manifest::Manifest;
use loopless_host::platform::Platform;
use loopless_host::sqlite::Connection;
use loopless_host::store::{Memory, Observed, Quirks, Sqlite};
use loopless_host::{Builder, Harness};
use tempfile::TempDir;

use super::redis::Redis;
use super::table::Table;

/// A build of the component.
#[derive(Clone, Copy)]
pub struct Build {
    /// The path of its manifest in the project.
    manifest: &'static str,
    promises: promises::Build,
    platform: fn() -> Platform,
    events: Events,
}

/// Where a build keeps its events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Events {
    KeyValue,
    Sqlite,
    Redis,
}

impl Build {
    pub const SPIN: Self = Self {
        manifest: "spin.toml",
        promises: promises::Build::SPIN,
        platform: Platform::spin,
        events: Events::KeyValue,
    };
    pub const AKAMAI_FUNCTIONS: Self = Self {
        manifest: "deploy/akamai-functions.toml",
        promises: promises::Build::AKAMAI_FUNCTIONS,
        platform: Platform::akamai_functions,
        events: Events::KeyValue,
    };
    pub const FERMYON_CLOUD: Self = Self {
        manifest: "deploy/fermyon-cloud.toml",
        promises: promises::Build::FERMYON_CLOUD,
        platform: Platform::fermyon_cloud,
        events: Events::KeyValue,
    };
    pub const SPIN_SQLITE: Self = Self {
        manifest: "deploy/spin-sqlite.toml",
        events: Events::Sqlite,
        ..Self::SPIN
    };
    pub const FERMYON_CLOUD_SQLITE: Self = Self {
        manifest: "deploy/fermyon-cloud-sqlite.toml",
        promises: promises::Build::WASI_0_2,
        events: Events::Sqlite,
        ..Self::FERMYON_CLOUD
    };
    pub const AKAMAI_FUNCTIONS_REDIS: Self = Self {
        manifest: "deploy/akamai-functions-redis.toml",
        promises: promises::Build::SPIN,
        events: Events::Redis,
        ..Self::AKAMAI_FUNCTIONS
    };
    pub const SPIN_3_REDIS: Self = Self {
        manifest: "deploy/spin-3-redis.toml",
        promises: promises::Build::WASI_0_2,
        events: Events::Redis,
        ..Self::FERMYON_CLOUD
    };

    pub const ALL: [Self; 3] = [Self::SPIN, Self::AKAMAI_FUNCTIONS, Self::FERMYON_CLOUD];

    /// The built component.
    pub fn path(self) -> PathBuf {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = Manifest::read(&project.join(self.manifest)).unwrap();
        manifest.build().unwrap()
    }

    /// A host with the interfaces of the build's platform, but without its limits and its manifest's variables.
    pub fn builder(self) -> Builder {
        let platform = Platform {
            lacks: (self.platform)().lacks,
            ..Platform::spin()
        };
        let builder = Harness::builder().component(self.path()).platform(platform);
        if self.events == Events::Redis {
            self.on_redis(builder, Redis::default())
        } else {
            builder
        }
    }

    /// A host of an application in whose manifest the component's table has only these lines besides its source.
    pub async fn with_manifest(self, lines: &str) -> Harness {
        let directory = tempfile::tempdir().unwrap();
        let manifest = directory.path().join("spin.toml");
        let source = self.path();
        let text = format!(
            "spin_manifest_version = 2\n\
             [application]\nname = \"loopless\"\n\
             [[trigger.http]]\nroute = \"/...\"\ncomponent = \"loopless\"\n\
             [component.loopless]\nsource = {source:?}\n{lines}\n"
        );
        std::fs::write(&manifest, text).unwrap();
        Harness::builder().manifest(manifest).start().await.unwrap()
    }

    fn on_redis(self, builder: Builder, redis: impl loopless_host::redis::Server) -> Builder {
        let builder = builder.variable("redis_url", "redis://redis.example");
        builder.redis(redis)
    }

    pub async fn start(self) -> Harness {
        self.builder().start().await.unwrap()
    }

    /// A host, and its store for the test to observe.
    pub async fn observed(self) -> (Harness, Seen) {
        let store = self.store().await;
        (self.on(&store).start().await.unwrap(), store)
    }

    /// An empty store for the test to observe.
    pub async fn store(self) -> Seen {
        match self.events {
            Events::KeyValue => Seen {
                observed: Observed::new(Memory::default()),
                backend: Backend::KeyValue,
            },
            Events::Sqlite => {
                let table = Table::new().await;
                Seen {
                    observed: Observed::new(table.clone()),
                    backend: Backend::Sqlite(table),
                }
            }
            Events::Redis => {
                let redis = Redis::default();
                Seen {
                    observed: Observed::new(redis.clone()),
                    backend: Backend::Redis(redis),
                }
            }
        }
    }

    /// A host on this store.
    pub fn on(self, store: &Seen) -> Builder {
        let observed = store.observed.clone();
        match &store.backend {
            Backend::KeyValue => self.builder().store(observed),
            Backend::Sqlite(table) => {
                let database = observed.database(table.clone());
                self.builder().database("default", database)
            }
            Backend::Redis(redis) => self.on_redis(self.builder(), observed.redis(redis.clone())),
        }
    }

    /// A store that outlives its hosts.
    pub fn kept(self) -> Kept {
        Kept {
            build: self,
            directory: tempfile::tempdir().unwrap(),
            redis: Redis::default(),
        }
    }

    /// The stores that this build can run on, with their names. They differ only in the key-value store's compare-and-swap, so
    /// a build without that has one.
    pub fn quirks(self) -> &'static [(&'static str, Quirks)] {
        let all = const { &Quirks::ALL };
        if self.promises.has_atomics && self.has_key_value() {
            all
        } else {
            &all[..1]
        }
    }

    /// Whether this build makes the promise with this identifier.
    pub fn keeps(self, promise: &str) -> bool {
        let promise = PROMISES.iter().find(|known| known.id == promise).unwrap();
        self.promises.keeps(promise)
    }

    /// Whether this build keeps its events in the key-value store.
    pub fn has_key_value(self) -> bool {
        self.events == Events::KeyValue
    }

    /// Whether an instance serves many requests.
    pub fn has_wasi_0_3(self) -> bool {
        self.promises.has_wasi_0_3
    }

    /// The generation of an event with this value in the store.
    pub fn generation(self, value: &[u8]) -> u64 {
        let text = std::str::from_utf8(value);
        if !self.promises.has_atomics {
            let state: State = text.unwrap().parse().unwrap();
            return state.generation.changes();
        }
        let number = match value.try_into() {
            Ok(bytes) => u64::from_le_bytes(bytes),
            Err(_) => text.unwrap().parse().unwrap(),
        };
        // The tag is above the generation's 40 bits.
        number % (1 << 40)
    }

    /// Whether `text` is a version in this generation: an entity tag without its quotes, or the id of a message.
    pub fn is_version(self, text: &str, generation: u64) -> bool {
        let state: Result<State, _> = text.parse();
        state.is_ok_and(|state| {
            let is_tag = match state.tag {
                Some(Tag::Narrow(_)) => self.promises.has_atomics,
                Some(Tag::Wide(_)) => !self.promises.has_atomics,
                None => generation == 0,
            };
            is_tag && state.generation.changes() == generation
        })
    }
}

/// The store of a build, which a test observes. Clones share the store.
#[derive(Clone)]
pub struct Seen {
    observed: Observed,
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    KeyValue,
    Sqlite(Table),
    Redis(Redis),
}

impl Deref for Seen {
    type Target = Observed;

    fn deref(&self) -> &Observed {
        &self.observed
    }
}

/// A store that outlives the hosts of its build: a file, or a Redis.
pub struct Kept {
    build: Build,
    directory: TempDir,
    redis: Redis,
}

impl Kept {
    /// A host on this store.
    pub fn builder(&self) -> Builder {
        let path = self.directory.path().join("store.db");
        let builder = self.build.builder();
        match self.build.events {
            Events::KeyValue => builder.store(Sqlite::open(&path).unwrap()),
            Events::Sqlite => builder.database("default", Connection::open(&path).unwrap()),
            Events::Redis => self.build.on_redis(builder, self.redis.clone()),
        }
    }
}
