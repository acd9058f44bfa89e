//! The exact nearest point of a grid, for eight queries side by side.
//!
//! The cost of a point is the sum of the costs of its two halves, and there are few different halves (81 or 64). Their costs
//! are tables, from which the search adds up those of all points. A query is a vector of weights and a step; lanes hold one
//! vector with eight steps, or eight vectors. No sum crosses lanes, so every instruction set gives the same bits.

use std::hint::black_box;

use super::grid::QuadList;

/// The number of queries side by side.
pub(super) const LANES: usize = 8;

/// A number for each query.
pub(super) type Lanes = [f32; LANES];

/// The cost of each half of a point in each lane. There are fewer halves than 256, but with these sizes every byte is a valid
/// index.
pub(super) struct HalfCosts {
    first: [Lanes; 256],
    second: [Lanes; 256],
}

/// The smaller of two, in one instruction.
#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// All sums of one of `A` numbers and one of `B`. The end of the outer loop is hidden: otherwise the compiler would unroll it,
/// in every search again.
#[inline(always)]
fn sums<const A: usize, const B: usize>(a: &[Lanes; A], b: &[Lanes; B], out: &mut [Lanes]) {
    for (a, out) in a.iter().zip(out.as_chunks_mut::<B>().0).take(black_box(A)) {
        for j in 0..B {
            // All eight are computed before the first is stored: for the compiler, `out` might alias `a` or `b`.
            let mut sum = [0.0; LANES];
            for l in 0..LANES {
                sum[l] = a[l] + b[j][l];
            }
            out[j] = sum;
        }
    }
}

impl HalfCosts {
    pub(super) const NEW: Self = Self { first: [[0.0; LANES]; 256], second: [[0.0; LANES]; 256] };

    /// Computes the costs Σ w·(x − value)² of all halves, for `D` coordinates with `L` values.
    #[inline(always)]
    pub(super) fn fill<const D: usize, const L: usize>(
        &mut self,
        x: &[Lanes; D],
        w: &[Lanes; D],
        values: &[Lanes; L],
    ) {
        for (side, out) in [&mut self.first, &mut self.second].into_iter().enumerate() {
            let mut cost = [[[0.0; LANES]; L]; 4];
            for j in 0..D / 2 {
                let (x, w) = (&x[side * (D / 2) + j], &w[side * (D / 2) + j]);
                for (cost, value) in cost[j].iter_mut().zip(values) {
                    for l in 0..LANES {
                        let r = x[l] - value[l];
                        cost[l] = w[l] * (r * r);
                    }
                }
            }
            if D == 8 {
                let (mut a, mut b) = ([[0.0; LANES]; 9], [[0.0; LANES]; 9]);
                sums(&cost[0], &cost[1], &mut a);
                sums(&cost[2], &cost[3], &mut b);
                sums(&a, &b, out);
            } else {
                sums(&cost[0], &cost[1], out);
            }
        }
    }

    /// The cost of the nearest point in each lane.
    #[inline(always)]
    pub(super) fn least(&self, walk: &QuadList) -> Lanes {
        let mut best = [f32::INFINITY; LANES];
        for q in walk.halves {
            let first = &self.first[usize::from(q[0])];
            let [a, b, c, d] = self.seconds(q);
            for l in 0..LANES {
                let second = min(min(a[l], b[l]), min(c[l], d[l]));
                best[l] = min(first[l] + second, best[l]);
            }
        }
        black_box(best)
    }

    /// The cost and the index of the nearest point. Of points whose costs differ by less than a ten-thousandth, either may be
    /// chosen.
    #[inline(always)]
    pub(super) fn nearest(&self, walk: &QuadList) -> (Lanes, [u16; LANES]) {
        // The bits of non-negative floats are in the order of the floats. The lowest ones are replaced by an index.
        const INDEX_BITS: i32 = 1023;
        let mut best = [i32::MAX; LANES];
        for (i, q) in walk.halves.iter().enumerate() {
            // Hidden: otherwise the compiler would vectorize over quads instead of lanes.
            let i = black_box(i as i32);
            let first = &self.first[usize::from(q[0])];
            let [a, b, c, d] = self.seconds(q);
            for l in 0..LANES {
                let cost = first[l] + min(min(a[l], b[l]), min(c[l], d[l]));
                let key = cost.to_bits() as i32 & !INDEX_BITS | i;
                best[l] = best[l].min(key);
            }
        }
        let best = black_box(best);
        let (mut costs, mut points) = ([0.0; LANES], [0; LANES]);
        for l in 0..LANES {
            let q = (best[l] & INDEX_BITS) as usize;
            let seconds = self.seconds(&walk.halves[q]);
            let mut k = 0;
            for other in 1..4 {
                k = if seconds[other][l] < seconds[k][l] { other } else { k };
            }
            costs[l] = self.first[usize::from(walk.halves[q][0])][l] + seconds[k][l];
            points[l] = walk.points[q][k];
        }
        (costs, points)
    }

    #[inline(always)]
    fn seconds(&self, q: &[u8; 5]) -> [&Lanes; 4] {
        [
            &self.second[usize::from(q[1])],
            &self.second[usize::from(q[2])],
            &self.second[usize::from(q[3])],
            &self.second[usize::from(q[4])],
        ]
    }
}
