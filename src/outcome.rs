//! What quantizing did to a tensor: the value that those who make tensors hand to those who write and report them.

use formats::model::Tensor;

use crate::error::{Error, Result};

/// What quantizing did to a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// Sum of squared differences between the source's weights and the stored ones, over all elements.
    pub error: f64,
    /// Sum of the source's squared weights.
    pub energy: f64,
    /// Which way of making the tensor was best, where there was more than one.
    pub won: Option<Winner>,
}

impl Outcome {
    /// Root mean square of the error relative to that of the weights; not a number where theirs are not.
    pub fn relative(self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.energy).sqrt() }
    }

    /// That of the same weights when all are multiplied.
    pub(crate) fn times(self, factor: f32) -> Self {
        let square = f64::from(factor) * f64::from(factor);
        Self { error: self.error * square, energy: self.energy * square, won: self.won }
    }

    /// Takes another's sums in.
    pub fn add(&mut self, other: Self) {
        self.error += other.error;
        self.energy += other.energy;
    }
}

/// What became of a matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Winner {
    /// The candidate that was taken.
    pub method: &'static str,
    /// Its loss on held-out tokens, over that of the plain search with importance.
    pub ratio: f64,
    /// How much of the loss of the layers before is made up for: 0 to 1.
    pub share: f64,
}

/// A finished tensor.
#[derive(Debug, Clone)]
pub struct QuantizedTensor {
    /// Its index in the plan's layout.
    pub tensor: usize,
    /// Its blocks, little-endian.
    pub bytes: Vec<u8>,
    /// What that did to the weights, and how it was made; scales that were moved are no error.
    pub outcome: Outcome,
}

/// The sums of weights from `first` on and what became of them; refuses those that have no place in a model or
/// in the type.
pub(crate) fn measure_error(t: &Tensor, first: u64, x: &[f32], y: &[f32]) -> Result<Outcome> {
    let outcome = sums(x, y);
    // The sums tell whether there is anything to look for: each is at least as large as each of its parts.
    if outcome.error.is_finite() && outcome.energy <= 65504.0 * 65504.0 {
        return Ok(outcome);
    }
    if let Some(at) = x.iter().position(|x| !x.is_finite()) {
        return Err(not_finite(&t.name, first + at as u64, t.cols(), x[at]));
    }
    // Scales are halves at most: beyond their reach a weight is not rounded but cut off.
    let lost = |(x, y): (&f32, &f32)| !y.is_finite() || x.abs() > 65504.0 && (x - y).abs() > 0.5 * x.abs();
    if let Some(at) = x.iter().zip(y).position(lost) {
        return Err(Error::refused(format!(
            "tensor {}: weight {} is {}, which {} cannot hold",
            t.name,
            first + at as u64,
            x[at],
            t.encoding.name(),
        ))
        .or(format!("use bf16 or f32 for it: --tensor '^{}$=bf16'", regex::escape(&t.name))));
    }
    Ok(outcome)
}

/// Says which weight has no place in a model.
pub(crate) fn not_finite(name: &str, n: u64, cols: u64, x: f32) -> Error {
    Error::refused(format!(
        "tensor {name}: weight {n} (row {}) is {x}, which has no place in a model",
        n / cols
    ))
    .or("ask whoever made the checkpoint; ggufkit verify lists every such tensor")
}

/// Sums of squared error and of squares.
pub(crate) fn sums(x: &[f32], y: &[f32]) -> Outcome {
    let (error, energy) = kernels::sums(x, y);
    Outcome { error, energy, won: None }
}
