//! E2M1 floats (0, ½, 1, 1½, 2, 3, 4, 6 and their negatives) with scales that are small floats too. Layouts: `block_mxfp4` and
//! `block_nvfp4` in ggml.

use super::layout::{nibbles, pack_nibbles};
use std::hint::select_unpredictable;

use super::groups::{LANES, Levels, clamp, inverse, nearest};
use super::single::gather;
use super::{Block, Effort};

/// Twice the values of the codes (`kvalues_mxfp4` in ggml).
pub(super) const VALUES: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// Twice the values of the codes: floats with one bit of mantissa from 2 on, integers below.
struct Floats;

impl Levels for Floats {
    const LO: f32 = -12.0;
    const HI: f32 = 12.0;

    #[inline(always)]
    fn level(v: f32) -> f32 {
        let sign = v.to_bits() & 0x8000_0000;
        let a = clamp(f32::from_bits(v.to_bits() & 0x7FFF_FFFF), 0.0, 12.0);
        // Integers up to 2; larger values are rounded to one bit of mantissa.
        let small = nearest(if a < 2.0 { a } else { 2.0 });
        let large = if a > 2.0 { a } else { 2.0 };
        let level = small + (f32::from_bits((large.to_bits() + 0x0020_0000) & 0x7FC0_0000) - 2.0);
        f32::from_bits(level.to_bits() | sign)
    }

    #[inline(always)]
    fn code(v: f32) -> u8 {
        let level = Self::level(v);
        let magnitude = f32::from_bits(level.to_bits() & 0x7FFF_FFFF);
        // From 2 on, codes follow the bits from the first bit of mantissa on.
        let large = if magnitude > 2.0 { magnitude } else { 2.0 };
        let small = (magnitude - (large - 2.0)) as i32;
        let code = small + (large.to_bits() >> 22) as i32 - 256;
        (code | if level < 0.0 { 8 } else { 0 }) as u8
    }
}

/// Half of 2^(e − 127); for the byte 0, half of 2^-127.
#[inline(always)]
pub fn half_power(e: u8) -> f32 {
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
    fn encode_all(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, _: Effort, bytes: &mut [[u8; 17]]) {
        for (i, (x, bytes)) in x.chunks(LANES).zip(bytes.chunks_mut(LANES)).enumerate() {
            pack_powers(x, w.map(|w| &w[LANES * i..LANES * i + x.len()]), bytes);
        }
    }
}

/// Blocks without a larger weight than this become zero: the squares of smaller ones would be subnormal.
const SMALLEST: f32 = 1e-36;

/// Only three powers of two can be the best scale: the one with which the peak is between the last level but one and beyond the
/// last, and its two neighbours.
#[inline(always)]
fn pack_powers(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, bytes: &mut [[u8; 17]]) {
    let (groups, units) = gather::<32>(x, w, SMALLEST);
    let (mut best, mut least) = ([0.0; LANES], [f32::INFINITY; LANES]);
    for power in [0.125, 0.25, 0.0625] {
        let error = groups.error::<Floats>(&[power; LANES]);
        for l in 0..LANES {
            let better = error[l] < least[l];
            least[l] = select_unpredictable(better, error[l], least[l]);
            best[l] = select_unpredictable(better, power, best[l]);
        }
    }
    let (mut exponents, mut per) = ([0; LANES], [0.0; LANES]);
    for l in 0..LANES {
        // Both are powers of two, so their exponents are enough: half of 2^(e − 127) is best / unit.
        let e = (best[l].to_bits() >> 23) as i32 - (units[l].to_bits() >> 23) as i32 + 128;
        exponents[l] = if units[l] == 0.0 { 0 } else { e.clamp(0, 254) as u8 };
        per[l] = half_power(exponents[l]) * units[l];
    }
    let codes = groups.codes::<Floats>(&inverse(&per), &[0.0; LANES]);
    for (l, bytes) in bytes.iter_mut().enumerate() {
        bytes[0] = exponents[l];
        pack_nibbles(&codes[l], &mut bytes[1..]);
    }
}

/// Half the value of a scale with four bits of exponent and three of mantissa (E4M3); 0 and 0x7F are zero. The sign bit is
/// ignored.
#[inline(always)]
pub const fn half_ue4m3(s: u8) -> f32 {
    let (exponent, mantissa) = ((s >> 3 & 15) as u32, (s & 7) as u32);
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
/// x = scale · value(q). The scale of the whole tensor, if there is one, is another tensor.
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
    fn encode_all(x: &[[f32; 64]], w: Option<&[[f32; 64]]>, effort: Effort, bytes: &mut [[u8; 36]]) {
        let (x, w) = (x.as_flattened().as_chunks::<16>().0, w.map(|w| w.as_flattened().as_chunks::<16>().0));
        for (i, (x, bytes)) in x.chunks(LANES).zip(bytes.chunks_mut(2)).enumerate() {
            pack_small_floats(x, w.map(|w| &w[LANES * i..LANES * i + x.len()]), effort, bytes);
        }
    }
}

/// The nearest scale above zero, from half its value.
#[inline(always)]
fn ue4m3(half: f32) -> i32 {
    let normal = ((half.to_bits() + (1 << 19)) >> 20) as i32 - 119 * 8;
    let subnormal = (clamp(half, 0.0, 1.0) * 1024.0).round_ties_even() as i32;
    (if half < 8.0 / 1024.0 { subnormal } else { normal }).clamp(1, 0x7E)
}

/// Byte j holds code j low and code j + 8 high.
#[inline(always)]
pub(super) fn pack_short_nibbles(q: &[u8; 16], bytes: &mut [u8]) {
    for j in 0..8 {
        bytes[j] = q[j] | q[j + 8] << 4;
    }
}

/// Tries all scales from one with which the peak is beyond the last level to one with which it is among small levels.
#[inline(always)]
fn pack_small_floats(x: &[[f32; 16]], w: Option<&[[f32; 16]]>, effort: Effort, bytes: &mut [[u8; 36]]) {
    let (groups, units) = gather::<16>(x, w, SMALLEST);
    let peaks = groups.peaks();
    let (mut usual, mut best, mut least) = ([0; LANES], [0; LANES], [f32::INFINITY; LANES]);
    for l in 0..LANES {
        let per = if units[l] == 0.0 { 0.0 } else { 1.0 / units[l] };
        usual[l] = ue4m3(peaks[l].abs() * per * (1.0 / 12.0));
    }
    let (first, last) = if effort == Effort::Fast { (-1, 4) } else { (-4, 10) };
    for step in first..=last {
        let (mut s, mut code) = ([0.0; LANES], [0; LANES]);
        for l in 0..LANES {
            code[l] = (usual[l] + step).clamp(1, 0x7E);
            s[l] = half_ue4m3(code[l] as u8) * units[l];
        }
        let error = groups.error::<Floats>(&s);
        for l in 0..LANES {
            let better = error[l] < least[l];
            least[l] = select_unpredictable(better, error[l], least[l]);
            best[l] = select_unpredictable(better, code[l], best[l]);
        }
    }
    let mut s = [0.0; LANES];
    for l in 0..LANES {
        best[l] = if units[l] == 0.0 { 0 } else { best[l] };
        s[l] = half_ue4m3(best[l] as u8) * units[l];
    }
    let codes = groups.codes::<Floats>(&inverse(&s), &[0.0; LANES]);
    for (b, bytes) in bytes.iter_mut().enumerate() {
        for g in 0..4 {
            bytes[g] = best[4 * b + g] as u8;
            pack_short_nibbles(&codes[4 * b + g], &mut bytes[4 + 8 * g..]);
        }
    }
}
