//! One and two bits a weight under one scale.

use super::layout::{half, pack_half};
use super::{Block, Effort};

/// d, 128 bits, the lowest first: d where the bit is one, −d where it is not.
pub struct Q1_0;

impl Block<128, 18> for Q1_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 128]) {
        let d = half(bytes);
        for j in 0..128 {
            out[j] = if bytes[2 + j / 8] >> (j % 8) & 1 == 1 { d } else { -d };
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 128], _: Option<&[f32; 128]>, _: Effort, bytes: &mut [u8; 18]) {
        let mut sum = 0.0;
        *bytes = [0; 18];
        for j in 0..128 {
            sum += x[j].abs().min(65504.0);
            bytes[2 + j / 8] |= u8::from(x[j] >= 0.0) << (j % 8);
        }
        pack_half(sum / 128.0, bytes);
    }
}

/// d, 64 codes of two bits, the lowest first: x = d · (q − 1).
pub struct Q2_0;

impl Block<64, 18> for Q2_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 64]) {
        let d = half(bytes);
        for j in 0..64 {
            out[j] = (f32::from(bytes[2 + j / 4] >> (2 * (j % 4)) & 3) - 1.0) * d;
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 64], _: Option<&[f32; 64]>, _: Effort, bytes: &mut [u8; 18]) {
        let d = if x == &[0.0; 64] { 0.0 } else { super::search::stored_scale(super::naive::peak(x)) };
        *bytes = [0; 18];
        pack_half(d, bytes);
        for j in 0..64 {
            let q = (x[j] / d).round_ties_even().clamp(-1.0, 2.0) + 1.0;
            bytes[2 + j / 4] |= (q as u8) << (2 * (j % 4));
        }
    }
}
