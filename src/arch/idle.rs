//! What a GGUF may hold beside the tensors of its architecture: tensors without effect, and settings that change what the
//! other tensors mean.

use formats::metadata::Metadata;

/// Endings of the names of tensors that follow from the settings, or that no program computes with: buffers that PyTorch
/// saves with the weights, what early converters wrote (`LLM_TENSOR_ATTN_ROT_EMBD` in llama.cpp, which skips it too), and the
/// scales that some GPUs quantize activations with for NVFP4 matrices (llama.cpp loads them wherever they are).
const IDLE: &[&str] = &[
    "attn_rot_embd.weight",
    "attn_rot_embd",
    "inv_freq",
    "original_inv_freq",
    "cos_cached",
    "sin_cached",
    "_cos_cached",
    "_sin_cached",
    "cos_cache",
    "sin_cache",
    "cos_sin_cache",
    "freqs_cis",
    "freqs_cos",
    "freqs_sin",
    "rope.cache",
    "rotary_emb.scaling_factor",
    "rotary_emb.attention_scaling",
    "attn.masked_bias",
    "attn.bias",
    "attention.masked_bias",
    "attention.bias",
    "self_attn.mask",
    "attn_mask",
    "attention_mask",
    "causal_mask",
    "position_ids",
    "cache_position",
    "num_batches_tracked",
    // What Transformer Engine and torchao keep of their own settings.
    "_extra_state",
    "input_scale",
    // The scales with which some programs quantize what layers give, and the KV cache.
    "output_scale",
    "k_scale",
    "v_scale",
    "attn.q_scale",
    "attn.prob_scale",
    // The heads of rerankers and of reinforcement learning have no part in the next token.
    "cls.output.weight",
    "cls.output.bias",
    "v_head.summary.weight",
    "v_head.summary.bias",
];

/// Whether a tensor is known to change nothing.
pub fn is_idle(name: &str) -> bool {
    IDLE.iter()
        .any(|ending| name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Keys that say that weights are stored rotated, so that their inputs have to be rotated before every product
/// (PrismML's Bonsai 2). No program but PrismML's does that.
const ROTATED: &str = "prism.hadamard.";

/// The first key that says that weights are not stored as the architecture multiplies them, if there is one: computed
/// without what it stands for, the model's answers have no meaning.
pub fn rotated(metadata: &Metadata) -> Option<&str> {
    metadata.iter().map(|(key, _)| key).find(|key| key.starts_with(ROTATED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_tensors_are_known_by_whole_parts_of_their_names() {
        for name in [
            "blk.3.attn_rot_embd.weight",
            "blk.0.self_attn.rotary_emb.inv_freq",
            "rotary_emb.inv_freq",
            "blk.2.ffn_down.input_scale",
            "model.layers.0.self_attn._extra_state",
            "model.layers.0.self_attn.k_proj.k_scale",
            "model.freqs_cis",
            "layers.1.attn.prob_scale",
        ] {
            assert!(is_idle(name), "{name}");
        }
        for name in ["blk.0.attn_q_norm_in.weight", "blk.0.my_attn_rot_embd", "my_inv_freq", "q_scale", ""] {
            assert!(!is_idle(name), "{name}");
        }
    }
}
