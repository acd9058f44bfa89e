//! One matrix: its codes and scales under a full Hessian.

use calibration::feedback::{Levels, Panel};
use formats::block::grid::{Grid, Parts};
use formats::block::{DType, Encode};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::factor::Factor;
use super::gram::Gram;
use kernels::gemm::{Part, View, gemm, product};
use kernels::{self, Isa, feedback, float};

/// How little is made of a Hessian.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ridge {
    /// What is added to its diagonal, in parts of its mean.
    pub damping: f32,
    /// What is off its diagonal is taken for as much as t / (t + shrinkage) of it, where there are t tokens for each
    /// column: with few tokens there is chance in it, and its diagonal is known best (Ledoit and Wolf, "A
    /// well-conditioned estimator for large-dimensional covariance matrices", 2004, towards the diagonal).
    pub shrinkage: f32,
}

impl Default for Ridge {
    fn default() -> Self {
        Self { damping: 0.01, shrinkage: 3.0 }
    }
}

/// What is known of a tap's inputs, made ready for its matrices.
pub struct FactoredHessian {
    width: usize,
    /// H with what is added to its diagonal.
    h: Vec<f32>,
    /// Columns, as they are gone through.
    order: Vec<usize>,
    /// Of H in that order.
    factor: Factor,
    /// Mean squares of the inputs.
    pub means: Vec<f32>,
    /// More·H⁻¹, where many rows want it.
    step: Option<Vec<f32>>,
}

/// Columns that are gone through together, at most.
const PANEL: usize = 256;

impl FactoredHessian {
    /// Makes H ready and factors it, with more added to its diagonal where that is not enough. With `sorted`, columns
    /// are gone through from the one whose inputs are largest.
    pub fn new(isa: Isa, gram: &Gram, ridge: Ridge, sorted: bool) -> Self {
        let n = gram.width;
        let own = gram.tokens as f32 / n as f32;
        let share = if own > 0.0 { own / (own + ridge.shrinkage) } else { 0.0 };
        let mean = ((0..n).map(|i| f64::from(gram.h[i * n + i])).sum::<f64>() / n as f64) as f32;
        let mean = if mean > 0.0 && mean.is_finite() { mean } else { 1.0 };
        let mut order: Vec<usize> = (0..n).collect();
        if sorted {
            order.sort_by(|&a, &b| gram.h[b * n + b].total_cmp(&gram.h[a * n + a]).then(a.cmp(&b)));
        }
        let mut damping = ridge.damping;
        loop {
            let mut h = gram.h.clone();
            h.par_chunks_exact_mut(n).enumerate().for_each(|(i, row)| {
                let own = row[i];
                row.iter_mut().for_each(|x| *x *= share);
                row[i] = own + damping * mean;
            });
            let mut turned = vec![0f32; n * n];
            turned.par_chunks_exact_mut(n).zip(&order).for_each(|(out, &i)| {
                out.iter_mut().zip(&order).for_each(|(o, &j)| *o = h[i * n + j]);
            });
            if let Some(factor) = Factor::new(isa, turned, n) {
                return Self { width: n, h, order, factor, means: gram.means(), step: None };
            }
            damping = (damping * 4.0).max(1e-4);
        }
    }

    /// R of H as it was made ready, in the order of the columns.
    pub fn factor(&self) -> &Factor {
        &self.factor
    }

    /// Prepares for the targets of so many rows: from as many as columns on, More·H⁻¹ for all costs less than solving
    /// for each.
    pub fn for_rows(mut self, isa: Isa, gram: &Gram, rows: usize) -> Self {
        if rows >= self.width && !gram.more.is_empty() {
            self.step = Some(self.solve(isa, &gram.more));
        }
        self
    }

    /// b·H⁻¹ for rows b.
    fn solve(&self, isa: Isa, b: &[f32]) -> Vec<f32> {
        let n = self.width;
        let mut turned = vec![0f32; b.len()];
        turned.par_chunks_exact_mut(n).zip(b.par_chunks_exact(n)).for_each(|(out, b)| {
            out.iter_mut().zip(&self.order).for_each(|(o, &j)| *o = b[j]);
        });
        self.factor.solve(isa, &mut turned);
        let mut out = vec![0f32; b.len()];
        out.par_chunks_exact_mut(n).zip(turned.par_chunks_exact(n)).for_each(|(out, t)| {
            t.iter().zip(&self.order).for_each(|(t, &j)| out[j] = *t);
        });
        out
    }
}

/// rows · M, for a square matrix of `n` columns.
pub fn times(isa: Isa, rows: &[f32], square: &[f32], n: usize) -> Vec<f32> {
    product(isa, (rows.len() / n, n, n), View::rows(rows, n), View::rows(square, n))
}

/// Σ of a·b, in f64 and in a fixed order.
pub fn inner(a: &[f32], b: &[f32]) -> f64 {
    const PIECE: usize = 1 << 14;
    let parts: Vec<f64> = a
        .par_chunks(PIECE)
        .zip(b.par_chunks(PIECE))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
        .collect();
    parts.iter().sum()
}

/// Rows by which a matrix is judged, at most.
const JUDGED: usize = 1024;

/// A matrix's loss on tokens that it was not made for, by some of its rows.
pub struct HeldOutLoss<'a> {
    isa: Isa,
    held: &'a Gram,
    rows: Vec<usize>,
    weights: Vec<f32>,
    /// w·More.
    along: Vec<f32>,
    /// Σ|W·y|², where the sums for it were taken.
    apart: f64,
}

impl<'a> HeldOutLoss<'a> {
    /// Of a matrix `[rows, width]`, on the inputs that were held out.
    pub fn new(isa: Isa, weights: &[f32], held: &'a Gram) -> Self {
        let n = held.width;
        let all = weights.len() / n;
        let count = all.min(JUDGED);
        let rows: Vec<usize> = (0..count).map(|i| i * all / count).collect();
        let weights = pick(weights, &rows, n);
        let along = if held.more.is_empty() { Vec::new() } else { times(isa, &weights, &held.more, n) };
        let apart =
            if held.apart.is_empty() { 0.0 } else { inner(&weights, &times(isa, &weights, &held.apart, n)) };
        Self { isa, held, rows, weights, along, apart }
    }

    /// What the outputs lose with `values`: Σ|W·x₀ − Q·x|² over the judged rows; without the sums for it, less what it
    /// would be with Q = W.
    pub fn loss(&self, values: &[f32]) -> f64 {
        let n = self.held.width;
        let mut off = pick(values, &self.rows, n);
        off.iter_mut().zip(&self.weights).for_each(|(q, w)| *q -= w);
        let mut total = inner(&off, &times(self.isa, &off, &self.held.h, n));
        if !self.along.is_empty() {
            total -= 2.0 * inner(&off, &self.along);
        }
        total + self.apart
    }

    /// What the weights are to be so that the original's outputs come from other inputs: w + s·w·More·H⁻¹, with the s
    /// of 0 to 1 for which that holds best on what was held out, and that s.
    pub fn target(&self, weights: &[f32], gram: &Gram, ground: &FactoredHessian) -> (Vec<f32>, f64) {
        let n = gram.width;
        if gram.more.is_empty() {
            return (weights.to_vec(), 0.0);
        }
        let mut step = match &ground.step {
            Some(step) => times(self.isa, weights, step, n),
            None => ground.solve(self.isa, &times(self.isa, weights, &gram.more, n)),
        };
        let judged = pick(&step, &self.rows, n);
        let along = inner(&judged, &self.along);
        let curve = inner(&judged, &times(self.isa, &judged, &self.held.h, n));
        let s = if curve > 0.0 { (along / curve).clamp(0.0, 1.0) } else { 0.0 };
        step.par_chunks_exact_mut(n).zip(weights.par_chunks_exact(n)).for_each(|(step, weights)| {
            step.iter_mut().zip(weights).for_each(|(x, w)| *x = w + s as f32 * *x);
        });
        (step, s)
    }
}

/// Some rows.
fn pick(all: &[f32], rows: &[usize], n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * n);
    rows.iter().for_each(|r| out.extend_from_slice(&all[r * n..][..n]));
    out
}

/// Encodes a matrix of a type without a grid block by block of its columns, each with the errors of those before it
/// in mind: bytes, and what they mean. Columns must be in their own order.
pub fn feed_back_blocks(
    isa: Isa,
    ground: &FactoredHessian,
    dtype: DType,
    targets: &[f32],
    how: &Encode,
) -> (Vec<u8>, Vec<f32>) {
    let (n, info) = (ground.width, dtype.info());
    let rows = targets.len() / n;
    let codec = kernels::codec_for(dtype, isa).expect("plans encode into types that have a codec");
    let r = &ground.factor.r;
    let (mut errors, mut values) = (vec![0f32; rows * n], vec![0f32; rows * n]);
    let per = n / info.weights * info.bytes;
    let mut bytes = vec![0u8; rows * per];
    for first in (0..n).step_by(info.weights) {
        let width = info.weights;
        // Errors so far times U's columns: those of R times the inverse of its block on the diagonal.
        let mut wanted = vec![0f32; rows * width];
        let (a, b) = (View::rows(&errors, n), View::rows(r, n).from(0, first));
        gemm(isa, Part::Whole, (rows, width, first), 1.0, a, b, &mut wanted, width);
        // What an error counts when later blocks make up for it: the diagonal of R·Rᵀ of the block.
        let importance: Vec<f32> = (first..first + width)
            .map(|i| r[i * n + i..i * n + first + width].iter().map(|x| x * x).sum())
            .collect();
        let how = Encode { importance: Some(&importance), ..*how };
        bytes
            .par_chunks_exact_mut(per)
            .zip(values.par_chunks_exact_mut(n))
            .zip(targets.par_chunks_exact(n))
            .zip(wanted.par_chunks_exact_mut(width))
            .zip(errors.par_chunks_exact_mut(n))
            .for_each(|((((bytes, values), targets), wanted), errors)| {
                // x·R_bb = e·R_b, from the first column to the last.
                for k in 0..width {
                    let row = first + k;
                    let x = wanted[k] / r[row * n + row];
                    wanted[k] = x;
                    let factor = &r[row * n + row + 1..row * n + first + width];
                    wanted[k + 1..].iter_mut().zip(factor).for_each(|(w, f)| *w -= x * f);
                }
                let targets = &targets[first..first + width];
                wanted.iter_mut().zip(targets).for_each(|(w, t)| *w += t);
                let at = first / info.weights * info.bytes;
                let block = &mut bytes[at..at + info.bytes];
                codec.encode(wanted, &how, block);
                let values = &mut values[first..first + width];
                codec.decode(block, values);
                errors[first..first + width]
                    .iter_mut()
                    .zip(targets.iter().zip(values))
                    .for_each(|(e, (t, v))| *e = t - *v);
            });
    }
    (bytes, values)
}

/// What a row's descent did to a panel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Not,
    Little,
    Much,
}

/// A matrix that is being fitted.
pub struct Fit<'a> {
    isa: Isa,
    ground: &'a FactoredHessian,
    dtype: DType,
    grid: &'static dyn Grid,
    rows: usize,
    /// What the weights should be.
    targets: &'a [f32],
    /// `[rows, blocks]`.
    parts: Vec<Parts>,
    /// What the codes mean.
    pub values: Vec<f32>,
}

impl<'a> Fit<'a> {
    /// Starts from what the type's own search finds with the inputs' mean squares as importance. `None` for types
    /// without a grid.
    pub fn new(
        isa: Isa,
        ground: &'a FactoredHessian,
        dtype: DType,
        targets: &'a [f32],
        how: &Encode,
    ) -> Option<Self> {
        let grid = dtype.grid()?;
        let (n, size) = (ground.width, grid.shape().weights);
        let rows = targets.len() / n;
        let blocks = n / size;
        let codec = kernels::codec_for(dtype, isa)?;
        let bytes = dtype.info().bytes;
        let mut parts = vec![Parts::default(); rows * blocks];
        let mut values = vec![0f32; rows * n];
        let how = Encode { importance: Some(&ground.means), ..*how };
        parts
            .par_chunks_exact_mut(blocks)
            .zip(values.par_chunks_exact_mut(n))
            .zip(targets.par_chunks_exact(n))
            .for_each(|((parts, values), x)| {
                let mut packed = vec![0u8; blocks * bytes];
                codec.encode(x, &how, &mut packed);
                codec.decode(&packed, values);
                packed.chunks(bytes).zip(parts).for_each(|(b, p)| grid.unpack(b, p));
            });
        Some(Self { isa, ground, dtype, grid, rows, targets, parts, values })
    }

    /// Chooses all codes anew, column by column, each with the errors of those before it in mind.
    pub fn feed_back(&mut self) {
        let (n, shape) = (self.ground.width, self.grid.shape());
        let (blocks, group) = (n / shape.weights, shape.group);
        let levels = Levels::new(shape.levels);
        let (order, r) = (&self.ground.order, &self.ground.factor.r);
        let mut errors = vec![0f32; self.rows * n];
        for first in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - first);
            let columns = &order[first..first + width];
            // Errors so far times U's columns: those of R over their last number.
            let mut wanted = vec![0f32; self.rows * width];
            let (a, b) = (View::rows(&errors, n), View::rows(r, n).from(0, first));
            gemm(self.isa, Part::Whole, (self.rows, width, first), 1.0, a, b, &mut wanted, width);
            let inverse: Vec<f32> = (first..first + width).map(|k| 1.0 / r[k * n + k]).collect();
            let mut unit = vec![0f32; width * width];
            for i in 0..width {
                for j in i + 1..width {
                    unit[i * width + j] = r[(first + i) * n + first + j] * inverse[j];
                }
            }
            let (grid, isa) = (self.grid, self.isa);
            self.parts
                .par_chunks_exact_mut(blocks)
                .zip(self.values.par_chunks_exact_mut(n))
                .zip(self.targets.par_chunks_exact(n))
                .zip(wanted.par_chunks_exact_mut(width))
                .zip(errors.par_chunks_exact_mut(n))
                .for_each(|((((parts, values), targets), wanted), errors)| {
                    let mut buffers = [[0f32; PANEL]; 3];
                    let [target, steps, offsets] = &mut buffers;
                    let mut codes = [0u8; PANEL];
                    for (k, &c) in columns.iter().enumerate() {
                        let part = &parts[c / shape.weights];
                        let g = c % shape.weights / group;
                        target[k] = targets[c];
                        wanted[k] = targets[c] + wanted[k] * inverse[k];
                        steps[k] = grid.step(part.d, part.scales[g]);
                        offsets[k] = grid.offset(part.m, part.mins[g]);
                    }
                    feedback::feed_back(
                        isa,
                        &target[..width],
                        wanted,
                        &unit,
                        width,
                        &steps[..width],
                        &offsets[..width],
                        levels,
                        &mut codes[..width],
                        &mut errors[first..first + width],
                    );
                    for (k, &c) in columns.iter().enumerate() {
                        parts[c / shape.weights].codes[c % shape.weights] = codes[k];
                        values[c] = steps[k] * levels.value(codes[k]) + offsets[k];
                    }
                });
        }
    }

    /// Goes through all columns, panel by panel, making each row's error less.
    pub fn descend(&mut self, sweeps: usize, rounds: usize) {
        let (n, shape) = (self.ground.width, self.grid.shape());
        let levels = Levels::new(shape.levels);
        let (grid, isa, h) = (self.grid, self.isa, &self.ground.h);
        let mut off = self.values.clone();
        off.par_chunks_exact_mut(n).zip(self.targets.par_chunks_exact(n)).for_each(|(off, targets)| {
            off.iter_mut().zip(targets).for_each(|(o, t)| *o -= t);
        });
        let mut gradient = times(isa, &off, h, n);
        drop(off);
        let blocks = n / shape.weights;
        let step = PANEL / shape.weights;
        for _ in 0..sweeps {
            let mut any = false;
            for block in (0..blocks).step_by(step) {
                let count = step.min(blocks - block);
                let (first, width) = (block * shape.weights, count * shape.weights);
                let own: Vec<f32> = h[first * n..(first + width) * n]
                    .chunks_exact(n)
                    .flat_map(|row| &row[first..first + width])
                    .copied()
                    .collect();
                let sums = Panel::sums(&own, width, shape.group);
                let panel = Panel { h: &own, sums: &sums, width };
                let mut moved = vec![0f32; self.rows * width];
                // Few codes change after the first sweep: their columns are added one by one.
                let few = width / 8;
                let changed: Vec<Changed> = self
                    .parts
                    .par_chunks_exact_mut(blocks)
                    .zip(self.values.par_chunks_exact_mut(n))
                    .zip(gradient.par_chunks_exact_mut(n))
                    .zip(moved.par_chunks_exact_mut(width))
                    .map(|(((parts, values), gradient), moved)| {
                        let mut local = [0f32; PANEL];
                        let local = &mut local[..width];
                        local.copy_from_slice(&gradient[first..first + width]);
                        let values = &mut values[first..first + width];
                        moved.copy_from_slice(values);
                        let parts = &mut parts[block..block + count];
                        if !feedback::descend(isa, grid, levels, &panel, rounds, parts, values, local) {
                            moved.fill(0.0);
                            return Changed::Not;
                        }
                        moved.iter_mut().zip(values).for_each(|(m, v)| *m = *v - *m);
                        if moved.iter().filter(|m| **m != 0.0).count() > few {
                            return Changed::Much;
                        }
                        for (k, by) in moved.iter_mut().enumerate().filter(|(_, by)| **by != 0.0) {
                            float::add_times(isa, gradient, &h[(first + k) * n..][..n], *by);
                            *by = 0.0;
                        }
                        Changed::Little
                    })
                    .collect();
                any |= changed.iter().any(|c| *c != Changed::Not);
                let much: Vec<usize> = (0..self.rows).filter(|r| changed[*r] == Changed::Much).collect();
                let b = View::rows(h, n).from(first, 0);
                if 2 * much.len() > self.rows {
                    let a = View::rows(&moved, width);
                    gemm(isa, Part::Whole, (self.rows, n, width), 1.0, a, b, &mut gradient, n);
                } else if !much.is_empty() {
                    let moved = pick(&moved, &much, width);
                    let more = product(isa, (much.len(), n, width), View::rows(&moved, width), b);
                    for (row, more) in much.iter().zip(more.chunks_exact(n)) {
                        gradient[row * n..][..n].iter_mut().zip(more).for_each(|(g, m)| *g += m);
                    }
                }
            }
            if !any {
                break;
            }
        }
    }

    /// The blocks' bytes, little-endian.
    pub fn pack(&self) -> Vec<u8> {
        let size = self.dtype.info().bytes;
        let mut bytes = vec![0u8; self.parts.len() * size];
        bytes
            .par_chunks_exact_mut(size)
            .zip(&self.parts)
            .for_each(|(bytes, part)| self.grid.pack(part, bytes));
        bytes
    }
}
