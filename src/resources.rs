//! Limits on threads and memory, and progress callbacks.

use crate::error::{Error, Result};

/// The most threads that are started for each core: more only wait for one another.
const MOST_PER_CORE: usize = 4;

/// The error for threads that the system does not give.
pub(crate) fn no_threads(e: &dyn std::error::Error) -> Error {
    Error::refused(format!("cannot start threads: {e}"))
        .or("raise the limits of processes and memory (`ulimit -u`, `ulimit -v`); or use fewer: --threads 1")
}

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads; 0 for one per core. At most four per core are started.
    pub threads: usize,
    /// Bytes in flight between reading and writing, and of activations during calibration.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { threads: 0, memory: 1 << 30 }
    }
}

impl Limits {
    /// A pool of that many threads.
    ///
    /// # Errors
    /// [`Error::Refused`] if the threads cannot be started.
    pub fn pool(self) -> Result<rayon::ThreadPool> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = self.threads.min(MOST_PER_CORE * cores);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|e| no_threads(&e))
    }
}

/// Receives progress. By default, all methods do nothing. They are called from worker threads.
pub trait Watcher: Sync {
    /// `bytes` of tensor data will be written.
    fn total(&self, _bytes: u64) {}
    /// `bytes` more have been written.
    fn advance(&self, _bytes: u64) {}
    /// `done` of `of` layers are finished, in work that goes layer by layer.
    fn layers(&self, _done: usize, _of: usize) {}
    /// `done` of `of` chunks of a text have been evaluated.
    fn chunks(&self, _done: usize, _of: usize) {}
    /// This part of the work is finished.
    fn finished(&self) {}
}

/// Ignores progress.
impl Watcher for () {}
