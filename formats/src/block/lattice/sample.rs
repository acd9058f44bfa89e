//! A super-block in the form in which it is searched.

use super::nearest::{LANES, Lanes};
use crate::block::{f16_to_f32, f32_to_f16};

/// The smallest IEEE half above zero.
const HALF_MIN: f32 = 1.0 / 16_777_216.0;

/// The largest finite IEEE half.
const HALF_MAX: f32 = 65504.0;

/// Weights are clipped to this, which no type can represent and whose square is finite.
const FAR: f32 = (1 << 30) as f32;

/// How a type stores signs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signs {
    /// One bit for each weight.
    Free,
    /// One bit for each of seven weights; the eighth sign makes the number of minus signs even.
    Even,
    /// In the points, which are shifted up or down by an eighth, all points of a group together.
    Group,
    /// The same, for each point by itself.
    Vector,
}

/// Unlike `f32::clamp`, this compiles to one minimum and one maximum.
#[inline(always)]
pub(super) fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < hi { v } else { hi };
    if v > lo { v } else { lo }
}

/// The scale as it is stored: the nearest IEEE half that is neither zero nor infinite.
#[inline(always)]
pub(super) fn stored(d: f32) -> f32 {
    f16_to_f32(f32_to_f16(clamp(d, HALF_MIN, HALF_MAX)))
}

/// A super-block in the form in which it is searched.
pub(super) struct Sample {
    /// The targets of points: magnitudes where signs are stored, of which one is negative if the number of minus signs would be
    /// odd.
    pub x: [f32; 256],
    /// The importance of each: at most 2, and not all zero.
    pub w: [f32; 256],
    /// The signs that belong to `x`.
    pub signs: [u8; 32],
    /// Whether one of eight weights has the opposite sign, for parity.
    pub odd: [bool; 32],
}

impl Sample {
    /// Not inlined, and so compiled with the target's plain instructions, once for all types: it takes a hundredth of the search.
    #[inline(never)]
    pub(super) fn new(weights: &[f32; 256], importance: Option<&[f32; 256]>, signs: Signs) -> Self {
        let mut s = Self { x: [0.0; 256], w: [1.0; 256], signs: [0; 32], odd: [false; 32] };
        for j in 0..256 {
            s.x[j] = clamp(weights[j], -FAR, FAR);
        }
        if let Some(importance) = importance {
            let mut top = 0;
            for j in 0..256 {
                top = top.max(importance[j].to_bits() & 0x7FFF_FFFF);
            }
            if top > 0 {
                // Multiplied by a power of two: that is exact, and sums of squares stay in range.
                let unit = f32::from_bits((254 << 23) - (top & 0x7F80_0000).min(253 << 23));
                for j in 0..256 {
                    s.w[j] = importance[j].abs() * unit;
                }
            }
        }
        if matches!(signs, Signs::Free | Signs::Even) {
            s.take_signs(signs == Signs::Even);
        }
        s
    }

    #[inline(always)]
    fn take_signs(&mut self, even: bool) {
        for v in 0..32 {
            let mut bits = 0;
            for j in 0..8 {
                bits |= u8::from(self.x[8 * v + j] < 0.0) << j;
                self.x[8 * v + j] = self.x[8 * v + j].abs();
            }
            if even && bits.count_ones() % 2 == 1 {
                let mut least = 0;
                let mut cost = f32::INFINITY;
                for j in 0..8 {
                    let c = self.w[8 * v + j] * self.x[8 * v + j];
                    if c < cost {
                        (cost, least) = (c, j);
                    }
                }
                bits ^= 1 << least;
                self.x[8 * v + least] = -self.x[8 * v + least];
                self.odd[v] = true;
            }
            self.signs[v] = bits;
        }
    }

    /// Σ w·x² and Σ w of a group.
    #[inline(always)]
    pub(super) fn energy(&self, at: usize, n: usize) -> (f32, f32) {
        let (mut energy, mut total) = ([0.0; 8], [0.0; 8]);
        for i in 0..n / 8 {
            for l in 0..8 {
                let (x, w) = (self.x[at + 8 * i + l], self.w[at + 8 * i + l]);
                energy[l] += w * (x * x);
                total[l] += w;
            }
        }
        (add(&energy), add(&total))
    }
}

#[inline(always)]
pub(super) fn add(lanes: &Lanes) -> f32 {
    let mut sum = 0.0;
    for l in 0..LANES {
        sum += lanes[l];
    }
    sum
}
