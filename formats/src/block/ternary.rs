//! Blocks of 256 weights that are −d, 0 or d.

use super::search::{Codes, HALF_MIN, LANES, Sample, least, stored_scale};
use super::{Block, Effort, f16_to_f32, f32_to_f16};

const TRITS: Codes = Codes { lo: -1.0, hi: 1.0 };

/// The scale to store. A weight is kept if it is beyond d / 2, so what is kept are the largest k; for each k the
/// best scale is their mean, and it saves (Σ w·|x|)² / Σ w of the error.
#[inline(always)]
fn fit(x: &[f32; 256], importance: Option<&[f32; 256]>) -> f32 {
    let mut sample = Sample::new(x, importance);
    // Bits order magnitudes; the place below them finds the weight again.
    let mut order = [0; 256];
    for (j, key) in order.iter_mut().enumerate() {
        *key = u64::from(sample.x[j].to_bits() & 0x7FFF_FFFF) << 8 | j as u64;
    }
    order.sort_unstable();
    let magnitude = |key: u64| f32::from_bits((key >> 8) as u32);
    let largest = magnitude(order[255]);
    if largest <= HALF_MIN / 2.0 {
        return 0.0;
    }
    if sample.x.iter().zip(&sample.w).all(|(&x, &w)| x == 0.0 || w == 0.0) {
        sample.w = [1.0; 256];
    }

    let (mut sum, mut weight) = (0.0, 0.0);
    let (mut saved, mut d) = (0.0, f64::from(largest));
    for &key in order.iter().rev() {
        let w = f64::from(sample.w[(key & 0xFF) as usize]);
        sum += w * f64::from(magnitude(key));
        weight += w;
        // Compared as a product: the division is only for winners.
        if sum * sum > saved * weight {
            saved = sum * sum / weight;
            d = sum / weight;
        }
    }

    // Halves are coarse near zero, where the nearest need not be the best.
    let best = stored_scale(d as f32);
    let near = |step: i32| stored_scale(f16_to_f32((i32::from(f32_to_f16(best)) + step) as u16));
    let mut scales = [best; LANES];
    (scales[1], scales[2], scales[3]) = (near(-1), near(1), stored_scale(largest));
    scales[least(&sample.error(&scales, &[0.0; LANES], TRITS))]
}

/// 48 bytes of five trits, four bytes of four, d. Read as fractions of 256, bytes hold their trits as digits
/// after the point: x[j] = d · (t[j] − 1). Digit n of byte i is weight 32 · n + i of the first 160 (32 bytes),
/// 160 + 16 · n + i of the next 80 (16 bytes) and 240 + 4 · n + i of the last 16 (4 bytes).
pub struct Tq1_0;

/// First byte, bytes, first weight and digits of the three parts.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

impl Block<256, 54> for Tq1_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 54], out: &mut [f32; 256]) {
        let d = f16_to_f32(u16::from_le_bytes([bytes[52], bytes[53]]));
        for (byte, count, weight, digits) in PARTS {
            let mut power = 1u8;
            for n in 0..digits {
                for i in 0..count {
                    let digit = (u16::from(bytes[byte + i].wrapping_mul(power)) * 3) >> 8;
                    out[weight + n * count + i] = f32::from(digit as i16 - 1) * d;
                }
                power = power.wrapping_mul(3);
            }
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 54]) {
        let d = fit(x, importance);
        let trits = TRITS.round(x, d, 0.0);
        for (byte, count, weight, digits) in PARTS {
            for i in 0..count {
                // Five digits always: the fifth of the last part is zero.
                let number = (0..5).fold(0u16, |number, n| {
                    number * 3 + if n < digits { u16::from(trits[weight + n * count + i]) } else { 0 }
                });
                bytes[byte + i] = (number * 256).div_ceil(243) as u8;
            }
        }
        bytes[52..].copy_from_slice(&f32_to_f16(d).to_le_bytes());
    }
}

/// 64 bytes of four codes of two bits, d: x[j] = d · (c[j] − 1). Bits 2n of byte 32 · h + i are the code of
/// weight 128 · h + 32 · n + i. Decodes c = 3 as 2d, but does not write it: the type is for ternary weights.
pub struct Tq2_0;

impl Block<256, 66> for Tq2_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 66], out: &mut [f32; 256]) {
        let d = f16_to_f32(u16::from_le_bytes([bytes[64], bytes[65]]));
        for h in 0..2 {
            for n in 0..4 {
                for i in 0..32 {
                    let code = bytes[32 * h + i] >> (2 * n) & 3;
                    out[128 * h + 32 * n + i] = f32::from(code as i8 - 1) * d;
                }
            }
        }
    }

    #[inline(always)]
    fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, _: Effort, bytes: &mut [u8; 66]) {
        let d = fit(x, importance);
        let codes = TRITS.round(x, d, 0.0);
        for h in 0..2 {
            for i in 0..32 {
                bytes[32 * h + i] = (0..4).fold(0, |b, n| b | codes[128 * h + 32 * n + i] << (2 * n));
            }
        }
        bytes[64..].copy_from_slice(&f32_to_f16(d).to_le_bytes());
    }
}
