//! The stages in order.

use formats::model::Encoding;

use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::quantize::{Outcome, Watcher, quantize};
use crate::report;
use crate::source::Source;
use kernels;

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

impl Limits {
    /// The threads.
    ///
    /// # Errors
    /// The system's.
    pub fn pool(self) -> Result<rayon::ThreadPool> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        pool.map_err(|e| Error::refused(format!("cannot start threads: {e}")))
    }
}

/// Carries a plan out: its files appear, each whole, when all of them are on the disk. Gives the outcome of every tensor of the layout.
///
/// # Errors
/// No space, the system's, and those of [`quantize`].
pub fn run(source: &Source, plan: &Plan, limits: Limits, watcher: &dyn Watcher) -> Result<Vec<Outcome>> {
    source.need_weights()?;
    for (step, t) in plan.steps.iter().zip(&plan.layout.tensors).filter(|(s, t)| s.from != t.encoding) {
        if let Encoding::Blocks(dtype) = t.encoding
            && kernels::codec(dtype).is_none()
        {
            let (name, from) = (&t.name, step.from.name());
            return Err(Error::refused(format!(
                "tensor {name} is {from}, and this version can copy {} but not make it",
                dtype.name()
            )));
        }
    }
    if let Some(folder) = &plan.folder {
        std::fs::create_dir(folder).map_err(|e| Error::io(folder, "create", e))?;
    }
    let outcomes = write(source, plan, limits, watcher);
    if let (Err(_), Some(folder)) = (&outcomes, &plan.folder) {
        let _ = std::fs::remove_dir(folder); // only if nothing is in it
    }
    outcomes
}

fn write(source: &Source, plan: &Plan, limits: Limits, watcher: &dyn Watcher) -> Result<Vec<Outcome>> {
    let targets: Vec<_> = plan.paths.iter().zip(plan.layout.files.iter().map(|f| f.len)).collect();
    let extra: Vec<_> = plan.extra.iter().map(|(path, bytes)| (path, bytes.len() as u64)).collect();
    if let (Some((path, _)), need) = (targets.first().or(extra.first()), plan.bytes())
        && let Some(free) = disk::free_space(path)
        && need > free
    {
        let (path, need, free) = (path.display(), report::bytes(need), report::bytes(free));
        return Err(Error::refused(format!("{path}: {need} are needed and {free} are free"))
            .or("free some space or write to another disk; nothing was changed"));
    }
    let create = |(path, len): &(&std::path::PathBuf, u64)| NewFile::create(path, *len);
    let mut files = targets.iter().map(create).collect::<Result<Vec<_>>>()?;
    let extra_files = extra.iter().map(create).collect::<Result<Vec<_>>>()?;
    for (file, layout) in files.iter().zip(&plan.layout.files) {
        for (offset, bytes) in &layout.fixed {
            file.write(*offset, bytes)?;
        }
    }
    for (file, (_, bytes)) in extra_files.iter().zip(&plan.extra) {
        file.write(0, bytes)?;
    }
    let pool = limits.pool()?;
    let outcomes = quantize(source, plan, &files, &pool, limits.memory, watcher)?;
    // The first part of a split last, and an index after all parts: whoever finds it finds the others too.
    files.reverse();
    files.extend(extra_files);
    disk::finish(files)?;
    Ok(outcomes)
}
