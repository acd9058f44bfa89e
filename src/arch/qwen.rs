//! Qwen2 (and 2.5, 1.5), with biases of the query, key and value projections, and Qwen3, with norms of query and key
//! heads.

use super::layers::{BIASES, DECODER, HEAD_NORMS};
use super::{Arch, Class, Rotary};

const CLASS: Class = Class {
    name: "Qwen2ForCausalLM",
    model_type: "qwen2",
    context: 32_768,
    epsilon: 1e-6,
    theta: 10000.0,
    kv_heads: Some(32),
    head: None,
    sliding_window: false,
    sliding_layers: true,
};

pub(super) const QWEN2: Arch = Arch {
    name: "qwen2",
    aliases: &[],
    classes: &[CLASS],
    rotary: Rotary::Halves,
    activation: &["silu", "swish"],
    int8_activations: false,
    writes_head_length: false,
    writes_vocab_size: false,
    rope_freqs: false,
    qkv_biases: true,
    any_bias: false,
    programs: None,
    tensors: &[DECODER, BIASES],
};

pub(super) const QWEN3: Arch = Arch {
    name: "qwen3",
    classes: &[Class { name: "Qwen3ForCausalLM", model_type: "qwen3", head: Some(128), ..CLASS }],
    writes_head_length: true,
    tensors: &[DECODER, HEAD_NORMS],
    ..QWEN2
};
