//! Which type a tensor gets: schemes by name, as ordered rules.

use std::sync::LazyLock;

use formats::block::DType;
use regex::RegexSet;

/// A named choice of types for a whole model.
#[derive(Debug)]
pub struct Scheme {
    /// llama.cpp's name for it, in lower case.
    pub name: &'static str,
    /// Plain names that people look for.
    pub aliases: &'static [&'static str],
    /// The type of every tensor that no other rule claims.
    pub base: DType,
    /// The type of the output matrix, and of the embedding where it serves as output: errors there reach every
    /// token's probability.
    pub output: DType,
    /// The type of an embedding that is no output.
    pub embedding: DType,
    /// `general.file_type`.
    pub file_type: u32,
}

const fn scheme(
    name: &'static str,
    aliases: &'static [&'static str],
    [base, output, embedding]: [DType; 3],
    file_type: u32,
) -> Scheme {
    Scheme { name, aliases, base, output, embedding, file_type }
}

use DType::{BF16, F16, F32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TQ1_0, TQ2_0};

/// Every scheme.
pub static SCHEMES: &[Scheme] = &[
    scheme("f32", &["fp32"], [F32, F32, F32], 0),
    scheme("f16", &["fp16"], [F16, F16, F16], 1),
    scheme("bf16", &[], [BF16, BF16, BF16], 32),
    scheme("q8_0", &["int8"], [Q8_0, Q8_0, Q8_0], 7),
    scheme("q5_1", &[], [Q5_1, Q8_0, Q5_1], 9),
    scheme("q5_0", &[], [Q5_0, Q8_0, Q5_0], 8),
    scheme("q4_1", &[], [Q4_1, Q8_0, Q4_1], 3),
    scheme("q4_0", &["int4"], [Q4_0, Q8_0, Q4_0], 2),
    scheme("tq2_0", &["ternary"], [TQ2_0, Q8_0, Q8_0], 37),
    scheme("tq1_0", &[], [TQ1_0, Q8_0, Q8_0], 36),
];

/// The scheme with this name or alias, in any case.
pub fn find(name: &str) -> Option<&'static Scheme> {
    let mut is = |n: &&str| n.eq_ignore_ascii_case(name);
    SCHEMES.iter().find(|s| is(&s.name) || s.aliases.iter().any(&mut is))
}

/// What a tensor is to the rules; names are GGUF's, or Hugging Face's where a file kept them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The token embedding.
    Embedding,
    /// The matrix that gives the logits.
    Output,
    /// Something that every runtime reads in full precision.
    Exempt,
    /// Any other matrix.
    Weight,
}

/// Tensors that are not quantized whatever their shape, as in llama-quantize: norms, biases, routers, positions,
/// convolutions and small state matrices.
static EXEMPT: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new([
        r"_norm\.weight$|norm\.weight$|layernorm",
        r"\.bias$|^rope_freqs|_scale$|\.scale$|\.input_scale$",
        r"ffn_gate_inp|ffn_gate_tid2eid|mlp\.gate\.weight$|router",
        r"altup|laurel|per_layer_model_proj",
        r"position_embd|token_types|embeddings\.(position|token_type)",
        r"ssm_conv1d|shortconv\.conv|indexer\.[kq]_proj",
        r"time_mix_(first|w[0-2]|v[0-2]|a[0-2]|g[12]|decay_w[12]|lerp_fused)",
        r"attn_rel_b|rel_pos|patch_embd|patch_merger|sam\.|\bcodebook",
    ])
    .expect("these patterns are valid")
});

/// The role of a tensor.
pub fn role(name: &str) -> Role {
    match name {
        "token_embd.weight" | "model.embed_tokens.weight" | "transformer.wte.weight" => Role::Embedding,
        "output.weight" | "lm_head.weight" => Role::Output,
        _ if EXEMPT.is_match(name) => Role::Exempt,
        _ => Role::Weight,
    }
}

/// What a type becomes where its blocks do not divide a row: the smallest type of smaller blocks that is at least
/// as precise, half precision at the end.
pub fn fallback(dtype: DType, cols: u64) -> DType {
    let fits = |t: DType| cols.is_multiple_of(t.info().weights as u64);
    match dtype {
        t if fits(t) => t,
        TQ1_0 | TQ2_0 if fits(Q4_0) => Q4_0,
        _ => F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_can_be_encoded() {
        let mut seen = std::collections::HashSet::new();
        for s in SCHEMES {
            for name in s.aliases.iter().chain([&s.name]) {
                assert!(seen.insert(*name), "{name}");
                assert!(std::ptr::eq(find(&name.to_uppercase()).unwrap(), s));
            }
            for t in [s.base, s.output, s.embedding] {
                assert!(crate::kernels::codec(t).is_some(), "{}: {}", s.name, t.name());
            }
        }
    }

    #[test]
    fn a_fallback_always_fits() {
        for s in SCHEMES {
            for cols in [1, 31, 32, 64, 172, 256, 288, 512] {
                let t = fallback(s.base, cols);
                assert!(cols.is_multiple_of(t.info().weights as u64));
                assert_eq!(t == s.base, cols.is_multiple_of(s.base.info().weights as u64));
            }
        }
        assert_eq!(fallback(TQ2_0, 288), Q4_0);
        assert_eq!(fallback(Q4_0, 172), F16);
    }

    #[test]
    fn roles_follow_the_names_of_both_worlds() {
        for (name, role_) in [
            ("token_embd.weight", Role::Embedding),
            ("lm_head.weight", Role::Output),
            ("blk.3.ffn_down.weight", Role::Weight),
            ("model.layers.3.mlp.down_proj.weight", Role::Weight),
            ("blk.3.attn_norm.weight", Role::Exempt),
            ("model.layers.3.input_layernorm.weight", Role::Exempt),
            ("blk.0.ffn_gate_inp.weight", Role::Exempt),
            ("blk.0.attn_q.bias", Role::Exempt),
            ("rope_freqs.weight", Role::Exempt),
        ] {
            assert_eq!(role(name), role_, "{name}");
        }
    }
}
