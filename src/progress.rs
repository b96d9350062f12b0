//! Long work: how far it is, and the flag that ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// How far a long computation is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being computed; empty when nothing is.
    pub stage: String,
    /// Parts done.
    pub done: usize,
    /// Parts in all; 0 if unknown.
    pub total: usize,
}

impl Progress {
    /// How much of a file has come over the network, in megabytes; `done` and `total` are bytes.
    #[must_use]
    pub fn received(file: &str, done: usize, total: usize) -> Self {
        let mega = |bytes: usize| bytes.div_ceil(1_000_000);
        Self { stage: format!("MB of {file} received"), done: mega(done), total: mega(total) }
    }
}

/// Counts up towards a total, from several threads, and makes a [`Progress`] of every step.
#[derive(Debug)]
pub struct Counter {
    stage: &'static str,
    done: AtomicUsize,
    total: usize,
}

impl Counter {
    /// Nothing of `total` parts done yet.
    #[must_use]
    pub const fn new(stage: &'static str, total: usize) -> Self {
        Self { stage, done: AtomicUsize::new(0), total }
    }

    /// So many parts more.
    pub fn add(&self, more: usize) -> Progress {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        Progress { stage: self.stage.into(), done, total: self.total }
    }
}

/// A flag that ends a run between two steps of the network; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the runs that hold a clone of this.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Error::Cancelled`] once cancelled.
    ///
    /// # Errors
    /// Exactly then.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
