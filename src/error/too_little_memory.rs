//! The error for a model that fits into a machine's memory with no choice of types, and what would make it fit.

use crate::text::{bytes, unit_meant};

/// The memory that the smallest choice of types needs, and what could be changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} of memory, less {} for the system, is too little: the smallest choice needs {} ({} of weights, {} of KV cache for \
     {} tokens as {}, {} for the rest)",
    bytes(*.ram), bytes(*.reserve), bytes(*.need), bytes(*.weights), bytes(*.kv_cache), .tokens, .kv,
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
    /// Tokens of context that it was asked to have.
    pub tokens: u64,
    /// The type of its KV cache.
    pub kv: &'static str,
    /// Bytes of memory that would be enough.
    pub enough: u64,
    /// The longest context, in tokens, with which it would fit.
    pub context: Option<u64>,
    /// Bytes of the smallest reserve that would be enough, if that is less than is reserved.
    pub less_reserve: Option<u64>,
    /// What else would make it fit, as was found out: each a change of the options.
    pub ways: Vec<String>,
}

impl TooLittleMemory {
    /// What would make the model fit.
    pub fn hint(&self) -> String {
        let gib = self.enough as f64 / f64::from(1 << 30) + 0.05;
        let mut options = vec![format!("use --fit {gib:.1}G or more")];
        options.extend(self.context.map(|context| format!("use --context {context} or less")));
        options.extend(self.less_reserve.map(|bytes| format!("use --reserve {bytes} or less, in bytes")));
        options.extend(self.ways.iter().cloned());
        options.push("take a smaller model".into());
        let options = options.join("; or ");
        unit_meant("--fit", self.ram).map_or(options.clone(), |unit| format!("{unit} Or {options}"))
    }
}
