//! The memory that running a model takes: weights, KV cache, activations of a batch, vocabulary, the program itself.
//!
//! The figures are for a run without a memory map and with the whole context filled. With a memory map, the weights take
//! the same bytes, but the system may drop them. [docs/fitting.md](../docs/fitting.md) compares the figures with
//! measurements.

use formats::metadata::{Metadata, Value, WrongValue};

use crate::error::{Error, Result};
use crate::runner::KvType;

/// The program that runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// llama.cpp's programs on the CPU, with their default batch of 512 tokens.
    LlamaCpp,
    /// ggufkit's own runner.
    Ggufkit,
}

impl Runtime {
    /// All programs with their names, in the order of the variants.
    pub const ALL: [(Self, &str); 2] = [(Self::LlamaCpp, "llama.cpp"), (Self::Ggufkit, "ggufkit")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Bytes of 32 numbers of a KV cache.
    fn cache_bytes(self, kv: KvType) -> u64 {
        match (kv, self) {
            (KvType::F32, _) => 128,
            (KvType::F16, _) => 64,
            (KvType::Q8_0, Self::LlamaCpp) => 34,
            // Scales are f32 here, f16 in llama.cpp.
            (KvType::Q8_0, Self::Ggufkit) => 36,
        }
    }
}

/// Tokens per batch.
const BATCH: u64 = 512;
/// Bytes of llama.cpp's programs without a model, and bytes per layer of the model.
const LLAMA_CPP: [u64; 2] = [10 << 20, 200 << 10];
/// Bytes, at most, that llama.cpp keeps of the largest matrix that it repacks.
const REPACK: u64 = 32 << 20;
/// Bytes of ggufkit without a model, at least and at most, and bytes for each column of the widest matrix: each thread unpacks
/// some rows of it at a time.
const GGUFKIT: [u64; 2] = [16 << 20, 32 << 20];
const PANELS: u64 = 2 << 10;
/// Bytes of address space that are reserved but hardly used: libraries, stacks, gaps that allocators leave. They count
/// where the address space is limited (`ulimit -v`).
const UNTOUCHED: u64 = 128 << 20;
/// Bytes per token of the vocabulary: text, table entry, score.
const TOKEN: u64 = 160;
/// Bytes per merge of the vocabulary.
const MERGE: u64 = 200;

/// The dimensions of a model that its memory depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// Layers.
    pub layers: u64,
    /// The hidden size (`embedding_length`).
    pub hidden: u64,
    /// The feed-forward size of the widest layer.
    pub feed_forward: u64,
    /// The width of all query heads together, in the widest layer.
    pub query_width: u64,
    /// Numbers in the KV cache per token, all layers together.
    pub kv_per_token: u64,
    /// Numbers in the KV cache per token of the widest layer.
    pub widest_layer_kv: u64,
    /// Dimensions of a key head and of a value head.
    pub head_dims: [u64; 2],
    /// Tokens of the vocabulary.
    pub vocab: u64,
    /// Merges of the vocabulary.
    pub merges: u64,
    /// The model's context length in tokens; 0 if not given.
    pub context: u64,
}

impl ModelShape {
    /// Reads a GGUF's metadata; `vocab` is the number of rows of the token embedding.
    ///
    /// # Errors
    /// [`Error::Refused`] if a key is missing, a value is implausibly large, or the model has something other than a KV cache
    /// (state-space layers, latent attention).
    pub fn read(metadata: &Metadata, vocab: u64) -> Result<Self> {
        let wrong = |e: WrongValue| Error::refused(format!("{e}, so the model's memory cannot be computed"));
        let arch = metadata.read_text("general.architecture").map_err(wrong)?.unwrap_or_default();
        let key = |name: &str| format!("{arch}.{name}");
        for other in ["ssm.state_size", "attention.kv_lora_rank", "wkv.head_size"] {
            if metadata.get(&key(other)).is_some() {
                let why = format!(
                    "{}: the memory of models with state-space layers or latent attention cannot be computed",
                    key(other)
                );
                return Err(Error::refused(why).or("give a file size instead: --size"));
            }
        }
        // A value for each layer, or one for all.
        let all = |name: &str, layers: usize| -> Result<Option<Vec<u64>>> {
            let expected = format!("an integer, or an array of {layers}, that is not negative");
            let convert = |value: &Value| {
                let all: Vec<u64> = match value.as_array() {
                    Some(array) => array.values().map(|v| v.as_u64()).collect::<Option<_>>()?,
                    None => vec![value.as_u64()?; layers],
                };
                (all.len() == layers).then_some(all)
            };
            metadata.read(&key(name), &expected, convert).map_err(wrong)
        };
        let missing = |name: &str| {
            Error::refused(format!(
                "{}: missing or too large, so the model's memory cannot be computed",
                key(name)
            ))
        };
        let need = |name: &str, layers| all(name, layers)?.ok_or_else(|| missing(name));
        let number = |name: &str| Ok::<_, Error>(need(name, 1)?[0]);
        let layers = number("block_count")?;
        let count =
            usize::try_from(layers).ok().filter(|&n| n <= 1 << 16).ok_or_else(|| missing("block_count"))?;
        let hidden = number("embedding_length")?;
        let max_of = |x: &[u64]| x.iter().copied().max().unwrap_or(0);
        let heads = need("attention.head_count", count)?;
        let kv = match metadata.get(&key("attention.head_count_kv")) {
            Some(_) => need("attention.head_count_kv", count)?,
            None => heads.clone(),
        };
        let default = hidden / max_of(&heads).max(1);
        let length = |name: &str| Ok::<_, Error>(all(name, 1)?.map_or(default, |x| x[0]));
        let (key_length, value_length) = (length("attention.key_length")?, length("attention.value_length")?);
        let too_large = || Error::refused("the model's dimensions in the metadata are implausibly large");
        let of_layer = key_length.checked_add(value_length).ok_or_else(too_large)?;
        let heads_of_all: u64 =
            kv.iter().try_fold(0u64, |sum, n| sum.checked_add(*n)).ok_or_else(too_large)?;
        let kv_per_token = heads_of_all.checked_mul(of_layer).ok_or_else(too_large)?;
        let feed_forward = max_of(&all("feed_forward_length", count)?.unwrap_or_default());
        let merges = metadata.read_array("tokenizer.ggml.merges").map_err(wrong)?;
        let shape = Self {
            layers,
            hidden,
            feed_forward,
            query_width: max_of(&heads).checked_mul(key_length).ok_or_else(too_large)?,
            kv_per_token,
            widest_layer_kv: max_of(&kv).checked_mul(of_layer).ok_or_else(too_large)?,
            head_dims: [key_length, value_length],
            vocab,
            merges: merges.map_or(0, |a| a.len() as u64),
            context: all("context_length", 1)?.map_or(0, |x| x[0]),
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
    /// Whether the KV cache can have a type: q8_0 needs head dimensions that are multiples of 32.
    pub fn supports(&self, kv: KvType) -> bool {
        kv != KvType::Q8_0 || self.head_dims.iter().all(|n| n.is_multiple_of(32))
    }
}

/// How the model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunConfig {
    /// The program.
    pub runtime: Runtime,
    /// Tokens of the context.
    pub context: u64,
    /// The type of the KV cache.
    pub kv: KvType,
}

/// The memory of a run, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Tensor data.
    pub weights: u64,
    /// The KV cache of the whole context.
    pub kv_cache: u64,
    /// Activations of a batch (llama.cpp's compute buffer).
    pub compute: u64,
    /// The vocabulary's tables.
    pub vocabulary: u64,
    /// The program without a model.
    pub process: u64,
    /// Address space that is reserved but hardly used.
    pub untouched: u64,
}

impl Memory {
    /// The memory of a run of a model with `weights` bytes of tensor data.
    pub fn of(shape: &ModelShape, weights: u64, run: RunConfig) -> Self {
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
        let RunConfig { runtime, context, kv } = run;
        let batch = BATCH.min(context.max(1));
        let cache =
            |tokens: u64| kv_per_token.saturating_mul(tokens).saturating_mul(runtime.cache_bytes(kv)) / 32;
        let (kv_cache, compute, process) = match runtime {
            Runtime::LlamaCpp => {
                // The KV cache grows in steps of 256 tokens. The compute graph needs most memory in a feed-forward layer
                // (gate, up and their product, four hidden states, the attention mask) or for a batch's logits.
                let tokens = context.next_multiple_of(256);
                let layer = batch * 4 * (3 * feed_forward + 4 * hidden) + batch * tokens * 2;
                let logits = batch * 4 * (vocab + hidden);
                // Inputs of matrix products, quantized to 8 bits.
                let products = batch * feed_forward.max(query_width) * 9 / 8;
                let repack = (feed_forward.saturating_mul(hidden) / 16).saturating_mul(9).min(REPACK);
                let process = LLAMA_CPP[0] + layers * LLAMA_CPP[1] + repack;
                (cache(tokens), layer.max(logits) + products, process)
            }
            Runtime::Ggufkit => {
                let widths = 3 * hidden + 3 * query_width + widest_layer_kv + 2 * feed_forward;
                let products = feed_forward.max(query_width) * 2;
                let compute = batch * 4 * widths + batch * products + vocab * 4;
                let panels = feed_forward.max(query_width).max(hidden).saturating_mul(PANELS);
                let process = GGUFKIT[0].saturating_add(panels).min(GGUFKIT[1]);
                (cache(context.next_multiple_of(16)), compute, process)
            }
        };
        // Address space does not shrink with the model.
        let untouched = match runtime {
            Runtime::LlamaCpp => UNTOUCHED,
            Runtime::Ggufkit => UNTOUCHED + GGUFKIT[1] - process,
        };
        let vocabulary = vocab * TOKEN + merges * MERGE;
        Self { weights, kv_cache, compute, vocabulary, process, untouched }
    }

    /// Resident memory with the context filled.
    pub fn resident(&self) -> u64 {
        let Self { weights, kv_cache, compute, vocabulary, process, .. } = *self;
        [weights, kv_cache, compute, vocabulary, process].into_iter().fold(0, u64::saturating_add)
    }

    /// What a machine needs for the run: the resident memory, and a quarter of what is not weights, at most 128 MiB, for what
    /// allocators and libraries take besides.
    pub fn needed(&self) -> u64 {
        let resident = self.resident();
        resident.saturating_add(((resident - self.weights.min(resident)) / 4).min(UNTOUCHED))
    }

    /// Address space: what a limit such as `ulimit -v` must allow.
    pub fn total(&self) -> u64 {
        self.resident().saturating_add(self.untouched)
    }
}

/// The default part of a machine's memory that is left to the system: half a GiB and a sixteenth of the memory, but at most
/// half of it. (Systems of machines with little memory are small.)
pub fn reserve(ram: u64) -> u64 {
    ((512 << 20) + ram / 16).min(ram / 2)
}

/// The smallest memory of which `need` bytes are left after its [`reserve`].
pub fn enough(need: u64) -> u64 {
    (need.saturating_add(512 << 20).saturating_mul(16) / 15 + 1).min(need.saturating_mul(2))
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
        // Buffer sizes from llama.cpp's log for two layers of this shape with 64, 512 and 4096 tokens of context.
        const MIB: f64 = (1 << 20) as f64;
        let shape = ModelShape::read(&llama(2, 32, 32), 32000).unwrap();
        for (context, cache, compute) in [(64, 8.0, 12.0955), (512, 16.0, 97.0137), (4096, 128.0, 100.5137)] {
            let how = RunConfig { runtime: Runtime::LlamaCpp, context, kv: KvType::F16 };
            let m = Memory::of(&shape, 0, how);
            assert_eq!(m.kv_cache as f64 / MIB, cache);
            // Without the 8-bit inputs of products, which llama.cpp's log does not include.
            let products = (512.min(context) * 11008 * 9 / 8) as f64;
            let found = (m.compute as f64 - products) / MIB;
            assert!((found / compute - 1.0).abs() < 0.003, "{context}: {found} {compute}");
        }
        let q8 = RunConfig { runtime: Runtime::LlamaCpp, context: 4096, kv: KvType::Q8_0 };
        assert_eq!(Memory::of(&shape, 0, q8).kv_cache, 68 << 20);
        assert_eq!(Memory::of(&shape, 7, q8).total(), Memory::of(&shape, 0, q8).total() + 7);
    }

    #[test]
    fn small_models_need_little() {
        let shape = ModelShape {
            hidden: 256,
            feed_forward: 768,
            query_width: 256,
            ..ModelShape::read(&llama(4, 4, 2), 1024).unwrap()
        };
        let shape = ModelShape { kv_per_token: 1024, widest_layer_kv: 256, ..shape };
        let how = RunConfig { runtime: Runtime::Ggufkit, context: 256, kv: KvType::F16 };
        // Measured: 26 to 28 MiB resident with 7 MiB of weights read into memory, with 1 and 16 threads.
        let small = Memory::of(&shape, 7 << 20, how);
        assert!((28 << 20..32 << 20).contains(&small.resident()), "{small:?}");
        assert!(small.needed() < 40 << 20 && small.total() > small.needed(), "{small:?}");
        // Of a large one, the figures are as for programs with many threads.
        let large = ModelShape::read(&llama(32, 32, 32), 32000).unwrap();
        let large = Memory::of(&large, 4 << 30, RunConfig { context: 4096, ..how });
        assert_eq!((large.process, large.needed()), (32 << 20, large.resident() + UNTOUCHED));
    }

    #[test]
    fn what_is_enough_leaves_what_is_needed() {
        assert_eq!((reserve(512 << 20), reserve(8 << 30)), (256 << 20, 1 << 30));
        for need in [0, 1, 165 << 20, 511 << 20, 512 << 20, 600 << 20, 7 << 30] {
            let ram = enough(need);
            assert!(ram - reserve(ram) >= need, "{need}");
            let less = ram.saturating_sub(32); // a sixteenth is rounded
            assert!(need == 0 || less - reserve(less) < need, "{need}");
        }
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
            ("llama.attention.key_length", Value::F32(128.0)),
            ("llama.context_length", Value::text("4096")),
            ("general.architecture", Value::U32(1)),
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
