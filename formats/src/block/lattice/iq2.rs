//! Two bits and a bit: eight magnitudes of three levels, and their signs.

use super::grid;
use super::{eight_signs, signed};
use crate::block::layout::half;
use crate::block::{Block, Prior};

/// The step of magnitudes under a scale of four bits.
#[inline(always)]
fn step(d: f32, scale: u8) -> f32 {
    d * (0.5 + f32::from(scale & 15)) * 0.25
}

/// d; for each 32 weights four bytes of points and 32 bits: four times seven signs, then the scale. x = ±step·point,
/// step = d·(scale + ½)/4; an eighth sign makes the number of minuses even.
pub struct Iq2Xxs;

impl Block<256, 66> for Iq2Xxs {
    const PRIOR: Prior = Prior::Root(1.0);

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
}

/// d, 32 numbers of nine bits of point and seven of signs, eight bytes of scales (of 16 weights each, low nibble
/// first). Steps and signs as in [`Iq2Xxs`].
pub struct Iq2Xs;

impl Block<256, 74> for Iq2Xs {
    const PRIOR: Prior = Prior::Root(1.0);

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
}

/// d, 32 bytes of points, 32 bytes of signs, eight bytes of the points' upper pairs of bits, eight bytes of scales as
/// in [`Iq2Xs`].
pub struct Iq2S;

impl Block<256, 82> for Iq2S {
    const PRIOR: Prior = Prior::Root(2.0);

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
}
