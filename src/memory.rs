//! What a model takes of a machine's memory while it runs: weights, keys and values of the context, vectors of a batch, the
//! vocabulary, the program itself.
//!
//! The figures are those of a run without a memory map, all of whose context is filled; with one, the weights are the
//! system's to keep or drop, and are the same bytes. [docs/fitting.md](../docs/fitting.md) sets them beside measurements.

use formats::metadata::{Metadata, Value};

use crate::error::{Error, Result};
use crate::runner::KvType;

/// What runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// llama.cpp's programs on the CPU, with their usual batch of 512 tokens.
    LlamaCpp,
    /// ggufkit's own runner.
    Ggufkit,
}

impl Runtime {
    /// All of them, with the names that people give them.
    pub const ALL: [(Self, &str); 2] = [(Self::LlamaCpp, "llama.cpp"), (Self::Ggufkit, "ggufkit")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// What a number of a cache of this kind takes, in bytes times 32.
    fn cache(self, kind: KvType) -> u64 {
        match (kind, self) {
            (KvType::F32, _) => 128,
            (KvType::F16, _) => 64,
            (KvType::Q8_0, Self::LlamaCpp) => 34,
            // Scales are floats here.
            (KvType::Q8_0, Self::Ggufkit) => 36,
        }
    }
}

/// Tokens that are computed together.
const BATCH: u64 = 512;
/// What llama.cpp's programs take before they have a model, and for each layer of one.
const LLAMA_CPP: [u64; 2] = [10 << 20, 200 << 10];
/// What llama.cpp keeps of the largest matrix that it brings into another order, at most.
const REORDER: u64 = 32 << 20;
/// What ggufkit takes before it has a model.
const GGUFKIT: u64 = 32 << 20;
/// Addresses that are asked for and hardly touched: libraries, stacks, gaps that allocators leave. Where a limit is one of
/// addresses (`ulimit -v`), they count.
const UNTOUCHED: u64 = 128 << 20;
/// What a token of a vocabulary takes: its text, its place in a table, its score.
const TOKEN: u64 = 160;
/// What a merge takes.
const MERGE: u64 = 200;

/// The lengths of a model that memory depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// Layers.
    pub layers: u64,
    /// Of a token's vector.
    pub hidden: u64,
    /// Of the feed-forward layer's, the widest one.
    pub feed_forward: u64,
    /// Of all queries together, in the widest layer.
    pub query_width: u64,
    /// Keys and values of a token in all layers together, in numbers.
    pub kv_per_token: u64,
    /// Of the widest layer.
    pub widest_layer_kv: u64,
    /// Of a key and of a value, of one head.
    pub head_dims: [u64; 2],
    /// Tokens of the vocabulary.
    pub vocab: u64,
    /// Merges of the vocabulary.
    pub merges: u64,
    /// The longest context.
    pub context: u64,
}

impl ModelShape {
    /// Reads a GGUF's settings.
    ///
    /// # Errors
    /// Settings that are missing; models that keep something else than keys and values of every token.
    pub fn read(metadata: &Metadata, vocab: u64) -> Result<Self> {
        let arch = metadata.get("general.architecture").and_then(Value::as_str).unwrap_or_default();
        let key = |name: &str| format!("{arch}.{name}");
        for other in ["ssm.state_size", "attention.kv_lora_rank", "wkv.head_size"] {
            if metadata.get(&key(other)).is_some() {
                let why =
                    format!("{} says that this model keeps other things than keys and values", key(other));
                return Err(
                    Error::refused(why).or("its memory is not known here: ask for a size with --size")
                );
            }
        }
        let all = |name: &str, layers: usize| -> Option<Vec<u64>> {
            let value = metadata.get(&key(name))?;
            let all: Vec<u64> = match value.as_array() {
                Some(array) => array.values().map(|v| v.as_u64()).collect::<Option<_>>()?,
                None => vec![value.as_u64()?; layers],
            };
            (all.len() == layers).then_some(all)
        };
        let missing =
            |name: &str| Error::refused(format!("no {}: the model's memory cannot be told", key(name)));
        let need = |name: &str, layers| all(name, layers).ok_or_else(|| missing(name));
        let number = |name: &str| Ok::<_, Error>(need(name, 1)?[0]);
        let layers = number("block_count")?;
        let count =
            usize::try_from(layers).ok().filter(|&n| n <= 1 << 16).ok_or_else(|| missing("block_count"))?;
        let hidden = number("embedding_length")?;
        let most = |x: &[u64]| x.iter().copied().max().unwrap_or(0);
        let heads = need("attention.head_count", count)?;
        let kv = match metadata.get(&key("attention.head_count_kv")) {
            Some(_) => need("attention.head_count_kv", count)?,
            None => heads.clone(),
        };
        let usual = hidden / most(&heads).max(1);
        let length = |name: &str| all(name, 1).map_or(usual, |x| x[0]);
        let (key_length, value_length) = (length("attention.key_length"), length("attention.value_length"));
        let too_large = || Error::refused("the model's lengths are too large to be true");
        let of_layer = key_length.checked_add(value_length).ok_or_else(too_large)?;
        let heads_of_all: u64 =
            kv.iter().try_fold(0u64, |sum, n| sum.checked_add(*n)).ok_or_else(too_large)?;
        let kv_per_token = heads_of_all.checked_mul(of_layer).ok_or_else(too_large)?;
        let feed_forward = most(&all("feed_forward_length", count).unwrap_or_default());
        let array = |name: &str| metadata.get(name).and_then(Value::as_array).map_or(0, |a| a.len() as u64);
        let shape = Self {
            layers,
            hidden,
            feed_forward,
            query_width: most(&heads).checked_mul(key_length).ok_or_else(too_large)?,
            kv_per_token,
            widest_layer_kv: most(&kv).checked_mul(of_layer).ok_or_else(too_large)?,
            head_dims: [key_length, value_length],
            vocab,
            merges: array("tokenizer.ggml.merges"),
            context: all("context_length", 1).map_or(0, |x| x[0]),
        };
        let limit = 1 << 40;
        let lengths = [
            shape.hidden,
            shape.feed_forward,
            shape.query_width,
            shape.kv_per_token,
            shape.widest_layer_kv,
            shape.vocab,
        ];
        if lengths.iter().any(|&n| n > limit) { Err(too_large()) } else { Ok(shape) }
    }
}

impl ModelShape {
    /// Whether keys and values can be kept in a kind of cache: 32 numbers of a q8_0 share a scale.
    pub fn supports(&self, kind: KvType) -> bool {
        kind != KvType::Q8_0 || self.head_dims.iter().all(|n| n.is_multiple_of(32))
    }
}

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunConfig {
    /// By what.
    pub runtime: Runtime,
    /// Tokens of the context.
    pub context: u64,
    /// How keys and values are kept.
    pub kv: KvType,
}

/// What a run takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// The weights.
    pub weights: u64,
    /// Keys and values of the whole context.
    pub kv_cache: u64,
    /// Vectors of the tokens of a batch.
    pub compute: u64,
    /// The vocabulary.
    pub vocabulary: u64,
    /// The program.
    pub process: u64,
    /// Addresses that are asked for and hardly touched.
    pub untouched: u64,
}

impl Memory {
    /// Of a model whose tensors take so many bytes.
    pub fn of(shape: &ModelShape, weights: u64, how: RunConfig) -> Self {
        let ModelShape {
            layers,
            hidden,
            feed_forward,
            query_width,
            kv_per_token,
            widest_layer_kv,
            vocab,
            merges,
            ..
        } = *shape;
        let RunConfig { runtime, context, kv } = how;
        let batch = BATCH.min(context.max(1));
        let cache = |tokens: u64| kv_per_token.saturating_mul(tokens).saturating_mul(runtime.cache(kv)) / 32;
        let (kv_cache, compute, process) = match runtime {
            Runtime::LlamaCpp => {
                // The cache comes in steps. Of the graph's moments, the largest are a feed-forward layer (the gate, the way
                // up and their product beside four vectors, while the mask is kept) and the logits of a whole batch.
                let tokens = context.next_multiple_of(256);
                let layer = batch * 4 * (3 * feed_forward + 4 * hidden) + batch * tokens * 2;
                let logits = batch * 4 * (vocab + hidden);
                // Inputs of products in 8 bits.
                let products = batch * feed_forward.max(query_width) * 9 / 8;
                let reorder = (feed_forward.saturating_mul(hidden) / 16).saturating_mul(9).min(REORDER);
                let process = LLAMA_CPP[0] + layers * LLAMA_CPP[1] + reorder;
                (cache(tokens), layer.max(logits) + products, process)
            }
            Runtime::Ggufkit => {
                let vectors = 3 * hidden + 3 * query_width + widest_layer_kv + 2 * feed_forward;
                let products = feed_forward.max(query_width) * 2;
                let compute = batch * 4 * vectors + batch * products + vocab * 4;
                (cache(context.next_multiple_of(16)), compute, GGUFKIT)
            }
        };
        let vocabulary = vocab * TOKEN + merges * MERGE;
        Self { weights, kv_cache, compute, vocabulary, process, untouched: UNTOUCHED }
    }

    /// What will be resident when the context is full.
    pub fn resident(&self) -> u64 {
        let Self { weights, kv_cache, compute, vocabulary, process, .. } = *self;
        [weights, kv_cache, compute, vocabulary, process].into_iter().fold(0, u64::saturating_add)
    }

    /// What has to be allowed: all addresses.
    pub fn total(&self) -> u64 {
        self.resident().saturating_add(self.untouched)
    }
}

/// What is left to the system of a machine's memory, if nothing is said: half a GiB and a sixteenth.
pub fn reserve(ram: u64) -> u64 {
    (512 << 20) + ram / 16
}

/// The memory that leaves so much beside its [`reserve`].
pub fn enough(need: u64) -> u64 {
    need.saturating_add(512 << 20).saturating_mul(16) / 15 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama(layers: u32, heads: u32, kv: u32) -> Metadata {
        let mut m = Metadata::new();
        m.set("general.architecture", Value::text("llama"));
        for (key, value) in [
            ("block_count", layers),
            ("embedding_length", 4096),
            ("feed_forward_length", 11008),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv),
            ("context_length", 4096),
        ] {
            m.set(&format!("llama.{key}"), Value::U32(value));
        }
        m
    }

    #[test]
    fn the_graph_is_llama_cpps() {
        // Its buffers, as its log has them for two layers of this shape with 64, 512 and 4096 tokens of context.
        const MIB: f64 = (1 << 20) as f64;
        let shape = ModelShape::read(&llama(2, 32, 32), 32000).unwrap();
        for (context, cache, compute) in [(64, 8.0, 12.0955), (512, 16.0, 97.0137), (4096, 128.0, 100.5137)] {
            let how = RunConfig { runtime: Runtime::LlamaCpp, context, kv: KvType::F16 };
            let m = Memory::of(&shape, 0, how);
            assert_eq!(m.kv_cache as f64 / MIB, cache);
            // Without the inputs of products, which it does not count there.
            let products = (512.min(context) * 11008 * 9 / 8) as f64;
            let found = (m.compute as f64 - products) / MIB;
            assert!((found / compute - 1.0).abs() < 0.003, "{context}: {found} {compute}");
        }
        let q8 = RunConfig { runtime: Runtime::LlamaCpp, context: 4096, kv: KvType::Q8_0 };
        assert_eq!(Memory::of(&shape, 0, q8).kv_cache, 68 << 20);
        assert_eq!(Memory::of(&shape, 7, q8).total(), Memory::of(&shape, 0, q8).total() + 7);
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let shape = ModelShape::read(&llama(32, 32, 8), 32000).unwrap();
        assert_eq!(
            (shape.kv_per_token, shape.widest_layer_kv, shape.query_width),
            (32 * 8 * 256, 8 * 256, 4096)
        );
        for (key, value) in [
            ("llama.attention.head_count_kv", Value::U64(1 << 60)),
            ("llama.feed_forward_length", Value::U64(u64::MAX)),
            ("llama.attention.key_length", Value::U64(u64::MAX)),
            ("llama.block_count", Value::U64(1 << 40)),
            ("llama.attention.head_count", Value::text("many")),
            ("llama.ssm.state_size", Value::U32(16)),
            ("general.architecture", Value::text("other")),
        ] {
            let mut m = llama(32, 32, 8);
            m.set(key, value);
            assert!(ModelShape::read(&m, 32000).is_err(), "{key}");
        }
        let none = ModelShape::read(&llama(1, 0, 0), 0).unwrap();
        assert_eq!(none.kv_per_token, 0);
    }
}
