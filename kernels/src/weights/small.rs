//! Four bits and fewer under float scales: tables of values, signs, pairs of bits.

use formats::block::{half_power, half_ue4m3};

use super::Weights;
use super::legacy::half;

/// What four-bit codes stand for in IQ4_NL and IQ4_XS.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice what four-bit floats stand for.
pub const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Values of nibbles, the first half of them low, counted from 128.
#[inline(always)]
fn values<const N: usize>(bytes: &[u8], table: &[i8; 16], out: &mut [u8]) {
    for j in 0..N {
        out[j] = table[usize::from(bytes[j] & 15)] as u8 ^ 0x80;
        out[j + N] = table[usize::from(bytes[j] >> 4)] as u8 ^ 0x80;
    }
}

/// Nibbles for unequal steps.
pub struct Iq4Nl;
impl Weights<32, 18> for Iq4Nl {
    const OFFSET: i32 = 128;
    #[inline(always)]
    fn codes(block: &[u8; 18], out: &mut [u8; 32]) {
        values::<16>(&block[2..], &IQ4_VALUES, out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 18], _: usize) -> f32 {
        half(block, 0)
    }
}

/// Small floats under a power of two.
pub struct Mxfp4;
impl Weights<32, 17> for Mxfp4 {
    const OFFSET: i32 = 128;
    #[inline(always)]
    fn codes(block: &[u8; 17], out: &mut [u8; 32]) {
        values::<16>(&block[1..], &FP4_VALUES, out);
    }
    #[inline(always)]
    fn scale(block: &[u8; 17], _: usize) -> f32 {
        half_power(block[0])
    }
}

/// Small floats, sixteen under a small float.
pub struct Nvfp4;
impl Weights<64, 36> for Nvfp4 {
    const OFFSET: i32 = 128;
    const SCALES: usize = 4;
    #[inline(always)]
    fn codes(block: &[u8; 36], out: &mut [u8; 64]) {
        for g in 0..4 {
            values::<8>(&block[4 + 8 * g..], &FP4_VALUES, &mut out[16 * g..]);
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 36], g: usize) -> f32 {
        half_ue4m3(block[g])
    }
}

/// Signs: codes 0 and 2 for −1 and 1.
pub struct Q1_0;
impl Weights<128, 18> for Q1_0 {
    const OFFSET: i32 = 1;
    #[inline(always)]
    fn codes(block: &[u8; 18], out: &mut [u8; 128]) {
        for j in 0..128 {
            out[j] = (block[2 + j / 8] >> (j % 8) & 1) << 1;
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 18], _: usize) -> f32 {
        half(block, 0)
    }
}

/// Pairs of bits for −1 to 2.
pub struct Q2_0;
impl Weights<64, 18> for Q2_0 {
    const OFFSET: i32 = 1;
    #[inline(always)]
    fn codes(block: &[u8; 18], out: &mut [u8; 64]) {
        for j in 0..64 {
            out[j] = block[2 + j / 4] >> (2 * (j % 4)) & 3;
        }
    }
    #[inline(always)]
    fn scale(block: &[u8; 18], _: usize) -> f32 {
        half(block, 0)
    }
}
