//! Whether weights are ternary: three values for each weight are enough for models trained that way, and for no
//! others.

use formats::block::Family;
use formats::model::{Encoding, Tensor};

use super::Step;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::source::view::Values;

/// Weights under one scale in a ternary type.
const BLOCK: u64 = 256;
/// Blocks of a tensor that are looked at. One tells: in other weights all magnitudes differ.
const SAMPLE: u64 = 8;
/// How far apart equal magnitudes may be after rounding to bf16.
const ROUNDING: f32 = 1.0 / 128.0;

/// Whether an encoding keeps three values for each weight.
pub fn is_ternary(encoding: Encoding) -> bool {
    match encoding {
        Encoding::Blocks(dtype) => dtype.info().family == Family::Ternary,
        Encoding::I2S => true,
        Encoding::Int8Groups { .. } => false,
    }
}

/// Refuses a ternary type for weights that are not. With `force` only I2_S is refused, which rounds nothing.
///
/// # Errors
/// They are not, or cannot be read.
pub(super) fn refuse_others(source: &Source, force: bool, steps: &[Step], tensors: &[Tensor]) -> Result<()> {
    let asked = |t: &Tensor| is_ternary(t.encoding) && (!force || t.encoding == Encoding::I2S);
    let mut others = Vec::new();
    for (step, t) in steps.iter().zip(tensors).filter(|(s, t)| asked(t) && !is_ternary(s.from)) {
        if !looks_ternary(source, step.source)? {
            others.push((t.name.as_str(), t.encoding.name()));
        }
    }
    let Some((first, to)) = others.first() else { return Ok(()) };
    let force = if to == &Encoding::I2S.name() { "" } else { ", or say --force" };
    let (more, have) = match others.len() - 1 {
        0 => (String::new(), "has"),
        n => (format!(" and {n} more"), "have"),
    };
    Err(Error::refused(format!("tensor {first}{more} {have} more than three values, and {to} keeps three")).or(
        format!(
            "ternary types are for models trained with ternary weights; take q2_k, iq2_m or q4_k_m for others, give \
             these tensors a type with --tensor{force}"
        ),
    ))
}

/// Whether a sample of a tensor's blocks has one magnitude each, besides zero.
///
/// # Errors
/// The system's.
pub fn looks_ternary(source: &Source, i: usize) -> Result<bool> {
    let made = source.views.get(i).and_then(Option::as_ref).map(|v| &v.values);
    if matches!(made, Some(Values::Packed { .. } | Values::Master { .. })) {
        return Ok(true); // it is made of three values
    }
    let t = &source.model.tensors[i];
    let blocks = t.elements() / BLOCK;
    let sample = SAMPLE.min(blocks);
    let mut x = [0f32; BLOCK as usize];
    for k in 0..sample {
        let at = BLOCK * (k * (blocks - 1) / (sample - 1).max(1));
        source.fetch(i, at..at + BLOCK)?.decode(&t.name, source.model.order, &mut x)?;
        if !one_magnitude(&x) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether all numbers but zeros have one magnitude, up to rounding. What is not finite is the encoder's to refuse.
fn one_magnitude(x: &[f32]) -> bool {
    let magnitudes = || x.iter().map(|x| x.abs()).filter(|&m| m > 0.0 && m.is_finite());
    let (least, most) = (magnitudes().fold(f32::INFINITY, f32::min), magnitudes().fold(0.0, f32::max));
    most <= least * (1.0 + ROUNDING)
}

#[cfg(test)]
mod tests {
    use super::one_magnitude;

    #[test]
    fn magnitudes_are_compared_up_to_rounding() {
        assert!(one_magnitude(&[0.0; 9]));
        assert!(one_magnitude(&[0.02, -0.02, 0.0, 0.02]));
        assert!(one_magnitude(&[1.0, -1.003_906, 0.0]));
        assert!(one_magnitude(&[1.0, f32::NAN, -1.0]));
        assert!(one_magnitude(&[0.0, 1e-30, 0.0]));
        assert!(!one_magnitude(&[1.0, 1.02]));
        assert!(!one_magnitude(&[0.5, 0.25, -0.5]));
    }
}
