//! bitnet.cpp's I2_S: bands of codes, and the one magnitude that all bands of a tensor must agree on.

use formats::block::i2_s;
use formats::model::{Encoding, Tensor};

use super::PIECE;
use super::weights::Weights;
use crate::disk::NewFile;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, not_finite, squared_error};
use crate::plan::Plan;

/// A band's codes, where they go, its outcome, and the magnitude of its weights: 0 where all are zero.
pub type Codes = ((u64, Vec<u8>), Outcome, f32);

/// Packs the weights from `first` on of a tensor.
///
/// # Errors
/// Weights that are not finite; two magnitudes besides zero.
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
        let place = |at: usize| first + (start + at) as u64;
        if magnitude == 0.0
            && let Some(at) = x.iter().position(|x| *x != 0.0)
        {
            magnitude = x[at].abs();
            if !magnitude.is_finite() {
                return Err(not_finite(&t.name, place(at), t.cols(), x[at]));
            }
        }
        i2_s::encode(x, magnitude, &mut buffer[start / 4..end / 4]).map_err(|at| {
            match x[at].is_finite() {
                true => two_magnitudes(&t.name, [magnitude, x[at].abs()]),
                false => not_finite(&t.name, place(at), t.cols(), x[at]),
            }
        })?;
        outcome.add(squared_error(x, x));
    }
    Ok(((first / 4, buffer), outcome, magnitude))
}

fn two_magnitudes(name: &str, [one, other]: [f32; 2]) -> Error {
    Error::refused(format!(
        "tensor {name} has weights of magnitude {one} and of {other}, and i2_s has one scale for the whole tensor"
    ))
    .or("i2_s keeps what BitNet's models are trained to, a sign or zero under one magnitude; tq2_0 has a scale for 256 \
         weights, and other models want other types")
}

/// Writes the scale of every tensor that was packed, behind its codes, and the zeros that follow; `bands` are the tensors
/// of bands with their magnitudes, in the order of the work. Where all weights are zero, so is the scale, as bitnet.cpp
/// has it. Gives the bytes that were written.
///
/// # Errors
/// The system's; bands of a tensor that have different magnitudes.
pub fn write_scales(
    plan: &Plan,
    files: &[NewFile],
    bands: impl Iterator<Item = (usize, f32)>,
) -> Result<u64> {
    let mut found = vec![0f32; plan.decisions.len()];
    for (tensor, magnitude) in bands.filter(|band| band.1 != 0.0) {
        let known = &mut found[tensor];
        if *known != 0.0 && *known != magnitude {
            return Err(two_magnitudes(&plan.layout.tensors[tensor].name, [*known, magnitude]));
        }
        *known = magnitude;
    }
    let mut written = 0;
    let made = |i: usize, t: &Tensor| t.encoding == Encoding::I2S && plan.decisions[i].from != Encoding::I2S;
    for (i, t) in plan.layout.tensors.iter().enumerate().filter(|(i, t)| made(*i, t)) {
        let mut tail = [0; i2_s::TAIL as usize];
        tail[..4].copy_from_slice(&plan.order.le(found[i].to_le_bytes()));
        files[t.location.file].write(t.location.offset + t.elements() / 4, &tail)?;
        written += i2_s::TAIL;
    }
    Ok(written)
}
