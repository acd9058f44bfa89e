//! A bit and a half: eight weights of -1, 0 and 1, moved together by an eighth up or down.

use super::grid;
use crate::block::f16_to_f32;
use crate::block::layout::half;
use crate::block::{Block, Prior};

/// How far points are moved.
const SHIFT: f32 = 0.125;

/// Weights of a point whose levels are 0, 1 and 2.
#[inline(always)]
fn shifted(step: f32, point: &[u8; 8], down: bool, out: &mut [f32; 8]) {
    let least = if down { -1.0 - SHIFT } else { SHIFT - 1.0 };
    for j in 0..8 {
        out[j] = step * (f32::from(point[j]) + least);
    }
}

/// d, 32 bytes of points, eight numbers for 32 weights each: four times three upper bits of a point, three bits of
/// scale, and whether the points are moved down. x = d·(2·scale + 1)·(point ± ⅛).
pub struct Iq1S;

impl Block<256, 50> for Iq1S {
    const PRIOR: Prior = Prior::Root(2.0);

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
}

/// 32 bytes of points, 16 bytes of nibbles (three upper bits of a point and whether it is moved down), four numbers of
/// 16 bits: four scales of three bits, of 16 weights each, and a quarter of the half d, the lowest first. Values as
/// in [`Iq1S`].
pub struct Iq1M;

impl Block<256, 56> for Iq1M {
    const PRIOR: Prior = Prior::Square(2.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 56], out: &mut [f32; 256]) {
        let (low, rest) = bytes.split_at(32);
        let (high, rest) = rest.split_at(16);
        let (mut scales, mut d) = ([0; 4], 0);
        for i in 0..4 {
            scales[i] = u16::from_le_bytes([rest[2 * i], rest[2 * i + 1]]);
            d |= scales[i] >> 12 << (4 * i);
        }
        let d = f16_to_f32(d);
        for (l, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = high[l / 2] >> (4 * (l % 2));
            let index = usize::from(low[l]) | usize::from(high & 7) << 8;
            let step = d * f32::from(2 * (scales[l / 8] >> (3 * (l / 2 % 4)) & 7) + 1);
            shifted(step, &grid::IQ1[index], high & 8 != 0, out);
        }
    }
}
