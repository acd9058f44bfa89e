//! IQ2: points of eight magnitudes with three levels, and signs.

use super::fit::{Lattice, Plan, fit};
use super::grid::{self, QuadList};
use super::points::Code;
use super::sample::Signs;
use super::{eight_signs, signed};
use crate::block::how::amplify_half;
use crate::block::layout::{half, pack_half};
use crate::block::{Block, Effort, Prior};

/// The step of magnitudes, from a scale of four bits.
#[inline(always)]
fn step(d: f32, scale: u8) -> f32 {
    d * (0.5 + f32::from(scale & 15)) * 0.25
}

/// Sixteen scales, low nibble first.
#[inline(always)]
fn pack_scales(code: &Code, bytes: &mut [u8]) {
    for i in 0..8 {
        bytes[i] = code.scales[2 * i] | code.scales[2 * i + 1] << 4;
    }
}

/// d; for each 32 weights four bytes of points and 32 bits: four times seven signs, then the scale. x = ±step·point,
/// step = d·(scale + ½)/4; the eighth sign makes the number of minus signs even.
pub struct Iq2Xxs;

impl Block<256, 66> for Iq2Xxs {
    const PRIOR: Prior = Prior::Root(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    const AMPLIFIED: bool = true;

    #[inline(always)]
    fn decode(bytes: &[u8; 66], out: &mut [f32; 256]) {
        let d = half(bytes);
        for (b, out) in bytes[2..].as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let signs = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
            let step = step(d, b[7] >> 4);
            for l in 0..4 {
                let point = &grid::IQ2_XXS[usize::from(b[l])];
                signed(step, point, eight_signs(signs >> (7 * l)), &mut out[8 * l..8 * l + 8]);
            }
        }
    }

    #[inline(always)]
    fn amplify(bytes: &mut [u8; 66], by: f32) {
        amplify_half(&mut bytes[0..], by);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 66]) {
        let code = fit::<8, 3, Self>(x, w, effort);
        *bytes = [0; 66];
        if code.d == 0.0 {
            return;
        }
        pack_half(code.d, bytes);
        for (g, b) in bytes[2..].as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut signs = u32::from(code.scales[g]) << 28;
            for l in 0..4 {
                b[l] = code.points[4 * g + l] as u8;
                signs |= u32::from(code.signs[4 * g + l] & 127) << (7 * l);
            }
            b[4..].copy_from_slice(&signs.to_le_bytes());
        }
    }
}

impl Lattice<8, 3> for Iq2Xxs {
    const LEVELS: [f32; 3] = [8.0, 25.0, 43.0];
    const WALK: &'static QuadList = &grid::IQ2_XXS_WALK;
    const POINTS: &'static [[u8; 8]] = &grid::IQ2_XXS;
    const SIGNS: Signs = Signs::Even;
    const GROUP: usize = 32;
    const SCALES: usize = 16;
    const UNIT: f32 = 0.125;
    const USUAL: f32 = 0.04;
    const PLANS: [Plan; 2] =
        [Plan { ladder: false, guesses: 2, trials: 0 }, Plan { ladder: true, guesses: 0, trials: 1 }];
}

/// d, 32 numbers of nine bits of point and seven of signs, eight bytes of scales (of 16 weights each, low nibble
/// first). Steps and signs as in [`Iq2Xxs`].
pub struct Iq2Xs;

impl Block<256, 74> for Iq2Xs {
    const PRIOR: Prior = Prior::Root(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    const AMPLIFIED: bool = true;

    #[inline(always)]
    fn decode(bytes: &[u8; 74], out: &mut [f32; 256]) {
        let d = half(bytes);
        let (codes, scales) = bytes[2..].split_at(64);
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let code = u16::from_le_bytes([codes[2 * l], codes[2 * l + 1]]);
            let step = step(d, scales[l / 4] >> (4 * (l / 2 % 2)));
            signed(step, &grid::IQ2_XS[usize::from(code & 511)], eight_signs(u32::from(code >> 9)), out);
        }
    }

    #[inline(always)]
    fn amplify(bytes: &mut [u8; 74], by: f32) {
        amplify_half(&mut bytes[0..], by);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 74]) {
        let code = fit::<8, 3, Self>(x, w, effort);
        *bytes = [0; 74];
        if code.d == 0.0 {
            return;
        }
        pack_half(code.d, bytes);
        let (codes, scales) = bytes[2..].split_at_mut(64);
        for l in 0..32 {
            let number = code.points[l] | u16::from(code.signs[l] & 127) << 9;
            codes[2 * l..2 * l + 2].copy_from_slice(&number.to_le_bytes());
        }
        pack_scales(&code, scales);
    }
}

impl Lattice<8, 3> for Iq2Xs {
    const LEVELS: [f32; 3] = [8.0, 25.0, 43.0];
    const WALK: &'static QuadList = &grid::IQ2_XS_WALK;
    const POINTS: &'static [[u8; 8]] = &grid::IQ2_XS;
    const SIGNS: Signs = Signs::Even;
    const GROUP: usize = 16;
    const SCALES: usize = 16;
    const UNIT: f32 = 0.125;
    const USUAL: f32 = 0.04;
    const PLANS: [Plan; 2] =
        [Plan { ladder: false, guesses: 2, trials: 0 }, Plan { ladder: true, guesses: 0, trials: 1 }];
}

/// d, 32 bytes of points, 32 bytes of signs, eight bytes of the points' upper pairs of bits, eight bytes of scales as
/// in [`Iq2Xs`].
pub struct Iq2S;

impl Block<256, 82> for Iq2S {
    const PRIOR: Prior = Prior::Root(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    const AMPLIFIED: bool = true;

    #[inline(always)]
    fn decode(bytes: &[u8; 82], out: &mut [f32; 256]) {
        let d = half(bytes);
        let (low, rest) = bytes[2..].split_at(32);
        let (signs, rest) = rest.split_at(32);
        let (high, scales) = rest.split_at(8);
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let index = usize::from(low[l]) | usize::from(high[l / 4] >> (2 * (l % 4)) & 3) << 8;
            let step = step(d, scales[l / 4] >> (4 * (l / 2 % 2)));
            signed(step, &grid::IQ2_S[index], signs[l], out);
        }
    }

    #[inline(always)]
    fn amplify(bytes: &mut [u8; 82], by: f32) {
        amplify_half(&mut bytes[0..], by);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 82]) {
        let code = fit::<8, 3, Self>(x, w, effort);
        *bytes = [0; 82];
        if code.d == 0.0 {
            return;
        }
        pack_half(code.d, bytes);
        let (low, rest) = bytes[2..].split_at_mut(32);
        let (signs, rest) = rest.split_at_mut(32);
        let (high, scales) = rest.split_at_mut(8);
        signs.copy_from_slice(&code.signs);
        for l in 0..32 {
            low[l] = code.points[l] as u8;
            high[l / 4] |= ((code.points[l] >> 8) as u8) << (2 * (l % 4));
        }
        pack_scales(&code, scales);
    }
}

impl Lattice<8, 3> for Iq2S {
    const LEVELS: [f32; 3] = [8.0, 25.0, 43.0];
    const WALK: &'static QuadList = &grid::IQ2_S_WALK;
    const POINTS: &'static [[u8; 8]] = &grid::IQ2_S;
    const SIGNS: Signs = Signs::Free;
    const GROUP: usize = 16;
    const SCALES: usize = 16;
    const UNIT: f32 = 0.125;
    const USUAL: f32 = 0.04;
    const PLANS: [Plan; 2] =
        [Plan { ladder: false, guesses: 2, trials: 0 }, Plan { ladder: false, guesses: 2, trials: 1 }];
}
