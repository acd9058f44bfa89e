//! What a run may use, and who is told how far it is.

use crate::error::{Error, Result};

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads; 0 for one per core.
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
    /// A pool of so many threads.
    ///
    /// # Errors
    /// [`Error::Refused`] if the system starts no threads.
    pub fn pool(self) -> Result<rayon::ThreadPool> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        pool.map_err(|e| Error::refused(format!("cannot start threads: {e}")))
    }
}

/// Is told how far the work is. All methods do nothing unless they are defined; they are called from working threads.
pub trait Watcher: Sync {
    /// So many bytes of tensor data will be written.
    fn total(&self, _bytes: u64) {}
    /// So many more of them have been written.
    fn advance(&self, _bytes: u64) {}
    /// `done` of `of` layers are done, of work that goes layer by layer.
    fn layers(&self, _done: usize, _of: usize) {}
    /// `done` of `of` chunks of a text have been evaluated.
    fn chunks(&self, _done: usize, _of: usize) {}
    /// This part of the work is finished.
    fn finished(&self) {}
}

/// Nobody.
impl Watcher for () {}
