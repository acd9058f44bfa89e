//! GPTQ (Frantar et al., arXiv 2210.17323) for one matrix: codes by error feedback under the full Hessian of its inputs,
//! then coordinate descent over codes and scales; and GPTAQ's asymmetric targets (Li et al., arXiv 2504.02692).

use calibration::feedback::{Levels, Panel};
use calibration::panel::Columns;
use calibration::{factor, rows};
use formats::block::grid::{Grid, Parts};
use formats::block::{DType, Encode};

use super::factor::Factor;
use super::gram::Gram;
use crate::order;
use kernels::gemm::{Part, View, gemm, product};
use kernels::{self, Isa, feedback, float, parallel};

/// How a Hessian is regularized before it is factored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regularization {
    /// Added to the diagonal, as a fraction of its mean (GPTQ's `percdamp`).
    pub damping: f32,
    /// Entries off the diagonal are multiplied by t / (t + shrinkage), with t tokens per column: with few tokens they are
    /// mostly noise, while the diagonal is estimated well (after Ledoit and Wolf, "A well-conditioned estimator for
    /// large-dimensional covariance matrices", 2004, with the diagonal as the target).
    pub shrinkage: f32,
}

impl Default for Regularization {
    fn default() -> Self {
        Self { damping: 0.01, shrinkage: 3.0 }
    }
}

/// The regularized and factored Hessian of a tap's inputs, for all matrices that take these inputs.
pub struct FactoredHessian {
    width: usize,
    /// H, regularized, `[width, width]`.
    h: Vec<f32>,
    /// The order in which columns are quantized.
    order: Vec<usize>,
    /// The factor of H with its rows and columns in that order.
    factor: Factor,
    /// Mean squares of the inputs.
    pub mean_squares: Vec<f32>,
    /// (Σ yᵀx)·H⁻¹, `[width, width]`, if [`FactoredHessian::prepare_targets`] computed it.
    target_step: Option<Vec<f32>>,
}

/// Columns per panel, at most.
const PANEL: usize = 256;

impl FactoredHessian {
    /// Regularizes H and factors it, with more damping where it is not positive definite otherwise. With `sorted`, columns
    /// are quantized from the one with the largest inputs on (GPTQ's `act_order`).
    pub fn new(isa: Isa, gram: &Gram, regularization: Regularization, sorted: bool) -> Self {
        let n = gram.width;
        let own = gram.tokens as f32 / n as f32;
        let share = if own > 0.0 { own / (own + regularization.shrinkage) } else { 0.0 };
        let mean = ((0..n).map(|i| f64::from(gram.h[i * n + i])).sum::<f64>() / n as f64) as f32;
        let mean = if mean > 0.0 && mean.is_finite() { mean } else { 1.0 };
        let mut order: Vec<usize> = (0..n).collect();
        if sorted {
            order::by(&mut order, |&a, &b| gram.h[b * n + b].total_cmp(&gram.h[a * n + a]).then(a.cmp(&b)));
        }
        let mut damping = regularization.damping;
        loop {
            let mut h = gram.h.clone();
            parallel::chunks_mut(&mut h, n, &|i, row| factor::regularize_row(row, i, share, damping * mean));
            let mut permuted = vec![0f32; n * n];
            parallel::chunks_mut(&mut permuted, n, &|i, out| {
                rows::gather(&h[order[i] * n..][..n], &order, out)
            });
            if let Some(factor) = Factor::new(isa, permuted, n) {
                let mean_squares = gram.mean_squares();
                return Self { width: n, h, order, factor, mean_squares, target_step: None };
            }
            damping = (damping * 4.0).max(1e-4);
        }
    }

    /// The factor of the regularized H, with columns in the order of quantization.
    pub fn factor(&self) -> &Factor {
        &self.factor
    }

    /// Prepares for [`HeldOutLoss::target`] of matrices with `rows` rows together: from `width` rows on, computing
    /// (Σ yᵀx)·H⁻¹ once costs less than solving for each row.
    pub fn prepare_targets(mut self, isa: Isa, gram: &Gram, rows: usize) -> Self {
        if rows >= self.width && !gram.yx.is_empty() {
            self.target_step = Some(self.solve(isa, &gram.yx));
        }
        self
    }

    /// b·H⁻¹ for each row b, `[rows, width]`.
    fn solve(&self, isa: Isa, b: &[f32]) -> Vec<f32> {
        let n = self.width;
        let mut permuted = vec![0f32; b.len()];
        parallel::chunks_mut(&mut permuted, n, &|i, out| rows::gather(&b[i * n..][..n], &self.order, out));
        self.factor.solve(isa, &mut permuted);
        let mut out = vec![0f32; b.len()];
        parallel::chunks_mut(&mut out, n, &|i, out| rows::scatter(&permuted[i * n..][..n], &self.order, out));
        out
    }
}

/// rows · square, with `square` an `[n, n]` matrix.
pub fn multiply(isa: Isa, rows: &[f32], square: &[f32], n: usize) -> Vec<f32> {
    product(isa, (rows.len() / n, n, n), View::rows(rows, n), View::rows(square, n))
}

/// The dot product in f64, summed in an order that does not depend on the number of threads.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    const PIECE: usize = 1 << 14;
    let parts = a.chunks(PIECE).zip(b.chunks(PIECE)).collect();
    parallel::map_items(parts, &|_, (a, b)| rows::dot(a, b)).iter().sum()
}

/// Rows that a loss is computed of, at most.
const SAMPLED_ROWS: usize = 1024;

/// The squared output error of a matrix on held-out tokens, for a sample of its rows.
pub struct HeldOutLoss<'a> {
    isa: Isa,
    held_out: &'a Gram,
    rows: Vec<usize>,
    weights: Vec<f32>,
    /// W·(Σ yᵀx) of the sampled rows; empty without asymmetric calibration.
    weights_yx: Vec<f32>,
    /// Σ|W·y|²: the loss of Q = W; 0 where Σ yᵀy was not summed.
    shift_loss: f64,
}

impl<'a> HeldOutLoss<'a> {
    /// For a matrix `[rows, width]` and the sums over held-out inputs.
    pub fn new(isa: Isa, weights: &[f32], held_out: &'a Gram) -> Self {
        let n = held_out.width;
        let all = weights.len() / n;
        let count = all.min(SAMPLED_ROWS);
        let sampled: Vec<usize> = (0..count).map(|i| i * all / count).collect();
        let weights = rows::select(weights, &sampled, n);
        let weights_yx =
            if held_out.yx.is_empty() { Vec::new() } else { multiply(isa, &weights, &held_out.yx, n) };
        let shift_loss = if held_out.yy.is_empty() {
            0.0
        } else {
            dot(&weights, &multiply(isa, &weights, &held_out.yy, n))
        };
        Self { isa, held_out, rows: sampled, weights, weights_yx, shift_loss }
    }

    /// The loss with the quantized values Q, `[rows, width]`: Σ|W·x₀ − Q·x|² over the sampled rows. Without Σ yᵀy, the
    /// difference from the loss of Q = W.
    pub fn loss(&self, values: &[f32]) -> f64 {
        let n = self.held_out.width;
        let mut difference = rows::select(values, &self.rows, n);
        rows::subtract(&mut difference, &self.weights);
        let mut total = dot(&difference, &multiply(self.isa, &difference, &self.held_out.h, n));
        if !self.weights_yx.is_empty() {
            total -= 2.0 * dot(&difference, &self.weights_yx);
        }
        total + self.shift_loss
    }

    /// GPTAQ's target: the weights that reproduce the original's outputs W·x₀ from the inputs x, W + s·W·(Σ yᵀx)·H⁻¹. s,
    /// from 0 to 1, minimises the loss on held-out tokens. Gives the target, `[rows, width]`, and s.
    pub fn target(&self, weights: &[f32], gram: &Gram, hessian: &FactoredHessian) -> (Vec<f32>, f64) {
        let n = gram.width;
        if gram.yx.is_empty() {
            return (weights.to_vec(), 0.0);
        }
        let mut step = match &hessian.target_step {
            Some(step) => multiply(self.isa, weights, step, n),
            None => hessian.solve(self.isa, &multiply(self.isa, weights, &gram.yx, n)),
        };
        let sample = rows::select(&step, &self.rows, n);
        let slope = dot(&sample, &self.weights_yx);
        let curvature = dot(&sample, &multiply(self.isa, &sample, &self.held_out.h, n));
        let s = if curvature > 0.0 { (slope / curvature).clamp(0.0, 1.0) } else { 0.0 };
        parallel::chunks_mut(&mut step, n, &|i, step| rows::scale_and_add(step, s as f32, &weights[i * n..]));
        (step, s)
    }
}

/// Error feedback for types without a scalar grid (lattice types): blocks of columns are encoded by the type's own search,
/// and each block's error is fed back into the blocks not yet encoded. Gives the bytes and the decoded values. The
/// Hessian's columns must be in their natural order (not `sorted`).
pub fn feed_back_blocks(
    isa: Isa,
    hessian: &FactoredHessian,
    dtype: DType,
    targets: &[f32],
    how: &Encode,
) -> (Vec<u8>, Vec<f32>) {
    let (n, info) = (hessian.width, dtype.info());
    let count = targets.len() / n;
    let codec = kernels::codec_for(dtype, isa).expect("plans encode into types that have a codec");
    let r = &hessian.factor.r;
    let (mut errors, mut values) = (vec![0f32; count * n], vec![0f32; count * n]);
    let per = n / info.weights * info.bytes;
    let mut bytes = vec![0u8; count * per];
    for first in (0..n).step_by(info.weights) {
        let width = info.weights;
        // The errors so far times U's columns, which are R's columns times the inverse of R's diagonal block.
        let mut corrected = vec![0f32; count * width];
        let (a, b) = (View::rows(&errors, n), View::rows(r, n).from(0, first));
        gemm(isa, Part::Whole, (count, width, first), 1.0, a, b, &mut corrected, width);
        // The cost of an error after later blocks have compensated for it: the diagonal of the block's R·Rᵀ.
        let importance: Vec<f32> =
            (first..first + width).map(|i| rows::square_f32(&r[i * n + i..i * n + first + width])).collect();
        let how = Encode { importance: Some(&importance), ..*how };
        let rows = bytes
            .chunks_exact_mut(per)
            .zip(values.chunks_exact_mut(n))
            .zip(targets.chunks_exact(n))
            .zip(corrected.chunks_exact_mut(width))
            .zip(errors.chunks_exact_mut(n));
        parallel::items(rows.collect(), &|_, ((((bytes, values), targets), corrected), errors)| {
            // x·R_bb = e·R_b, from the first column to the last.
            factor::solve_down(corrected, r, n, first);
            let targets = &targets[first..first + width];
            rows::add(corrected, targets);
            let at = first / info.weights * info.bytes;
            let block = &mut bytes[at..at + info.bytes];
            codec.encode(corrected, &how, block);
            let values = &mut values[first..first + width];
            codec.decode(block, values);
            rows::difference(targets, values, &mut errors[first..first + width]);
        });
    }
    (bytes, values)
}

/// How many codes of a panel a row's descent changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changes {
    None,
    Few,
    Many,
}

/// A matrix whose codes and scales are being optimised under a Hessian.
pub struct Fit<'a> {
    isa: Isa,
    hessian: &'a FactoredHessian,
    dtype: DType,
    grid: &'static dyn Grid,
    rows: usize,
    /// The values to approximate, `[rows, width]`.
    targets: &'a [f32],
    /// The blocks' codes and scales, `[rows, blocks]`.
    parts: Vec<Parts>,
    /// The values that they decode to, `[rows, width]`.
    pub values: Vec<f32>,
}

impl<'a> Fit<'a> {
    /// Starts from the type's own search, with the inputs' mean squares as importance. `None` for types without a scalar
    /// grid.
    pub fn new(
        isa: Isa,
        hessian: &'a FactoredHessian,
        dtype: DType,
        targets: &'a [f32],
        how: &Encode,
    ) -> Option<Self> {
        let grid = dtype.grid()?;
        let (n, size) = (hessian.width, grid.shape().weights);
        let rows = targets.len() / n;
        let blocks = n / size;
        let codec = kernels::codec_for(dtype, isa)?;
        let bytes = dtype.info().bytes;
        let mut parts = vec![Parts::default(); rows * blocks];
        let mut values = vec![0f32; rows * n];
        let how = Encode { importance: Some(&hessian.mean_squares), ..*how };
        let all = parts.chunks_exact_mut(blocks).zip(values.chunks_exact_mut(n)).zip(targets.chunks_exact(n));
        parallel::items(all.collect(), &|_, ((parts, values), x)| {
            let mut packed = vec![0u8; blocks * bytes];
            codec.encode(x, &how, &mut packed);
            codec.decode(&packed, values);
            packed.chunks(bytes).zip(parts).for_each(|(b, p)| grid.unpack(b, p));
        });
        Some(Self { isa, hessian, dtype, grid, rows, targets, parts, values })
    }

    /// Error feedback (GPTQ, in the form of LDLQ): rounds column by column, and feeds each column's rounding error back
    /// into the columns not yet rounded. Scales stay as they are.
    pub fn feed_back(&mut self) {
        let (n, shape) = (self.hessian.width, self.grid.shape());
        let blocks = n / shape.weights;
        let levels = Levels::new(shape.levels);
        let (order, r) = (&self.hessian.order, &self.hessian.factor.r);
        let mut errors = vec![0f32; self.rows * n];
        for first in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - first);
            let columns = &order[first..first + width];
            // The errors so far times U's columns, which are R's columns divided by their diagonal entries.
            let mut corrected = vec![0f32; self.rows * width];
            let (a, b) = (View::rows(&errors, n), View::rows(r, n).from(0, first));
            gemm(self.isa, Part::Whole, (self.rows, width, first), 1.0, a, b, &mut corrected, width);
            let inverse: Vec<f32> = (first..first + width).map(|k| 1.0 / r[k * n + k]).collect();
            let mut unit = rows::select_columns(&r[first * n..(first + width) * n], n, first..first + width);
            unit.chunks_exact_mut(width).for_each(|row| rows::multiply(row, &inverse));
            let (grid, isa) = (self.grid, self.isa);
            let rows = self
                .parts
                .chunks_exact_mut(blocks)
                .zip(self.values.chunks_exact_mut(n))
                .zip(self.targets.chunks_exact(n))
                .zip(corrected.chunks_exact_mut(width))
                .zip(errors.chunks_exact_mut(n));
            parallel::items(rows.collect(), &|_, ((((parts, values), targets), corrected), errors)| {
                let mut buffers = [[0f32; PANEL]; 3];
                let [target, steps, offsets] = &mut buffers;
                let mut codes = [0u8; PANEL];
                let mut own = Columns { targets: target, steps, offsets };
                own.take(grid, columns, targets, parts, corrected, &inverse);
                feedback::feed_back(
                    isa,
                    &own.targets[..width],
                    corrected,
                    &unit,
                    width,
                    &own.steps[..width],
                    &own.offsets[..width],
                    levels,
                    &mut codes[..width],
                    &mut errors[first..first + width],
                );
                own.put(grid, columns, &codes, levels, parts, values);
            });
        }
    }

    /// Coordinate descent over codes and scales, panel by panel: `sweeps` passes over all columns at most, with `rounds`
    /// rounds in each panel. No step increases a row's error.
    pub fn descend(&mut self, sweeps: usize, rounds: usize) {
        let (n, shape) = (self.hessian.width, self.grid.shape());
        let levels = Levels::new(shape.levels);
        let (grid, isa, h) = (self.grid, self.isa, &self.hessian.h);
        let mut difference = self.values.clone();
        parallel::chunks_mut(&mut difference, n, &|i, row| rows::subtract(row, &self.targets[i * n..]));
        let mut gradient = multiply(isa, &difference, h, n);
        drop(difference);
        let blocks = n / shape.weights;
        let step = PANEL / shape.weights;
        for _ in 0..sweeps {
            let mut any = false;
            for block in (0..blocks).step_by(step) {
                let count = step.min(blocks - block);
                let (first, width) = (block * shape.weights, count * shape.weights);
                let own = rows::select_columns(&h[first * n..(first + width) * n], n, first..first + width);
                let sums = Panel::sums(&own, width, shape.group);
                let panel = Panel { h: &own, sums: &sums, width };
                let mut moved = vec![0f32; self.rows * width];
                // After the first sweep few codes change; the gradient is then updated column by column.
                let few = width / 8;
                let all = self
                    .parts
                    .chunks_exact_mut(blocks)
                    .zip(self.values.chunks_exact_mut(n))
                    .zip(gradient.chunks_exact_mut(n))
                    .zip(moved.chunks_exact_mut(width));
                let changed =
                    parallel::map_items(all.collect(), &|_, (((parts, values), gradient), moved)| {
                        let mut local = [0f32; PANEL];
                        let local = &mut local[..width];
                        local.copy_from_slice(&gradient[first..first + width]);
                        let values = &mut values[first..first + width];
                        let mut before = [0f32; PANEL];
                        before[..width].copy_from_slice(values);
                        let parts = &mut parts[block..block + count];
                        if !feedback::descend(isa, grid, levels, &panel, rounds, parts, values, local) {
                            return Changes::None;
                        }
                        rows::difference(values, &before, moved);
                        if !rows::nearly_all_zero(moved, few) {
                            return Changes::Many;
                        }
                        for (k, by) in moved.iter_mut().enumerate().filter(|(_, by)| **by != 0.0) {
                            float::add_times(isa, gradient, &h[(first + k) * n..][..n], *by);
                            *by = 0.0;
                        }
                        Changes::Few
                    });
                any |= changed.iter().any(|c| *c != Changes::None);
                let many: Vec<usize> = (0..self.rows).filter(|r| changed[*r] == Changes::Many).collect();
                let b = View::rows(h, n).from(first, 0);
                if 2 * many.len() > self.rows {
                    let a = View::rows(&moved, width);
                    gemm(isa, Part::Whole, (self.rows, n, width), 1.0, a, b, &mut gradient, n);
                } else if !many.is_empty() {
                    let moved = rows::select(&moved, &many, width);
                    let more = product(isa, (many.len(), n, width), View::rows(&moved, width), b);
                    for (row, more) in many.iter().zip(more.chunks_exact(n)) {
                        rows::add(&mut gradient[row * n..][..n], more);
                    }
                }
            }
            if !any {
                break;
            }
        }
    }

    /// The encoded blocks, little-endian.
    pub fn pack(&self) -> Vec<u8> {
        let size = self.dtype.info().bytes;
        let mut bytes = vec![0u8; self.parts.len() * size];
        let blocks = self.hessian.width / self.grid.shape().weights;
        parallel::chunks_mut(&mut bytes, blocks * size, &|i, bytes| {
            let parts = self.parts[i * blocks..].iter();
            bytes.chunks_exact_mut(size).zip(parts).for_each(|(bytes, part)| self.grid.pack(part, bytes));
        });
        bytes
    }
}
