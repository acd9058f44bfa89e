//! K-quants: super-blocks of 256 weights, whose groups of 16 or 32 have small integers for scales (and mins) under
//! one half (or two) for all.

use super::layout::{
    half, long_nibbles, pack_half, pack_long_nibbles, pack_pairs, pack_planes, pack_six_bit_codes,
    pack_sixes, pack_sixteen_sixes, pairs, planes, six_bit_codes, sixes, sixteen_sixes,
};
use super::naive::{Affine, Scaled};
use super::{Block, Effort, Prior};

/// x = (d·scale)·q − dmin·min, `N` weights to a group of the `G`.
#[inline(always)]
fn affine_values<const G: usize, const N: usize>(
    (d, dmin): (f32, f32),
    scales: &[u8; G],
    mins: &[u8; G],
    q: &[u8; 256],
    out: &mut [f32; 256],
) {
    for g in 0..G {
        let (step, min) = (d * f32::from(scales[g]), dmin * f32::from(mins[g]));
        for j in N * g..N * (g + 1) {
            out[j] = step * f32::from(q[j]) - min;
        }
    }
}

/// x = (d·scale)·(q − offset), 16 weights to a group.
#[inline(always)]
fn scaled_values(d: f32, scales: &[i8; 16], offset: f32, q: &[u8; 256], out: &mut [f32; 256]) {
    for g in 0..16 {
        let step = d * f32::from(scales[g]);
        for j in 16 * g..16 * (g + 1) {
            out[j] = step * (f32::from(q[j]) - offset);
        }
    }
}

/// Sixteen bytes of scale (low nibble) and min (high), 64 bytes of codes of two bits, d, dmin: groups of 16,
/// x = d·scale·q − dmin·min.
pub struct Q2K;

impl Block<256, 84> for Q2K {
    const PRIOR: Prior = Prior::Magnitude(1.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 84], out: &mut [f32; 256]) {
        let (mut scales, mut mins, mut q) = ([0; 16], [0; 16], [0; 256]);
        for g in 0..16 {
            scales[g] = bytes[g] & 15;
            mins[g] = bytes[g] >> 4;
        }
        pairs(&bytes[16..80], &mut q);
        affine_values::<16, 16>((half(&bytes[80..]), half(&bytes[82..])), &scales, &mins, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 84]) {
        let fit = Affine::<16, 16>::naive(x, 3.0, 15.0);
        for g in 0..16 {
            bytes[g] = fit.scales[g] | fit.mins[g] << 4;
        }
        pack_pairs(&fit.q, &mut bytes[16..80]);
        pack_half(fit.d, &mut bytes[80..]);
        pack_half(fit.dmin, &mut bytes[82..]);
    }
}

/// 32 bytes of third bits, 64 bytes of codes of two bits, twelve bytes of scales, d: groups of 16,
/// x = d·(scale − 32)·(q − 4).
pub struct Q3K;

impl Block<256, 110> for Q3K {
    const PRIOR: Prior = Prior::Square(2.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 110], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        pairs(&bytes[32..96], &mut q);
        planes(&bytes[..32], 2, &mut q);
        let six = sixteen_sixes(&bytes[96..108]);
        let mut scales = [0; 16];
        for g in 0..16 {
            scales[g] = six[g] as i8 - 32;
        }
        scaled_values(half(&bytes[108..]), &scales, 4.0, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 110]) {
        let fit = Scaled::<16, 16>::naive(x, -4.0, 31.0);
        let mut six = [0; 16];
        for g in 0..16 {
            six[g] = (fit.scales[g] + 32) as u8;
        }
        pack_planes(&fit.q, 2, &mut bytes[..32]);
        pack_pairs(&fit.q, &mut bytes[32..96]);
        pack_sixteen_sixes(&six, &mut bytes[96..108]);
        pack_half(fit.d, &mut bytes[108..]);
    }
}

/// d, dmin, twelve bytes of scales and mins, 128 bytes of codes of four bits: groups of 32,
/// x = d·scale·q − dmin·min.
pub struct Q4K;

impl Block<256, 144> for Q4K {
    const PRIOR: Prior = Prior::Shifted(2.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 144], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        long_nibbles(&bytes[16..], &mut q);
        let (scales, mins) = sixes(&bytes[4..16]);
        affine_values::<8, 32>((half(bytes), half(&bytes[2..])), &scales, &mins, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 144]) {
        let fit = Affine::<8, 32>::naive(x, 15.0, 63.0);
        pack_half(fit.d, bytes);
        pack_half(fit.dmin, &mut bytes[2..]);
        pack_sixes(&fit.scales, &fit.mins, &mut bytes[4..16]);
        pack_long_nibbles(&fit.q, &mut bytes[16..]);
    }
}

/// As [`Q4K`], with 32 bytes of fifth bits before the codes.
pub struct Q5K;

impl Block<256, 176> for Q5K {
    const PRIOR: Prior = Prior::Shifted(2.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 176], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        long_nibbles(&bytes[48..], &mut q);
        planes(&bytes[16..48], 4, &mut q);
        let (scales, mins) = sixes(&bytes[4..16]);
        affine_values::<8, 32>((half(bytes), half(&bytes[2..])), &scales, &mins, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 176]) {
        let fit = Affine::<8, 32>::naive(x, 31.0, 63.0);
        pack_half(fit.d, bytes);
        pack_half(fit.dmin, &mut bytes[2..]);
        pack_sixes(&fit.scales, &fit.mins, &mut bytes[4..16]);
        pack_planes(&fit.q, 4, &mut bytes[16..48]);
        pack_long_nibbles(&fit.q, &mut bytes[48..]);
    }
}

/// 128 bytes of low nibbles, 64 bytes of upper pairs, sixteen signed scales, d: groups of 16,
/// x = d·scale·(q − 32).
pub struct Q6K;

impl Block<256, 210> for Q6K {
    const PRIOR: Prior = Prior::Square(0.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 210], out: &mut [f32; 256]) {
        let mut q = [0; 256];
        six_bit_codes(&bytes[..128], &bytes[128..192], &mut q);
        let mut scales = [0; 16];
        for g in 0..16 {
            scales[g] = bytes[192 + g] as i8;
        }
        scaled_values(half(&bytes[208..]), &scales, 32.0, &q, out);
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 210]) {
        let fit = Scaled::<16, 16>::naive(x, -32.0, 127.0);
        let (low, rest) = bytes.split_at_mut(128);
        pack_six_bit_codes(&fit.q, low, &mut rest[..64]);
        for g in 0..16 {
            rest[64 + g] = fit.scales[g] as u8;
        }
        pack_half(fit.d, &mut rest[80..]);
    }
}
