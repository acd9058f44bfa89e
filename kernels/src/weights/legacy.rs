//! Types of 32 weights, and the ternary ones, under one scale.

use formats::block::{f16_to_f32, tq1_0_trits};

use super::Weights;

#[inline(always)]
pub(super) fn half<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Four bits each: the first half of the codes in the low ones.
#[inline(always)]
fn nibbles(bytes: &[u8], out: &mut [u8; 32]) {
    for j in 0..16 {
        out[j] = bytes[j] & 15;
        out[j + 16] = bytes[j] >> 4;
    }
}

/// A fifth bit each.
#[inline(always)]
fn fifths(bytes: &[u8], out: &mut [u8; 32]) {
    for j in 0..32 {
        out[j] |= (bytes[j / 8] >> (j % 8) & 1) << 4;
    }
}

/// Codes from 0 to 15 for −8 to 7.
pub struct Q4_0;
impl Weights<32, 18> for Q4_0 {
    const OFFSET: i32 = 8;
    #[inline(always)]
    fn codes(block: &[u8; 18], out: &mut [u8; 32]) {
        nibbles(&block[2..], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 18], _: usize) -> f32 {
        half(block, 0)
    }
}

/// Codes from 0 to 15, and a min.
pub struct Q4_1;
impl Weights<32, 20> for Q4_1 {
    const OFFSET: i32 = 0;
    const MIN: bool = true;
    #[inline(always)]
    fn codes(block: &[u8; 20], out: &mut [u8; 32]) {
        nibbles(&block[4..], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 20], _: usize) -> f32 {
        half(block, 0)
    }
    #[inline(always)]
    fn min(block: &[u8; 20]) -> f32 {
        half(block, 2)
    }
}

/// Codes from 0 to 31 for −16 to 15.
pub struct Q5_0;
impl Weights<32, 22> for Q5_0 {
    const OFFSET: i32 = 16;
    #[inline(always)]
    fn codes(block: &[u8; 22], out: &mut [u8; 32]) {
        nibbles(&block[6..], out);
        fifths(&block[2..6], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 22], _: usize) -> f32 {
        half(block, 0)
    }
}

/// Codes from 0 to 31, and a min.
pub struct Q5_1;
impl Weights<32, 24> for Q5_1 {
    const OFFSET: i32 = 0;
    const MIN: bool = true;
    #[inline(always)]
    fn codes(block: &[u8; 24], out: &mut [u8; 32]) {
        nibbles(&block[8..], out);
        fifths(&block[4..8], out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 24], _: usize) -> f32 {
        half(block, 0)
    }
    #[inline(always)]
    fn min(block: &[u8; 24]) -> f32 {
        half(block, 2)
    }
}

/// Signed bytes.
pub struct Q8_0;
impl Weights<32, 34> for Q8_0 {
    const OFFSET: i32 = 128;
    #[inline(always)]
    fn codes(block: &[u8; 34], out: &mut [u8; 32]) {
        for j in 0..32 {
            out[j] = block[2 + j] ^ 0x80;
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 34], _: usize) -> f32 {
        half(block, 0)
    }
}

/// Digits of base three.
pub struct Tq1_0;
impl Weights<256, 54> for Tq1_0 {
    const OFFSET: i32 = 1;
    #[inline(always)]
    fn codes(block: &[u8; 54], out: &mut [u8; 256]) {
        tq1_0_trits(block, out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 54], _: usize) -> f32 {
        half(block, 52)
    }
}

/// Pairs of bits.
pub struct Tq2_0;
impl Weights<256, 66> for Tq2_0 {
    const OFFSET: i32 = 1;
    #[inline(always)]
    fn codes(block: &[u8; 66], out: &mut [u8; 256]) {
        for h in 0..2 {
            for n in 0..4 {
                for i in 0..32 {
                    out[128 * h + 32 * n + i] = block[32 * h + i] >> (2 * n) & 3;
                }
            }
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 66], _: usize) -> f32 {
        half(block, 64)
    }
}
