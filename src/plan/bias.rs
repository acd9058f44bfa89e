//! Biases that make up for the mean error of quantized matrices: which tensors they are.

use std::collections::HashSet;

use formats::block::DType;
use formats::model::{Encoding, Location, Tensor};

use super::{Container, Step};
use crate::arch::{self, Blk};
use crate::error::{Error, Result};
use crate::source::Source;

/// The rule of steps that make one.
pub(crate) const RULE: &str = "bias correction";

/// The matrices of a layer.
const PARTS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// The name of a matrix's bias, if it is one of a layer's.
pub(crate) fn name_of(weight: &str) -> Option<String> {
    let blk = Blk::parse(weight)?;
    let part = blk.weight().filter(|part| PARTS.contains(part))?;
    Some(Blk { part: &format!("{part}.bias"), ..blk }.to_string())
}

/// Whether a tensor may be such a bias, by its name.
pub(crate) fn is_one(name: &str) -> bool {
    name.strip_suffix(".bias").is_some_and(|stem| name_of(&format!("{stem}.weight")).is_some())
}

/// Gives quantized matrices without a bias one, and makes the others' f32, as they will be written.
///
/// # Errors
/// A target whose readers do not take them; NVFP4, with whose scales llama.cpp takes no biases.
pub(super) fn add(
    source: &Source,
    target: Container,
    steps: Vec<Step>,
    tensors: Vec<Tensor>,
) -> Result<(Vec<Step>, Vec<Tensor>)> {
    let architecture = source.model.metadata.text("general.architecture").unwrap_or_default();
    if target != Container::Gguf || !arch::by_name(architecture).is_some_and(|arch| arch.any_bias) {
        let why = match target {
            Container::Gguf => {
                format!("{architecture} models have no place for biases that they did not have")
            }
            Container::Safetensors | Container::Llama2c | Container::Expansion => {
                "only GGUF files take biases that were not there".into()
            }
        };
        return Err(Error::usage(why).or("leave --bias-correction out: it is for GGUF files of llama models"));
    }
    let names: HashSet<String> = tensors.iter().map(|t| t.name.clone()).collect();
    let (mut all_steps, mut all) = (Vec::new(), Vec::new());
    // I2_S has the weights as they are: there is nothing to make up for.
    let quantized = |step: &Step, t: &Tensor| {
        !t.encoding.is_plain() && t.encoding != Encoding::I2S && step.from != t.encoding
    };
    let pairs = steps.iter().zip(&tensors).filter(|(step, t)| quantized(step, t));
    let biases: HashSet<String> = pairs.clone().filter_map(|(_, t)| name_of(&t.name)).collect();
    if pairs.clone().any(|(_, t)| t.encoding == Encoding::Blocks(DType::NVFP4)) {
        return Err(Error::usage("llama.cpp does not run models with biases beside nvfp4 matrices")
            .or("leave --bias-correction out, or take another type"));
    }
    for (step, mut t) in steps.into_iter().zip(tensors) {
        let quantized = quantized(&step, &t);
        if biases.contains(&t.name) {
            t.encoding = Encoding::Blocks(DType::F32);
        }
        let bias = name_of(&t.name).filter(|name| quantized && !names.contains(name));
        let (from, shape, weight) = (Encoding::Blocks(DType::F32), vec![t.rows()], step.source);
        all_steps.push(step);
        all.push(t);
        if let Some(name) = bias {
            all_steps.push(Step { source: weight, from, rule: RULE.into(), wanted: None });
            all.push(Tensor { name, shape, encoding: from, location: Location::default() });
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
