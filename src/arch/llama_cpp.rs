//! What llama.cpp decides by the name of an architecture (`general.architecture`), for all architectures, of which most
//! have no [`Arch`](super::Arch) here.

const ATTENTION: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv"];
const DENSE: &[&str] = &["ffn_gate", "ffn_up", "ffn_down"];
const EXPERTS: &[&str] = &["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// Architectures that llama.cpp does not load. They are bitnet.cpp's; llama.cpp's own "bitnet" has another activation.
pub const NOT_LOADED: &[&str] = &["bitnet-b1.58", "bitnet-25"];

/// Whether llama.cpp refuses a model of this architecture in which RoPE rotates only a part of each head
/// (`rope.dimension_count`).
pub fn rotates_whole_heads(architecture: &str) -> bool {
    ["llama", "deci", "falcon", "llama-embed"].contains(&architecture)
}

/// Ends of settings' keys, with the value that llama.cpp takes without the key; 1 is true. Source: the initial values of its
/// `llama_hparams` and of what `load_hparams` of all architectures sets.
const DEFAULTS: &[(f64, &[&str])] = &[
    (
        0.0,
        &[
            "expert_count",
            "expert_used_count",
            "expert_group_count",
            "expert_group_used_count",
            "expert_shared_count",
            "expert_weights_scale",
            "expert_weights_norm",
            "leading_dense_block_count",
            "nextn_predict_layers",
            "attention.sliding_window",
            "attention.clamp_kqv",
            "attention.max_alibi_bias",
            "attention.scale",
            "logit_scale",
            "embedding_scale",
            "residual_scale",
            "rope.scaling.finetuned",
            "rope.scaling.factor",
            "rope.scale_linear",
            "rope.scaling.yarn_log_multiplier",
        ],
    ),
    // Factors of 1 scale nothing, as those that are not there.
    (
        1.0,
        &[
            "attention.causal",
            "expert_weights_scale",
            "rope.scaling.factor",
            "rope.scale_linear",
            "rope.scaling.attn_factor",
            "rope.scaling.yarn_attn_factor",
            "rope.scaling.yarn_beta_slow",
        ],
    ),
    (-1.0, &["rope.scaling.yarn_ext_factor"]),
    (30.0, &["final_logit_softcapping", "router_logit_softcapping"]),
    (32.0, &["rope.scaling.yarn_beta_fast"]),
    (50.0, &["attn_logit_softcapping"]),
    (10000.0, &["rope.freq_base"]),
];

/// Architectures of which llama.cpp takes another value without the key: their windows and scales are built in.
const OWN_DEFAULTS: &[(&str, &[&str])] = &[
    ("gemma2", &["attention.sliding_window"]),
    ("llama4", &["attention.sliding_window"]),
    ("minicpm", &["embedding_scale", "residual_scale", "logit_scale"]),
];

/// Whether a number, or a switch as 0 or 1, is what llama.cpp takes without the key `architecture.end`.
pub fn is_default(architecture: &str, end: &str, number: f64) -> bool {
    let own = OWN_DEFAULTS.iter().any(|(name, ends)| *name == architecture && ends.contains(&end));
    !own && DEFAULTS.iter().any(|(value, ends)| *value == number && ends.contains(&end))
}

/// The architectures that llama2.c computes, and the programs that were made of it.
pub const LLAMA2C: &[&str] = &["llama"];

/// The matrices of a layer, in groups, whose products llama.cpp multiplies by a scale of the whole tensor
/// (`blk.N.attn_q.scale`) in this architecture's graph. `None` for architectures whose graphs are not known to do so:
/// the loader takes such scales in for all, but some graphs do not use them.
pub fn scaled_matrices(architecture: &str) -> Option<&'static [&'static [&'static str]]> {
    match architecture {
        "llama" => Some(&[ATTENTION, DENSE, EXPERTS]),
        "qwen2" => Some(&[ATTENTION]),
        "qwen3" => Some(&[ATTENTION, DENSE]),
        "qwen3moe" => Some(&[ATTENTION, EXPERTS]),
        _ => None,
    }
}

/// Whether llama.cpp classes a model as `LLM_TYPE_70B` (Llama 2 70B and models of its size), for which llama-quantize
/// has special rules. `gqa` is the number of query heads that share a key/value head.
pub fn is_70b(architecture: &str, layers: u64, gqa: u64) -> bool {
    match architecture {
        "llama" => layers == 80 && gqa != 1,
        "qwen2" | "deci" | "olmo" => layers == 80,
        "jais2" => layers == 68,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_architecture() {
        for (arch, end, number, wanted) in [
            ("mamba", "attention.sliding_window", 0.0, true),
            ("gemma2", "attention.sliding_window", 0.0, false),
            ("gemma2", "attention.sliding_window", 4096.0, false),
            ("minicpm", "residual_scale", 0.0, false),
            ("granite", "residual_scale", 0.0, true),
            ("gemma2", "attn_logit_softcapping", 50.0, true),
            ("deepseek2", "expert_weights_scale", 1.0, true),
            ("deepseek2", "expert_weights_scale", 2.5, false),
            ("grok", "rope.scaling.yarn_ext_factor", -1.0, true),
            ("grok", "own", 0.0, false),
        ] {
            assert_eq!(is_default(arch, end, number), wanted, "{arch} {end} {number}");
        }
    }
}
