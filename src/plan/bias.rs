//! Bias correction: which biases are added to cancel the mean error of quantized matrices.

use std::collections::HashSet;

use formats::block::DType;
use formats::model::{Encoding, Location, Tensor};

use super::{Container, Decision};
use crate::arch::{self, Blk};
use crate::error::{Error, Result};
use crate::source::Source;

/// The rule of decisions that add a bias.
pub(crate) const RULE: &str = "bias correction";

/// The matrices of a layer that can get a bias.
const PARTS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// The name of the bias of a matrix, if the matrix is one of [`PARTS`].
pub(crate) fn bias_name(weight: &str) -> Option<String> {
    let blk = Blk::parse(weight)?;
    let part = blk.weight().filter(|part| PARTS.contains(part))?;
    Some(Blk { part: &format!("{part}.bias"), ..blk }.to_string())
}

/// Whether a tensor's name is that of such a bias.
pub(crate) fn is_bias(name: &str) -> bool {
    name.strip_suffix(".bias").is_some_and(|stem| bias_name(&format!("{stem}.weight")).is_some())
}

/// Adds a bias to every quantized matrix that has none, and makes existing ones f32.
///
/// # Errors
/// [`Error::Usage`] if the target's readers do not support these biases, or if a matrix is NVFP4: llama.cpp does not
/// support biases together with NVFP4's scales.
pub(super) fn add(
    source: &Source,
    target: Container,
    decisions: Vec<Decision>,
    tensors: Vec<Tensor>,
) -> Result<(Vec<Decision>, Vec<Tensor>)> {
    let architecture = source.model.metadata.text("general.architecture").unwrap_or_default();
    if target != Container::Gguf || !arch::by_name(architecture).is_some_and(|arch| arch.any_bias) {
        let why = match target {
            Container::Gguf => {
                format!("llama.cpp does not load additional biases in models of architecture {architecture}")
            }
            Container::Safetensors | Container::Llama2c | Container::Expansion => {
                "only GGUF files can have additional biases".into()
            }
        };
        return Err(
            Error::usage(why).or("leave out --bias-correction, which is for GGUF files of llama models")
        );
    }
    let names: HashSet<String> = tensors.iter().map(|t| t.name.clone()).collect();
    let (mut all_decisions, mut all) = (Vec::new(), Vec::new());
    // I2_S stores ternary weights exactly, so there is no error to correct.
    let quantized = |decision: &Decision, t: &Tensor| {
        !t.encoding.is_plain() && t.encoding != Encoding::I2S && decision.from != t.encoding
    };
    let pairs = decisions.iter().zip(&tensors).filter(|(decision, t)| quantized(decision, t));
    let biases: HashSet<String> = pairs.clone().filter_map(|(_, t)| bias_name(&t.name)).collect();
    if pairs.clone().any(|(_, t)| t.encoding == Encoding::Blocks(DType::NVFP4)) {
        return Err(Error::usage("llama.cpp does not run models with biases on nvfp4 matrices")
            .or("leave out --bias-correction, or use another type than nvfp4"));
    }
    for (decision, mut t) in decisions.into_iter().zip(tensors) {
        let quantized = quantized(&decision, &t);
        if biases.contains(&t.name) {
            t.encoding = Encoding::Blocks(DType::F32);
        }
        let bias = bias_name(&t.name).filter(|name| quantized && !names.contains(name));
        let (from, shape, weight) = (Encoding::Blocks(DType::F32), vec![t.rows()], decision.source);
        all_decisions.push(decision);
        all.push(t);
        if let Some(name) = bias {
            all_decisions.push(Decision { source: weight, from, rule: RULE.into(), fallback_from: None });
            all.push(Tensor { name, shape, encoding: from, location: Location::default() });
        }
    }
    Ok((all_decisions, all))
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
            assert_eq!(bias_name(weight).as_deref(), bias);
        }
    }
}
