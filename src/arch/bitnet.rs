//! BitNet b1.58 as in Microsoft's 2B-4T: ternary projections, squared ReLU, and a norm before either output
//! projection. llama.cpp's own "bitnet" computes SiLU, so the files bear the name that bitnet.cpp gave its graph.

use super::{Arch, Class, Rotary, rules};

pub(super) const BITNET: Arch = Arch {
    name: "bitnet-b1.58",
    classes: &[
        Class {
            name: "BitNetForCausalLM",
            model_type: "bitnet",
            context: 2048,
            epsilon: 1e-5,
            theta: 500_000.0,
            kv_heads: Some(5),
            head: None,
        },
        Class {
            name: "BitnetForCausalLM",
            model_type: "bitnet",
            context: 2048,
            epsilon: 1e-5,
            theta: 500_000.0,
            kv_heads: Some(5),
            head: None,
        },
    ],
    rotary: Rotary::Halves,
    activation: &["relu2"],
    names_head: false,
    names_sizes: true,
    tensors: rules! {
        "model.embed_tokens.weight" => "token_embd.weight" [Vocab, Hidden] None Always;
        "model.layers.{}.input_layernorm.weight" => "blk.{}.attn_norm.weight" [Hidden] None Always;
        "model.layers.{}.self_attn.q_proj.weight" => "blk.{}.attn_q.weight" [Queries, Hidden] Query Always;
        "model.layers.{}.self_attn.k_proj.weight" => "blk.{}.attn_k.weight" [Keys, Hidden] Key Always;
        "model.layers.{}.self_attn.v_proj.weight" => "blk.{}.attn_v.weight" [Keys, Hidden] None Always;
        "model.layers.{}.self_attn.attn_sub_norm.weight" => "blk.{}.attn_sub_norm.weight" [Hidden] None Always;
        "model.layers.{}.self_attn.o_proj.weight" => "blk.{}.attn_output.weight" [Hidden, Queries] None Always;
        "model.layers.{}.post_attention_layernorm.weight" => "blk.{}.ffn_norm.weight" [Hidden] None Always;
        "model.layers.{}.mlp.gate_proj.weight" => "blk.{}.ffn_gate.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.up_proj.weight" => "blk.{}.ffn_up.weight" [Intermediate, Hidden] None Always;
        "model.layers.{}.mlp.ffn_sub_norm.weight" => "blk.{}.ffn_sub_norm.weight" [Intermediate] None Always;
        "model.layers.{}.mlp.down_proj.weight" => "blk.{}.ffn_down.weight" [Hidden, Intermediate] None Always;
        "model.norm.weight" => "output_norm.weight" [Hidden] None Always;
        "lm_head.weight" => "output.weight" [Vocab, Hidden] None Untied;
    },
};
