//! How long guests compute: Wasmtime's epochs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use wasmtime::{Engine, Store, UpdateDeadline};

/// How long an epoch takes. A guest that computes longer lets others compute in between.
const EPOCH: Duration = Duration::from_millis(10);

/// Counts this engine's epochs, as long as there is the engine.
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
/// That is less than the time that went by, if the machine is busy with others: a guest is not blamed for them.
#[derive(Debug, Default)]
pub struct Slices {
    used: AtomicU64,
    has_yielded: AtomicBool,
}

impl Slices {
    /// Its worker has been polled, and is not ready: the guest has paused, unless it was only made to yield.
    pub fn pause(&self) {
        if !self.has_yielded.swap(false, Ordering::Relaxed) {
            self.used.store(0, Ordering::Relaxed);
        }
    }
}

/// Lets the guest in this store compute for `most` without a pause, and traps it then.
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
                    "the component computed for {} without a pause, longer than it may (--cpu-timeout)",
                    humantime::format_duration(most)
                ));
            }
            slices.has_yielded.store(true, Ordering::Relaxed);
            Ok(UpdateDeadline::Yield(1))
        }
    });
    slices
}

/// Lets the guest in this store compute as long as it likes.
pub fn leave_alone<T>(store: &mut Store<T>) -> Arc<Slices> {
    store.set_epoch_deadline(u64::MAX / 2);
    Arc::default()
}
