//! K-quants and IQ4_XS.

use formats::block::layout;

use super::Nested;
use super::legacy::half;
use super::small::IQ4_VALUES;

/// Codes of unsigned bits, counted from `offset`.
#[inline(always)]
fn signed(q: &[u8; 256], offset: u8, out: &mut [i8; 256]) {
    for k in 0..256 {
        out[k] = q[k].wrapping_sub(offset) as i8;
    }
}

/// One number for each sixteen weights from one for each 32.
#[inline(always)]
fn twice(x: [u8; 8]) -> [i16; 16] {
    let mut out = [0; 16];
    for g in 0..16 {
        out[g] = i16::from(x[g / 2]);
    }
    out
}

/// Pairs of bits.
pub struct Q2K;
impl Nested<84> for Q2K {
    const OFFSET: i32 = 0;
    const MIN: bool = true;
    const LOW: u32 = 0;
    #[inline(always)]
    fn codes(block: &[u8; 84], out: &mut [i8; 256]) {
        let mut q = [0; 256];
        layout::pairs(&block[16..80], &mut q);
        signed(&q, 0, out);
    }
    #[inline(always)]
    fn scales(block: &[u8; 84]) -> [i16; 16] {
        let mut s = [0; 16];
        for g in 0..16 {
            s[g] = i16::from(block[g] & 15);
        }
        s
    }
    #[inline(always)]
    fn mins(block: &[u8; 84]) -> [i16; 16] {
        let mut m = [0; 16];
        for g in 0..16 {
            m[g] = i16::from(block[g] >> 4);
        }
        m
    }
    #[inline(always)]
    fn d(block: &[u8; 84]) -> f32 {
        half(block, 80)
    }
    #[inline(always)]
    fn dmin(block: &[u8; 84]) -> f32 {
        -half(block, 82)
    }
}

/// Three bits, from −4 to 3. Scales and d have their signs turned over: so products are −128 to 124, not −124 to 128.
pub struct Q3K;
impl Nested<110> for Q3K {
    const OFFSET: i32 = 4;
    const LOW: u32 = 0;
    #[inline(always)]
    fn codes(block: &[u8; 110], out: &mut [i8; 256]) {
        let mut q = [0; 256];
        layout::pairs(&block[32..96], &mut q);
        layout::planes(&block[..32], 2, &mut q);
        signed(&q, 4, out);
    }
    #[inline(always)]
    fn scales(block: &[u8; 110]) -> [i16; 16] {
        let six = layout::sixteen_sixes(&block[96..108]);
        let mut s = [0; 16];
        for g in 0..16 {
            s[g] = 32 - i16::from(six[g]);
        }
        s
    }
    #[inline(always)]
    fn d(block: &[u8; 110]) -> f32 {
        -half(block, 108)
    }
}

/// Four bits.
pub struct Q4K;
impl Nested<144> for Q4K {
    const OFFSET: i32 = 0;
    const MIN: bool = true;
    const LOW: u32 = 4;
    #[inline(always)]
    fn codes(block: &[u8; 144], out: &mut [i8; 256]) {
        let mut q = [0; 256];
        layout::long_nibbles(&block[16..], &mut q);
        signed(&q, 0, out);
    }
    #[inline(always)]
    fn scales(block: &[u8; 144]) -> [i16; 16] {
        twice(layout::sixes(&block[4..16]).0)
    }
    #[inline(always)]
    fn mins(block: &[u8; 144]) -> [i16; 16] {
        twice(layout::sixes(&block[4..16]).1)
    }
    #[inline(always)]
    fn d(block: &[u8; 144]) -> f32 {
        half(block, 0)
    }
    #[inline(always)]
    fn dmin(block: &[u8; 144]) -> f32 {
        -half(block, 2)
    }
}

/// Five bits.
pub struct Q5K;
impl Nested<176> for Q5K {
    const OFFSET: i32 = 0;
    const MIN: bool = true;
    const LOW: u32 = 4;
    #[inline(always)]
    fn codes(block: &[u8; 176], out: &mut [i8; 256]) {
        let mut q = [0; 256];
        layout::long_nibbles(&block[48..], &mut q);
        layout::planes(&block[16..48], 4, &mut q);
        signed(&q, 0, out);
    }
    #[inline(always)]
    fn scales(block: &[u8; 176]) -> [i16; 16] {
        twice(layout::sixes(&block[4..16]).0)
    }
    #[inline(always)]
    fn mins(block: &[u8; 176]) -> [i16; 16] {
        twice(layout::sixes(&block[4..16]).1)
    }
    #[inline(always)]
    fn d(block: &[u8; 176]) -> f32 {
        half(block, 0)
    }
    #[inline(always)]
    fn dmin(block: &[u8; 176]) -> f32 {
        -half(block, 2)
    }
}

/// Six bits, from −32 to 31.
pub struct Q6K;
impl Nested<210> for Q6K {
    const OFFSET: i32 = 32;
    const LOW: u32 = 6;
    #[inline(always)]
    fn codes(block: &[u8; 210], out: &mut [i8; 256]) {
        let mut q = [0; 256];
        layout::six_bit_codes(&block[..128], &block[128..192], &mut q);
        signed(&q, 32, out);
    }
    #[inline(always)]
    fn scales(block: &[u8; 210]) -> [i16; 16] {
        let mut s = [0; 16];
        for g in 0..16 {
            s[g] = i16::from(block[192 + g] as i8);
        }
        s
    }
    #[inline(always)]
    fn d(block: &[u8; 210]) -> f32 {
        half(block, 208)
    }
}

/// Nibbles for unequal steps.
pub struct Iq4Xs;
impl Nested<136> for Iq4Xs {
    const OFFSET: i32 = 128;
    const LARGE: bool = true;
    const LOW: u32 = 6;
    #[inline(always)]
    fn codes(block: &[u8; 136], out: &mut [i8; 256]) {
        for g in 0..8 {
            for j in 0..16 {
                let b = block[8 + 16 * g + j];
                out[32 * g + j] = IQ4_VALUES[usize::from(b & 15)];
                out[32 * g + 16 + j] = IQ4_VALUES[usize::from(b >> 4)];
            }
        }
    }
    #[inline(always)]
    fn scales(block: &[u8; 136]) -> [i16; 16] {
        let high = u16::from_le_bytes([block[2], block[3]]);
        let mut s = [0; 16];
        for g in 0..16 {
            let n = g / 2;
            let low = block[4 + n / 2] >> (4 * (n % 2)) & 15;
            s[g] = i16::from(low) + ((high >> (2 * n) & 3) << 4) as i16 - 32;
        }
        s
    }
    #[inline(always)]
    fn d(block: &[u8; 136]) -> f32 {
        half(block, 0)
    }
}
