//! Which points are asked for: the nearest ones with the scales of a trial, and, where the parity of signs does not allow all of
//! eight weights to keep theirs, those with one sign flipped.
//!
//! Both are made of the same queries, so that the search for the nearest point, which is much code, is called in one place.

use super::fit::Lattice;
use super::nearest::{HalfCosts, LANES, Lanes};
use super::points::{Code, Trial, shifts, values};
use super::sample::{Sample, Signs};

/// Eight vectors whose nearest points are asked for, in lanes, each with its step and its shift.
pub(super) struct Query<'a, const D: usize> {
    pub x: &'a [Lanes; D],
    pub w: &'a [Lanes; D],
    pub steps: Lanes,
    pub shift: Lanes,
}

/// The vectors of a super-block in batches of eight: row batch · D + j has coordinate j of the batch's vectors.
pub(super) type Columns = [Lanes; 32];

/// The targets and the importances of a sample, by columns.
#[inline(always)]
pub(super) fn columns<const D: usize>(of: &[f32; 256]) -> Columns {
    let mut columns = [[0.0; LANES]; 32];
    for at in (0..256).step_by(D) {
        let (batch, l) = (at / (D * LANES), at / D % LANES);
        for j in 0..D {
            columns[batch * D + j][l] = of[at + j];
        }
    }
    columns
}

/// The largest number of queries in a turn: of two vectors in [`Flips`], of sixteen pairs, two parts each.
const QUERIES: usize = 32;

/// The nearest points of queries and their costs.
pub(super) struct Answers {
    cost: [Lanes; QUERIES],
    points: [[u16; LANES]; QUERIES],
}

impl Answers {
    pub(super) const NONE: Self = Self { cost: [[0.0; LANES]; QUERIES], points: [[0; LANES]; QUERIES] };

    /// Answers query number `q`.
    #[inline(always)]
    pub(super) fn ask<const D: usize, const L: usize, T: Lattice<D, L>>(
        &mut self,
        q: usize,
        query: &Query<'_, D>,
        halves: &mut HalfCosts,
    ) {
        halves.fill(query.x, query.w, &values::<D, L, T>(&query.steps, &query.shift));
        (self.cost[q], self.points[q]) = halves.nearest(T::WALK);
    }
}

/// The number of batches of eight vectors of `d` weights in a super-block.
pub(super) const fn batches(d: usize) -> usize {
    256 / d / LANES
}

/// Query number `q` of those for the scales of a trial: first all vectors with the first shift, then with the second. With
/// `keep`, points are shifted as in `code`.
#[inline(always)]
pub(super) fn assign<'a, const D: usize, const L: usize, T: Lattice<D, L>>(
    (x, w): (&'a Columns, &'a Columns),
    trial: &Trial,
    keep: bool,
    code: &Code,
    q: usize,
) -> Query<'a, D> {
    let (side, batch) = (q / batches(D), q % batches(D));
    let (mut steps, mut shift) = ([0.0; LANES], [shifts(T::SIGNS)[side]; LANES]);
    for l in 0..LANES {
        let at = (batch * LANES + l) * D;
        steps[l] = trial.d * T::UNIT * f32::from(2 * trial.scales[at / T::GROUP] + 1);
        if keep && code.down[at / 8] {
            shift[l] = -shift[l];
        }
    }
    Query { x: &x.as_chunks().0[batch], w: &w.as_chunks().0[batch], steps, shift }
}

/// Takes the points that [`assign`] asked for, of `sides` shifts the better one. Returns their cost.
#[inline(always)]
pub(super) fn take<const D: usize, const L: usize, T: Lattice<D, L>>(
    answers: &Answers,
    sides: usize,
    code: &mut Code,
) -> f32 {
    let (cost, points) = (answers.cost.as_flattened(), answers.points.as_flattened());
    code.points[..256 / D].copy_from_slice(&points[..256 / D]);
    let mut total = 0.0;
    if sides == 1 {
        for v in 0..256 / D {
            total += cost[v];
        }
        return total;
    }
    let together = if T::SIGNS == Signs::Group { T::GROUP / 8 } else { 1 };
    for first in (0..32).step_by(together) {
        let mut sum = [0.0; 2];
        for v in first..first + together {
            sum[0] += cost[v];
            sum[1] += cost[256 / D + v];
        }
        let down = sum[1] < sum[0];
        total += sum[usize::from(down)];
        for v in first..first + together {
            code.down[v] = down;
            code.points[v] = points[usize::from(down) * (256 / D) + v];
        }
    }
    total
}

/// How many of eight weights are tried with the opposite sign.
const FLIPS: usize = 4;

/// The vectors of eight weights whose signs have the wrong parity, so that one weight must be flipped. Tried are the weights
/// whose flipping costs least with the present points.
pub(super) struct Flips {
    /// The vectors.
    eights: [u8; 32],
    count: usize,
    /// The weights that are tried, four for each vector.
    weights: [[u8; FLIPS]; 32],
    /// The step of each vector.
    steps: [f32; 32],
}

impl Flips {
    pub(super) const NONE: Self =
        Self { eights: [0; 32], count: 0, weights: [[0; FLIPS]; 32], steps: [0.0; 32] };

    #[inline(always)]
    pub(super) fn of<const D: usize, const L: usize, T: Lattice<D, L>>(s: &Sample, code: &Code) -> Self {
        let mut flips = Self::NONE;
        for v in 0..32 {
            if !s.odd[v] {
                continue;
            }
            let mut price = [0.0; 8];
            for part in 0..8 / D {
                let point = &T::POINTS[usize::from(code.points[8 / D * v + part])];
                for j in 0..D {
                    let at = 8 * v + D * part + j;
                    price[D * part + j] = s.w[at] * s.x[at].abs() * f32::from(point[j]);
                }
            }
            let i = flips.count;
            for weight in &mut flips.weights[i] {
                let mut least = 0;
                for j in 1..8 {
                    least = if price[j] < price[least] { j } else { least };
                }
                price[least] = f32::INFINITY;
                *weight = least as u8;
            }
            flips.eights[i] = v as u8;
            flips.steps[i] = code.d * T::UNIT * f32::from(2 * code.scales[8 * v / T::GROUP] + 1);
            flips.count += 1;
        }
        flips
    }

    /// The number of queries: for each pair of vectors one for each of their parts.
    #[inline(always)]
    pub(super) fn queries<const D: usize>(&self) -> usize {
        self.count.div_ceil(LANES / FLIPS) * (8 / D)
    }

    /// Query number `q`, whose columns are put into `x` and `w`. Lane l has weight `weights[l / FLIPS][l % FLIPS]` of its vector
    /// flipped; if there is no second vector, its lanes are not looked at.
    #[inline(always)]
    pub(super) fn query<'a, const D: usize>(
        &self,
        s: &Sample,
        q: usize,
        x: &'a mut [Lanes; D],
        w: &'a mut [Lanes; D],
    ) -> Query<'a, D> {
        let (first, part) = (q / (8 / D) * (LANES / FLIPS), q % (8 / D));
        let mut steps = [0.0; LANES];
        for l in 0..LANES {
            let i = first + l / FLIPS;
            steps[l] = self.steps[i];
            for j in 0..D {
                let weight = D * part + j;
                let at = 8 * usize::from(self.eights[i]) + weight;
                let size = s.x[at].abs();
                x[j][l] = if usize::from(self.weights[i][l % FLIPS]) == weight { -size } else { size };
                w[j][l] = s.w[at];
            }
        }
        Query { x, w, steps, shift: [0.0; LANES] }
    }

    /// Takes the flips that cost least, and the points that belong to them.
    #[inline(always)]
    pub(super) fn take<const D: usize>(&self, s: &Sample, answers: &Answers, code: &mut Code) {
        for i in 0..self.count {
            let v = usize::from(self.eights[i]);
            let (first, lanes) = (i / (LANES / FLIPS) * (8 / D), i % (LANES / FLIPS) * FLIPS);
            let mut cost = [0.0; FLIPS];
            for part in 0..8 / D {
                for f in 0..FLIPS {
                    cost[f] += answers.cost[first + part][lanes + f];
                }
            }
            let mut least = 0;
            for f in 1..FLIPS {
                least = if cost[f] < cost[least] { f } else { least };
            }
            let mut natural = code.signs[v];
            for j in 0..8 {
                natural ^= u8::from(s.x[8 * v + j].is_sign_negative()) << j;
            }
            code.signs[v] = natural ^ 1 << self.weights[i][least];
            for part in 0..8 / D {
                code.points[8 / D * v + part] = answers.points[first + part][lanes + least];
            }
        }
    }
}
