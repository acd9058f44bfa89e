//! What llama.cpp decides by the name of an architecture (`general.architecture`), for all architectures, of which most
//! have no [`Arch`](super::Arch) here.

const ATTENTION: &[&str] = &["attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv"];
const DENSE: &[&str] = &["ffn_gate", "ffn_up", "ffn_down"];
const EXPERTS: &[&str] = &["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// Architectures that llama.cpp does not load. They are bitnet.cpp's; llama.cpp's own "bitnet" has another activation.
pub const NOT_LOADED: &[&str] = &["bitnet-b1.58", "bitnet-25"];

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
