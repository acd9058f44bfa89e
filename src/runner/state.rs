//! What a run remembers.

use super::linear::Inputs;
use super::{KvType, Network};
use crate::error::{Error, Result};
use kernels::attention::KvHead;

/// Keys and values of the tokens so far, of one sequence or several that do not see each other.
pub struct State {
    pub(super) sequences: Vec<Sequence>,
    pub(super) capacity: usize,
    pub(super) inputs: Inputs,
}

pub(super) struct Sequence {
    pub len: usize,
    /// `[layers][kv heads]`.
    pub heads: Vec<Vec<KvHead>>,
}

impl State {
    /// No tokens yet, of `sequences` of up to `capacity` tokens each. Memory grows with the tokens.
    ///
    /// # Errors
    /// [`KvType::Q8_0`] for heads that 32 does not divide.
    pub fn new(network: &Network, kind: KvType, sequences: usize, capacity: usize) -> Result<Self> {
        let config = &network.config;
        let dim = config.head as usize;
        if kind == KvType::Q8_0 && !dim.is_multiple_of(32) {
            let why = format!("a q8_0 cache needs heads of a multiple of 32, and these are of {dim}");
            return Err(Error::usage(why).or("--kv f16"));
        }
        let heads = || (0..config.kv_heads).map(|_| KvHead::new(kind, dim, capacity)).collect();
        let one = || Sequence { len: 0, heads: (0..config.layers).map(|_| heads()).collect() };
        Ok(Self { sequences: (0..sequences).map(|_| one()).collect(), capacity, inputs: Inputs::default() })
    }

    /// Tokens of a sequence so far.
    pub fn len(&self, sequence: usize) -> usize {
        self.sequences[sequence].len
    }

    /// Whether a sequence has no tokens yet.
    pub fn is_empty(&self, sequence: usize) -> bool {
        self.len(sequence) == 0
    }

    /// Forgets all but the first `len` tokens of a sequence.
    pub fn truncate(&mut self, sequence: usize, len: usize) {
        let s = &mut self.sequences[sequence];
        s.len = s.len.min(len);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sequences.iter_mut().for_each(|s| s.len = 0);
    }
}
