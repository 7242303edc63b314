//! [`Program`]: a component that instances can be made of.

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
use crate::{bindings, component, cpu, keyvalue, variables};

/// A component, compiled and linked: instances can be made of it.
#[derive(Clone)]
pub struct Program(pub(super) Arc<ProxyPre<Guest>>);

impl Program {
    /// Compiles the component at `path`, and checks that this host has all that it imports, as far as the `platform`
    /// has it. There will be room for so many `instances` at the same time.
    pub fn load(path: &Path, platform: &Platform, instances: usize) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true);
        // Wasmtime's own cache of this user: compiling takes seconds in a debug build of this host. If there is
        // no place for a cache, it is only slower.
        config.cache(Cache::from_file(None).ok());
        // Memories are kept and used again: an instance costs microseconds. Not every machine lets a process reserve
        // that much address space.
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
                "it exports neither wasi:http/handler (WASI 0.3) nor wasi:http/incoming-handler (WASI 0.2): it is no HTTP component"
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

    /// Whether its instances serve one request each, and nothing goes on after it.
    pub(super) fn is_wasi_0_2(&self) -> bool {
        let Self(program) = self;
        matches!(**program, ProxyPre::P2(_))
    }

    /// When its instances are reused, if the host's operator wants `reuse`.
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

/// Room for so many instances of a component that serve requests at the same time.
fn pool(instances: usize) -> anyhow::Result<PoolingAllocationConfig> {
    /// Some serve none and are there: those that wait for the next one, or for what others left behind.
    const IDLE: u32 = 1000;
    /// A component has a few modules: its own, and those that join it to its imports. They share one memory.
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

/// All that this host has.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::<Guest>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    bindings::spin::key_value::key_value::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::fermyon::spin::key_value::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::spin::redis::redis::add_to_linker::<_, keyvalue::Data>(&mut linker, Guest::keyvalue)?;
    bindings::fermyon::spin::redis::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::spin::sqlite::sqlite::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::fermyon::spin::sqlite::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::wasi::keyvalue::store::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::wasi::keyvalue::batch::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::wasi::keyvalue::atomics::add_to_linker::<_, keyvalue::Data>(
        &mut linker,
        Guest::keyvalue,
    )?;
    bindings::spin::variables::variables::add_to_linker::<_, variables::Data>(
        &mut linker,
        |guest| &mut guest.variables,
    )?;
    bindings::fermyon::spin::variables::add_to_linker::<_, variables::Data>(
        &mut linker,
        |guest| &mut guest.variables,
    )?;
    Ok(linker)
}
