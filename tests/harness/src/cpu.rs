//! A limit for how long guests compute, with Wasmtime's epochs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use wasmtime::{Engine, Store, UpdateDeadline};

/// How long an epoch takes. A guest that computes for longer yields to others.
const EPOCH: Duration = Duration::from_millis(10);

/// Increments the engine's epoch, until the engine is dropped.
pub fn tick(engine: &Engine) -> io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("epochs".into())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(EPOCH);
            }
        })?;
    Ok(())
}

/// In how many epochs an instance has computed since it last paused.
///
/// On a busy machine this is less than the elapsed time: a guest is charged only for epochs in which it runs.
#[derive(Debug, Default)]
pub struct Slices {
    used: AtomicU64,
    has_yielded: AtomicBool,
}

impl Slices {
    /// Called when the instance's worker is pending: the guest has paused, unless it was made to yield.
    pub fn pause(&self) {
        if !self.has_yielded.swap(false, Ordering::Relaxed) {
            self.used.store(0, Ordering::Relaxed);
        }
    }
}

/// Traps the guest in this store if it computes for longer than `most` without a pause.
pub fn limit<T>(store: &mut Store<T>, most: Option<Duration>) -> Arc<Slices> {
    let slices = Arc::<Slices>::default();
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback({
        let slices = slices.clone();
        move |_| {
            let used = slices.used.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(most) = most
                && u128::from(used) * EPOCH.as_millis() > most.as_millis()
            {
                return Err(wasmtime::format_err!(
                    "the component computed for longer than {} without a pause (--cpu-timeout)",
                    humantime::format_duration(most)
                ));
            }
            slices.has_yielded.store(true, Ordering::Relaxed);
            Ok(UpdateDeadline::Yield(1))
        }
    });
    slices
}

/// Lets the guest in this store compute for any time.
pub fn leave_alone<T>(store: &mut Store<T>) -> Arc<Slices> {
    store.set_epoch_deadline(u64::MAX / 2);
    Arc::default()
}
