//! Scales of whole tensors beside NVFP4: which matrices get one, and which lose theirs.
//!
//! The scale of an NVFP4 block is a float of four exponent and three mantissa bits. Below 2^-6 it has fewer, and
//! blocks of weights as small as most models' would be rounded by whole steps of it. A scale of the whole tensor moves
//! the largest block near the upper end of the range; it is a power of two, so nothing else is rounded.

use std::collections::{HashMap, HashSet};

use formats::block::DType;
use formats::model::{Encoding, Location, Tensor};

use super::{Container, Step};
use crate::arch::{Blk, llama_cpp};
use crate::source::{Source, scales, stacked};

/// The rule of steps that make such a scale.
const RULE: &str = "scale of a tensor";

/// What the largest weight may be under blocks of the largest scale (448), wherever among the codes an encoder puts it:
/// the larger half of the codes' range, from 4 to 6, is its choice.
const MOST: f32 = 4.0 * 448.0;

/// A tensor of a layout that is multiplied by a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// The matrix.
    pub weight: usize,
    /// Where its scale goes: one number, or the same for each stacked matrix.
    pub scale: usize,
}

/// The power of two that weights are divided by, the largest of which is `most`; 1 for what has none.
pub fn factor(most: f32) -> f32 {
    if most == 0.0 || !most.is_finite() {
        return 1.0;
    }
    // 2^k ≥ most / MOST, from the exponent: one more unless the quotient is a power of two itself.
    let bits = (most / MOST).to_bits();
    let exponent = (bits >> 23) as i32 - 127 + i32::from(bits & 0x007F_FFFF != 0);
    f32::from_bits(((exponent.clamp(-100, 100) + 127) as u32) << 23)
}

/// Whether llama.cpp multiplies the products of a matrix by such a scale in the graph of this architecture.
fn is_read(architecture: &str, name: &str) -> bool {
    let Some(groups) = llama_cpp::scaled_matrices(architecture) else { return false };
    match Blk::parse(name) {
        Some(blk) => blk.weight().is_some_and(|part| groups.iter().any(|g| g.contains(&part))),
        None => name == "output.weight",
    }
}

/// Gives matrices that become NVFP4 their scales, and takes those of others away, whose weights have them already.
pub(super) fn adjust(
    source: &Source,
    target: Container,
    steps: Vec<Step>,
    tensors: Vec<Tensor>,
) -> (Vec<Step>, Vec<Tensor>, Vec<Scale>) {
    const PACKED: Encoding = Encoding::Blocks(DType::NVFP4);
    let model = &source.model;
    let own: HashMap<usize, usize> = scales::pairs(model).into_iter().map(|(w, s)| (s, w)).collect();
    let kept: HashSet<usize> =
        steps.iter().zip(&tensors).filter(|(_, t)| t.encoding == PACKED).map(|(s, _)| s.source).collect();
    let names: HashSet<&str> = model.tensors.iter().map(|t| t.name.as_str()).collect();
    let architecture = model.metadata.text("general.architecture").unwrap_or_default();
    let (mut new_steps, mut new_tensors, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for (step, t) in steps.into_iter().zip(tensors) {
        if own.get(&step.source).is_some_and(|weight| !kept.contains(weight)) {
            continue;
        }
        let scale = scales::name_of(&t.name)
            .filter(|_| target == Container::Gguf && t.encoding == PACKED && step.from != PACKED)
            .filter(|name| is_read(architecture, &t.name) && !names.contains(name.as_str()));
        let (weight, from, shape) = (step.source, Encoding::Blocks(DType::F32), vec![stacked(&t)]);
        new_steps.push(step);
        new_tensors.push(t);
        if let Some(name) = scale {
            new.push(Scale { weight: new_tensors.len() - 1, scale: new_tensors.len() });
            new_steps.push(Step { source: weight, from, rule: RULE.into(), wanted: None });
            new_tensors.push(Tensor { name, shape, encoding: from, location: Location::default() });
        }
    }
    (new_steps, new_tensors, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_block_lies_near_the_end_of_the_range() {
        for most in [1e-25f32, 1e-3, 0.07, 1.0, 1791.9, 1792.0, 1792.1, 3e8] {
            let f = factor(most);
            assert_eq!(f.to_bits() & 0x007F_FFFF, 0, "a power of two");
            assert!(most / f <= MOST && most / f > MOST / 2.0, "{most} {f}");
        }
        for none in [0.0, f32::INFINITY, f32::NAN] {
            assert_eq!(factor(none), 1.0);
        }
        assert!(factor(1e-45) > 0.0 && (1.0 / factor(1e-45)).is_finite());
    }

    #[test]
    fn only_graphs_that_multiply_get_scales() {
        for (architecture, name, wanted) in [
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
            assert_eq!(is_read(architecture, name), wanted, "{architecture} {name}");
        }
    }
}
