//! Codes that make up for each other's errors: what a matrix does to its inputs is kept, rather than each weight.
//!
//! A row w of a matrix becomes q, and what is made least is (q − w)·H·(q − w)ᵀ, H being the sum of x·xᵀ over the
//! inputs x of a text. [`feed_back`] chooses codes column by column, each with the errors of those before it in mind
//! (GPTQ, arXiv 2210.17323, in the form of LDLQ, arXiv 2307.13304); [`descend`] goes through them again, changing one
//! at a time while that helps (QuaIP's and CDQuant's coordinate descent, arXiv 2309.01885), and moves the scales to
//! where they are best for the codes.
//!
//! Both are plain loops over slices, for callers to compile for an instruction set; a caller brings what is larger
//! than a panel of columns, which are products of matrices.

// Lanes are counted: in bodies that become vector code, what is done with which is plainer so.
#![allow(clippy::needless_range_loop)]

use formats::block::grid::{Grid, Parts};
use formats::block::{f16_to_f32, f32_to_f16};

/// What codes stand for, to find the nearest of them.
#[derive(Debug, Clone, Copy)]
pub struct Levels<'a> {
    values: &'a [f32],
    /// Whether they are integers that follow each other.
    even: bool,
}

impl<'a> Levels<'a> {
    /// Levels in ascending order.
    pub fn new(values: &'a [f32]) -> Self {
        let even = values.windows(2).all(|w| w[1] - w[0] == 1.0);
        Self { values, even }
    }

    /// The code of the level nearest to `v`; of what is no number, the first.
    #[inline(always)]
    pub fn nearest(self, v: f32) -> u8 {
        let last = self.values.len() - 1;
        if self.even {
            // `as` takes what is beyond the range to its end, and what is no number to zero.
            return ((v - self.values[0] + 0.5) as u32).min(last as u32) as u8;
        }
        let mut code = 0;
        for k in 0..last {
            code += u8::from(v > 0.5 * (self.values[k] + self.values[k + 1]));
        }
        code
    }

    /// What a code stands for.
    #[inline(always)]
    pub fn value(self, code: u8) -> f32 {
        self.values[usize::from(code)]
    }
}

/// Chooses the codes of a panel of columns of one row, in order. `targets` are what the weights should be, `wanted`
/// the same with the errors of all earlier panels fed back, `factor` the panel's block of the unit upper triangular U
/// of H = U·D·Uᵀ (in the columns' order), of rows of `stride` numbers. The value of a code is step · level + offset. Gives
/// codes, and `errors`, target less value.
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

/// A panel of columns for [`descend`]: whole blocks, whose part of H stands by itself.
pub struct Panel<'a> {
    /// H's rows and columns of the panel, `[width, width]`.
    pub h: &'a [f32],
    /// For each group of the grid in the panel the sum of its rows of `h`, `[groups, width]`.
    pub sums: &'a [f32],
    /// Columns.
    pub width: usize,
}

impl Panel<'_> {
    /// The sums of rows of `h` in groups of `group`.
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

/// What the groups of a panel say about their steps and offsets: the slope and the curvature of the error.
struct Moves {
    /// Slopes along steps, then along offsets.
    slope: [f32; 2 * GROUPS],
    curve: [[f32; 2 * GROUPS]; 2 * GROUPS],
    /// How far each has been moved.
    moved: [f32; 2 * GROUPS],
}

impl Moves {
    /// How the error changes when step or offset `i` moves by `by`.
    #[inline(always)]
    fn cost(&self, i: usize, by: f32) -> f32 {
        by * (2.0 * self.slope[i] + by * self.curve[i][i])
    }

    #[inline(always)]
    fn go(&mut self, i: usize, by: f32, count: usize) {
        self.moved[i] += by;
        for k in 0..count {
            self.slope[k] += by * self.curve[i][k];
        }
    }
}

/// Makes the error of one row's panel less: first its codes one by one, then its scales, `rounds` times. `gradient` is
/// (q − w)·H at the panel's columns, for the row as it is, and is kept so. `values` are what the codes mean. Gives
/// whether anything changed.
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

/// Takes each code to where it is best while the others stay.
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
                // What lies halfway may round to the worse side.
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

/// Takes scales and mins to neighbours, and d and m to where they are best, while codes stay.
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

    // Along a step, a weight moves by its level; along an offset, by one.
    let mut along = [0f32; 256];
    for (b, part) in parts.iter().enumerate() {
        for j in 0..shape.weights {
            along[b * shape.weights + j] = levels.value(part.codes[j]);
        }
    }
    let along = &along[..width];
    let mut moves =
        Moves { slope: [0.0; 2 * GROUPS], curve: [[0.0; 2 * GROUPS]; 2 * GROUPS], moved: [0.0; 2 * GROUPS] };
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
            moves.curve[g][to] = with;
            if offsets {
                moves.curve[g][count + to] = sum;
                moves.curve[count + to][g] = sum;
            }
        }
        let sums = &panel.sums[g * width..(g + 1) * width];
        let (mut slope, mut total) = (0.0, 0.0);
        for k in g * group..(g + 1) * group {
            slope += gradient[k] * along[k];
            total += gradient[k];
        }
        moves.slope[g] = slope;
        if offsets {
            moves.slope[count + g] = total;
            for to in 0..count {
                let mut sum = 0.0;
                for k in to * group..(to + 1) * group {
                    sum += sums[k];
                }
                moves.curve[count + g][count + to] = sum;
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
                    changed |= neighbour(&mut moves, i, n, &mut part.scales[g], (least, most), |s| {
                        grid.step(part.d, s) - now
                    });
                }
                if let Some([least, most]) = shape.mins {
                    let now = grid.offset(part.m, part.mins[g]);
                    changed |= neighbour(&mut moves, count + i, n, &mut part.mins[g], (least, most), |m| {
                        grid.offset(part.m, m) - now
                    });
                }
            }
            if shape.free {
                let d = part.d;
                changed |= half(&mut moves, b * per..(b + 1) * per, n, &mut part.d, |g, to| {
                    grid.step(to, part.scales[g]) - grid.step(d, part.scales[g])
                });
                if offsets {
                    let m = part.m;
                    let at = count + b * per..count + (b + 1) * per;
                    changed |= half(&mut moves, at, n, &mut part.m, |g, to| {
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
            if moves.moved[i] == 0.0 && !(offsets && moves.moved[count + i] != 0.0) {
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

/// One more or one less, if that is better. `by` is how far the step or offset moves.
#[inline(always)]
fn neighbour(
    moves: &mut Moves,
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
        let cost = moves.cost(i, by);
        if cost < best {
            (best, to) = (cost, Some((s, by)));
        }
    }
    let Some((s, by)) = to else { return false };
    *at = s;
    moves.go(i, by, count);
    true
}

/// The half that is best for all groups that it scales, or its neighbour. `by` is how far the step or offset of a
/// group moves.
#[inline(always)]
fn half(
    moves: &mut Moves,
    groups: std::ops::Range<usize>,
    count: usize,
    at: &mut f32,
    by: impl Fn(usize, f32) -> f32,
) -> bool {
    // The slope and the curvature along it; steps and offsets are linear in it but for rounding.
    let (mut slope, mut curve) = (0.0, 0.0);
    let mut unit = [0f32; GROUPS];
    for g in 0..groups.len() {
        unit[g] = by(g, *at + 1.0) - by(g, *at);
    }
    for (g, i) in groups.clone().enumerate() {
        slope += unit[g] * moves.slope[i];
        for (h, k) in groups.clone().enumerate() {
            curve += unit[g] * unit[h] * moves.curve[i][k];
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
                with += far[h] * moves.curve[i][k];
            }
            cost += far[g] * (2.0 * moves.slope[i] + with);
        }
        if cost < best {
            (best, to) = (cost, Some((d, far)));
        }
    }
    let Some((d, far)) = to else { return false };
    for (g, i) in groups.enumerate() {
        moves.go(i, far[g], count);
    }
    *at = d;
    true
}

#[cfg(test)]
mod tests;
