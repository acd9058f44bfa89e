//! Biases that make up for the mean error of quantized matrices: which tensors they are.

use std::collections::HashSet;

use formats::block::DType;
use formats::model::{Encoding, Place, Tensor};

use super::{Step, Target};
use crate::error::{Error, Result};
use crate::source::Source;

/// The rule of steps that make one.
pub(crate) const RULE: &str = "bias correction";

/// Architectures whose loader in llama.cpp takes a bias beside every matrix of a layer. Others refuse files with tensors
/// that they do not ask for.
const TAKE: [&str; 2] = ["llama", "mistral3"];

/// The matrices of a layer.
const PARTS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// The name of a matrix's bias, if it is one of a layer's.
pub(crate) fn name_of(weight: &str) -> Option<String> {
    let (layer, part) = weight.strip_suffix(".weight")?.strip_prefix("blk.")?.split_once('.')?;
    PARTS.contains(&part).then(|| format!("blk.{layer}.{part}.bias"))
}

/// Gives quantized matrices without a bias one.
///
/// # Errors
/// A target whose readers do not take them.
pub(super) fn add(
    source: &Source,
    target: Target,
    steps: Vec<Step>,
    tensors: Vec<Tensor>,
) -> Result<(Vec<Step>, Vec<Tensor>)> {
    let architecture = source.model.metadata.text("general.architecture").unwrap_or_default();
    if target != Target::Gguf || !TAKE.contains(&architecture) {
        let why = match target {
            Target::Gguf => format!("{architecture} models have no place for biases that they did not have"),
            Target::Safetensors | Target::Llama2c => "only GGUF files take biases that were not there".into(),
        };
        return Err(Error::usage(why).or("leave --bias-correction out: it is for GGUF files of llama models"));
    }
    let names: HashSet<String> = tensors.iter().map(|t| t.name.clone()).collect();
    let (mut all_steps, mut all) = (Vec::new(), Vec::new());
    for (step, t) in steps.into_iter().zip(tensors) {
        let quantized = !t.encoding.is_plain() && step.from != t.encoding;
        let bias = name_of(&t.name).filter(|name| quantized && !names.contains(name));
        let (from, shape, weight) = (Encoding::Blocks(DType::F32), vec![t.rows()], step.source);
        all_steps.push(step);
        all.push(t);
        if let Some(name) = bias {
            all_steps.push(Step { source: weight, from, rule: RULE.into(), wanted: None });
            all.push(Tensor { name, shape, encoding: from, place: Place::default() });
        }
    }
    Ok((all_steps, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_layers_have_biases() {
        for (weight, bias) in [
            ("blk.3.attn_q.weight", Some("blk.3.attn_q.bias")),
            ("blk.11.ffn_down.weight", Some("blk.11.ffn_down.bias")),
            ("blk.11.ffn_norm.weight", None),
            ("output.weight", None),
            ("blk.0.attn_q.bias", None),
        ] {
            assert_eq!(name_of(weight).as_deref(), bias);
        }
    }
}
