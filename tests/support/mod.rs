//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod arbitrary;
pub mod redis;
#[path = "../harness/tests/support/mod.rs"]
pub mod shared;
pub mod sse;
pub mod table;

use std::ops::Deref;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use loopless::event::{State, Tag};
use loopless::promises::{self, PROMISES};
use loopless_host::manifest::Manifest;
use loopless_host::platform::Platform;
use loopless_host::sqlite::Connection;
use loopless_host::store::{Memory, Observed, Quirks, Sqlite};
use loopless_host::{Builder, Harness};
use serde_json::Value;
use table::Table;
use tempfile::TempDir;

use redis::Redis;

/// A build of the component.
#[derive(Clone, Copy)]
pub struct Build {
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
        manifest: concat!(env!("CARGO_MANIFEST_DIR"), "/spin.toml"),
        promises: promises::Build::SPIN,
        platform: Platform::spin,
        events: Events::KeyValue,
    };
    pub const AKAMAI_FUNCTIONS: Self = Self {
        manifest: concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/akamai-functions.toml"),
        promises: promises::Build::AKAMAI_FUNCTIONS,
        platform: Platform::akamai_functions,
        events: Events::KeyValue,
    };
    pub const FERMYON_CLOUD: Self = Self {
        manifest: concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/fermyon-cloud.toml"),
        promises: promises::Build::FERMYON_CLOUD,
        platform: Platform::fermyon_cloud,
        events: Events::KeyValue,
    };
    pub const SPIN_SQLITE: Self = Self {
        manifest: concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/spin-sqlite.toml"),
        events: Events::Sqlite,
        ..Self::SPIN
    };
    pub const FERMYON_CLOUD_SQLITE: Self = Self {
        manifest: concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/deploy/fermyon-cloud-sqlite.toml"
        ),
        promises: promises::Build::WASI_0_2,
        events: Events::Sqlite,
        ..Self::FERMYON_CLOUD
    };

    pub const AKAMAI_FUNCTIONS_REDIS: Self = Self {
        manifest: concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/deploy/akamai-functions-redis.toml"
        ),
        promises: promises::Build::SPIN,
        events: Events::Redis,
        ..Self::AKAMAI_FUNCTIONS
    };
    pub const SPIN_3_REDIS: Self = Self {
        manifest: concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/spin-3-redis.toml"),
        promises: promises::Build::WASI_0_2,
        events: Events::Redis,
        ..Self::FERMYON_CLOUD
    };

    pub const ALL: [Self; 3] = [Self::SPIN, Self::AKAMAI_FUNCTIONS, Self::FERMYON_CLOUD];

    /// The built component.
    pub fn path(self) -> PathBuf {
        let manifest = Manifest::read(Path::new(self.manifest)).unwrap();
        manifest.build().unwrap()
    }

    /// A host of this build that has nothing that the platform lacks, but no limits, and the defaults of the code.
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

    fn on_redis(self, builder: Builder, redis: impl loopless_host::redis::Server) -> Builder {
        let builder = builder.variable("redis_url", "redis://redis.example");
        builder.redis(redis)
    }

    pub async fn start(self) -> Harness {
        self.builder().start().await.unwrap()
    }

    /// A host whose store the test can see.
    pub async fn observed(self) -> (Harness, Seen) {
        let store = self.store().await;
        (self.on(&store).start().await.unwrap(), store)
    }

    /// An empty store that the test can see.
    pub async fn store(self) -> Seen {
        let mut seen = Seen {
            observed: Observed::new(Memory::default()),
            table: None,
            redis: None,
        };
        match self.events {
            Events::KeyValue => {}
            Events::Sqlite => {
                let table = Table::new().await;
                seen.observed = Observed::new(table.clone());
                seen.table = Some(table);
            }
            Events::Redis => {
                let redis = Redis::default();
                seen.observed = Observed::new(redis.clone());
                seen.redis = Some(redis);
            }
        }
        seen
    }

    /// A host on this store.
    pub fn on(self, store: &Seen) -> Builder {
        let observed = store.observed.clone();
        match (&store.table, &store.redis) {
            (Some(table), _) => {
                let database = observed.database(table.clone());
                self.builder().database("default", database)
            }
            (_, Some(redis)) => self.on_redis(self.builder(), observed.redis(redis.clone())),
            (None, None) => self.builder().store(observed),
        }
    }

    /// Where hosts keep what outlives them.
    pub fn kept(self) -> Kept {
        Kept {
            build: self,
            directory: tempfile::tempdir().unwrap(),
            redis: Redis::default(),
        }
    }

    /// The stores that it can run on. Without the key-value store's compare-and-swap, there is nothing in which they differ.
    pub fn quirks(self) -> &'static [(&'static str, Quirks)] {
        let all = const { &Quirks::ALL };
        if self.promises.has_atomics && self.has_key_value() {
            all
        } else {
            &all[..1]
        }
    }

    /// Whether it makes the promise of this name.
    pub fn keeps(self, promise: &str) -> bool {
        let promise = PROMISES.iter().find(|known| known.id == promise).unwrap();
        self.promises.keeps(promise)
    }

    /// Whether it keeps the events in the key-value store.
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
        // Above its 40 bits is the tag.
        number % (1 << 40)
    }

    /// Whether this is the text of a state in this generation: an entity tag without its quotes, an id.
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

/// A build's store, as a test sees it. Clones are the same one.
#[derive(Clone)]
pub struct Seen {
    observed: Observed,
    table: Option<Table>,
    redis: Option<Redis>,
}

impl Deref for Seen {
    type Target = Observed;

    fn deref(&self) -> &Observed {
        &self.observed
    }
}

/// What outlives the hosts of a build: a file, or a Redis.
pub struct Kept {
    build: Build,
    directory: TempDir,
    redis: Redis,
}

impl Kept {
    /// A host on it.
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

/// The entity tag of a response, with its quotes.
pub fn etag(response: &Response<Bytes>) -> &str {
    response.headers()[header::ETAG].to_str().unwrap()
}

/// Sends a request with these headers.
pub async fn send(
    host: &Harness,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Bytes> {
    host.send(request(method, path, headers, body)).await
}

/// A request with these headers.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<String> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned()).unwrap()
}

pub fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

pub fn json(response: &Response<Bytes>) -> Value {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

/// Checks that this is a problem document, and returns its detail.
pub fn problem(response: &Response<Bytes>, status: StatusCode) -> String {
    assert_eq!(response.status(), status, "{}", text(response));
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(document["type"], "about:blank");
    assert_eq!(document["status"], status.as_u16());
    assert_eq!(document["title"], status.canonical_reason().unwrap());
    document["detail"].as_str().unwrap().to_owned()
}
