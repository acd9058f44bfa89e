//! The stages in order.

use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::quantize::{Outcome, Watcher, quantize};
use crate::source::Source;

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads that encode; 0 for one per core.
    pub threads: usize,
    /// Bytes in flight between reading and writing.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { threads: 0, memory: 1 << 30 }
    }
}

/// Carries a plan out: all of its files appear, whole, or none. Gives the outcome of every tensor of the layout.
///
/// # Errors
/// No space, the system's, and those of [`quantize`].
pub fn run(source: &Source, plan: &Plan, limits: Limits, watcher: &dyn Watcher) -> Result<Vec<Outcome>> {
    let targets: Vec<_> = plan.paths.iter().zip(plan.layout.files.iter().map(|f| f.len)).collect();
    let extra = plan.extra.iter().map(|(path, bytes)| (path, bytes.len() as u64));
    let all: Vec<_> = targets.iter().copied().chain(extra).collect();
    if let (Some((path, _)), need) = (all.first(), plan.bytes())
        && let Some(free) = disk::free_space(path)
        && need > free
    {
        return Err(Error::Refused(format!(
            "{}: {need} bytes are needed and {free} are free\nfree some space or write to another disk; nothing was changed",
            path.display()
        )));
    }
    let files = all.iter().map(|(path, len)| NewFile::create(path, *len)).collect::<Result<Vec<_>>>()?;
    for (file, layout) in files.iter().zip(&plan.layout.files) {
        for (offset, bytes) in &layout.fixed {
            file.write(*offset, bytes)?;
        }
    }
    for (file, (_, bytes)) in files[targets.len()..].iter().zip(&plan.extra) {
        file.write(0, bytes)?;
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(limits.threads).build();
    let pool = pool.map_err(|e| Error::Refused(format!("cannot start threads: {e}")))?;
    let outcomes = quantize(source, plan, &files, &pool, limits.memory, watcher)?;
    disk::finish(files)?;
    Ok(outcomes)
}
