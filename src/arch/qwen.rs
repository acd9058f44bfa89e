//! Qwen2 (and 2.5, 1.5), which has biases on queries, keys and values, and Qwen3, which has norms on queries and keys.

use super::{Arch, Class, Rotary, rules};

pub(super) const QWEN2: Arch = Arch {
    name: "qwen2",
    classes: &[Class {
        name: "Qwen2ForCausalLM",
        model_type: "qwen2",
        context: 32_768,
        epsilon: 1e-6,
        theta: 10000.0,
        kv_heads: Some(32),
        head: None,
    }],
    rotary: Rotary::Halves,
    activation: &["silu", "swish"],
    names_head: false,
    names_sizes: false,
    tensors: rules! {
        "model.embed_tokens.weight" => "token_embd.weight" [Vocab, Hidden] None Always;
        "model.layers.{}.input_layernorm.weight" => "blk.{}.attn_norm.weight" [Hidden] None Always;
        "model.layers.{}.self_attn.q_proj.weight" => "blk.{}.attn_q.weight" [Queries, Hidden] Query Always;
        "model.layers.{}.self_attn.q_proj.bias" => "blk.{}.attn_q.bias" [Queries] Query Always;
        "model.layers.{}.self_attn.k_proj.weight" => "blk.{}.attn_k.weight" [Keys, Hidden] Key Always;
        "model.layers.{}.self_attn.k_proj.bias" => "blk.{}.attn_k.bias" [Keys] Key Always;
        "model.layers.{}.self_attn.v_proj.weight" => "blk.{}.attn_v.weight" [Keys, Hidden] None Always;
        "model.layers.{}.self_attn.v_proj.bias" => "blk.{}.attn_v.bias" [Keys] None Always;
        "model.layers.{}.self_attn.o_proj.weight" => "blk.{}.attn_output.weight" [Hidden, Queries] None Always;
        "model.layers.{}.post_attention_layernorm.weight" => "blk.{}.ffn_norm.weight" [Hidden] None Always;
        "model.layers.{}.mlp.gate_proj.weight" => "blk.{}.ffn_gate.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.up_proj.weight" => "blk.{}.ffn_up.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.down_proj.weight" => "blk.{}.ffn_down.weight" [Hidden, Intermediate] None Always;
        "model.norm.weight" => "output_norm.weight" [Hidden] None Always;
        "lm_head.weight" => "output.weight" [Vocab, Hidden] None Untied;
    },
};

pub(super) const QWEN3: Arch = Arch {
    name: "qwen3",
    classes: &[Class {
        name: "Qwen3ForCausalLM",
        model_type: "qwen3",
        context: 32_768,
        epsilon: 1e-6,
        theta: 10000.0,
        kv_heads: Some(32),
        head: Some(128),
    }],
    rotary: Rotary::Halves,
    activation: &["silu", "swish"],
    names_head: true,
    names_sizes: false,
    tensors: rules! {
        "model.embed_tokens.weight" => "token_embd.weight" [Vocab, Hidden] None Always;
        "model.layers.{}.input_layernorm.weight" => "blk.{}.attn_norm.weight" [Hidden] None Always;
        "model.layers.{}.self_attn.q_proj.weight" => "blk.{}.attn_q.weight" [Queries, Hidden] Query Always;
        "model.layers.{}.self_attn.q_norm.weight" => "blk.{}.attn_q_norm.weight" [Head] None Always;
        "model.layers.{}.self_attn.k_proj.weight" => "blk.{}.attn_k.weight" [Keys, Hidden] Key Always;
        "model.layers.{}.self_attn.k_norm.weight" => "blk.{}.attn_k_norm.weight" [Head] None Always;
        "model.layers.{}.self_attn.v_proj.weight" => "blk.{}.attn_v.weight" [Keys, Hidden] None Always;
        "model.layers.{}.self_attn.o_proj.weight" => "blk.{}.attn_output.weight" [Hidden, Queries] None Always;
        "model.layers.{}.post_attention_layernorm.weight" => "blk.{}.ffn_norm.weight" [Hidden] None Always;
        "model.layers.{}.mlp.gate_proj.weight" => "blk.{}.ffn_gate.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.up_proj.weight" => "blk.{}.ffn_up.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.down_proj.weight" => "blk.{}.ffn_down.weight" [Hidden, Intermediate] None Always;
        "model.norm.weight" => "output_norm.weight" [Hidden] None Always;
        "lm_head.weight" => "output.weight" [Vocab, Hidden] None Untied;
    },
};
