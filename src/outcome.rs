//! The quantization error of a tensor, as the encoders measure it and the reports show it.

use formats::model::Tensor;

use crate::error::{Error, Result};

/// The quantization error of a tensor, and the method that was chosen for it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// Sum of squared differences between the source's weights and the stored ones, over all elements.
    pub error: f64,
    /// Sum of the source's squared weights.
    pub energy: f64,
    /// The method that lost least on held-out tokens, where several were tried.
    pub chosen: Option<ChosenMethod>,
}

impl Outcome {
    /// Root mean square of the error relative to that of the weights; NaN if the weights are.
    pub fn relative(self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.energy).sqrt() }
    }

    /// The outcome of the same weights, all multiplied by `factor`.
    pub(crate) fn scaled(self, factor: f32) -> Self {
        let square = f64::from(factor) * f64::from(factor);
        Self { error: self.error * square, energy: self.energy * square, chosen: self.chosen }
    }

    /// Adds another part's sums.
    pub fn add(&mut self, other: Self) {
        self.error += other.error;
        self.energy += other.energy;
    }
}

/// The method that a matrix was quantized with, where several were tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChosenMethod {
    /// "search", "awq", "gptq" or "awq+gptq".
    pub method: &'static str,
    /// Its squared output error on held-out tokens, over that of the plain search with importance.
    pub ratio: f64,
    /// The share, 0 to 1, of the target correction for the error of earlier layers that was applied (GPTAQ's asymmetric
    /// calibration, arXiv 2504.02692).
    pub share: f64,
}

/// A tensor that was quantized layer by layer.
#[derive(Debug, Clone)]
pub struct QuantizedTensor {
    /// Its index in the plan's layout.
    pub tensor: usize,
    /// Its blocks, little-endian.
    pub bytes: Vec<u8>,
    /// Its quantization error. AWQ's column scales do not count as one.
    pub outcome: Outcome,
}

/// The quantization error of the weights `x` of a tensor, which begin at weight `first` of it and were stored as `y`.
///
/// # Errors
/// [`Error::NotFinite`] if a weight is NaN or infinite; [`Error::OutOfRange`] if one is too large for the type.
pub(crate) fn measure_error(t: &Tensor, first: u64, x: &[f32], y: &[f32]) -> Result<Outcome> {
    let outcome = squared_error(x, y);
    // Only large sums can have a wrong term: each sum is at least as large as each of its terms.
    if outcome.error.is_finite() && outcome.energy <= 65504.0 * 65504.0 {
        return Ok(outcome);
    }
    if let Some(at) = x.iter().position(|x| !x.is_finite()) {
        return Err(not_finite(&t.name, first + at as u64, t.cols(), x[at]));
    }
    // Scales are f16 at most: larger weights are clipped rather than rounded.
    let lost = |(x, y): (&f32, &f32)| !y.is_finite() || x.abs() > 65504.0 && (x - y).abs() > 0.5 * x.abs();
    if let Some(at) = x.iter().zip(y).position(lost) {
        return Err(Error::OutOfRange {
            tensor: t.name.clone(),
            index: first + at as u64,
            value: x[at],
            encoding: t.encoding.name(),
        });
    }
    Ok(outcome)
}

/// The error for weight `index` of a tensor with rows of `cols`, which is NaN or infinite.
pub(crate) fn not_finite(name: &str, index: u64, cols: u64, value: f32) -> Error {
    Error::NotFinite { tensor: name.into(), weight: Some(index), row: Some(index / cols), value: Some(value) }
}

/// Σ(x − y)² and Σx², without looking for weights that are not finite.
pub(crate) fn squared_error(x: &[f32], y: &[f32]) -> Outcome {
    let (error, energy) = kernels::sums(x, y);
    Outcome { error, energy, chosen: None }
}
