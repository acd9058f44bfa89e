//! Llama 1 to 3.x, and models with its architecture: Mistral, TinyLlama, SmolLM, CodeLlama, the 1.58-bit Llamas.

use super::layers::{DECODER, OPTIONAL_BIASES};
use super::{Arch, Class, Rotary};

const CLASS: Class = Class {
    name: "LlamaForCausalLM",
    model_type: "llama",
    context: 2048,
    epsilon: 1e-6,
    theta: 10000.0,
    kv_heads: None,
    head: None,
    sliding_window: false,
    sliding_layers: false,
};

pub(super) const LLAMA: Arch = Arch {
    name: "llama",
    aliases: &[],
    classes: &[
        CLASS,
        Class { name: "LLaMAForCausalLM", ..CLASS },
        Class {
            name: "MistralForCausalLM",
            model_type: "mistral",
            context: 131_072,
            kv_heads: Some(8),
            sliding_window: true,
            ..CLASS
        },
    ],
    rotary: Rotary::Pairs,
    activation: &["silu", "swish"],
    int8_activations: false,
    writes_head_length: true,
    writes_vocab_size: true,
    rope_freqs: true,
    qkv_biases: true,
    any_bias: true,
    programs: None,
    tensors: &[DECODER, OPTIONAL_BIASES],
};
