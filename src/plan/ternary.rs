//! Checks whether weights are ternary. Ternary types suit only models that were trained with ternary weights.

use formats::block::Family;
use formats::model::{Encoding, Tensor};

use super::Decision;
use super::machine::usable;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::scheme;
use crate::source::Source;
use crate::source::view::Values;

/// The block size of the ternary types, in weights.
const BLOCK: u64 = 256;
/// The number of blocks to examine per tensor. In weights that are not ternary, a single block already has many magnitudes.
const SAMPLE: u64 = 8;
/// The largest relative difference of equal magnitudes after rounding to bf16.
const ROUNDING: f32 = 1.0 / 128.0;

/// Whether an encoding is ternary.
pub fn is_ternary(encoding: Encoding) -> bool {
    match encoding {
        Encoding::Blocks(dtype) => dtype.info().family == Family::Ternary,
        Encoding::I2S => true,
        Encoding::Int8Groups { .. } | Encoding::Foreign(_) => false,
    }
}

/// Refuses a ternary type for weights that are not ternary. With `force`, only I2_S is refused, because it cannot round.
///
/// # Errors
/// [`Error::Refused`] if weights are not ternary; [`Error::Io`] or [`Error::Format`] if they cannot be read.
pub(super) fn refuse_others(
    source: &Source,
    force: bool,
    machine: Option<&Machine>,
    decisions: &[Decision],
    tensors: &[Tensor],
) -> Result<()> {
    let asked = |t: &Tensor| is_ternary(t.encoding) && (!force || t.encoding == Encoding::I2S);
    let mut others = Vec::new();
    for (decision, t) in decisions.iter().zip(tensors).filter(|(s, t)| asked(t) && !is_ternary(s.from)) {
        if !looks_ternary(source, decision.source)? {
            others.push((t.name.as_str(), t.encoding.name()));
        }
    }
    let Some((first, to)) = others.first() else { return Ok(()) };
    let force = to != &Encoding::I2S.name();
    let instead = match machine {
        None => format!(
            "; use q2_k, iq2_m or q4_k_m, choose another type for these tensors with --tensor{}",
            if force { ", or add --force" } else { "" }
        ),
        Some(machine) => {
            let ternary =
                |name: &str| scheme::find(name).is_some_and(|s| is_ternary(Encoding::Blocks(s.base)));
            let types = usable(machine).into_iter().filter(|name| *name != scheme::I2_S && !ternary(name));
            let mut all: Vec<String> = types.map(|name| format!("use --type {name}")).collect();
            all.extend(force.then(|| "add --force".to_string()));
            format!(": {}", all.join("; or "))
        }
    };
    let (more, have) = match others.len() - 1 {
        0 => (String::new(), "has"),
        n => (format!(" and {n} more"), "have"),
    };
    Err(Error::refused(format!("tensor {first}{more} {have} more than the three values that {to} can store"))
        .or(format!("ternary types are only for models trained with ternary weights{instead}")))
}

/// Whether the sampled blocks of tensor `i` each have a single magnitude apart from zero.
///
/// # Errors
/// [`Error::Io`] or [`Error::Format`] if the weights cannot be read or decoded.
pub fn looks_ternary(source: &Source, i: usize) -> Result<bool> {
    let made = source.views.get(i).and_then(Option::as_ref).map(|v| &v.values);
    if matches!(made, Some(Values::Packed { .. } | Values::Master { .. })) {
        return Ok(true); // these views produce ternary weights
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

/// Whether all nonzero numbers have the same magnitude, up to rounding. Infinities and NaNs are left to the encoder, which
/// refuses them.
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
