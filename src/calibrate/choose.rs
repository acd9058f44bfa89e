//! The ways to make one matrix, and which of them loses least.

use formats::block::{DType, Encode, Objective};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::gptq::{self, FactoredHessian, Fit, HeldOutLoss};
use super::gram::Gram;
use crate::plan::scales;
use kernels::{self, Isa};

/// A matrix as one way makes it.
pub struct Candidate {
    /// Its blocks, little-endian.
    pub bytes: Vec<u8>,
    /// What they mean, `[rows, width]`.
    pub values: Vec<f32>,
    /// Its loss on held-out tokens.
    pub loss: f64,
    /// The way.
    pub name: &'static str,
    /// How much of the loss of the layers before is made up for: 0 to 1.
    pub share: f64,
    /// What weights were divided by, a power of two: 1 but for types with a scale of the whole tensor.
    pub factor: f32,
}

/// What is the same for all matrices.
#[derive(Clone, Copy)]
pub struct Chooser<'a> {
    /// The instructions to use.
    pub isa: Isa,
    /// Sweeps of descent, at most.
    pub sweeps: usize,
    /// Whether other searches are tried where codes make up for each other's errors too.
    pub all: bool,
    /// How blocks are searched, without importance.
    pub how: Encode<'a>,
}

/// What is known of a matrix's inputs: made ready, if codes are to make up for each other's errors, as it is, and of
/// held-out tokens.
pub type Known<'a> = (Option<&'a FactoredHessian>, &'a Gram, &'a Gram);

/// What one matrix is to become.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Its type.
    pub dtype: DType,
    /// Whether it gets a scale of the whole tensor.
    pub scaled: bool,
    /// Whether its columns were scaled.
    pub folded: bool,
}

impl Chooser<'_> {
    /// Makes a matrix `[rows, width]` in several ways; gives the one with the least loss on what was held out, and the
    /// loss of the search with `importance`.
    pub fn choose(
        &self,
        known: Known,
        wanted: Wanted,
        weights: &[f32],
        importance: &[f32],
    ) -> (Candidate, f64) {
        if !wanted.scaled {
            return self.choose_blocks(known, wanted, weights, importance);
        }
        let factor = scales::factor(weights.iter().fold(0f32, |most, x| most.max(x.abs())));
        let divided: Vec<f32> = weights.iter().map(|x| x / factor).collect();
        let (mut best, usual) = self.choose_blocks(known, wanted, &divided, importance);
        best.values.iter_mut().for_each(|x| *x *= factor);
        best.factor = factor;
        let square = f64::from(factor) * f64::from(factor);
        best.loss *= square;
        (best, usual * square)
    }

    fn choose_blocks(
        &self,
        (ground, gram, held): Known,
        Wanted { dtype, folded, .. }: Wanted,
        weights: &[f32],
        importance: &[f32],
    ) -> (Candidate, f64) {
        let (isa, how, n) = (self.isa, &self.how, gram.width);
        let judge = HeldOutLoss::new(isa, weights, held);
        let with = Encode { importance: Some(importance), ..*how };
        let name = if folded { "awq" } else { "search" };
        let (bytes, values) = search(isa, dtype, weights, n, &with);
        let mut best = Candidate { loss: judge.loss(&values), bytes, values, name, share: 0.0, factor: 1.0 };
        let usual = best.loss;
        let mut offer = |(bytes, values): (Vec<u8>, Vec<f32>), name, share| {
            let loss = judge.loss(&values);
            if loss < best.loss {
                best = Candidate { bytes, values, loss, name, share, factor: 1.0 };
            }
        };
        if let Some(ground) = ground {
            let (targets, share) = judge.target(weights, gram, ground);
            let name = if folded { "awq+gptq" } else { "gptq" };
            let made = match Fit::new(isa, ground, dtype, &targets, how) {
                Some(mut fitted) => {
                    fitted.feed_back();
                    fitted.descend(self.sweeps, 2);
                    (fitted.pack(), fitted.values)
                }
                None => gptq::feed_back_blocks(isa, ground, dtype, &targets, how),
            };
            offer(made, name, share);
        }
        if ground.is_none() || self.all {
            // Neither importance nor what the type does by itself is always better on other text.
            offer(search(isa, dtype, weights, n, how), name, 0.0);
            if how.objective.is_none() {
                let error = Encode { objective: Some(Objective::Error), ..with };
                offer(search(isa, dtype, weights, n, &error), name, 0.0);
            }
        }
        (best, usual)
    }
}

/// Each number of rows with its column's scale.
pub fn scale_columns(x: &mut [f32], s: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    x.par_chunks_exact_mut(s.len()).for_each(|row| {
        row.iter_mut().zip(s).for_each(|(x, s)| *x = f(*x, *s));
    });
}

/// The type's own search, row by row of `n` weights: bytes, and what they mean.
pub fn search(isa: Isa, dtype: DType, weights: &[f32], n: usize, how: &Encode) -> (Vec<u8>, Vec<f32>) {
    let codec = kernels::codec_for(dtype, isa).expect("plans encode into types that have a codec");
    let size = dtype.bytes_for(n as u64).expect("whole blocks") as usize;
    let mut bytes = vec![0u8; weights.len() / n * size];
    let mut values = vec![0f32; weights.len()];
    bytes
        .par_chunks_exact_mut(size)
        .zip(values.par_chunks_exact_mut(n))
        .zip(weights.par_chunks_exact(n))
        .for_each(|((bytes, values), x)| {
            codec.encode(x, how, bytes);
            codec.decode(bytes, values);
        });
    (bytes, values)
}
