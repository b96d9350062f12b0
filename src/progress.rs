//! Long work: how far it is, and the flag that ends it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

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

/// A flag that ends a run between two steps of the network; clones share it. Work that must give way waits at every look at it.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    cancelled: Arc<AtomicBool>,
    gate: Option<Arc<Gate>>,
}

impl Cancel {
    /// For work that gives way: wherever it looks whether it was cancelled, it waits while `gate` is closed.
    #[must_use]
    pub fn behind(gate: &Arc<Gate>) -> Self {
        Self { gate: Some(Arc::clone(gate)), ..Self::default() }
    }

    /// Ends the runs that hold a clone of this.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(gate) = &self.gate {
            gate.changed.notify_all();
        }
    }

    /// What a signal may set to cancel.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether [`Self::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// [`Error::Cancelled`] once cancelled.
    ///
    /// # Errors
    /// Exactly then.
    pub fn check(&self) -> Result<()> {
        if let Some(gate) = &self.gate {
            gate.wait(self);
        }
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// What long work waits at while somebody waits for an answer.
#[derive(Debug, Default)]
pub struct Gate {
    /// Closed so often, and not opened again. Looked at without the lock.
    closed: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Gate {
    /// Closes it until what is returned is dropped.
    pub fn close(&self) -> Closed<'_> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Closed(self)
    }

    fn wait(&self, cancel: &Cancel) {
        if self.closed.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.closed.load(Ordering::SeqCst) > 0 && !cancel.is_cancelled() {
            // Cancelling does not take the lock, so a call may come between the look and the wait.
            held = self.changed.wait_timeout(held, Duration::from_millis(20)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A closed [`Gate`], which opens when this is dropped.
#[derive(Debug)]
pub struct Closed<'g>(&'g Gate);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.closed.fetch_sub(1, Ordering::SeqCst);
        drop(self.0.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn work_behind_a_closed_gate_waits_and_ends_when_cancelled() {
        let gate = Arc::new(Gate::default());
        let (going, cancelled) = (Cancel::behind(&gate), Cancel::behind(&gate));
        going.check().unwrap();
        thread::scope(|scope| {
            let closed = (gate.close(), gate.close());
            let (one, other) = (scope.spawn(|| going.check()), scope.spawn(|| cancelled.check()));
            cancelled.cancel();
            assert!(matches!(other.join().unwrap(), Err(Error::Cancelled)));
            drop(closed.0);
            assert!(!one.is_finished());
            drop(closed.1);
            one.join().unwrap().unwrap();
        });
    }
}
