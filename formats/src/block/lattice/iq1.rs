//! IQ1: points of eight coordinates −1, 0 and 1, shifted up or down by an eighth.

use super::fit::{Lattice, Plan, fit};
use super::grid::{self, QuadList};
use super::points::SHIFT;
use super::sample::Signs;
use crate::block::how::amplify_half;
use crate::block::layout::{half, pack_half};
use crate::block::{Block, Effort, Prior, f16_to_f32, f32_to_f16};

/// The weights of a point with coordinates 0, 1 and 2.
#[inline(always)]
fn shifted(step: f32, point: &[u8; 8], down: bool, out: &mut [f32; 8]) {
    let least = if down { -1.0 - SHIFT } else { SHIFT - 1.0 };
    for j in 0..8 {
        out[j] = step * (f32::from(point[j]) + least);
    }
}

/// d, 32 bytes of points, eight numbers for 32 weights each: four times three upper bits of a point, three bits of
/// scale, and whether the points are shifted down. x = d·(2·scale + 1)·(point ± ⅛).
pub struct Iq1S;

impl Block<256, 50> for Iq1S {
    const PRIOR: Prior = Prior::Root(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    const AMPLIFIED: bool = true;

    #[inline(always)]
    fn decode(bytes: &[u8; 50], out: &mut [f32; 256]) {
        let d = half(bytes);
        let (low, high) = bytes[2..].split_at(32);
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = u16::from_le_bytes([high[l / 4 * 2], high[l / 4 * 2 + 1]]);
            let index = usize::from(low[l]) | usize::from(high >> (3 * (l % 4)) & 7) << 8;
            let step = d * f32::from(2 * (high >> 12 & 7) + 1);
            shifted(step, &grid::IQ1[index], high >> 15 == 1, out);
        }
    }

    #[inline(always)]
    fn amplify(bytes: &mut [u8; 50], by: f32) {
        amplify_half(&mut bytes[0..], by);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 50]) {
        let code = fit::<8, 3, Self>(x, w, effort);
        *bytes = [0; 50];
        if code.d == 0.0 {
            return;
        }
        pack_half(code.d, bytes);
        let (low, high) = bytes[2..].split_at_mut(32);
        for g in 0..8 {
            let mut number = u16::from(code.scales[g]) << 12 | u16::from(code.down[4 * g]) << 15;
            for l in 0..4 {
                low[4 * g + l] = code.points[4 * g + l] as u8;
                number |= (code.points[4 * g + l] >> 8) << (3 * l);
            }
            high[2 * g..2 * g + 2].copy_from_slice(&number.to_le_bytes());
        }
    }
}

impl Lattice<8, 3> for Iq1S {
    const LEVELS: [f32; 3] = [-1.0, 0.0, 1.0];
    const WALK: &'static QuadList = &grid::IQ1_WALK;
    const POINTS: &'static [[u8; 8]] = &grid::IQ1;
    const ORIGIN: f32 = -1.0;
    const SIGNS: Signs = Signs::Group;
    const GROUP: usize = 32;
    const SCALES: usize = 8;
    const UNIT: f32 = 1.0;
    const USUAL: f32 = 1.2;
    const PLANS: [Plan; 2] =
        [Plan { ladder: false, guesses: 2, trials: 0 }, Plan { ladder: false, guesses: 4, trials: 0 }];
}

/// 32 bytes of points, 16 bytes of nibbles (three upper bits of a point and whether it is shifted down), four numbers of
/// 16 bits: four scales of three bits, of 16 weights each, and a quarter of the half d, the lowest first. Values as
/// in [`Iq1S`].
pub struct Iq1M;

impl Block<256, 56> for Iq1M {
    const PRIOR: Prior = Prior::Root(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    const AMPLIFIED: bool = true;

    #[inline(always)]
    fn decode(bytes: &[u8; 56], out: &mut [f32; 256]) {
        let (low, rest) = bytes.split_at(32);
        let (high, rest) = rest.split_at(16);
        let (scales, d) = iq1m_scales(rest);
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = high[l / 2] >> (4 * (l % 2));
            let index = usize::from(low[l]) | usize::from(high & 7) << 8;
            let step = d * f32::from(2 * (scales[l / 8] >> (3 * (l / 2 % 4)) & 7) + 1);
            shifted(step, &grid::IQ1[index], high & 8 != 0, out);
        }
    }

    #[inline(always)]
    fn amplify(bytes: &mut [u8; 56], by: f32) {
        let rest = &mut bytes[48..];
        let (mut scales, d) = iq1m_scales(rest);
        let d = f32_to_f16((d * by).clamp(-65504.0, 65504.0));
        for i in 0..4 {
            scales[i] = scales[i] & 0x0FFF | (d >> (4 * i) & 15) << 12;
            rest[2 * i..2 * i + 2].copy_from_slice(&scales[i].to_le_bytes());
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 56]) {
        let code = fit::<8, 3, Self>(x, w, effort);
        *bytes = [0; 56];
        if code.d == 0.0 {
            return;
        }
        let (low, rest) = bytes.split_at_mut(32);
        let (high, rest) = rest.split_at_mut(16);
        for l in 0..32 {
            low[l] = code.points[l] as u8;
            let nibble = (code.points[l] >> 8) as u8 | u8::from(code.down[l]) << 3;
            high[l / 2] |= nibble << (4 * (l % 2));
        }
        let d = f32_to_f16(code.d);
        for i in 0..4 {
            let mut number = (d >> (4 * i) & 15) << 12;
            for k in 0..4 {
                number |= u16::from(code.scales[4 * i + k]) << (3 * k);
            }
            rest[2 * i..2 * i + 2].copy_from_slice(&number.to_le_bytes());
        }
    }
}

/// The four 16-bit numbers after the points of [`Iq1M`], and the IEEE half in their upper nibbles.
#[inline(always)]
fn iq1m_scales(bytes: &[u8]) -> ([u16; 4], f32) {
    let (mut scales, mut d) = ([0; 4], 0);
    for i in 0..4 {
        scales[i] = u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
        d |= scales[i] >> 12 << (4 * i);
    }
    (scales, f16_to_f32(d))
}

/// Whether the half of a block of [`Iq1M`] is infinite or NaN.
pub(in crate::block) fn iq1_m_scale_is_not_finite(block: &[u8]) -> bool {
    !iq1m_scales(&block[48..]).1.is_finite()
}

impl Lattice<8, 3> for Iq1M {
    const LEVELS: [f32; 3] = [-1.0, 0.0, 1.0];
    const WALK: &'static QuadList = &grid::IQ1_WALK;
    const POINTS: &'static [[u8; 8]] = &grid::IQ1;
    const ORIGIN: f32 = -1.0;
    const SIGNS: Signs = Signs::Vector;
    const GROUP: usize = 16;
    const SCALES: usize = 8;
    const UNIT: f32 = 1.0;
    const USUAL: f32 = 1.2;
    const PLANS: [Plan; 2] =
        [Plan { ladder: false, guesses: 2, trials: 0 }, Plan { ladder: false, guesses: 4, trials: 0 }];
}
