//! The tensors of a GGUF that its architecture does not have.

use std::collections::HashSet;

use formats::metadata::{Metadata, Value};
use formats::model::Tensor;

use super::{Blk, by_name, is_idle};

/// Divisors of RoPE frequencies, which llama.cpp takes in the same architectures; the last two with another scaling.
const ROTARY: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// The names of the tensors that models of this architecture do not have, in the order of the file: those of a variant that
/// computes something else, and those of layers beyond the number that the metadata states. llama.cpp refuses a file with
/// such a tensor ("wrong number of tensors", `llama-model-loader.cpp`). None where the architecture is not known here, the
/// tensors have other names than GGUF's, or the model has experts, which llama.cpp has in the same architecture.
fn unknown_tensors<'t>(metadata: &Metadata, tensors: &'t [Tensor]) -> Vec<&'t str> {
    let architecture = metadata.text("general.architecture").unwrap_or_default();
    let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    let Some(arch) = by_name(architecture).filter(|_| names.contains("token_embd.weight")) else {
        return Vec::new();
    };
    let number = |key: &str| metadata.get(&format!("{architecture}.{key}")).and_then(Value::as_u64);
    if number("expert_count").is_some_and(|n| n > 0) {
        return Vec::new();
    }
    let layers = number("block_count");
    let known = |name: &str| {
        if is_idle(name) || ROTARY.contains(&name) && arch.rope_freqs {
            return true;
        }
        // llama.cpp adds the first to the logits of qwen2; it is not run here.
        if name == "output.bias" && architecture == "qwen2" {
            return true;
        }
        // The scale of a whole tensor.
        if let Some(matrix) = name.strip_suffix(".scale") {
            return names.contains(format!("{matrix}.weight").as_str());
        }
        let Some(Blk { layer, part }) = Blk::parse(name) else { return arch.rule(name).is_some() };
        // llama.cpp also takes the three projections in one tensor, which is not run here.
        let fused = arch.qkv_biases && ["attn_qkv.weight", "attn_qkv.bias"].contains(&part);
        let of_layer = fused
            || arch.rule(&format!("blk.{{}}.{part}")).is_some()
            || part.strip_suffix(".bias").is_some_and(|matrix| arch.has_bias(matrix));
        of_layer && layers.is_none_or(|n| layer < n)
    };
    tensors.iter().map(|t| t.name.as_str()).filter(|name| !known(name)).collect()
}

/// What it means that a model has such tensors, for the user of a command that only copies or shows them.
pub fn unknown_tensors_note(metadata: &Metadata, tensors: &[Tensor]) -> Option<String> {
    let found = unknown_tensors(metadata, tensors);
    let (first, more) = (found.first()?, found.len() - 1);
    let architecture = metadata.text("general.architecture").unwrap_or_default();
    let (which, them) = match more {
        0 => (format!("tensor {first} is"), "it"),
        more => (format!("tensor {first} and {more} more are"), "them"),
    };
    Some(format!(
        "{which} no part of the architecture {architecture} with its number of layers: llama.cpp refuses a file with {them}, \
         and ggufkit does not run or measure it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::block::DType;
    use formats::model::{Encoding, Location};

    fn model(architecture: &str, names: &[&str]) -> (Metadata, Vec<Tensor>) {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", Value::text(architecture));
        metadata.set(&format!("{architecture}.block_count"), Value::U32(2));
        let tensor = |name: &&str| Tensor {
            name: name.to_string(),
            shape: vec![4],
            encoding: Encoding::Blocks(DType::F32),
            location: Location::default(),
        };
        (metadata, ["token_embd.weight"].iter().chain(names).map(tensor).collect())
    }

    #[test]
    fn tensors_that_an_architecture_does_not_have_are_named() {
        for (architecture, names, unknown) in [
            (
                "llama",
                vec!["blk.0.attn_q.weight", "blk.1.ffn_up.bias", "rope_freqs.weight", "output.weight"],
                vec![],
            ),
            ("llama", vec!["blk.0.attn_q_norm.weight", "blk.1.ffn_sub_norm.weight"], vec![0, 1]),
            ("llama", vec!["blk.1.attn_norm.weight", "blk.2.attn_norm.weight", "output.bias"], vec![1, 2]),
            ("llama", vec!["blk.0.ffn_up.weight", "blk.0.ffn_up.scale", "blk.0.ffn_gate.scale"], vec![2]),
            ("llama", vec!["blk.0.attn_rot_embd.weight", "blk.0.post_attention_norm.weight"], vec![1]),
            ("qwen2", vec!["blk.0.attn_v.bias", "blk.0.attn_output.bias", "rope_freqs.weight"], vec![1, 2]),
            (
                "qwen3",
                vec!["blk.0.attn_k_norm.weight", "blk.0.attn_k.bias", "blk.0.attn_sub_norm.weight"],
                vec![2],
            ),
            ("bitnet-25", vec!["blk.0.attn_sub_norm.weight", "blk.0.attn_k.bias"], vec![1]),
            (
                "llama",
                vec!["blk.0.attn_qkv.weight", "rope_factors_long.weight", "blk.0.attn_gate.weight"],
                vec![2],
            ),
            ("mamba", vec!["blk.0.ssm_in.weight"], vec![]),
        ] {
            let (metadata, tensors) = model(architecture, &names);
            let wanted: Vec<&str> = unknown.iter().map(|i: &usize| names[*i]).collect();
            assert_eq!(unknown_tensors(&metadata, &tensors), wanted, "{architecture}");
            let note = unknown_tensors_note(&metadata, &tensors);
            assert_eq!(note.is_some(), !wanted.is_empty());
            assert!(note.is_none_or(|note| note.contains(wanted[0]) && note.contains(architecture)));
        }
        // llama.cpp knows mixtures of experts as llama.
        let (mut metadata, tensors) =
            model("llama", &["blk.0.ffn_gate_inp.weight", "blk.0.ffn_up_exps.weight"]);
        assert_eq!(unknown_tensors(&metadata, &tensors).len(), 2);
        metadata.set("llama.expert_count", Value::U32(8));
        assert_eq!(unknown_tensors(&metadata, &tensors), [""; 0]);
        // A checkpoint with its own names.
        let (metadata, tensors) = model("llama", &["model.layers.0.self_attn.q_proj.weight"]);
        assert_eq!(unknown_tensors(&metadata, &tensors[1..]), [""; 0]);
    }
}
