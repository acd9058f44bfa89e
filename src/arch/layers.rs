//! Groups of tensors, of which architectures are composed.

use super::{Dim, Heads, Presence, Rule};

/// A table of tensors: Hugging Face's name, GGUF's name, the shape, the heads that RoPE rotates, and when it is
/// required.
macro_rules! rules {
    ($($hub:literal => $gguf:literal [$($dim:ident),*] $heads:ident $presence:ident;)*) => {
        &[$(Rule {
            hub: $hub,
            gguf: $gguf,
            shape: &[$(Dim::$dim),*],
            heads: Heads::$heads,
            presence: Presence::$presence,
        }),*]
    };
}

/// The tensors of a decoder with RMS norms, rotary embeddings and a gated feed-forward network.
pub const DECODER: &[Rule] = rules! {
    "model.embed_tokens.weight" => "token_embd.weight" [Vocab, Hidden] None Always;
    "model.layers.{}.input_layernorm.weight" => "blk.{}.attn_norm.weight" [Hidden] None Always;
    "model.layers.{}.self_attn.q_proj.weight" => "blk.{}.attn_q.weight" [Queries, Hidden] Query Always;
    "model.layers.{}.self_attn.k_proj.weight" => "blk.{}.attn_k.weight" [Keys, Hidden] Key Always;
    "model.layers.{}.self_attn.v_proj.weight" => "blk.{}.attn_v.weight" [Keys, Hidden] None Always;
    "model.layers.{}.self_attn.o_proj.weight" => "blk.{}.attn_output.weight" [Hidden, Queries] None Always;
    "model.layers.{}.post_attention_layernorm.weight" => "blk.{}.ffn_norm.weight" [Hidden] None Always;
    "model.layers.{}.mlp.gate_proj.weight" => "blk.{}.ffn_gate.weight" [Intermediate, Hidden] None Always;
    "model.layers.{}.mlp.up_proj.weight" => "blk.{}.ffn_up.weight" [Intermediate, Hidden] None Always;
    "model.layers.{}.mlp.down_proj.weight" => "blk.{}.ffn_down.weight" [Hidden, Intermediate] None Always;
    "model.norm.weight" => "output_norm.weight" [Hidden] None Always;
    "lm_head.weight" => "output.weight" [Vocab, Hidden] None Untied;
};

/// Biases of the query, key and value projections.
pub const BIASES: &[Rule] = rules! {
    "model.layers.{}.self_attn.q_proj.bias" => "blk.{}.attn_q.bias" [Queries] Query Always;
    "model.layers.{}.self_attn.k_proj.bias" => "blk.{}.attn_k.bias" [Keys] Key Always;
    "model.layers.{}.self_attn.v_proj.bias" => "blk.{}.attn_v.bias" [Keys] None Always;
};

/// Optional biases of all projections (`attention_bias`, `mlp_bias`).
pub const OPTIONAL_BIASES: &[Rule] = rules! {
    "model.layers.{}.self_attn.q_proj.bias" => "blk.{}.attn_q.bias" [Queries] Query Optional;
    "model.layers.{}.self_attn.k_proj.bias" => "blk.{}.attn_k.bias" [Keys] Key Optional;
    "model.layers.{}.self_attn.v_proj.bias" => "blk.{}.attn_v.bias" [Keys] None Optional;
    "model.layers.{}.self_attn.o_proj.bias" => "blk.{}.attn_output.bias" [Hidden] None Optional;
    "model.layers.{}.mlp.gate_proj.bias" => "blk.{}.ffn_gate.bias" [Intermediate] None Optional;
    "model.layers.{}.mlp.up_proj.bias" => "blk.{}.ffn_up.bias" [Intermediate] None Optional;
    "model.layers.{}.mlp.down_proj.bias" => "blk.{}.ffn_down.bias" [Hidden] None Optional;
};

/// RMS norms of query and key heads.
pub const HEAD_NORMS: &[Rule] = rules! {
    "model.layers.{}.self_attn.q_norm.weight" => "blk.{}.attn_q_norm.weight" [Head] None Always;
    "model.layers.{}.self_attn.k_norm.weight" => "blk.{}.attn_k_norm.weight" [Head] None Always;
};

/// Sub-norms: RMS norms before the attention output projection and before the down projection.
pub const SUB_NORMS: &[Rule] = rules! {
    "model.layers.{}.self_attn.attn_sub_norm.weight" => "blk.{}.attn_sub_norm.weight" [Hidden] None Always;
    "model.layers.{}.mlp.ffn_sub_norm.weight" => "blk.{}.ffn_sub_norm.weight" [Intermediate] None Always;
};
