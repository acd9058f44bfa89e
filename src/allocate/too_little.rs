//! Finds out what would make a model fit into a machine's memory that no choice of types makes fit.

use super::Choices;
use crate::error::{Error, Result, TooLittleMemory};
use crate::memory::{self, RunConfig};

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
            tokens: run.context,
            kv: run.kv.name(),
            enough,
            context: (low > 0).then_some(low * 256),
            less_reserve: ram.checked_sub(need).filter(|left| *left > 0),
            ways: Vec::new(),
        })))
    }
}
