//! GPTQ and coordinate descent: codes that compensate for each other's errors, so that the outputs of a matrix are kept
//! rather than each weight.
//!
//! A row w of a matrix is quantized to q so that (q − w)·H·(q − w)ᵀ is small, where the Hessian H is the sum of x·xᵀ over
//! the inputs x of a calibration set. [`feed_back`] chooses codes column by column, feeding the error of each back into the
//! following columns (GPTQ, arXiv 2210.17323, in the form of LDLQ, arXiv 2307.13304). [`descend`] then changes single codes
//! while that lowers the error (coordinate descent, arXiv 2309.01885), and fits the scales to the codes.
//!
//! Both are plain loops over slices, always inlined, so that callers can compile them for an instruction set. They work on a
//! panel of columns; products of larger matrices are up to the caller.

// Loops have an index: in bodies that become vector code, that shows best what is combined with what.
#![allow(clippy::needless_range_loop)]

use formats::block::grid::{Grid, Parts};
use formats::block::{f16_to_f32, f32_to_f16};

/// The levels of codes, to find the nearest one.
#[derive(Debug, Clone, Copy)]
pub struct Levels<'a> {
    values: &'a [f32],
    /// Whether they are consecutive integers, or at a distance of 1 from each other.
    even: bool,
}

impl<'a> Levels<'a> {
    /// From levels in ascending order, at least one and at most 256.
    pub fn new(values: &'a [f32]) -> Self {
        let even = values.windows(2).all(|w| w[1] - w[0] == 1.0);
        Self { values, even }
    }

    /// The code of the level nearest to `v`; of NaN, the first code.
    #[inline(always)]
    pub fn nearest(self, v: f32) -> u8 {
        let last = self.values.len() - 1;
        if self.even {
            // `as` saturates, and converts NaN to zero.
            return ((v - self.values[0] + 0.5) as u32).min(last as u32) as u8;
        }
        let mut code = 0;
        for k in 0..last {
            code += u8::from(v > 0.5 * (self.values[k] + self.values[k + 1]));
        }
        code
    }

    /// The level of a code.
    ///
    /// # Panics
    /// If there is no such code.
    #[inline(always)]
    pub fn value(self, code: u8) -> f32 {
        self.values[usize::from(code)]
    }
}

/// Chooses the codes of a panel of n columns of one row, in order (GPTQ).
///
/// `targets` are the original weights, and `wanted` the same with the errors of all earlier panels fed back; both have n
/// numbers. `factor` is the panel's diagonal block of the unit upper triangular U of H = U·D·Uᵀ, with the columns in this
/// order: row k starts at k · `stride`. The value of a code is step · level + offset, with one step and offset for each column.
/// The results are `codes` and `errors`: target minus value.
///
/// # Panics
/// If a slice is shorter than n, or `factor` than n rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn feed_back(
    targets: &[f32],
    wanted: &mut [f32],
    factor: &[f32],
    stride: usize,
    steps: &[f32],
    offsets: &[f32],
    levels: Levels<'_>,
    codes: &mut [u8],
    errors: &mut [f32],
) {
    let n = targets.len();
    for k in 0..n {
        let (step, offset) = (steps[k], offsets[k]);
        let at = if step == 0.0 { 0.0 } else { (wanted[k] - offset) / step };
        let code = levels.nearest(at);
        let error = targets[k] - (step * levels.value(code) + offset);
        codes[k] = code;
        errors[k] = error;
        let (row, rest) = (&factor[k * stride + k + 1..k * stride + n], &mut wanted[k + 1..n]);
        for (x, f) in rest.iter_mut().zip(row) {
            *x += error * f;
        }
    }
}

/// A panel of columns for [`descend`]: whole blocks, with the diagonal block of H that belongs to them.
pub struct Panel<'a> {
    /// The diagonal block of the Hessian, `[width, width]`.
    pub h: &'a [f32],
    /// The sum of the rows of `h` in each group of the grid, `[groups, width]`.
    pub sums: &'a [f32],
    /// The number of columns: at most 256, in at most 32 groups.
    pub width: usize,
}

impl Panel<'_> {
    /// The sums of the rows of `h` in groups of `group` rows.
    pub fn sums(h: &[f32], width: usize, group: usize) -> Vec<f32> {
        let mut sums = vec![0f32; width / group * width];
        for (rows, sum) in h.chunks(group * width).zip(sums.chunks_mut(width)) {
            for row in rows.chunks(width) {
                sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
            }
        }
        sums
    }
}

/// The largest number of groups in a panel.
const GROUPS: usize = 32;

/// The error of a panel as a quadratic function of the steps and offsets of its groups, around their present values.
struct Quadratic {
    /// Half the gradient: along steps, then along offsets.
    slope: [f32; 2 * GROUPS],
    /// Half the matrix of second derivatives.
    curve: [[f32; 2 * GROUPS]; 2 * GROUPS],
    /// How far each has been moved so far.
    moved: [f32; 2 * GROUPS],
}

impl Quadratic {
    /// The change of the error if step or offset `i` is changed by `by`.
    #[inline(always)]
    fn cost(&self, i: usize, by: f32) -> f32 {
        by * (2.0 * self.slope[i] + by * self.curve[i][i])
    }

    #[inline(always)]
    /// Changes step or offset `i` by `by`, of `count` in all.
    fn shift(&mut self, i: usize, by: f32, count: usize) {
        self.moved[i] += by;
        for k in 0..count {
            self.slope[k] += by * self.curve[i][k];
        }
    }
}

/// Lowers the error of a panel of one row by coordinate descent: first its codes one by one, then its scales, up to `rounds`
/// times. `parts` are the blocks of the panel and `values` their decoded weights. `gradient` is (q − w)·H at the panel's
/// columns for these values. All three are kept consistent. Returns whether anything changed.
///
/// # Panics
/// If the slices do not have the size of the panel, or it has more than 256 columns or 32 groups.
#[inline(always)]
pub fn descend(
    grid: &dyn Grid,
    levels: Levels<'_>,
    panel: &Panel<'_>,
    rounds: usize,
    parts: &mut [Parts],
    values: &mut [f32],
    gradient: &mut [f32],
) -> bool {
    let mut any = false;
    for _ in 0..rounds {
        let codes = sweep(grid, levels, panel, parts, values, gradient);
        let scales = refit(grid, levels, panel, parts, values, gradient);
        any |= codes || scales;
        if !scales && !codes {
            break;
        }
    }
    any
}

/// Sets each code to the best one for the present values of all others.
#[inline(always)]
fn sweep(
    grid: &dyn Grid,
    levels: Levels<'_>,
    panel: &Panel<'_>,
    parts: &mut [Parts],
    values: &mut [f32],
    gradient: &mut [f32],
) -> bool {
    let (shape, width) = (grid.shape(), panel.width);
    let mut any = false;
    for (b, part) in parts.iter_mut().enumerate() {
        for g in 0..shape.weights / shape.group {
            let step = grid.step(part.d, part.scales[g]);
            let offset = grid.offset(part.m, part.mins[g]);
            if step == 0.0 {
                continue;
            }
            let inverse = 1.0 / step;
            for j in g * shape.group..(g + 1) * shape.group {
                let k = b * shape.weights + j;
                let own = panel.h[k * width + k];
                if own <= 0.0 {
                    continue;
                }
                let best = values[k] - gradient[k] / own;
                let code = levels.nearest((best - offset) * inverse);
                if code == part.codes[j] {
                    continue;
                }
                let value = step * levels.value(code) + offset;
                let by = value - values[k];
                // Halfway between two levels, rounding may have chosen the worse one.
                if by * (2.0 * gradient[k] + by * own) >= 0.0 {
                    continue;
                }
                part.codes[j] = code;
                values[k] = value;
                any = true;
                let row = &panel.h[k * width..(k + 1) * width];
                for (g, h) in gradient.iter_mut().zip(row) {
                    *g += by * h;
                }
            }
        }
    }
    any
}

/// Changes integer scales and minimums by one while that helps, and sets d and m to their best values; codes stay.
#[inline(always)]
fn refit(
    grid: &dyn Grid,
    levels: Levels<'_>,
    panel: &Panel<'_>,
    parts: &mut [Parts],
    values: &mut [f32],
    gradient: &mut [f32],
) -> bool {
    let (shape, width) = (grid.shape(), panel.width);
    let (per, group) = (shape.weights / shape.group, shape.group);
    let count = width / group;
    let offsets = shape.mins.is_some() || shape.offset;
    let n = if offsets { 2 * count } else { count };

    // The derivative of a weight is its level along a step, and one along an offset.
    let mut along = [0f32; 256];
    for (b, part) in parts.iter().enumerate() {
        for j in 0..shape.weights {
            along[b * shape.weights + j] = levels.value(part.codes[j]);
        }
    }
    let along = &along[..width];
    let mut error = Quadratic {
        slope: [0.0; 2 * GROUPS],
        curve: [[0.0; 2 * GROUPS]; 2 * GROUPS],
        moved: [0.0; 2 * GROUPS],
    };
    let mut product = [0f32; 256];
    let product = &mut product[..width];
    for g in 0..count {
        product.fill(0.0);
        for k in g * group..(g + 1) * group {
            let (row, by) = (&panel.h[k * width..(k + 1) * width], along[k]);
            for (p, h) in product.iter_mut().zip(row) {
                *p += by * h;
            }
        }
        for to in 0..count {
            let at = to * group..(to + 1) * group;
            let (mut with, mut sum) = (0.0, 0.0);
            for k in at {
                with += product[k] * along[k];
                sum += product[k];
            }
            error.curve[g][to] = with;
            if offsets {
                error.curve[g][count + to] = sum;
                error.curve[count + to][g] = sum;
            }
        }
        let sums = &panel.sums[g * width..(g + 1) * width];
        let (mut slope, mut total) = (0.0, 0.0);
        for k in g * group..(g + 1) * group {
            slope += gradient[k] * along[k];
            total += gradient[k];
        }
        error.slope[g] = slope;
        if offsets {
            error.slope[count + g] = total;
            for to in 0..count {
                let mut sum = 0.0;
                for k in to * group..(to + 1) * group {
                    sum += sums[k];
                }
                error.curve[count + g][count + to] = sum;
            }
        }
    }

    let mut any = false;
    for _ in 0..4 {
        let mut changed = false;
        for (b, part) in parts.iter_mut().enumerate() {
            for g in 0..per {
                let i = b * per + g;
                if let Some([least, most]) = shape.scales {
                    let now = grid.step(part.d, part.scales[g]);
                    changed |= neighbour(&mut error, i, n, &mut part.scales[g], (least, most), |s| {
                        grid.step(part.d, s) - now
                    });
                }
                if let Some([least, most]) = shape.mins {
                    let now = grid.offset(part.m, part.mins[g]);
                    changed |= neighbour(&mut error, count + i, n, &mut part.mins[g], (least, most), |m| {
                        grid.offset(part.m, m) - now
                    });
                }
            }
            if shape.free {
                let d = part.d;
                changed |= refit_half(&mut error, b * per..(b + 1) * per, n, &mut part.d, |g, to| {
                    grid.step(to, part.scales[g]) - grid.step(d, part.scales[g])
                });
                if offsets {
                    let m = part.m;
                    let at = count + b * per..count + (b + 1) * per;
                    changed |= refit_half(&mut error, at, n, &mut part.m, |g, to| {
                        grid.offset(to, part.mins[g]) - grid.offset(m, part.mins[g])
                    });
                }
            }
        }
        any |= changed;
        if !changed {
            break;
        }
    }
    if !any {
        return false;
    }
    for (b, part) in parts.iter().enumerate() {
        for g in 0..per {
            let i = b * per + g;
            if error.moved[i] == 0.0 && !(offsets && error.moved[count + i] != 0.0) {
                continue;
            }
            let step = grid.step(part.d, part.scales[g]);
            let offset = grid.offset(part.m, part.mins[g]);
            for k in i * group..(i + 1) * group {
                let value = step * along[k] + offset;
                let by = value - values[k];
                values[k] = value;
                let row = &panel.h[k * width..(k + 1) * width];
                for (g, h) in gradient.iter_mut().zip(row) {
                    *g += by * h;
                }
            }
        }
    }
    true
}

/// Changes an integer scale or minimum by one, if that lowers the error. `by` gives the change of the step or offset.
#[inline(always)]
fn neighbour(
    error: &mut Quadratic,
    i: usize,
    count: usize,
    at: &mut i16,
    (least, most): (i16, i16),
    by: impl Fn(i16) -> f32,
) -> bool {
    let (mut best, mut to) = (0.0, None);
    for s in [*at - 1, *at + 1] {
        if s < least || s > most {
            continue;
        }
        let by = by(s);
        let cost = error.cost(i, by);
        if cost < best {
            (best, to) = (cost, Some((s, by)));
        }
    }
    let Some((s, by)) = to else { return false };
    *at = s;
    error.shift(i, by, count);
    true
}

/// Sets an IEEE half to the best value for all groups that it scales, or to a neighbour of that. `by` gives the change of the
/// step or offset of a group.
#[inline(always)]
fn refit_half(
    error: &mut Quadratic,
    groups: std::ops::Range<usize>,
    count: usize,
    at: &mut f32,
    by: impl Fn(usize, f32) -> f32,
) -> bool {
    // The slope and the curvature along it. Steps and offsets are linear in it, except for rounding.
    let (mut slope, mut curve) = (0.0, 0.0);
    let mut unit = [0f32; GROUPS];
    for g in 0..groups.len() {
        unit[g] = by(g, *at + 1.0) - by(g, *at);
    }
    for (g, i) in groups.clone().enumerate() {
        slope += unit[g] * error.slope[i];
        for (h, k) in groups.clone().enumerate() {
            curve += unit[g] * unit[h] * error.curve[i][k];
        }
    }
    if curve.is_nan() || curve <= 0.0 {
        return false;
    }
    let wanted = f32_to_f16((*at - slope / curve).clamp(-65504.0, 65504.0));
    let (mut best, mut to) = (0.0, None);
    for bits in [wanted, wanted.wrapping_add(1), wanted.wrapping_sub(1)] {
        let d = f16_to_f32(bits);
        if !d.is_finite() || d == *at {
            continue;
        }
        let mut far = [0f32; GROUPS];
        for g in 0..groups.len() {
            far[g] = by(g, d);
        }
        let mut cost = 0.0;
        for (g, i) in groups.clone().enumerate() {
            let mut with = 0.0;
            for (h, k) in groups.clone().enumerate() {
                with += far[h] * error.curve[i][k];
            }
            cost += far[g] * (2.0 * error.slope[i] + with);
        }
        if cost < best {
            (best, to) = (cost, Some((d, far)));
        }
    }
    let Some((d, far)) = to else { return false };
    for (g, i) in groups.enumerate() {
        error.shift(i, far[g], count);
    }
    *at = d;
    true
}
