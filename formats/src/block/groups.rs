//! Eight groups of weights side by side: the sums that searches for the scales of groups are made of.
//!
//! Each lane holds a group, and each row one weight of every group, so that no sum crosses lanes and every instruction set
//! gives the same bits. [`super::search`] explains why bodies are plain loops and sums pass through memory.

use std::hint::{black_box, select_unpredictable};

/// The number of groups side by side.
pub(super) const LANES: usize = 8;

/// One number for each group.
pub(super) type Row = [f32; LANES];

/// Adding this number, 1.5·2²³, rounds an f32 to the nearest integer, ties to even, in its lowest bits.
const TO_INTEGER: f32 = 12_582_912.0;

/// Unlike `f32::clamp`, this compiles to one minimum and one maximum.
#[inline(always)]
pub(super) fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < hi { v } else { hi };
    if v > lo { v } else { lo }
}

/// The nearest integer, ties to even; for magnitudes below 2^22.
#[inline(always)]
pub(super) fn nearest(v: f32) -> f32 {
    v + TO_INTEGER - TO_INTEGER
}

/// The levels of a type's codes, before scaling.
pub(super) trait Levels {
    /// The smallest level.
    const LO: f32;
    /// The largest level.
    const HI: f32;
    /// The level nearest to `v`.
    fn level(v: f32) -> f32;
    /// The code of the level nearest to `v`.
    fn code(v: f32) -> u8;
}

/// The integers from `A` to `B`, with codes from zero.
pub(super) struct Integers<const A: i16, const B: i16>;

impl<const A: i16, const B: i16> Levels for Integers<A, B> {
    const LO: f32 = A as f32;
    const HI: f32 = B as f32;

    #[inline(always)]
    fn level(v: f32) -> f32 {
        nearest(clamp(v, Self::LO, Self::HI))
    }

    #[inline(always)]
    fn code(v: f32) -> u8 {
        let q = clamp(v, Self::LO, Self::HI) + TO_INTEGER;
        q.to_bits().wrapping_sub((Self::LO + TO_INTEGER).to_bits()) as u8
    }
}

/// Eight groups of `N` weights and their importances: all 1 where none are given. A separate search for
/// weights without importances would be as much code again, and save a few hundredths of the time.
pub(super) struct Groups<const N: usize> {
    pub x: [Row; N],
    pub w: [Row; N],
}

/// 1 / s, and 0 for 0.
#[inline(always)]
pub(super) fn inverse(s: &Row) -> Row {
    let mut inverse = [0.0; LANES];
    for l in 0..LANES {
        let one = 1.0 / s[l];
        inverse[l] = if s[l] == 0.0 { 0.0 } else { one };
    }
    inverse
}

impl<const N: usize> Groups<N> {
    /// Zeros of equal importance.
    pub(super) const EMPTY: Self = Self { x: [[0.0; LANES]; N], w: [[1.0; LANES]; N] };

    /// The weight of largest magnitude among those of nonzero importance; of two, the positive one.
    #[inline(always)]
    pub(super) fn peaks(&self) -> Row {
        // Keys with the sign in the lowest bit, so that they are ordered by magnitude.
        let mut top = [0u32; LANES];
        for j in 0..N {
            for l in 0..LANES {
                let key = self.x[j][l].to_bits().rotate_left(1) ^ 1;
                let key = if self.w[j][l] == 0.0 { 0 } else { key };
                top[l] = if key > top[l] { key } else { top[l] };
            }
        }
        let top = black_box(top);
        let mut peaks = [0.0; LANES];
        for l in 0..LANES {
            peaks[l] = if top[l] < 2 { 0.0 } else { f32::from_bits((top[l] ^ 1).rotate_right(1)) };
        }
        peaks
    }

    /// Rounds with the scales whose inverses are given, and returns Σwxq and Σwqq. The best scale for these levels is their
    /// quotient; the error is then Σwxx − (Σwxq)² / Σwqq.
    #[inline(always)]
    pub(super) fn project<L: Levels>(&self, inverse: &Row) -> (Row, Row) {
        let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
        for j in 0..N {
            for l in 0..LANES {
                let q = L::level(self.x[j][l] * inverse[l]);
                let wq = self.w[j][l] * q;
                xq[l] += self.x[j][l] * wq;
                qq[l] += wq * q;
            }
        }
        black_box((xq, qq))
    }

    /// Σw(x − s·q)² with the nearest levels.
    #[inline(always)]
    pub(super) fn error<L: Levels>(&self, s: &Row) -> Row {
        let inverse = inverse(s);
        let mut error = [0.0; LANES];
        for j in 0..N {
            for l in 0..LANES {
                let r = self.x[j][l] - s[l] * L::level(self.x[j][l] * inverse[l]);
                error[l] += self.w[j][l] * r * r;
            }
        }
        black_box(error)
    }

    /// The codes of (x − o)·inverse, each group's together.
    #[inline(always)]
    pub(super) fn codes<L: Levels>(&self, inverse: &Row, o: &Row) -> [[u8; N]; LANES] {
        // By rows first, which becomes vector code; transposing bytes is cheap.
        let mut rows = [[0u8; LANES]; N];
        for j in 0..N {
            for l in 0..LANES {
                rows[j][l] = L::code((self.x[j][l] - o[l]) * inverse[l]);
            }
        }
        let rows = black_box(rows);
        let mut codes = [[0u8; N]; LANES];
        for l in 0..LANES {
            for j in 0..N {
                codes[l][j] = rows[j][l];
            }
        }
        codes
    }

    /// The best scale of each group by itself: starting from scales that map the peak to one of `places` (levels), then
    /// rounding and fitting alternately. Returns the scales and their Σwqq.
    #[inline(always)]
    pub(super) fn free_scales<L: Levels>(&self, places: &[f32], rounds: usize) -> (Row, Row) {
        let peaks = self.peaks();
        let per_peak = inverse(&peaks);
        let (mut saved, mut s, mut weight) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for l in 0..LANES {
            s[l] = peaks[l] / L::LO;
        }
        // The scale of plain rounding comes first: if it is exact, others must not replace it by rounding errors of the sums.
        for i in 0..1 + places.len() + rounds {
            let mut start = inverse(&s);
            if i > 0 && i <= places.len() {
                for l in 0..LANES {
                    start[l] = places[i - 1] * per_peak[l];
                }
            }
            let (xq, qq) = self.project::<L>(&start);
            for l in 0..LANES {
                let fit = xq[l] / (qq[l] + f32::MIN_POSITIVE);
                let gain = xq[l] * fit;
                let better = gain > saved[l] * (1.0 + 1e-6);
                saved[l] = select_unpredictable(better, gain, saved[l]);
                s[l] = select_unpredictable(better, fit, s[l]);
                weight[l] = select_unpredictable(better, qq[l], weight[l]);
            }
        }
        (s, weight)
    }
}
