//! Llama 1 to 3.x, and what took its layout over: Mistral, TinyLlama, SmolLM, CodeLlama, the 1.58-bit Llamas.

use super::{Arch, Class, Rotary, rules};

pub(super) const LLAMA: Arch = Arch {
    name: "llama",
    classes: &[
        Class {
            name: "LlamaForCausalLM",
            model_type: "llama",
            context: 2048,
            epsilon: 1e-6,
            theta: 10000.0,
            kv_heads: None,
            head: None,
        },
        Class {
            name: "LLaMAForCausalLM",
            model_type: "llama",
            context: 2048,
            epsilon: 1e-6,
            theta: 10000.0,
            kv_heads: None,
            head: None,
        },
        Class {
            name: "MistralForCausalLM",
            model_type: "mistral",
            context: 131_072,
            epsilon: 1e-6,
            theta: 10000.0,
            kv_heads: Some(8),
            head: None,
        },
    ],
    rotary: Rotary::Pairs,
    activation: &["silu", "swish"],
    names_head: true,
    names_sizes: true,
    tensors: rules! {
        "model.embed_tokens.weight" => "token_embd.weight" [Vocab, Hidden] None Always;
        "model.layers.{}.input_layernorm.weight" => "blk.{}.attn_norm.weight" [Hidden] None Always;
        "model.layers.{}.self_attn.q_proj.weight" => "blk.{}.attn_q.weight" [Queries, Hidden] Query Always;
        "model.layers.{}.self_attn.k_proj.weight" => "blk.{}.attn_k.weight" [Keys, Hidden] Key Always;
        "model.layers.{}.self_attn.v_proj.weight" => "blk.{}.attn_v.weight" [Keys, Hidden] None Always;
        "model.layers.{}.self_attn.o_proj.weight" => "blk.{}.attn_output.weight" [Hidden, Queries] None Always;
        "model.layers.{}.self_attn.q_proj.bias" => "blk.{}.attn_q.bias" [Queries] Query Optional;
        "model.layers.{}.self_attn.k_proj.bias" => "blk.{}.attn_k.bias" [Keys] Key Optional;
        "model.layers.{}.self_attn.v_proj.bias" => "blk.{}.attn_v.bias" [Keys] None Optional;
        "model.layers.{}.self_attn.o_proj.bias" => "blk.{}.attn_output.bias" [Hidden] None Optional;
        "model.layers.{}.post_attention_layernorm.weight" => "blk.{}.ffn_norm.weight" [Hidden] None Always;
        "model.layers.{}.mlp.gate_proj.weight" => "blk.{}.ffn_gate.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.up_proj.weight" => "blk.{}.ffn_up.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.down_proj.weight" => "blk.{}.ffn_down.weight" [Hidden, Intermediate] None Always;
        "model.layers.{}.mlp.gate_proj.bias" => "blk.{}.ffn_gate.bias" [Intermediate] None Optional;
        "model.layers.{}.mlp.up_proj.bias" => "blk.{}.ffn_up.bias" [Intermediate] None Optional;
        "model.layers.{}.mlp.down_proj.bias" => "blk.{}.ffn_down.bias" [Hidden] None Optional;
        "model.norm.weight" => "output_norm.weight" [Hidden] None Always;
        "lm_head.weight" => "output.weight" [Vocab, Hidden] None Untied;
    },
};
