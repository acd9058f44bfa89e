//! The role of a tensor in a model, found from its name in GGUF's or Hugging Face's convention.

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

/// What a name must have. Plain comparisons, since a program that starts hundreds of times a minute would spend more on
/// compiling regular expressions than on everything else that it does with small models.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// It is this.
    Is(&'static str),
    /// It begins with this.
    Begins(&'static str),
    /// It ends with this.
    Ends(&'static str),
    /// This is somewhere in it.
    Has(&'static str),
    /// It ends with these whole parts; parts have dots between them.
    LastParts(&'static str),
    /// These whole parts, with the dot before them, are somewhere in it.
    Parts(&'static str),
    /// This part, with the dot before it, after a part that ends with `att` or a word that begins so: `q_proj` alone would
    /// also match other tensors.
    Attention(&'static str),
}

use Mark::{Attention, Begins, Ends, Has, Is, LastParts, Parts};

impl Mark {
    /// Whether the name has it.
    fn is_in(self, name: &str) -> bool {
        match self {
            Is(whole) => name == whole,
            Begins(start) => name.starts_with(start),
            Ends(end) => name.ends_with(end),
            Has(text) => name.contains(text),
            LastParts(parts) => {
                name.strip_suffix(parts).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            Parts(parts) => whole_parts(name, parts).next().is_some(),
            Attention(part) => whole_parts(name, part).any(|before| {
                let word = before.rfind("att").map(|at| &before[at..]);
                word.is_some_and(|word| word.chars().all(|c| c.is_alphanumeric() || c == '_'))
            }),
        }
    }
}

/// What is before each place of `parts`, which begins with a dot, where it ends at a dot or at the end of the name.
fn whole_parts<'n>(name: &'n str, parts: &'static str) -> impl Iterator<Item = &'n str> {
    let places = name.match_indices(parts);
    places.filter_map(move |(at, _)| {
        let after = &name[at + parts.len()..];
        (after.is_empty() || after.starts_with('.')).then(|| &name[..at])
    })
}

/// Tensors that are never quantized, whatever their shape, as in llama-quantize: norms, biases, routers, position embeddings,
/// convolutions and small state matrices.
#[rustfmt::skip]
const EXEMPT: &[Mark] = &[
    Has("_norm.weight"), Ends("norm.weight"), Has("layernorm"),
    Ends(".bias"), Begins("rope_freqs"), Ends("_scale"), Ends(".scale"),
    Has("ffn_gate_inp"), Has("ffn_gate_tid2eid"), Ends("mlp.gate.weight"), Ends("block_sparse_moe.gate.weight"), Has("router"),
    Has("altup"), Has("laurel"), Has("per_layer_model_proj"),
    Has("position_embd"), Has("token_types"), Has("embeddings.position"), Has("embeddings.token_type"),
    Has("ssm_conv1d"), Has("shortconv.conv"), Has("indexer.k_proj"), Has("indexer.q_proj"),
    Has("time_mix_first.weight"), Has("time_mix_w0.weight"), Has("time_mix_w1.weight"), Has("time_mix_w2.weight"),
    Has("time_mix_v0.weight"), Has("time_mix_v1.weight"), Has("time_mix_v2.weight"),
    Has("time_mix_a0.weight"), Has("time_mix_a1.weight"), Has("time_mix_a2.weight"),
    Has("time_mix_g1.weight"), Has("time_mix_g2.weight"),
    Has("time_mix_decay_w1.weight"), Has("time_mix_decay_w2.weight"), Has("time_mix_lerp_fused.weight"),
    Has("attn_rel_b"), Has(".rel_pos"), Has(".patch_embd"), Has(".patch_merger"),
    Has("sam.pos_embd"), Has("sam.neck."), Has("sam.net_"), Has("a.rvq.codebook"), Has("mm.a.code_embd"),
];

/// Additional tensors that llama-quantize never quantizes in the architecture glm5-next.
#[rustfmt::skip]
const EXEMPT_GLM5: &[Mark] = &[
    Has("hc_"),
    Has("indexer.attn_q_b"), Has("indexer.attn_k"), Has("indexer.proj"),
    Has("indexer_compressor_gate"), Has("indexer_compressor_ape"),
    Has("ssm_f_a.weight"), Has("ssm_f_b.weight"), Has("ssm_g_a.weight"), Has("ssm_g_b.weight"), Has("ssm_beta.weight"),
    Has("attn_kv_a_mqa.weight"), Has("attn_k_b.weight"), Has("attn_v_b.weight"),
];

/// GGUF's names, in the order in which llama-quantize looks for them.
const GGUF: &[(Role, &[Mark])] = &[
    (Role::Output, &[Is("output.weight")]),
    (Role::Embedding, &[Is("token_embd.weight"), Is("per_layer_token_embd.weight")]),
    (Role::AttnQkv, &[Has("attn_qkv.weight")]),
    (Role::AttnKvB, &[Has("attn_kv_b.weight")]),
    (Role::AttnV, &[Has("attn_v.weight")]),
    (Role::AttnK, &[Has("attn_k.weight")]),
    (Role::AttnQ, &[Has("attn_q.weight")]),
    (Role::AttnOutput, &[Has("attn_output.weight")]),
    (Role::FfnUp, &[Has("ffn_up")]),
    (Role::FfnGate, &[Has("ffn_gate")]),
    (Role::FfnDown, &[Has("ffn_down")]),
];

/// Hugging Face's names, in the variants of many architectures.
#[rustfmt::skip]
const HUB: &[(Role, &[Mark])] = &[
    (Role::Output, &[LastParts("lm_head.weight"), LastParts("embed_out.weight")]),
    (Role::Embedding, &[
        LastParts("embed_tokens.weight"), LastParts("wte.weight"), LastParts("word_embeddings.weight"),
        LastParts("tok_embeddings.weight"),
    ]),
    (Role::AttnQkv, &[
        Parts(".qkv_proj"), Parts(".query_key_value"), Parts(".c_attn"), Parts(".Wqkv"), Parts(".qkv"),
    ]),
    (Role::AttnKvB, &[Parts(".kv_b_proj")]),
    (Role::FfnDown, &[
        Parts(".down_proj"), Parts(".dense_4h_to_h"), Parts(".fc2"), Parts(".w2"), Parts(".mlp.c_proj"),
    ]),
    (Role::FfnUp, &[Parts(".up_proj"), Parts(".dense_h_to_4h"), Parts(".fc1"), Parts(".w3"), Parts(".c_fc")]),
    (Role::FfnGate, &[Parts(".gate_proj"), Parts(".gate_up_proj"), Parts(".w1")]),
    (Role::AttnOutput, &[
        Parts(".o_proj"), Parts(".out_proj"), Parts(".attn.c_proj"), Parts(".attention.dense"), Parts(".self_attn.dense"),
    ]),
    (Role::AttnQ, &[Attention(".q_proj")]),
    (Role::AttnK, &[Attention(".k_proj")]),
    (Role::AttnV, &[Attention(".v_proj")]),
];

/// The role of a tensor, found from its name.
pub fn role(name: &str) -> Role {
    role_in(name, "")
}

/// The role of a tensor in the architecture that GGUF calls `arch`, some of which have additional exemptions.
pub fn role_in(name: &str, arch: &str) -> Role {
    let any = |marks: &[Mark]| marks.iter().any(|mark| mark.is_in(name));
    let gguf = name.contains("blk.");
    if (gguf && !name.ends_with("weight")) || any(EXEMPT) || (arch == "glm5-next" && any(EXEMPT_GLM5)) {
        return Role::Exempt;
    }
    let hub: &[(Role, &[Mark])] = if gguf { &[] } else { HUB };
    GGUF.iter().chain(hub).find(|(_, marks)| any(marks)).map_or(Role::Other, |(role, _)| *role)
}

/// The parts before the number of a layer in Hugging Face's names.
const HUB_LAYERS: [&str; 5] = ["layers", "layer", "h", "blocks", "block"];

/// The number of the layer that a tensor belongs to.
pub fn layer(name: &str) -> Option<u64> {
    if let Some(blk) = Blk::parse(name) {
        return Some(blk.layer);
    }
    // The last part is the matrix, not a number.
    let (mut rest, _) = name.rsplit_once('.')?;
    while let Some((part, after)) = rest.split_once('.') {
        let number = after.split('.').next().unwrap_or_default();
        if HUB_LAYERS.contains(&part) && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            return number.parse().ok();
        }
        rest = after;
    }
    None
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
            // Whole parts, and the word before a projection.
            ("model.layers.3.linear_attn.out_proj.weight", Role::AttnOutput),
            ("decoder.layers.0.encoder_attn.q_proj.weight", Role::AttnQ),
            ("attn.k_proj", Role::AttnK),
            ("model.layers.0.self_attn.v_proj.lora.weight", Role::AttnV),
            ("model.layers.0.self_attn.v_projection.weight", Role::Other),
            ("model.layers.0.mixer.q_proj.weight", Role::Other),
            ("model.layers.0.attention-like.q_proj.weight", Role::Other),
            ("model.layers.0.cross-attention.q_proj.weight", Role::AttnQ),
            ("down_proj.weight", Role::Other),
            ("x.down_projector.down_proj", Role::FfnDown),
            ("my_lm_head.weight", Role::Other),
            ("my.lm_head.weight", Role::Output),
            ("lm_head.weight.scale", Role::Exempt),
            ("a.rope_freqs.weight", Role::Other),
            ("v.blk.0.attn_q.weight.rest", Role::Exempt),
            ("model.norm.weight", Role::Exempt),
            ("model.norm.weights", Role::Other),
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
            ("layers.7.wq", Some(7)),
            ("layers.7", None),
            ("layers.x.layers.8.w", Some(8)),
            ("layers.99999999999999999999.layers.8.w", None),
            ("model.my_layers.3.w", None),
            ("model.layers.+3.w", None),
            ("model.layers..w", None),
            ("h.0.attn.c_attn.weight", Some(0)),
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
