//! Handles: what guests have open, and how many of them there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many handles the instances of a host have open.
#[derive(Debug, Default)]
pub struct Handles {
    open: AtomicUsize,
    most_in_instance: AtomicUsize,
}

impl Handles {
    /// How many are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The most that a single instance has had open at the same time.
    pub fn most_in_instance(&self) -> usize {
        self.most_in_instance.load(Ordering::Relaxed)
    }
}

/// How many handles one instance has open.
#[derive(Debug)]
pub struct InstanceHandles {
    open: AtomicUsize,
    all: Arc<Handles>,
}

impl InstanceHandles {
    /// The handles of a new instance, which are counted in `all` too.
    pub fn new(all: Arc<Handles>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            all,
        })
    }

    /// A new handle to `inner`.
    pub fn open<T>(self: &Arc<Self>, inner: T) -> Handle<T> {
        let own = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.all.open.fetch_add(1, Ordering::Relaxed);
        self.all.most_in_instance.fetch_max(own, Ordering::Relaxed);
        Handle {
            inner,
            _opened: Opened(self.clone()),
        }
    }
}

/// A guest's handle to something of the host's. It is counted until the guest drops it, or the instance ends.
pub struct Handle<T> {
    /// What the handle is to.
    pub inner: T,
    _opened: Opened,
}

struct Opened(Arc<InstanceHandles>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.all.open.fetch_sub(1, Ordering::Relaxed);
    }
}
