//! The same of lattice types: points are gathered from tables.

use std::arch::x86_64::*;

use formats::block::lattice::grid;

use super::super::super::weights::{Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs};
use super::{Parts, doubled, either, fields, load8, load16, load32, load64, long, quad, word};

/// 2 · x + 1 in each 16 bits.
#[inline(always)]
unsafe fn odd(x: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_add_epi16(_mm256_add_epi16(x, x), _mm256_set1_epi16(1)) }
}

/// Eight bytes as 32-bit numbers.
#[inline(always)]
unsafe fn eight(block: &[u8], at: usize) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_cvtepu8_epi32(load8(block, at)) }
}

/// Points of eight coordinates, from a table that has one for every index of so many bits.
///
/// # Safety
/// As of [`Parts`]; and no index has more bits.
#[inline(always)]
unsafe fn points<const BITS: u32, const N: usize>(table: &'static [[u8; 8]; N], index: __m256i) -> __m512i {
    const { assert!(N == 1 << BITS) };
    // SAFETY: the caller's; a gather reads eight bytes at eight times each index.
    unsafe { _mm512_i32gather_epi64::<8>(index, table.as_ptr().cast()) }
}

/// Points of four coordinates, likewise.
///
/// # Safety
/// As of [`points`].
#[inline(always)]
unsafe fn fours<const BITS: u32, const N: usize>(table: &'static [[u8; 4]; N], index: __m512i) -> __m512i {
    const { assert!(N == 1 << BITS) };
    // SAFETY: the caller's; a gather reads four bytes at four times each index.
    unsafe { _mm512_i32gather_epi32::<4>(index, table.as_ptr().cast()) }
}

/// Eight bytes of signs from eight of seven bits: the upper bit makes the number of minuses even.
#[inline(always)]
fn even(seven: u64) -> u64 {
    let mut parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    seven | (parity & 0x0101_0101_0101_0101) << 7
}

/// The same from two numbers with four times seven bits each.
#[inline(always)]
fn spread(first: u32, second: u32) -> u64 {
    let x = u64::from(first) | u64::from(second) << 32;
    even(
        x & 0x0000_007F_0000_007F
            | x << 1 & 0x0000_7F00_0000_7F00
            | x << 2 & 0x007F_0000_007F_0000
            | x << 3 & 0x7F00_0000_7F00_0000,
    )
}

impl Parts<66> for Iq2Xxs {
    const GROUP: usize = 32;
    const SIGNS: bool = true;
    const D: Option<(usize, f32)> = Some((0, 0.125));
    #[inline(always)]
    unsafe fn part(block: &[u8; 66], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's; indices are bytes.
        unsafe {
            let at = 2 + 16 * p;
            let index = u64::from(long(block, at)) | u64::from(long(block, at + 8)) << 32;
            let index = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(index as i64));
            (points::<8, _>(&grid::IQ2_XXS, index), spread(long(block, at + 4), long(block, at + 12)))
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 66]) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let all = _mm512_srli_epi64(load64(block, 2), 60);
            odd(doubled(_mm512_cvtepi64_epi32(all)))
        }
    }
}

/// Sixteen scales of four bits, the low ones first.
#[inline(always)]
unsafe fn nibbles(block: &[u8], at: usize) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let both = load8(block, at);
        let high = _mm_srli_epi16(both, 4);
        let all = _mm_and_si128(_mm_unpacklo_epi8(both, high), _mm_set1_epi8(15));
        odd(_mm256_cvtepu8_epi16(all))
    }
}

impl Parts<74> for Iq2Xs {
    const SIGNS: bool = true;
    const D: Option<(usize, f32)> = Some((0, 0.125));
    #[inline(always)]
    unsafe fn part(block: &[u8; 74], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's; nine bits are left of each index.
        unsafe {
            let all = load16(block, 2 + 16 * p);
            let index = _mm256_and_si256(_mm256_cvtepu16_epi32(all), _mm256_set1_epi32(511));
            let seven = _mm_packus_epi16(_mm_srli_epi16(all, 9), _mm_setzero_si128());
            (points::<9, _>(&grid::IQ2_XS, index), even(_mm_cvtsi128_si64(seven) as u64))
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 74]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { nibbles(block, 66) }
    }
}

impl Parts<82> for Iq2S {
    const SIGNS: bool = true;
    const D: Option<(usize, f32)> = Some((0, 0.125));
    #[inline(always)]
    unsafe fn part(block: &[u8; 82], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's; indices are bytes and two bits above.
        unsafe {
            let high = _mm256_slli_epi32(fields(u32::from(word(block, 66 + 2 * p)), 2), 8);
            let index = _mm256_or_si256(eight(block, 2 + 8 * p), high);
            (points::<10, _>(&grid::IQ2_S, index), quad(block, 34 + 8 * p))
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 82]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { nibbles(block, 74) }
    }
}

impl Parts<98> for Iq3Xxs {
    const GROUP: usize = 32;
    const SIGNS: bool = true;
    const D: Option<(usize, f32)> = Some((0, 0.25));
    #[inline(always)]
    unsafe fn part(block: &[u8; 98], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's; indices are bytes.
        unsafe {
            let index = _mm512_cvtepu8_epi32(load16(block, 2 + 16 * p));
            let points = fours::<8, _>(&grid::IQ3_XXS, index);
            let signs = 66 + 8 * p;
            (points, spread(long(block, signs), long(block, signs + 4)))
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 98]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { odd(doubled(_mm256_srli_epi32(load32(block, 66), 28))) }
    }
}

impl Parts<110> for Iq3S {
    const GROUP: usize = 32;
    const SIGNS: bool = true;
    #[inline(always)]
    unsafe fn part(block: &[u8; 110], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's; indices are bytes and one bit above.
        unsafe {
            let index = _mm512_cvtepu8_epi32(load16(block, 2 + 16 * p));
            let high = word(block, 66 + 2 * p);
            let index = _mm512_mask_add_epi32(index, high, index, _mm512_set1_epi32(256));
            let points = fours::<9, _>(&grid::IQ3_S, index);
            (points, quad(block, 74 + 8 * p))
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 110]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { odd(doubled(fields(long(block, 106), 4))) }
    }
}

impl Parts<50> for Iq1S {
    const GROUP: usize = 32;
    const D: Option<(usize, f32)> = Some((0, 0.125));
    #[inline(always)]
    unsafe fn part(block: &[u8; 50], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's; indices are bytes and three bits above.
        unsafe {
            let [a, b] = [word(block, 34 + 4 * p), word(block, 36 + 4 * p)];
            let (x, y) = (i32::from(a), i32::from(b));
            let high = _mm256_setr_epi32(x, x, x, x, y, y, y, y);
            let high = _mm256_srlv_epi32(high, _mm256_setr_epi32(0, 3, 6, 9, 0, 3, 6, 9));
            let high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(7)), 8);
            let points = points::<11, _>(&grid::IQ1, _mm256_or_si256(eight(block, 2 + 8 * p), high));
            let up = |word: u16| if word >> 15 == 1 { 0 } else { 0x0202_0202_0202_0202 };
            (_mm512_add_epi8(_mm512_slli_epi64(points, 3), either(up(a), up(b))), 0)
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 50]) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let all = _mm256_cvtepu16_epi32(load16(block, 34));
            odd(doubled(_mm256_and_si256(_mm256_srli_epi32(all, 12), _mm256_set1_epi32(7))))
        }
    }
}

impl Parts<56> for Iq1M {
    const D: Option<(usize, f32)> = None;
    #[inline(always)]
    unsafe fn part(block: &[u8; 56], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's; indices are bytes and three bits above.
        unsafe {
            let nibbles = fields(long(block, 32 + 4 * p), 4);
            let high = _mm256_slli_epi32(_mm256_and_si256(nibbles, _mm256_set1_epi32(7)), 8);
            let points = points::<11, _>(&grid::IQ1, _mm256_or_si256(eight(block, 8 * p), high));
            let up = _mm256_testn_epi32_mask(nibbles, _mm256_set1_epi32(8));
            let up = _mm512_maskz_set1_epi64(up, 0x0202_0202_0202_0202);
            (_mm512_add_epi8(_mm512_slli_epi64(points, 3), up), 0)
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 56]) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let four = _mm256_set1_epi64x(quad(block, 48) as i64);
            let each = _mm256_setr_epi16(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            let places = _mm256_setr_epi16(0, 3, 6, 9, 0, 3, 6, 9, 0, 3, 6, 9, 0, 3, 6, 9);
            let all = _mm256_srlv_epi16(_mm256_permutexvar_epi16(each, four), places);
            odd(_mm256_and_si256(all, _mm256_set1_epi16(7)))
        }
    }
}
