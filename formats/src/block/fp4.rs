//! Small floats (E2M1: 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives) under scales that are small floats too.

use super::layout::{nibbles, pack_nibbles};
use super::naive::peak;
use super::{Block, Effort};

/// Twice what the codes stand for.
pub(super) const VALUES: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// Half of 2^(e − 127); for the byte 0, half of 2^-127.
#[inline(always)]
pub(super) fn half_power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// e, q[32]: x[j] = 2^(e − 127) · value(q[j]); byte j holds q[j] low and q[j + 16] high (OCP Microscaling Formats
/// 1.0).
pub struct Mxfp4;

impl Block<32, 17> for Mxfp4 {
    #[inline(always)]
    fn decode(bytes: &[u8; 17], out: &mut [f32; 32]) {
        let d = half_power(bytes[0]);
        for (x, q) in out.iter_mut().zip(nibbles(&bytes[1..])) {
            *x = VALUES[usize::from(q)] * d;
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 32], _: Option<&[f32; 32]>, _: Effort, bytes: &mut [u8; 17]) {
        let top = peak(x).abs();
        let e = ((top.to_bits() >> 23) as i32 - 2).clamp(0, 254) as u8;
        bytes[0] = e;
        let mut q = [0; 32];
        for j in 0..32 {
            q[j] = nearest(x[j], half_power(e));
        }
        pack_nibbles(&q, &mut bytes[1..]);
    }
}

/// Half of what a scale of four exponent and three mantissa bits stands for; 0 and 0x7F are zero. The sign bit is
/// not looked at.
#[inline(always)]
pub(super) fn half_ue4m3(s: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(s >> 3 & 15), u32::from(s & 7));
    let normal = f32::from_bits((exponent + 119) << 23 | mantissa << 20);
    let subnormal = mantissa as f32 * (1.0 / 1024.0);
    if s == 0 || s == 0x7F {
        0.0
    } else if exponent == 0 {
        subnormal
    } else {
        normal
    }
}

/// Four scales, q[64]: groups of 16 of eight bytes each, byte j of a group holding q[j] low and q[j + 8] high;
/// x = scale · value(q). A tensor's own scale, if it has one, is another tensor.
pub struct Nvfp4;

impl Block<64, 36> for Nvfp4 {
    #[inline(always)]
    fn decode(bytes: &[u8; 36], out: &mut [f32; 64]) {
        for g in 0..4 {
            let d = half_ue4m3(bytes[g]);
            for j in 0..8 {
                let b = bytes[4 + 8 * g + j];
                out[16 * g + j] = VALUES[usize::from(b & 15)] * d;
                out[16 * g + 8 + j] = VALUES[usize::from(b >> 4)] * d;
            }
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 64], _: Option<&[f32; 64]>, _: Effort, bytes: &mut [u8; 36]) {
        for g in 0..4 {
            let x: &[f32; 16] = x[16 * g..].first_chunk().expect("groups of 16");
            let want = peak(x).abs() / 12.0;
            let mut s = 1u8;
            while s < 0x7E && half_ue4m3(s) < want {
                s += 1;
            }
            bytes[g] = if want == 0.0 { 0 } else { s };
            let d = half_ue4m3(bytes[g]);
            for j in 0..8 {
                bytes[4 + 8 * g + j] = nearest(x[j], d) | nearest(x[j + 8], d) << 4;
            }
        }
    }
}

fn nearest(x: f32, d: f32) -> u8 {
    let mut best = f32::INFINITY;
    let mut q = 0;
    for (c, v) in VALUES.iter().enumerate() {
        let e = (x - d * v).abs();
        if e < best {
            best = e;
            q = c as u8;
        }
    }
    q
}
