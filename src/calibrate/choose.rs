//! The candidate quantizations of one matrix, and the choice of the one with the least error on held-out tokens.

use calibration::rows;
use formats::block::{DType, Encode, Objective};

use super::gptq::{self, FactoredHessian, Fit, HeldOutLoss};
use super::gram::Gram;
use crate::plan::scales;
use kernels::{self, Isa, parallel};

/// One quantization of a matrix.
pub struct Candidate {
    /// Its blocks, little-endian.
    pub bytes: Vec<u8>,
    /// The values that they decode to, `[rows, width]`.
    pub values: Vec<f32>,
    /// Its squared output error on held-out tokens.
    pub loss: f64,
    /// The method: "search", "awq", "gptq" or "awq+gptq".
    pub name: &'static str,
    /// The share, 0 to 1, of the target correction that was applied ([`HeldOutLoss::target`]).
    pub share: f64,
    /// The scale of the whole tensor, a power of two that weights were divided by; 1 for types without one.
    pub factor: f32,
}

/// Chooses among quantizations; the same settings for all matrices of a run.
#[derive(Clone, Copy)]
pub struct Chooser<'a> {
    /// The instructions to use.
    pub isa: Isa,
    /// Sweeps of coordinate descent, at most.
    pub sweeps: usize,
    /// Whether the plain searches without and with other objectives are tried beside GPTQ as well.
    pub try_all: bool,
    /// The options of the block encoders, without importance.
    pub how: Encode<'a>,
}

/// The statistics of a matrix's inputs: the factored Hessian, if GPTQ is to be tried; the sums over calibration tokens; the
/// sums over held-out tokens.
pub type InputStats<'a> = (Option<&'a FactoredHessian>, &'a Gram, &'a Gram);

/// How one matrix is to be stored.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its type.
    pub dtype: DType,
    /// Whether it gets a scale of the whole tensor (NVFP4).
    pub tensor_scale: bool,
    /// Whether its columns have AWQ scales.
    pub awq_scaled: bool,
}

impl Chooser<'_> {
    /// Quantizes a matrix `[rows, width]` with every applicable method. Gives the candidate with the least loss on held-out
    /// tokens, and the loss of the plain search with `importance` (`[width]`), as the baseline.
    pub fn choose(
        &self,
        stats: InputStats,
        target: Target,
        weights: &[f32],
        importance: &[f32],
    ) -> (Candidate, f64) {
        if !target.tensor_scale {
            return self.choose_blocks(stats, target, weights, importance);
        }
        let factor = scales::factor(rows::peak(weights));
        let mut divided = weights.to_vec();
        rows::divide_all(&mut divided, factor);
        let (mut best, baseline) = self.choose_blocks(stats, target, &divided, importance);
        rows::multiply_all(&mut best.values, factor);
        best.factor = factor;
        let square = f64::from(factor) * f64::from(factor);
        best.loss *= square;
        (best, baseline * square)
    }

    fn choose_blocks(
        &self,
        (hessian, gram, held_out): InputStats,
        Target { dtype, awq_scaled, .. }: Target,
        weights: &[f32],
        importance: &[f32],
    ) -> (Candidate, f64) {
        let (isa, how, n) = (self.isa, &self.how, gram.width);
        let held_out_loss = HeldOutLoss::new(isa, weights, held_out);
        let with = Encode { importance: Some(importance), ..*how };
        let name = if awq_scaled { "awq" } else { "search" };
        let (bytes, values) = encode_rows(isa, dtype, weights, n, &with);
        let mut best =
            Candidate { loss: held_out_loss.loss(&values), bytes, values, name, share: 0.0, factor: 1.0 };
        let baseline = best.loss;
        let mut offer = |(bytes, values): (Vec<u8>, Vec<f32>), name, share| {
            let loss = held_out_loss.loss(&values);
            if loss < best.loss {
                best = Candidate { bytes, values, loss, name, share, factor: 1.0 };
            }
        };
        if let Some(hessian) = hessian {
            let (targets, share) = held_out_loss.target(weights, gram, hessian);
            let name = if awq_scaled { "awq+gptq" } else { "gptq" };
            let encoded = match Fit::new(isa, hessian, dtype, &targets, how) {
                Some(mut fitted) => {
                    fitted.feed_back();
                    fitted.descend(self.sweeps, 2);
                    (fitted.pack(), fitted.values)
                }
                None => gptq::feed_back_blocks(isa, hessian, dtype, &targets, how),
            };
            offer(encoded, name, share);
        }
        if hessian.is_none() || self.try_all {
            // On other text, neither importance nor the type's default objective is always better.
            offer(encode_rows(isa, dtype, weights, n, how), name, 0.0);
            if how.objective.is_none() {
                let error = Encode { objective: Some(Objective::Error), ..with };
                offer(encode_rows(isa, dtype, weights, n, &error), name, 0.0);
            }
        }
        (best, baseline)
    }
}

/// Applies `scale` to each row of `x`, `[rows, s.len()]`, and the columns' scales.
pub fn scale_columns(x: &mut [f32], s: &[f32], scale: fn(&mut [f32], &[f32])) {
    parallel::chunks_mut(x, s.len(), &|_, row| scale(row, s));
}

/// Encodes rows of `n` weights with the type's own search. Gives the bytes and the decoded values.
pub fn encode_rows(isa: Isa, dtype: DType, weights: &[f32], n: usize, how: &Encode) -> (Vec<u8>, Vec<f32>) {
    let codec = kernels::codec_for(dtype, isa).expect("plans encode into types that have a codec");
    let size = dtype.bytes_for(n as u64).expect("whole blocks") as usize;
    let mut bytes = vec![0u8; weights.len() / n * size];
    let mut values = vec![0f32; weights.len()];
    let all = bytes.chunks_exact_mut(size).zip(values.chunks_exact_mut(n)).zip(weights.chunks_exact(n));
    parallel::items(all.collect(), &|_, ((bytes, values), x)| {
        codec.encode(x, how, bytes);
        codec.decode(bytes, values);
    });
    (bytes, values)
}
