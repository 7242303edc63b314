//! [`Program`]: a compiled component, from which instances are made.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use wasmtime::component::{Component, Linker};
use wasmtime::{Cache, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre as Wasi02;
use wasmtime_wasi_http::p3::bindings::ServicePre as Wasi03;

use super::{Guest, Reuse};
use crate::platform::Platform;
use crate::{bindings, component, cpu, view};

/// A compiled and linked component, from which instances are made.
#[derive(Clone)]
pub struct Program(pub(super) Arc<ProxyPre<Guest>>);

impl Program {
    /// Compiles the component at `path`, and checks that this host and the `platform` have all its imports. Reserves address
    /// space for `instances` that serve requests at the same time.
    pub fn load(path: &Path, platform: &Platform, instances: usize) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        // Wasmtime's cache in the user's home directory: a debug build of this host compiles for seconds. Without a
        // cache, it is only slower.
        config.cache(Cache::from_file(None).ok());
        // Pooled memories make a new instance cheap. Not every machine lets a process reserve that much address space.
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)?));
        let engine = Engine::new(&config).or_else(|_| {
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Engine::new(&config)
        })?;
        cpu::tick(&engine)?;
        let bytes = std::fs::read(path)?;
        let component = Component::new(&engine, component::encode(&bytes)?)?;
        let kind = component.component_type();
        platform.check(kind.imports(&engine).map(|(name, _)| name))?;
        let exports = |interface: &str| {
            kind.exports(&engine)
                .any(|(name, _)| name.starts_with(interface))
        };

        let program = linker(&engine)?.instantiate_pre(&component)?;
        let program = if exports("wasi:http/handler@0.3.") {
            ProxyPre::P3(Wasi03::new(program)?)
        } else if exports("wasi:http/incoming-handler@0.2.") {
            ProxyPre::P2(Wasi02::new(program)?)
        } else {
            anyhow::bail!(
                "it is not an HTTP component: it exports neither wasi:http/handler (WASI 0.3) nor wasi:http/incoming-handler (WASI 0.2)"
            );
        };
        Ok(Self(Arc::new(program)))
    }

    pub(super) fn engine(&self) -> &Engine {
        let Self(program) = self;
        match &**program {
            ProxyPre::P2(program) => program.engine(),
            ProxyPre::P3(program) => program.engine(),
        }
    }

    /// Whether it is a component of WASI 0.2: each instance serves one request, and ends with it.
    pub(super) fn is_wasi_0_2(&self) -> bool {
        let Self(program) = self;
        matches!(**program, ProxyPre::P2(_))
    }

    /// `reuse`, except that instances of WASI 0.2 are not reused.
    pub(super) fn reuse(&self, reuse: Reuse) -> Reuse {
        if !self.is_wasi_0_2() {
            return reuse;
        }
        Reuse {
            requests: 1,
            concurrent_requests: 1,
            ..reuse
        }
    }
}

/// Room for this many instances that serve requests at the same time.
fn pool(instances: usize) -> anyhow::Result<PoolingAllocationConfig> {
    /// Room for instances that serve no request: idle ones, and those that work on after their responses.
    const IDLE: u32 = 1000;
    /// A component has a few modules: its own, and adapters between it and its imports. They share one memory.
    const MODULES: u32 = 5;

    let instances = u32::try_from(instances).context("too many instances")?;
    let instances = instances.saturating_add(IDLE);
    let modules = instances.saturating_mul(MODULES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(modules)
        .total_memories(instances)
        .total_tables(modules)
        .total_stacks(instances);
    Ok(pool)
}

/// All the interfaces that this host has.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::<Guest>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    bindings::Interfaces::add_to_linker::<_, view::Data>(&mut linker, Guest::view)?;
    Ok(linker)
}
