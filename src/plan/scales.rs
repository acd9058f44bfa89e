//! Scales of whole tensors for NVFP4: which matrices get one, and which lose theirs.
//!
//! The scale of an NVFP4 block is a float with four exponent bits and three mantissa bits (E4M3). Below 2^-6 it is subnormal
//! and has fewer bits, and the weights of most models are small enough to need such scales. A scale of the whole tensor
//! moves the largest block near the upper end of the range. It is a power of two, so it adds no rounding.

use std::collections::{HashMap, HashSet};

use formats::block::DType;
use formats::model::{Encoding, Location, Tensor};

use super::{Container, Decision};
use crate::arch::{Blk, llama_cpp};
use crate::source::{Source, scales, stacked};

/// The rule of decisions that add such a scale.
const RULE: &str = "scale of a tensor";

/// The largest weight that fits into blocks with the largest scale (448). An encoder may map a block's largest weight to a
/// code anywhere from 4 to 6, so the smaller of these counts.
const LARGEST: f32 = 4.0 * 448.0;

/// A tensor of a layout with a scale of the whole tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// The matrix's index in the layout.
    pub weight: usize,
    /// The index of its scale: one number, or one for each stacked matrix, all equal.
    pub scale: usize,
}

/// The power of two by which a tensor is divided before encoding. `largest` is its largest absolute weight; for 0, infinity
/// and NaN the factor is 1.
pub fn factor(largest: f32) -> f32 {
    if largest == 0.0 || !largest.is_finite() {
        return 1.0;
    }
    // The smallest 2^k ≥ largest / LARGEST: the quotient's exponent, plus one unless it is a power of two itself.
    let bits = (largest / LARGEST).to_bits();
    let exponent = (bits >> 23) as i32 - 127 + i32::from(bits & 0x007F_FFFF != 0);
    f32::from_bits(((exponent.clamp(-100, 100) + 127) as u32) << 23)
}

/// Whether llama.cpp applies such a scale in the graph of this architecture. Its loader accepts scales in every
/// architecture, but some graphs ignore them.
fn applies_scale(architecture: &str, name: &str) -> bool {
    let Some(groups) = llama_cpp::scaled_matrices(architecture) else { return false };
    match Blk::parse(name) {
        Some(blk) => blk.weight().is_some_and(|part| groups.iter().any(|g| g.contains(&part))),
        None => name == "output.weight",
    }
}

/// Adds a scale to every matrix that becomes NVFP4. Removes the scales of matrices that are converted from NVFP4, because
/// reading already multiplies their weights by the scale.
pub(super) fn adjust(
    source: &Source,
    target: Container,
    decisions: Vec<Decision>,
    tensors: Vec<Tensor>,
) -> (Vec<Decision>, Vec<Tensor>, Vec<Scale>) {
    const PACKED: Encoding = Encoding::Blocks(DType::NVFP4);
    let model = &source.model;
    let own: HashMap<usize, usize> = scales::pairs(model).into_iter().map(|(w, s)| (s, w)).collect();
    if own.is_empty() && tensors.iter().all(|t| t.encoding != PACKED) {
        return (decisions, tensors, Vec::new());
    }
    let kept: HashSet<usize> =
        decisions.iter().zip(&tensors).filter(|(_, t)| t.encoding == PACKED).map(|(s, _)| s.source).collect();
    let names: HashSet<&str> = model.tensors.iter().map(|t| t.name.as_str()).collect();
    let architecture = model.metadata.text("general.architecture").unwrap_or_default();
    let (mut new_decisions, mut new_tensors, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for (decision, t) in decisions.into_iter().zip(tensors) {
        if own.get(&decision.source).is_some_and(|weight| !kept.contains(weight)) {
            continue;
        }
        let scale = scales::name_of(&t.name)
            .filter(|_| target == Container::Gguf && t.encoding == PACKED && decision.from != PACKED)
            .filter(|name| applies_scale(architecture, &t.name) && !names.contains(name.as_str()));
        let (weight, from, shape) = (decision.source, Encoding::Blocks(DType::F32), vec![stacked(&t)]);
        new_decisions.push(decision);
        new_tensors.push(t);
        if let Some(name) = scale {
            new.push(Scale { weight: new_tensors.len() - 1, scale: new_tensors.len() });
            new_decisions.push(Decision { source: weight, from, rule: RULE.into(), fallback_from: None });
            new_tensors.push(Tensor { name, shape, encoding: from, location: Location::default() });
        }
    }
    (new_decisions, new_tensors, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_block_is_near_the_upper_end_of_the_range() {
        for most in [1e-25f32, 1e-3, 0.07, 1.0, 1791.9, 1792.0, 1792.1, 3e8] {
            let f = factor(most);
            assert_eq!(f.to_bits() & 0x007F_FFFF, 0, "a power of two");
            assert!(most / f <= LARGEST && most / f > LARGEST / 2.0, "{most} {f}");
        }
        for none in [0.0, f32::INFINITY, f32::NAN] {
            assert_eq!(factor(none), 1.0);
        }
        assert!(factor(1e-45) > 0.0 && (1.0 / factor(1e-45)).is_finite());
    }

    #[test]
    fn only_graphs_that_apply_scales_get_them() {
        for (architecture, name, expected) in [
            ("llama", "blk.0.attn_q.weight", true),
            ("llama", "blk.11.ffn_down_exps.weight", true),
            ("llama", "output.weight", true),
            ("llama", "token_embd.weight", false),
            ("llama", "blk.0.ffn_gate_inp.weight", false),
            ("qwen2", "blk.0.attn_k.weight", true),
            ("qwen2", "blk.0.ffn_up.weight", false),
            ("qwen3", "blk.0.ffn_up.weight", true),
            ("bitnet-b1.58", "blk.0.attn_q.weight", false),
        ] {
            assert_eq!(applies_scale(architecture, name), expected, "{architecture} {name}");
        }
    }
}
