//! The error for a model that fits into a machine's memory with no choice of types, and what would make it fit.

use super::Choices;
use crate::error::{Error, Result};
use crate::memory::{self, RunConfig};
use crate::runner::KvType;
use crate::text::bytes;

/// The memory that the smallest choice of types needs, and what could be changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} of memory, less {} for the system, is too little: the smallest choice needs {} ({} of weights, {} of KV cache for \
     {} tokens as {}, {} for the rest)",
    bytes(*.ram), bytes(*.reserve), bytes(*.need), bytes(*.weights), bytes(*.kv_cache), .run.context, .run.kv.name(),
    bytes(.need - .weights - .kv_cache)
)]
pub struct TooLittleMemory {
    /// Memory of the machine, in bytes.
    pub ram: u64,
    /// Bytes of it that are left to the system.
    pub reserve: u64,
    /// Bytes that the smallest choice needs, all together.
    pub need: u64,
    /// Bytes of its weights.
    pub weights: u64,
    /// Bytes of its KV cache.
    pub kv_cache: u64,
    /// How it would be run.
    pub run: RunConfig,
    /// Bytes of memory that would be enough.
    pub enough: u64,
    /// The longest context, in tokens, with which it would fit.
    pub context: Option<u64>,
    /// Whether a q8_0 KV cache was ruled out.
    pub f16_only: bool,
    /// How the types could get smaller.
    pub smaller: &'static str,
}

impl TooLittleMemory {
    /// What would make the model fit.
    pub fn hint(&self) -> String {
        let gib = self.enough as f64 / f64::from(1 << 30) + 0.05;
        let mut options = vec![format!("--fit {gib:.1}G or more")];
        options.extend(self.context.map(|context| format!("a shorter context (--context {context})")));
        options.extend(self.f16_only.then(|| "--kv q8_0".to_string()));
        options.push(format!("a smaller --reserve, {}, or a smaller model", self.smaller));
        options.join("; ")
    }
}

impl Choices {
    /// The error for a machine with `ram` bytes, of which `given` or [`memory::reserve`] are left to the system.
    pub(super) fn too_little_memory(
        &self,
        ram: u64,
        given: Option<u64>,
        runs: &[RunConfig],
    ) -> Result<Error> {
        let weights = self.smallest() - self.header();
        let all = self.largest(runs)?.into_iter().map(|(run, overhead)| (weights + overhead, run));
        let reserve = given.unwrap_or_else(|| memory::reserve(ram));
        let Some((need, run)) = all.min_by_key(|n| n.0) else {
            return Ok(Error::usage("no program to run the model was named"));
        };
        // The default reserve grows with the machine.
        let enough = given.map_or_else(|| memory::enough(need), |reserve| need + reserve);
        let room = ram.saturating_sub(reserve);
        let fits = |tokens: u64| -> Result<bool> {
            Ok(weights + self.memory_overhead(RunConfig { context: tokens, ..run })? <= room)
        };
        // Contexts are tried in steps of 256 tokens, by bisection.
        let (mut low, mut high) = (0, run.context / 256);
        while low < high {
            let middle = (low + high).div_ceil(2);
            (low, high) = if fits(middle * 256)? { (middle, high) } else { (low, middle - 1) };
        }
        Ok(Error::TooLittleMemory(Box::new(TooLittleMemory {
            ram,
            reserve,
            need,
            weights,
            kv_cache: self.memory(run, weights)?.kv_cache,
            run,
            enough,
            context: (low > 0).then_some(low * 256),
            f16_only: runs.iter().all(|r| r.kv != KvType::Q8_0),
            smaller: self.smaller_types_hint(),
        })))
    }
}
