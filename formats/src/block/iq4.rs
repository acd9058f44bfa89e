//! Codes of four bits that stand for sixteen unequal steps, denser near zero.

use super::layout::{half, nibbles, pack_half, pack_nibbles};
use super::naive::{Scaled, peak};
use super::search::stored_scale;
use super::{Block, Effort, Prior};

/// What the codes stand for (ggml's `kvalues_iq4nl`).
pub(super) const VALUES: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// d, q[32]: x[j] = d · value(q[j]); byte j holds q[j] low and q[j + 16] high.
pub struct Iq4Nl;

impl Block<32, 18> for Iq4Nl {
    const PRIOR: Prior = Prior::Square(2.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 32]) {
        let d = half(bytes);
        for (x, q) in out.iter_mut().zip(nibbles(&bytes[2..])) {
            *x = d * VALUES[usize::from(q)];
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 32], _: Option<&[f32; 32]>, _: Effort, bytes: &mut [u8; 18]) {
        let d = stored_scale(peak(x) / -127.0);
        pack_half(if x == &[0.0; 32] { 0.0 } else { d }, bytes);
        pack_nibbles(&nearest(x, d), &mut bytes[2..]);
    }
}

/// d, eight scales of six bits (two bytes of their upper pairs, four of their nibbles), 128 bytes of codes: groups
/// of 32, each laid out as in [`Iq4Nl`], x = d·(scale − 32)·value(q).
pub struct Iq4Xs;

impl Block<256, 136> for Iq4Xs {
    const PRIOR: Prior = Prior::Square(2.0);

    #[inline(always)]
    fn decode(bytes: &[u8; 136], out: &mut [f32; 256]) {
        let d = half(bytes);
        let high = u16::from_le_bytes([bytes[2], bytes[3]]);
        for g in 0..8 {
            let scale = bytes[4 + g / 2] >> (4 * (g % 2)) & 15 | ((high >> (2 * g) & 3) as u8) << 4;
            let step = d * f32::from(scale as i8 - 32);
            let q = nibbles(&bytes[8 + 16 * g..]);
            for j in 0..32 {
                out[32 * g + j] = step * VALUES[usize::from(q[j])];
            }
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 136]) {
        let fit = Scaled::<8, 32>::naive(x, -127.0, 31.0);
        pack_half(fit.d, bytes);
        let mut high = 0u16;
        let mut low = [0u8; 4];
        for g in 0..8 {
            let s = (fit.scales[g] + 32) as u8;
            low[g / 2] |= (s & 15) << (4 * (g % 2));
            high |= u16::from(s >> 4) << (2 * g);
            let x: &[f32; 32] = x[32 * g..].first_chunk().expect("groups of 32");
            pack_nibbles(&nearest(x, fit.d * f32::from(fit.scales[g])), &mut bytes[8 + 16 * g..]);
        }
        bytes[2..4].copy_from_slice(&high.to_le_bytes());
        bytes[4..8].copy_from_slice(&low);
    }
}

fn nearest(x: &[f32; 32], d: f32) -> [u8; 32] {
    let mut q = [0; 32];
    for j in 0..32 {
        let mut best = f32::INFINITY;
        for (c, v) in VALUES.iter().enumerate() {
            let e = (x[j] - d * v).abs();
            if e < best {
                best = e;
                q[j] = c as u8;
            }
        }
    }
    q
}
