//! The exact nearest point of a lattice, for eight questions side by side.
//!
//! What a point costs is the sum of what its two halves cost, and there are few different halves (81 or 64): their
//! costs are tables, which the search over all points adds up. A question is a vector of weights and a step; lanes
//! hold one vector under eight steps, or eight vectors. No sum crosses lanes, so every instruction set gives the
//! same bits.

use std::hint::black_box;

use super::grid::Walk;

/// Questions side by side.
pub(super) const LANES: usize = 8;

/// A number for each question.
pub(super) type Lanes = [f32; LANES];

/// What each half of a point costs in each lane. There are fewer halves, but every byte is an index.
pub(super) struct Halves {
    first: [Lanes; 256],
    second: [Lanes; 256],
}

/// The less of two, in one instruction.
#[inline(always)]
fn less(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// All sums of one of the `A` numbers and one of the `B`. The outer loop's end is hidden, or the compiler would write
/// all rounds out, in every search anew.
#[inline(always)]
fn sums<const A: usize, const B: usize>(a: &[Lanes; A], b: &[Lanes; B], out: &mut [Lanes]) {
    for (a, out) in a.iter().zip(out.as_chunks_mut::<B>().0).take(black_box(A)) {
        for j in 0..B {
            // All eight before the first is stored, which might be one of theirs for all that the compiler knows.
            let mut sum = [0.0; LANES];
            for l in 0..LANES {
                sum[l] = a[l] + b[j][l];
            }
            out[j] = sum;
        }
    }
}

impl Halves {
    pub(super) const NEW: Self = Self { first: [[0.0; LANES]; 256], second: [[0.0; LANES]; 256] };

    /// Costs Σ w·(x − value)² of all halves, for `D` coordinates of `L` values.
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

    /// What the nearest point costs in each lane.
    #[inline(always)]
    pub(super) fn least(&self, walk: &Walk) -> Lanes {
        let mut best = [f32::INFINITY; LANES];
        for q in walk.halves {
            let first = &self.first[usize::from(q[0])];
            let [a, b, c, d] = self.seconds(q);
            for l in 0..LANES {
                let second = less(less(a[l], b[l]), less(c[l], d[l]));
                best[l] = less(first[l] + second, best[l]);
            }
        }
        black_box(best)
    }

    /// The nearest point and what it costs. Of points that differ in cost by less than a ten-thousandth, either may be
    /// taken.
    #[inline(always)]
    pub(super) fn nearest(&self, walk: &Walk) -> (Lanes, [u16; LANES]) {
        // The bits of numbers that are not negative are in the order of the numbers; the lowest of them make room.
        const ROOM: i32 = 1023;
        let mut best = [i32::MAX; LANES];
        for (i, q) in walk.halves.iter().enumerate() {
            // Hidden, or the compiler would take one lane of eight quads at a time.
            let i = black_box(i as i32);
            let first = &self.first[usize::from(q[0])];
            let [a, b, c, d] = self.seconds(q);
            for l in 0..LANES {
                let cost = first[l] + less(less(a[l], b[l]), less(c[l], d[l]));
                let key = cost.to_bits() as i32 & !ROOM | i;
                best[l] = best[l].min(key);
            }
        }
        let best = black_box(best);
        let (mut costs, mut points) = ([0.0; LANES], [0; LANES]);
        for l in 0..LANES {
            let q = (best[l] & ROOM) as usize;
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
