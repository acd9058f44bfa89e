//! Codes of four bits for sixteen levels that are denser near zero. Layouts: `block_iq4_nl` and `block_iq4_xs` in ggml.

use super::groups::{Levels, Row};
use super::kquant::SIGNED_SIX_BITS;
use super::layout::{half, nibbles, pack_half, pack_nibbles};
use super::{Block, Effort, Prior};
use super::{scaled, single};

/// The levels of the codes (`kvalues_iq4nl` in ggml).
pub(super) const VALUES: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// Halfway between each level and the next.
const MIDDLES: [f32; 15] = {
    let mut middles = [0.0; 15];
    let mut k = 0;
    while k < 15 {
        middles[k] = 0.5 * (VALUES[k] + VALUES[k + 1]);
        k += 1;
    }
    middles
};

/// The sixteen levels.
pub(super) struct Nonlinear;

impl Levels for Nonlinear {
    const LO: f32 = VALUES[0];
    const HI: f32 = VALUES[15];

    #[inline(always)]
    fn level(v: f32) -> f32 {
        let mut level = VALUES[0];
        for k in 0..15 {
            level += if v > MIDDLES[k] { VALUES[k + 1] - VALUES[k] } else { 0.0 };
        }
        level
    }

    #[inline(always)]
    fn code(v: f32) -> u8 {
        let mut code = 0;
        for k in 0..15 {
            code += u8::from(v > MIDDLES[k]);
        }
        code
    }
}

/// Starting points: levels to which the peak is scaled.
const PEAK_LEVELS: &[f32] = &[
    -136.0, -132.0, -124.0, -120.0, -116.0, -112.0, -107.0, -102.0, -96.0, 130.0, 124.0, 119.0, 115.0, 111.0,
    107.0, 102.0, 96.0, 90.0,
];

/// More of them, for weights of different importance.
const MORE_PEAK_LEVELS: &[f32] = &[
    -160.0, -150.0, -142.0, -136.0, -132.0, -129.0, -124.0, -120.0, -116.0, -112.0, -108.0, -104.0, -100.0,
    -96.0, -91.0, -86.0, 150.0, 140.0, 132.0, 126.0, 122.0, 119.0, 116.0, 113.0, 110.0, 107.0, 104.0, 101.0,
    97.0, 93.0, 88.0, 82.0, 76.0,
];

/// d, q[32]: x[j] = d · value(q[j]); byte j holds q[j] low and q[j + 16] high.
pub struct Iq4Nl;

impl Block<32, 18> for Iq4Nl {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 32]) {
        let d = half(bytes);
        for (x, q) in out.iter_mut().zip(nibbles(&bytes[2..])) {
            *x = d * VALUES[usize::from(q)];
        }
    }

    #[inline(always)]
    fn encode_all(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, effort: Effort, bytes: &mut [[u8; 18]]) {
        single::encode::<Self, 32, 18>(x, w, effort, bytes);
    }
}

impl single::Shape<32, 18> for Iq4Nl {
    type Levels = Nonlinear;
    const PEAK_LEVELS: &'static [f32] = PEAK_LEVELS;
    const MORE_PEAK_LEVELS: &'static [f32] = MORE_PEAK_LEVELS;

    #[inline(always)]
    fn pack(d: f32, q: &[u8; 32], bytes: &mut [u8; 18]) {
        pack_half(d, bytes);
        pack_nibbles(q, &mut bytes[2..]);
    }
}

/// d, eight scales of six bits (two bytes of their upper pairs, four of their nibbles), 128 bytes of codes: groups
/// of 32, each laid out as in [`Iq4Nl`], x = d·(scale − 32)·value(q).
pub struct Iq4Xs;

impl Block<256, 136> for Iq4Xs {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 136], out: &mut [f32; 256]) {
        let d = half(bytes);
        for g in 0..8 {
            let step = d * f32::from(Self::scale(bytes, g));
            let q = nibbles(&bytes[8 + 16 * g..]);
            for j in 0..32 {
                out[32 * g + j] = step * VALUES[usize::from(q[j])];
            }
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 136]) {
        Self::lay_out(&scaled::fit::<Self, 1, 32, 8>(x, w, effort), bytes);
    }
}

impl Iq4Xs {
    /// The scale of a group.
    #[inline(always)]
    pub(super) fn scale(bytes: &[u8; 136], g: usize) -> i8 {
        let high = u16::from_le_bytes([bytes[2], bytes[3]]);
        let scale = bytes[4 + g / 2] >> (4 * (g % 2)) & 15 | ((high >> (2 * g) & 3) as u8) << 4;
        scale as i8 - 32
    }

    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(block: &scaled::Scaled<8>, bytes: &mut [u8; 136]) {
        pack_half(block.d, bytes);
        let (mut high, mut low) = (0u16, [0u8; 4]);
        for g in 0..8 {
            let s = (block.scales[g] + 32) as u8;
            low[g / 2] |= (s & 15) << (4 * (g % 2));
            high |= u16::from(s >> 4) << (2 * g);
            let mut q = [0; 32];
            q.copy_from_slice(&block.codes[32 * g..32 * (g + 1)]);
            pack_nibbles(&q, &mut bytes[8 + 16 * g..]);
        }
        bytes[2..4].copy_from_slice(&high.to_le_bytes());
        bytes[4..8].copy_from_slice(&low);
    }
}

impl scaled::Shape for Iq4Xs {
    type Levels = Nonlinear;
    const MIN_SCALE: f32 = -32.0;
    const MAX_SCALE: f32 = 31.0;
    const PEAK_LEVELS: &'static [f32] = PEAK_LEVELS;
    const MORE_PEAK_LEVELS: &'static [f32] = MORE_PEAK_LEVELS;
    const TOP_SCALES: &'static [Row] = SIGNED_SIX_BITS;
    const REACH: [i32; 2] = [2, 1];
}
