//! The KV cache.

use super::linear::Inputs;
use super::{KvType, Network};
use crate::error::{Error, Result};
use kernels::attention::KvHead;

/// The KV cache: keys and values of the tokens so far, of one or several independent sequences.
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
    /// An empty cache for `sequences` sequences of up to `capacity` tokens each. Memory grows with the tokens.
    ///
    /// # Errors
    /// [`Error::Usage`] for [`KvType::Q8_0`] with attention heads whose length is not a multiple of 32.
    pub fn new(network: &Network, kind: KvType, sequences: usize, capacity: usize) -> Result<Self> {
        let config = &network.config;
        let dim = config.head as usize;
        if kind == KvType::Q8_0 && !dim.is_multiple_of(32) {
            let why = format!("a q8_0 KV cache needs attention heads of a multiple of 32 (found {dim})");
            return Err(Error::usage(why).or("use --kv f16"));
        }
        let heads = || (0..config.kv_heads).map(|_| KvHead::new(kind, dim, capacity)).collect();
        let one = || Sequence { len: 0, heads: (0..config.layers).map(|_| heads()).collect() };
        Ok(Self { sequences: (0..sequences).map(|_| one()).collect(), capacity, inputs: Inputs::default() })
    }

    /// The number of tokens of a sequence.
    pub fn len(&self, sequence: usize) -> usize {
        self.sequences[sequence].len
    }

    /// Whether a sequence has no tokens.
    pub fn is_empty(&self, sequence: usize) -> bool {
        self.len(sequence) == 0
    }

    /// Removes all but the first `len` tokens of a sequence.
    pub fn truncate(&mut self, sequence: usize, len: usize) {
        let s = &mut self.sequences[sequence];
        s.len = s.len.min(len);
    }

    /// Removes all tokens of all sequences.
    pub fn clear(&mut self) {
        self.sequences.iter_mut().for_each(|s| s.len = 0);
    }
}
