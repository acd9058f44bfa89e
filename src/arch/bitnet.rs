//! BitNet b1.58 as in Microsoft's 2B-4T model: ternary projections, squared ReLU, and sub-norms. GGUF files have
//! bitnet.cpp's name for it, since llama.cpp's own "bitnet" computes SiLU.

use super::layers::{DECODER, SUB_NORMS};
use super::{Arch, Class, Rotary};

const CLASS: Class = Class {
    name: "BitNetForCausalLM",
    model_type: "bitnet",
    context: 2048,
    epsilon: 1e-5,
    theta: 500_000.0,
    kv_heads: Some(5),
    head: None,
    sliding_window: false,
};

pub(super) const BITNET: Arch = Arch {
    name: "bitnet-b1.58",
    classes: &[CLASS, Class { name: "BitnetForCausalLM", ..CLASS }],
    rotary: Rotary::Halves,
    activation: &["relu2"],
    int8_activations: true,
    writes_head_length: false,
    writes_vocab_size: true,
    any_bias: false,
    note: Some(
        "bitnet-b1.58 runs in bitnet.cpp and ik_llama.cpp; llama.cpp refuses it (its own bitnet computes SiLU)",
    ),
    tensors: &[DECODER, SUB_NORMS],
};
