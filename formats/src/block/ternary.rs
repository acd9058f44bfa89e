//! Ternary types: blocks of 256 weights that are −d, 0 or d. Layouts: `block_tq1_0` and `block_tq2_0` in ggml.

use std::hint::black_box;

use super::groups::{Integers, Levels, Row, clamp};
use super::layout::{half, pack_half, pack_pairs};
use super::scaled::{top, total, unit};
use super::search::{HALF_MIN, stored_scale};
use super::{Block, Effort, f16_to_f32, f32_to_f16};

type Trits = Integers<-1, 1>;

/// The number of weights side by side.
const LANES: usize = 8;

/// A block in the form in which it is searched: magnitudes and importances.
struct Magnitudes {
    x: [Row; 32],
    w: [Row; 32],
}

impl Magnitudes {
    /// Σw|x| and Σw over the magnitudes above a threshold. Representing these by their mean lowers the error by
    /// (Σw|x|)² / Σw.
    #[inline(always)]
    fn beyond<const W: bool>(&self, threshold: f32) -> (f32, f32) {
        let (mut sum, mut count) = ([0.0; LANES], [0.0; LANES]);
        for j in 0..32 {
            for l in 0..LANES {
                let (x, w) = (self.x[j][l], if W { self.w[j][l] } else { 1.0 });
                let wx = w * x;
                let mask = u32::from(x > threshold).wrapping_neg();
                sum[l] += f32::from_bits(wx.to_bits() & mask);
                count[l] += f32::from_bits(w.to_bits() & mask);
            }
        }
        let (sum, count) = black_box((sum, count));
        (total(&sum), total(&count))
    }

    /// Σw(|x| − d·t)².
    #[inline(always)]
    fn error<const W: bool>(&self, d: f32) -> f32 {
        let inverse = 1.0 / d;
        let mut error = [0.0; LANES];
        for j in 0..32 {
            for l in 0..LANES {
                let r = self.x[j][l] - d * Trits::level(self.x[j][l] * inverse);
                error[l] += if W { self.w[j][l] * r * r } else { r * r };
            }
        }
        total(&black_box(error))
    }
}

/// The first thresholds, relative to the mean magnitude.
const THRESHOLDS: [f32; 8] = [0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.25, 1.6];

/// The scale to store. A weight is not zero if its magnitude is above d / 2, and the best d is the mean of those magnitudes. The
/// search alternates between the two, from several thresholds.
#[inline(always)]
fn fit(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort) -> f32 {
    match w {
        Some(w) if counts(x, w) => search::<true>(x, w, effort),
        // Without importances to load and to multiply by, it takes three quarters of the time.
        _ => search::<false>(x, &[1.0; 256], effort),
    }
}

/// Whether any nonzero weight has a nonzero importance.
#[inline(always)]
fn counts(x: &[f32; 256], w: &[f32; 256]) -> bool {
    let mut any = [false; 256];
    for j in 0..256 {
        any[j] = (x[j] != 0.0) & (w[j] > 0.0);
    }
    any.iter().any(|any| *any)
}

#[inline(always)]
fn search<const W: bool>(x: &[f32; 256], w: &[f32; 256], effort: Effort) -> f32 {
    let largest = top(x);
    if largest <= HALF_MIN / 2.0 {
        return 0.0;
    }
    // Multiplied by powers of two: that is exact, and squares stay in range.
    let (unit, per) = (unit(largest), unit(top(w)));
    let mut block = Magnitudes { x: [[0.0; LANES]; 32], w: [[0.0; LANES]; 32] };
    for j in 0..32 {
        for l in 0..LANES {
            block.x[j][l] = clamp(x[LANES * j + l].abs() * unit, 0.0, 2.0);
            block.w[j][l] = clamp(w[LANES * j + l] * per, 0.0, 2.0);
        }
    }

    let (sum, count) = block.beyond::<W>(-1.0);
    let mean = sum / count;
    let most = largest * unit;
    let (mut saved, mut d) = (0.0, most);
    let mut offer = |threshold: f32, d: &mut f32| {
        let (sum, count) = block.beyond::<W>(threshold);
        let gain = sum * sum / (count + f32::MIN_POSITIVE);
        if gain > saved * (1.0 + 1e-6) {
            (saved, *d) = (gain, sum / count);
        }
    };
    offer(0.5 * most, &mut d);
    let (thresholds, turns) = match effort {
        Effort::Fast => (&THRESHOLDS[3..4], 1),
        Effort::Normal => (&THRESHOLDS[..], 2),
        Effort::Thorough => (&THRESHOLDS[..], 8),
    };
    for threshold in thresholds {
        offer(threshold * mean, &mut d);
    }
    for _ in 0..turns {
        offer(0.5 * d, &mut d);
    }

    // Near zero halves are coarse, and the nearest need not be the best.
    let best = stored_scale(d / unit);
    let usual = stored_scale(largest);
    let mut found = (block.error::<W>(best * unit), best);
    let near = |step: i32| stored_scale(f16_to_f32((i32::from(f32_to_f16(best)) + step) as u16));
    let coarse = best < 256.0 * HALF_MIN;
    for other in [usual, near(-1), near(1)] {
        if other == usual || coarse {
            let error = block.error::<W>(other * unit);
            // If all magnitudes are equal, plain rounding is exact, while the mean may have a rounding error.
            if error < found.0 || error == found.0 && other == usual {
                found = (error, other);
            }
        }
    }
    found.1
}

/// The nearest trits, as 0, 1 and 2.
#[inline(always)]
fn round(x: &[f32; 256], d: f32) -> [u8; 256] {
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut trits = [0; 256];
    for j in 0..256 {
        trits[j] = Trits::code(x[j] * inverse);
    }
    trits
}

/// 48 bytes of five trits, four bytes of four, d. A byte divided by 256 is a fraction in base 3 whose digits are the trits: x[j] = d · (t[j] − 1). Digit n of byte i is weight 32 · n + i of the first 160 (32 bytes),
/// 160 + 16 · n + i of the next 80 (16 bytes) and 240 + 4 · n + i of the last 16 (4 bytes).
pub struct Tq1_0;

/// The first `DIGITS` digits of bytes: all first ones, then all second ones. Constant bounds make it more than twice as fast.
#[inline(always)]
fn digits<const BYTES: usize, const DIGITS: usize>(bytes: &[u8], trits: &mut [u8]) {
    let mut power = 1u8;
    for n in 0..DIGITS {
        for i in 0..BYTES {
            trits[n * BYTES + i] = ((u16::from(bytes[i].wrapping_mul(power)) * 3) >> 8) as u8;
        }
        power = power.wrapping_mul(3);
    }
}

/// The trits of a block of TQ1_0, as 0, 1 and 2.
#[inline(always)]
pub fn tq1_0_trits(bytes: &[u8; 54], trits: &mut [u8; 256]) {
    digits::<32, 5>(&bytes[..32], &mut trits[..160]);
    digits::<16, 5>(&bytes[32..48], &mut trits[160..240]);
    digits::<4, 4>(&bytes[48..52], &mut trits[240..]);
}

/// The bytes of these digits. There are always five; those beyond `DIGITS` are zero.
#[inline(always)]
fn pack_digits<const BYTES: usize, const DIGITS: usize>(trits: &[u8], bytes: &mut [u8]) {
    for i in 0..BYTES {
        let mut number = 0u16;
        for n in 0..5 {
            number = 3 * number + if n < DIGITS { u16::from(trits[n * BYTES + i]) } else { 0 };
        }
        bytes[i] = (u32::from(number) * 256).div_ceil(243) as u8;
    }
}

impl Block<256, 54> for Tq1_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 54], out: &mut [f32; 256]) {
        let d = half(&bytes[52..]);
        let mut trits = [0; 256];
        tq1_0_trits(bytes, &mut trits);
        for (out, trit) in out.iter_mut().zip(trits) {
            *out = f32::from(i16::from(trit) - 1) * d;
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 54]) {
        let d = fit(x, w, effort);
        Self::lay_out(d, &round(x, d), bytes);
    }
}

impl Tq1_0 {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(d: f32, trits: &[u8; 256], bytes: &mut [u8; 54]) {
        pack_digits::<32, 5>(&trits[..160], &mut bytes[..32]);
        pack_digits::<16, 5>(&trits[160..240], &mut bytes[32..48]);
        pack_digits::<4, 4>(&trits[240..], &mut bytes[48..52]);
        pack_half(d, &mut bytes[52..]);
    }
}

/// 64 bytes of four codes of two bits, d: x[j] = d · (c[j] − 1). Bits 2n of byte 32 · h + i are the code of
/// weight 128 · h + 32 · n + i. The code 3 is decoded as 2d but never
/// written: the type is for ternary weights.
pub struct Tq2_0;

impl Block<256, 66> for Tq2_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 66], out: &mut [f32; 256]) {
        let d = half(&bytes[64..]);
        for h in 0..2 {
            for n in 0..4 {
                for i in 0..32 {
                    let code = bytes[32 * h + i] >> (2 * n) & 3;
                    out[128 * h + 32 * n + i] = f32::from(code as i8 - 1) * d;
                }
            }
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 66]) {
        let d = fit(x, w, effort);
        Self::lay_out(d, &round(x, d), bytes);
    }
}

impl Tq2_0 {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(d: f32, codes: &[u8; 256], bytes: &mut [u8; 66]) {
        pack_pairs(codes, &mut bytes[..64]);
        pack_half(d, &mut bytes[64..]);
    }
}
