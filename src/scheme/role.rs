//! The role of a tensor in a model, found from its name in GGUF's or Hugging Face's convention.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use crate::arch::Blk;

/// The role of a tensor in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The output matrix, which gives the logits. Rules for it also match a tied embedding.
    Output,
    /// The token embedding.
    Embedding,
    /// The query projection.
    AttnQ,
    /// The key projection.
    AttnK,
    /// The value projection. Rules for it also match the two fused kinds below.
    AttnV,
    /// The fused query, key and value projection.
    AttnQkv,
    /// The fused key and value projection of multi-head latent attention.
    AttnKvB,
    /// The attention's output projection.
    AttnOutput,
    /// The gate projection of the feed-forward layer or of its experts.
    FfnGate,
    /// The up projection of the feed-forward layer or of its experts.
    FfnUp,
    /// The down projection of the feed-forward layer or of its experts.
    FfnDown,
    /// Any other matrix.
    Other,
    /// A tensor that is never quantized, because runtimes read it in full precision.
    Exempt,
}

/// The roles that rules can name, with their names.
const NAMES: [(Role, &str); 12] = [
    (Role::Output, "output"),
    (Role::Embedding, "token_embd"),
    (Role::AttnQ, "attn_q"),
    (Role::AttnK, "attn_k"),
    (Role::AttnV, "attn_v"),
    (Role::AttnQkv, "attn_qkv"),
    (Role::AttnKvB, "attn_kv_b"),
    (Role::AttnOutput, "attn_output"),
    (Role::FfnGate, "ffn_gate"),
    (Role::FfnUp, "ffn_up"),
    (Role::FfnDown, "ffn_down"),
    (Role::Other, "other"),
];

impl Role {
    /// Its name in rules.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(role, _)| *role == self).map_or("exempt", |(_, name)| name)
    }

    /// The role with this name.
    ///
    /// # Errors
    /// A message if there is no such role.
    pub fn from_name(name: &str) -> Result<Self, String> {
        NAMES.iter().find(|(_, n)| *n == name).map(|(role, _)| *role).ok_or_else(|| {
            let all: Vec<_> = NAMES.iter().map(|(_, n)| *n).collect();
            format!("unknown kind of tensor {name:?}; the kinds are {}", all.join(", "))
        })
    }

    /// Whether a rule for this role also matches tensors of the other role.
    pub fn includes(self, other: Self) -> bool {
        self == other || (self == Self::AttnV && other.holds_values())
    }

    /// Whether the tensor contains the value projection, alone or fused with others.
    pub fn holds_values(self) -> bool {
        matches!(self, Self::AttnV | Self::AttnQkv | Self::AttnKvB)
    }
}

/// Tensors that are never quantized, whatever their shape, as in llama-quantize: norms, biases, routers, position embeddings,
/// convolutions and small state matrices.
static EXEMPT: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new([
        r"_norm\.weight|norm\.weight$|layernorm",
        r"\.bias$|^rope_freqs|_scale$|\.scale$|\.input_scale$",
        r"ffn_gate_inp|ffn_gate_tid2eid|(mlp|block_sparse_moe)\.gate\.weight$|router",
        r"altup|laurel|per_layer_model_proj",
        r"position_embd|token_types|embeddings\.(position|token_type)",
        r"ssm_conv1d|shortconv\.conv|indexer\.[kq]_proj",
        r"time_mix_(first|w[0-2]|v[0-2]|a[0-2]|g[12]|decay_w[12]|lerp_fused)\.weight",
        r"attn_rel_b|\.rel_pos|\.patch_embd|\.patch_merger",
        r"sam\.(pos_embd|neck\.|net_)|a\.rvq\.codebook|mm\.a\.code_embd",
    ])
    .expect("these patterns are valid")
});

/// Additional tensors that llama-quantize never quantizes in the architecture glm5-next.
static EXEMPT_GLM5: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"hc_|indexer(\.attn_q_b|\.attn_k|\.proj|_compressor_(gate|ape))|(ssm_(f|g)_(a|b)|ssm_beta|attn_kv_a_mqa|attn_(k|v)_b)\.weight",
    )
    .expect("this pattern is valid")
});

type Names<const N: usize> = LazyLock<[(Role, Regex); N]>;

fn names<const N: usize>(table: [(Role, &str); N]) -> [(Role, Regex); N] {
    table.map(|(role, pattern)| (role, Regex::new(pattern).expect("these patterns are valid")))
}

/// GGUF's names, in the order in which llama-quantize looks for them.
static GGUF: Names<11> = LazyLock::new(|| {
    names([
        (Role::Output, r"^output\.weight$"),
        (Role::Embedding, r"^(per_layer_)?token_embd\.weight$"),
        (Role::AttnQkv, r"attn_qkv\.weight"),
        (Role::AttnKvB, r"attn_kv_b\.weight"),
        (Role::AttnV, r"attn_v\.weight"),
        (Role::AttnK, r"attn_k\.weight"),
        (Role::AttnQ, r"attn_q\.weight"),
        (Role::AttnOutput, r"attn_output\.weight"),
        (Role::FfnUp, r"ffn_up"),
        (Role::FfnGate, r"ffn_gate"),
        (Role::FfnDown, r"ffn_down"),
    ])
});

/// Hugging Face's names, in the variants of many architectures.
static HUB: Names<11> = LazyLock::new(|| {
    names([
        (Role::Output, r"(^|\.)(lm_head|embed_out)\.weight$"),
        (Role::Embedding, r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings)\.weight$"),
        (Role::AttnQkv, r"\.(qkv_proj|query_key_value|c_attn|Wqkv|qkv)(\.|$)"),
        (Role::AttnKvB, r"\.kv_b_proj(\.|$)"),
        (Role::FfnDown, r"\.(down_proj|dense_4h_to_h|fc2|w2|mlp\.c_proj)(\.|$)"),
        (Role::FfnUp, r"\.(up_proj|dense_h_to_4h|fc1|w3|c_fc)(\.|$)"),
        (Role::FfnGate, r"\.(gate_proj|gate_up_proj|w1)(\.|$)"),
        (Role::AttnOutput, r"\.(o_proj|out_proj|attn\.c_proj|attention\.dense|self_attn\.dense)(\.|$)"),
        // `q_proj` alone would also match other tensors.
        (Role::AttnQ, r"att\w*\.q_proj(\.|$)"),
        (Role::AttnK, r"att\w*\.k_proj(\.|$)"),
        (Role::AttnV, r"att\w*\.v_proj(\.|$)"),
    ])
});

/// The role of a tensor, found from its name.
pub fn role(name: &str) -> Role {
    role_in(name, "")
}

/// The role of a tensor in the architecture that GGUF calls `arch`, some of which have additional exemptions.
pub fn role_in(name: &str, arch: &str) -> Role {
    let gguf = name.contains("blk.");
    if EXEMPT.is_match(name)
        || (gguf && !name.ends_with("weight"))
        || (arch == "glm5-next" && EXEMPT_GLM5.is_match(name))
    {
        return Role::Exempt;
    }
    let hub = HUB.iter().filter(|_| !gguf);
    let found = GGUF.iter().chain(hub).find(|(_, pattern)| pattern.is_match(name));
    found.map_or(Role::Other, |(role, _)| *role)
}

/// The layer in Hugging Face's names.
static HUB_LAYER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.").expect("this pattern is valid")
});

/// The number of the layer that a tensor belongs to.
pub fn layer(name: &str) -> Option<u64> {
    match Blk::parse(name) {
        Some(blk) => Some(blk.layer),
        None => HUB_LAYER.captures(name)?[1].parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_from_the_names_of_both_conventions() {
        for (name, expected) in [
            ("token_embd.weight", Role::Embedding),
            ("per_layer_token_embd.weight", Role::Embedding),
            ("output.weight", Role::Output),
            ("lm_head.weight", Role::Output),
            ("blk.3.attn_qkv.weight", Role::AttnQkv),
            ("blk.3.attn_kv_b.weight", Role::AttnKvB),
            ("blk.3.attn_v.weight", Role::AttnV),
            ("blk.3.attn_v_b.weight", Role::Other),
            ("blk.3.attn_q_a.weight", Role::Other),
            ("dec.blk.3.cross_attn_k.weight", Role::AttnK),
            ("blk.3.attn_output.weight", Role::AttnOutput),
            ("blk.3.ffn_down.weight", Role::FfnDown),
            ("blk.3.ffn_down_exps.weight", Role::FfnDown),
            ("blk.3.ffn_gate_shexp.weight", Role::FfnGate),
            ("blk.3.ffn_up_exps.weight", Role::FfnUp),
            ("blk.3.ssm_out.weight", Role::Other),
            ("blk.3.ssm_a", Role::Exempt),
            ("blk.61.nextn.embed_tokens.weight", Role::Other),
            ("blk.3.attn_norm.weight", Role::Exempt),
            ("blk.0.ffn_gate_inp.weight", Role::Exempt),
            ("blk.0.attn_q.bias", Role::Exempt),
            ("rope_freqs.weight", Role::Exempt),
            ("model.embed_tokens.weight", Role::Embedding),
            ("transformer.wte.weight", Role::Embedding),
            ("model.layers.3.input_layernorm.weight", Role::Exempt),
            ("model.layers.3.self_attn.q_proj.weight", Role::AttnQ),
            ("model.layers.3.self_attn.k_proj.weight", Role::AttnK),
            ("model.layers.3.self_attn.v_proj.weight", Role::AttnV),
            ("model.layers.3.self_attn.qkv_proj.weight", Role::AttnQkv),
            ("model.layers.3.self_attn.kv_b_proj.weight", Role::AttnKvB),
            ("model.layers.3.self_attn.o_proj.weight", Role::AttnOutput),
            ("model.layers.3.mlp.gate_proj.weight", Role::FfnGate),
            ("model.layers.3.mlp.up_proj.weight", Role::FfnUp),
            ("model.layers.3.mlp.down_proj.weight", Role::FfnDown),
            ("model.layers.3.mlp.gate.weight", Role::Exempt),
            ("model.layers.3.mlp.experts.7.down_proj.weight", Role::FfnDown),
            ("model.layers.3.block_sparse_moe.experts.7.w2.weight", Role::FfnDown),
            ("model.layers.3.block_sparse_moe.gate.weight", Role::Exempt),
            ("transformer.h.11.attn.c_attn.weight", Role::AttnQkv),
            ("transformer.h.11.attn.c_proj.weight", Role::AttnOutput),
            ("transformer.h.11.mlp.c_proj.weight", Role::FfnDown),
            ("transformer.h.11.mlp.c_fc.weight", Role::FfnUp),
            ("something.else", Role::Other),
        ] {
            assert_eq!(role(name), expected, "{name}");
        }
        assert_eq!(role("blk.1.attn_k_b.weight"), Role::Other);
        assert_eq!(role_in("blk.1.attn_k_b.weight", "glm5-next"), Role::Exempt);
    }

    #[test]
    fn layers_are_found_in_names() {
        for (name, expected) in [
            ("blk.12.attn_q.weight", Some(12)),
            ("model.layers.3.mlp.up_proj.weight", Some(3)),
            ("model.layers.3.mlp.experts.7.up_proj.weight", Some(3)),
            ("transformer.h.11.mlp.c_fc.weight", Some(11)),
            ("output.weight", None),
            ("enc.blk.4.attn_q.weight", None),
            ("blk.99999999999999999999.attn_q.weight", None),
        ] {
            assert_eq!(layer(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_is_one_role() {
        for (role, name) in NAMES {
            assert_eq!(Role::from_name(name), Ok(role));
            assert_eq!(role.name(), name);
        }
        assert!(Role::from_name("attn_w").is_err());
        assert!(Role::from_name("exempt").is_err(), "no rule matches exempt tensors");
    }
}
