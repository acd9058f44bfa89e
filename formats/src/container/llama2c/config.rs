//! The seven numbers of a header, and what follows from them: shapes, locations, the length of the file.

use crate::block::DType;
use crate::model::{Encoding, Location, Tensor};

/// The names of the header's numbers in llama2.c (`Config` of `run.c`), in order.
pub(super) const FIELDS: [&str; 7] =
    ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"];

/// The tensors of a layer in a GGUF, without "blk.N." and ".weight".
pub(super) const LAYER: [&str; 9] =
    ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"];

/// More layers than any model has. This bounds the number of tensors of a hostile file.
const MAX_LAYERS: u64 = u16::MAX as u64;

/// The cosines and sines of version 0, which are no tensor of the model.
const TABLES: &str = "tables";

/// A header. Every number is at least 1 and below 2^31, so that sums of products of four of them fit a u128.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Config {
    pub dim: u64,
    pub hidden: u64,
    pub layers: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub vocab: u64,
    pub seq: u64,
    /// The head size: dim / n_heads, except in the fork that has a number for it.
    pub head: u64,
    /// Tied embeddings: the classifier is the token embedding.
    pub shared: bool,
}

/// How a version stores its matrices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Storage {
    pub version: u32,
    /// The group size of version 2, positive; not used in other versions.
    pub group: u32,
    /// Whether the header of version 2 has an eighth number, the head size: the fork for Windows 95.
    pub fork: bool,
}

/// Version 0.
pub(super) const V0: Storage = Storage { version: 0, group: 0, fork: false };

/// The tensors of one kind, of every layer, one after the other; or a single tensor.
struct Stack {
    name: &'static str,
    shape: Vec<u64>,
    layered: bool,
}

impl Stack {
    fn elements(&self) -> u128 {
        self.shape.iter().map(|&d| u128::from(d)).product()
    }

    fn encoding(&self, s: Storage) -> Encoding {
        match (s.version, self.shape.len()) {
            (2, 2) => Encoding::Int8Groups { size: s.group },
            _ => Encoding::Blocks(DType::F32),
        }
    }

    /// The bytes of one tensor of the stack.
    fn bytes(&self, s: Storage) -> u128 {
        let n = self.elements();
        match self.encoding(s) {
            Encoding::Int8Groups { size } => n + n / u128::from(size.max(1)) * 4,
            Encoding::Blocks(_) | Encoding::I2S | Encoding::Foreign(_) => n * 4,
        }
    }
}

impl Config {
    /// From the numbers of a header. All must be positive, but a negative vocabulary means a separate classifier.
    pub fn from_fields(f: [i32; 7]) -> Option<Self> {
        let [dim, hidden, layers, heads, kv_heads, _, seq] = f.map(|v| u64::try_from(v).unwrap_or(0));
        let vocab = u64::from(f[5].unsigned_abs());
        let head = dim / heads.max(1);
        let c = Self { dim, hidden, layers, heads, kv_heads, vocab, seq, head, shared: f[5] > 0 };
        (c.numbers().iter().all(|&v| v > 0)).then_some(c)
    }

    /// In the order of [`FIELDS`].
    pub fn numbers(&self) -> [u64; 7] {
        [self.dim, self.hidden, self.layers, self.heads, self.kv_heads, self.vocab, self.seq]
    }

    /// The index of a number that contradicts the others, and why. In the fork, the head size is a number of its own.
    pub fn fault(&self, fork: bool) -> Option<(usize, String)> {
        let Self { dim, heads, kv_heads, layers, .. } = *self;
        if layers > MAX_LAYERS {
            return Some((2, format!("n_layers is {layers}, expected at most {MAX_LAYERS}")));
        }
        if !fork && !dim.is_multiple_of(heads) {
            return Some((3, format!("n_heads is {heads}, which does not divide dim {dim}")));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Some((4, format!("n_kv_heads is {kv_heads}, which does not divide n_heads {heads}")));
        }
        if !self.head.is_multiple_of(2) || self.head == 0 {
            let why = format!("heads of {} elements (dim / n_heads) cannot be rotated in pairs", self.head);
            return Some((3, why));
        }
        None
    }

    /// The stacks in the order of the file.
    fn stacks(&self, version: u32) -> Vec<Stack> {
        let Self { dim, hidden, vocab, .. } = *self;
        let (queries, kv) = (self.heads * self.head, self.kv_heads * self.head);
        let one = |name, shape: &[u64]| Stack { name, shape: shape.to_vec(), layered: false };
        let all = |name, shape: &[u64]| Stack { name, shape: shape.to_vec(), layered: true };
        let embedding = one("token_embd", &[vocab, dim]);
        let [attn_norm, ffn_norm] = ["attn_norm", "ffn_norm"].map(|name| all(name, &[dim]));
        let attention = [
            all("attn_q", &[queries, dim]),
            all("attn_k", &[kv, dim]),
            all("attn_v", &[kv, dim]),
            all("attn_output", &[dim, queries]),
        ];
        let feed_forward =
            [all("ffn_gate", &[hidden, dim]), all("ffn_down", &[dim, hidden]), all("ffn_up", &[hidden, dim])];
        let norm = one("output_norm", &[dim]);
        let mut stacks = Vec::with_capacity(13);
        if version == 0 {
            stacks.extend([embedding, attn_norm]);
            stacks.extend(attention);
            stacks.push(ffn_norm);
            stacks.extend(feed_forward);
            stacks.extend([norm, one(TABLES, &[2, self.seq, self.head / 2])]);
        } else {
            stacks.extend([attn_norm, ffn_norm, norm, embedding]);
            stacks.extend(attention);
            stacks.extend(feed_forward);
        }
        if !self.shared {
            stacks.push(one("output", &[vocab, dim]));
        }
        stacks
    }

    fn count(&self, stack: &Stack) -> u128 {
        if stack.layered { self.layers.into() } else { 1 }
    }

    /// The length of the file in bytes.
    pub fn len(&self, s: Storage) -> u128 {
        let start = u128::from(header_len(s.version));
        self.stacks(s.version).iter().fold(start, |at, stack| at + self.count(stack) * stack.bytes(s))
    }

    /// A kind of matrix that is not whole groups, with its number of elements.
    pub fn ungrouped(&self, group: u32) -> Option<(&'static str, u128)> {
        let stacks = self.stacks(2);
        let mut matrices = stacks.iter().filter(|s| s.shape.len() == 2);
        let stack = matrices.find(|s| s.elements() % u128::from(group.max(1)) != 0)?;
        Some((stack.name, stack.elements()))
    }

    /// The stacks with their offsets. For files of less than 2^63 bytes.
    fn starts(&self, s: Storage) -> Vec<(Stack, u64)> {
        let mut at = u128::from(header_len(s.version));
        let mut starts = Vec::with_capacity(13);
        for stack in self.stacks(s.version) {
            let next = at + self.count(&stack) * stack.bytes(s);
            starts.push((stack, at as u64));
            at = next;
        }
        starts
    }

    /// The offset of the rotary tables of version 0.
    pub fn tables_at(&self) -> u64 {
        let starts = self.starts(V0);
        starts.iter().find(|(stack, _)| stack.name == TABLES).map_or(0, |&(_, at)| at)
    }

    /// All tensors with their locations, in the order of a GGUF. The caller has checked that the file is shorter than 2^63
    /// bytes.
    pub fn tensors(&self, s: Storage) -> impl Iterator<Item = Tensor> {
        let starts = self.starts(s);
        let layers = (0..self.layers).flat_map(|i| LAYER.map(|name| (name, i)));
        let names = [("token_embd", 0)].into_iter().chain(layers).chain([("output_norm", 0), ("output", 0)]);
        names.filter_map(move |(name, layer)| {
            let (stack, start) = starts.iter().find(|(stack, _)| stack.name == name)?;
            let len = stack.bytes(s) as u64;
            Some(Tensor {
                name: if stack.layered {
                    format!("blk.{layer}.{name}.weight")
                } else {
                    format!("{name}.weight")
                },
                shape: stack.shape.clone(),
                encoding: stack.encoding(s),
                location: Location { file: 0, offset: start + layer * len, len },
            })
        })
    }
}

/// The offset of the weights.
pub(super) fn header_len(version: u32) -> u64 {
    if version == 0 { 28 } else { 256 }
}
