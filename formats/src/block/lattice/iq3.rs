//! Three bits and a bit: four magnitudes of eight levels, and their signs.

use super::grid;
use super::{eight_signs, signed};
use crate::block::layout::half;
use crate::block::{Block, Prior};

/// d, 64 bytes of points, and for each 32 weights 32 bits: four times seven signs, then the scale. x = ±step·point,
/// step = d·(scale + ½)/2; an eighth sign makes the number of minuses even.
pub struct Iq3Xxs;

impl Block<256, 98> for Iq3Xxs {
    const PRIOR: Prior = Prior::Square(2.0);

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
}

/// d, 64 bytes of points, eight bytes of their ninth bits, 32 bytes of signs, four bytes of scales (of 32 weights each,
/// low nibble first): x = ±d·(2·scale + 1)·point.
pub struct Iq3S;

impl Block<256, 110> for Iq3S {
    const PRIOR: Prior = Prior::Square(2.0);

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
}
