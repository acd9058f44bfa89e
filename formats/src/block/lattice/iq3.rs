//! IQ3: points of four magnitudes with eight levels, and signs.

use super::fit::{Lattice, Plan, fit};
use super::grid::{self, QuadList};
use super::sample::Signs;
use super::{eight_signs, signed};
use crate::block::how::amplify_half;
use crate::block::layout::{half, pack_half};
use crate::block::{Block, Effort, Prior};

/// d, 64 bytes of points, and for each 32 weights 32 bits: four times seven signs, then the scale. x = ±step·point,
/// step = d·(scale + ½)/2; the eighth sign makes the number of minus signs even.
pub struct Iq3Xxs;

impl Block<256, 98> for Iq3Xxs {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    const AMPLIFIED: bool = true;

    #[inline(always)]
    fn decode(bytes: &[u8; 98], out: &mut [f32; 256]) {
        let d = half(bytes);
        let (points, signs) = bytes[2..].split_at(64);
        for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let s = &signs[4 * g..4 * g + 4];
            let signs = u32::from_le_bytes([s[0], s[1], s[2], s[3]]);
            let step = d * (0.5 + f32::from(s[3] >> 4)) * 0.5;
            for l in 0..8 {
                let point = &grid::IQ3_XXS[usize::from(points[8 * g + l])];
                let signs = eight_signs(signs >> (7 * (l / 2))) >> (4 * (l % 2));
                signed(step, point, signs, &mut out[4 * l..4 * l + 4]);
            }
        }
    }

    #[inline(always)]
    fn amplify(bytes: &mut [u8; 98], by: f32) {
        amplify_half(&mut bytes[0..], by);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 98]) {
        let code = fit::<4, 8, Self>(x, w, effort);
        *bytes = [0; 98];
        if code.d == 0.0 {
            return;
        }
        pack_half(code.d, bytes);
        let (points, signs) = bytes[2..].split_at_mut(64);
        for l in 0..64 {
            points[l] = code.points[l] as u8;
        }
        for g in 0..8 {
            let mut number = u32::from(code.scales[g]) << 28;
            for l in 0..4 {
                number |= u32::from(code.signs[4 * g + l] & 127) << (7 * l);
            }
            signs[4 * g..4 * g + 4].copy_from_slice(&number.to_le_bytes());
        }
    }
}

impl Lattice<4, 8> for Iq3Xxs {
    const LEVELS: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
    const WALK: &'static QuadList = &grid::IQ3_XXS_WALK;
    const POINTS: &'static [[u8; 4]] = &grid::IQ3_XXS;
    const SIGNS: Signs = Signs::Even;
    const GROUP: usize = 32;
    const SCALES: usize = 16;
    const UNIT: f32 = 0.25;
    const USUAL: f32 = 0.037;
    const PLANS: [Plan; 2] =
        [Plan { ladder: true, guesses: 2, trials: 0 }, Plan { ladder: true, guesses: 0, trials: 1 }];
}

/// d, 64 bytes of points, eight bytes of their ninth bits, 32 bytes of signs, four bytes of scales (of 32 weights each,
/// low nibble first): x = ±d·(2·scale + 1)·point.
pub struct Iq3S;

impl Block<256, 110> for Iq3S {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [true, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 110], out: &mut [f32; 256]) {
        let d = half(bytes);
        let (low, rest) = bytes[2..].split_at(64);
        let (high, rest) = rest.split_at(8);
        let (signs, scales) = rest.split_at(32);
        for (l, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let index = usize::from(low[l]) | usize::from(high[l / 8] >> (l % 8) & 1) << 8;
            let scale = scales[l / 16] >> (4 * (l / 8 % 2)) & 15;
            let step = d * f32::from(2 * scale + 1);
            signed(step, &grid::IQ3_S[index], signs[l / 2] >> (4 * (l % 2)), out);
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], w: Option<&[f32; 256]>, effort: Effort, bytes: &mut [u8; 110]) {
        let code = fit::<4, 8, Self>(x, w, effort);
        *bytes = [0; 110];
        if code.d == 0.0 {
            return;
        }
        pack_half(code.d, bytes);
        let (low, rest) = bytes[2..].split_at_mut(64);
        let (high, rest) = rest.split_at_mut(8);
        let (signs, scales) = rest.split_at_mut(32);
        for l in 0..64 {
            low[l] = code.points[l] as u8;
            high[l / 8] |= ((code.points[l] >> 8) as u8) << (l % 8);
        }
        signs.copy_from_slice(&code.signs);
        for i in 0..4 {
            scales[i] = code.scales[2 * i] | code.scales[2 * i + 1] << 4;
        }
    }
}

impl Lattice<4, 8> for Iq3S {
    const LEVELS: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];
    const WALK: &'static QuadList = &grid::IQ3_S_WALK;
    const POINTS: &'static [[u8; 4]] = &grid::IQ3_S;
    const SIGNS: Signs = Signs::Free;
    const GROUP: usize = 32;
    const SCALES: usize = 16;
    const UNIT: f32 = 1.0;
    const USUAL: f32 = 0.16;
    const PLANS: [Plan; 2] =
        [Plan { ladder: false, guesses: 2, trials: 0 }, Plan { ladder: true, guesses: 0, trials: 1 }];
}
