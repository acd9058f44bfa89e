//! Types into which runtimes convert activations before multiplication: eight bits, with sums that save work later. There is no
//! search: the largest magnitude gets the largest code. Layouts: `block_q8_1` and `block_q8_K` in ggml.

use super::layout::{half, pack_half};
use super::{Block, Effort};

/// The largest magnitude.
#[inline(always)]
fn top(x: &[f32]) -> f32 {
    let mut top = 0.0f32;
    for x in x {
        top = if x.abs() > top { x.abs() } else { top };
    }
    top
}

/// d, d·Σq, q[32]: x[j] = d · q[j].
pub struct Q8_1;

impl Block<32, 36> for Q8_1 {
    #[inline(always)]
    fn decode(bytes: &[u8; 36], out: &mut [f32; 32]) {
        let d = half(bytes);
        for j in 0..32 {
            out[j] = f32::from(bytes[4 + j] as i8) * d;
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 32], _: Option<&[f32; 32]>, _: Effort, bytes: &mut [u8; 36]) {
        let d = (top(x) / 127.0).min(65504.0);
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        let mut sum = 0;
        for j in 0..32 {
            let q = (x[j] * inverse).round_ties_even().clamp(-127.0, 127.0) as i32;
            sum += q;
            bytes[4 + j] = q as u8;
        }
        pack_half(d, bytes);
        pack_half((d * sum as f32).clamp(-65504.0, 65504.0), &mut bytes[2..]);
    }
}

/// d as f32, q[256], the sums of each 16 of them as 16-bit integers: x[j] = d · q[j].
pub struct Q8K;

impl Block<256, 292> for Q8K {
    #[inline(always)]
    fn decode(bytes: &[u8; 292], out: &mut [f32; 256]) {
        let d = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        for j in 0..256 {
            out[j] = d * f32::from(bytes[4 + j] as i8);
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 292]) {
        let d = top(x) / 127.0;
        // Below this the inverse would be infinite.
        let d = if d < f32::MIN_POSITIVE { 0.0 } else { d };
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        bytes[..4].copy_from_slice(&d.to_le_bytes());
        for g in 0..16 {
            let mut sum = 0i16;
            for j in 16 * g..16 * (g + 1) {
                let q = (x[j] * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
                sum += i16::from(q);
                bytes[4 + j] = q as u8;
            }
            bytes[260 + 2 * g..262 + 2 * g].copy_from_slice(&sum.to_le_bytes());
        }
    }
}
