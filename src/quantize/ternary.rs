//! bitnet.cpp's I2_S: two-bit codes in bands, and one scale for the tensor, on which all bands must agree.

use formats::block::i2_s;
use formats::model::{Encoding, Tensor};

use super::PIECE;
use super::weights::Weights;
use crate::disk::NewFile;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, not_finite, squared_error};
use crate::plan::Plan;

/// A band's codes with their offset in the tensor, its outcome, and the magnitude of its nonzero weights (0 if all are
/// zero).
pub type Codes = ((u64, Vec<u8>), Outcome, f32);

/// Packs the weights of a band, which begins at weight `first` of its tensor.
///
/// # Errors
/// [`Error::NotFinite`] for a weight that is NaN or infinite; [`Error::Refused`] for nonzero weights of different
/// magnitudes.
pub fn encode(t: &Tensor, first: u64, weights: &Weights<'_>, mut buffer: Vec<u8>) -> Result<Codes> {
    let count = weights.len();
    let unit = weights.unit().max(i2_s::WEIGHTS);
    debug_assert!(unit.is_multiple_of(i2_s::WEIGHTS), "blocks of other types divide these, or are divided");
    let piece = (PIECE / unit).max(1) * unit;
    let mut x = vec![0f32; piece.min(count)];
    let (mut outcome, mut magnitude) = (Outcome::default(), 0f32);
    buffer.resize(count / 4, 0);
    for start in (0..count).step_by(piece) {
        let end = (start + piece).min(count);
        let x = &mut x[..end - start];
        weights.decode(start..end, x);
        let index = |at: usize| first + (start + at) as u64;
        if magnitude == 0.0
            && let Some(at) = x.iter().position(|x| *x != 0.0)
        {
            magnitude = x[at].abs();
            if !magnitude.is_finite() {
                return Err(not_finite(&t.name, index(at), t.cols(), x[at]));
            }
        }
        i2_s::encode(x, magnitude, &mut buffer[start / 4..end / 4]).map_err(|at| {
            match x[at].is_finite() {
                true => two_magnitudes(&t.name, [magnitude, x[at].abs()]),
                false => not_finite(&t.name, index(at), t.cols(), x[at]),
            }
        })?;
        outcome.add(squared_error(x, x));
    }
    Ok(((first / 4, buffer), outcome, magnitude))
}

fn two_magnitudes(name: &str, [one, other]: [f32; 2]) -> Error {
    Error::refused(format!(
        "tensor {name}: has weights of magnitude {one} and of {other}, but i2_s has one scale for the whole tensor"
    ))
    .or("i2_s is for BitNet models, whose weights are trained to be -s, 0 or +s with one s per tensor; tq2_0 has a scale \
         for 256 weights; use another type for models that are not ternary")
}

/// Writes the scale of every packed tensor after its codes, with the padding that follows. `bands` are the tensor and the
/// magnitude of each band. If all weights are zero, so is the scale, as in bitnet.cpp. Gives the number of bytes written.
///
/// # Errors
/// [`Error::Refused`] if bands of a tensor have different magnitudes; [`Error::Io`] if a file cannot be written.
pub fn write_scales(
    plan: &Plan,
    files: &[NewFile],
    bands: impl Iterator<Item = (usize, f32)>,
) -> Result<u64> {
    let mut found = vec![0f32; plan.decisions.len()];
    for (tensor, magnitude) in bands.filter(|band| band.1 != 0.0) {
        let scale = &mut found[tensor];
        if *scale != 0.0 && *scale != magnitude {
            return Err(two_magnitudes(&plan.layout.tensors[tensor].name, [*scale, magnitude]));
        }
        *scale = magnitude;
    }
    let mut written = 0;
    let packed =
        |i: usize, t: &Tensor| t.encoding == Encoding::I2S && plan.decisions[i].from != Encoding::I2S;
    for (i, t) in plan.layout.tensors.iter().enumerate().filter(|(i, t)| packed(*i, t)) {
        let mut tail = [0; i2_s::TAIL as usize];
        tail[..4].copy_from_slice(&plan.order.le(found[i].to_le_bytes()));
        files[t.location.file].write(t.location.offset + t.elements() / 4, &tail)?;
        written += i2_s::TAIL;
    }
    Ok(written)
}
