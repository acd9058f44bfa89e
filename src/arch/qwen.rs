//! Qwen2 (and 2.5, 1.5), which has biases on queries, keys and values, and Qwen3, which has norms on queries and keys.

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
};

pub(super) const QWEN2: Arch = Arch {
    name: "qwen2",
    classes: &[CLASS],
    rotary: Rotary::Halves,
    activation: &["silu", "swish"],
    int8: false,
    names_head: false,
    names_sizes: false,
    any_bias: false,
    note: None,
    tensors: &[DECODER, BIASES],
};

pub(super) const QWEN3: Arch = Arch {
    name: "qwen3",
    classes: &[Class { name: "Qwen3ForCausalLM", model_type: "qwen3", head: Some(128), ..CLASS }],
    names_head: true,
    tensors: &[DECODER, HEAD_NORMS],
    ..QWEN2
};
