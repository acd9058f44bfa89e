//! Codes and scales of types with integer scales in 512-bit registers: a quarter of a block, or all its scales, at a
//! time.
//!
//! Everything here is inlined into functions that are compiled for the set; none is called elsewhere.

mod lattice;

use std::arch::x86_64::*;

use super::super::weights::{IQ4_VALUES, Iq4Xs, Nested, Q2K, Q3K, Q4K, Q5K, Q6K};

/// A type that is read in such registers.
///
/// # Safety
/// Of all functions, here and below: the processor has AVX-512 F, BW, VL and DQ, AVX2 and F16C. Nothing else is asked for:
/// what is read of a block are stretches of it whose ends are checked, which costs nothing where they are constants.
pub trait Parts<const B: usize>: Nested<B> {
    /// Whether there are signs beside the codes.
    const SIGNS: bool = false;
    /// Weights under an integer scale: 16 or 32.
    const GROUP: usize = 16;
    /// Where d stands as a half, and by what it is multiplied; `None` if it stands in parts.
    const D: Option<(usize, f32)> = Some((0, 1.0));
    /// Where the half stands whose negative the mins are multiplied by.
    const DMIN: usize = 0;
    /// Codes of the 64 weights from 64 · `p` on, counted from the offset; and a bit for each that is negative.
    unsafe fn part(block: &[u8; B], p: usize) -> (__m512i, u64);
    /// The scales, of sixteen bits.
    unsafe fn scales16(block: &[u8; B]) -> __m256i;
    /// The mins, of sixteen bits.
    #[inline(always)]
    unsafe fn mins16(_: &[u8; B]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_setzero_si256() }
    }
    /// What scales are multiplied by.
    #[inline(always)]
    unsafe fn step(block: &[u8; B]) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            match Self::D {
                Some((at, factor)) => half(block, at) * factor,
                None => <Self as Nested<B>>::d(block),
            }
        }
    }
    /// What mins are multiplied by.
    #[inline(always)]
    unsafe fn min_step(block: &[u8; B]) -> f32 {
        // SAFETY: the caller's.
        unsafe { -half(block, Self::DMIN) }
    }
}

/// N bytes of a block.
#[inline(always)]
fn cut<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..at + N].try_into().expect("so many")
}

#[inline(always)]
unsafe fn half(block: &[u8], at: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(word(block, at))))) }
}

#[inline(always)]
fn word(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*cut(block, at))
}

#[inline(always)]
fn long(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*cut(block, at))
}

#[inline(always)]
fn quad(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*cut(block, at))
}

/// Eight bytes in the lower half of a register.
#[inline(always)]
unsafe fn load8(block: &[u8], at: usize) -> __m128i {
    // SAFETY: eight bytes are read, of so many.
    unsafe { _mm_loadl_epi64(cut::<8>(block, at).as_ptr().cast()) }
}

#[inline(always)]
unsafe fn load16(block: &[u8], at: usize) -> __m128i {
    // SAFETY: sixteen bytes are read, of so many.
    unsafe { _mm_loadu_si128(cut::<16>(block, at).as_ptr().cast()) }
}

#[inline(always)]
unsafe fn load32(block: &[u8], at: usize) -> __m256i {
    // SAFETY: the caller's; 32 bytes are read, of so many.
    unsafe { _mm256_loadu_si256(cut::<32>(block, at).as_ptr().cast()) }
}

#[inline(always)]
unsafe fn load64(block: &[u8], at: usize) -> __m512i {
    // SAFETY: the caller's; 64 bytes are read, of so many.
    unsafe { _mm512_loadu_si512(cut::<64>(block, at).as_ptr().cast()) }
}

/// 32 bytes, twice.
#[inline(always)]
unsafe fn twice(block: &[u8], at: usize) -> __m512i {
    // SAFETY: the caller's.
    unsafe { _mm512_broadcast_i64x4(load32(block, at)) }
}

/// A number for the 64-bit words of either half.
#[inline(always)]
unsafe fn either(low: u64, high: u64) -> __m512i {
    let (l, h) = (low as i64, high as i64);
    // SAFETY: the caller's.
    unsafe { _mm512_setr_epi64(l, l, l, l, h, h, h, h) }
}

/// Bits of 32 bytes from `low` on for the first 32 codes, from `high` on for the others.
#[inline(always)]
unsafe fn bits(block: &[u8], at: usize, (low, high): (usize, usize), mask: i8) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let moved = _mm512_srlv_epi64(twice(block, at), either(low as u64, high as u64));
        _mm512_and_si512(moved, _mm512_set1_epi8(mask))
    }
}

/// Adds `what` to the codes of which 32 bytes have their bits: 2 · p and 2 · p + 1 for either half.
#[inline(always)]
unsafe fn planes(block: &[u8], at: usize, p: usize, codes: __m512i, what: i8) -> __m512i {
    let bit = |n: usize| 0x0101_0101_0101_0101u64 << n;
    // SAFETY: the caller's.
    unsafe {
        let set = _mm512_test_epi8_mask(twice(block, at), either(bit(2 * p), bit(2 * p + 1)));
        _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8(what))
    }
}

/// Eight 32-bit numbers as sixteen of 16 bits: each twice.
#[inline(always)]
unsafe fn doubled(x: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_or_si256(_mm256_slli_epi32(x, 16), _mm256_and_si256(x, _mm256_set1_epi32(0xFFFF))) }
}

/// Eight fields of `width` bits of a number.
#[inline(always)]
unsafe fn fields(x: u32, width: i32) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let places =
            _mm256_setr_epi32(0, width, 2 * width, 3 * width, 4 * width, 5 * width, 6 * width, 7 * width);
        let all = _mm256_srlv_epi32(_mm256_set1_epi32(x as i32), places);
        _mm256_and_si256(all, _mm256_set1_epi32((1 << width) - 1))
    }
}

/// The scales, then the mins, of Q4_K and Q5_K.
#[inline(always)]
fn sixes(block: &[u8]) -> (u64, u64) {
    let [a, b, c] = [4, 8, 12].map(|at| long(block, at));
    let both = |low: u32, nibbles: u32| {
        let upper = nibbles & 0x0F0F_0F0F | low >> 2 & 0x3030_3030;
        u64::from(low & 0x3F3F_3F3F) | u64::from(upper) << 32
    };
    (both(a, c), both(b, c >> 4))
}

/// Eight bytes as sixteen numbers of 16 bits, each twice.
#[inline(always)]
unsafe fn bytes_twice(x: u64) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let x = _mm_cvtsi64_si128(x as i64);
        _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(x, x))
    }
}

impl Parts<84> for Q2K {
    const D: Option<(usize, f32)> = Some((80, 1.0));
    const DMIN: usize = 82;
    #[inline(always)]
    unsafe fn part(block: &[u8; 84], p: usize) -> (__m512i, u64) {
        let low = 4 * (p % 2);
        // SAFETY: the caller's.
        (unsafe { bits(block, 16 + 32 * (p / 2), (low, low + 2), 3) }, 0)
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 84]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_and_si256(_mm256_cvtepu8_epi16(load16(block, 0)), _mm256_set1_epi16(15)) }
    }
    #[inline(always)]
    unsafe fn mins16(block: &[u8; 84]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_srli_epi16(_mm256_cvtepu8_epi16(load16(block, 0)), 4) }
    }
}

impl Parts<110> for Q3K {
    const D: Option<(usize, f32)> = Some((108, -1.0));
    #[inline(always)]
    unsafe fn part(block: &[u8; 110], p: usize) -> (__m512i, u64) {
        let low = 4 * (p % 2);
        // SAFETY: the caller's.
        unsafe {
            let codes = bits(block, 32 + 32 * (p / 2), (low, low + 2), 3);
            (planes(block, 0, p, codes, 4), 0)
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 110]) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let low = _mm_set1_epi64x(quad(block, 96) as i64);
            let low = _mm_and_si128(_mm_srlv_epi64(low, _mm_set_epi64x(4, 0)), _mm_set1_epi8(15));
            let high = _mm_set1_epi32(long(block, 104) as i32);
            let high = _mm_and_si128(_mm_srlv_epi32(high, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
            let six = _mm_or_si128(low, _mm_slli_epi16(high, 4));
            _mm256_cvtepi8_epi16(_mm_sub_epi8(_mm_set1_epi8(32), six))
        }
    }
}

macro_rules! four_and_five {
    ($name:ident $b:literal $nibbles:literal $fifths:expr) => {
        impl Parts<$b> for $name {
            const GROUP: usize = 32;
            const DMIN: usize = 2;
            #[inline(always)]
            unsafe fn part(block: &[u8; $b], p: usize) -> (__m512i, u64) {
                let fifths: Option<usize> = $fifths;
                // SAFETY: the caller's.
                unsafe {
                    let codes = bits(block, $nibbles + 32 * p, (0, 4), 15);
                    match fifths {
                        None => (codes, 0),
                        Some(at) => (planes(block, at, p, codes, 16), 0),
                    }
                }
            }
            #[inline(always)]
            unsafe fn scales16(block: &[u8; $b]) -> __m256i {
                // SAFETY: the caller's.
                unsafe { bytes_twice(sixes(block).0) }
            }
            #[inline(always)]
            unsafe fn mins16(block: &[u8; $b]) -> __m256i {
                // SAFETY: the caller's.
                unsafe { bytes_twice(sixes(block).1) }
            }
        }
    };
}
four_and_five!(Q4K 144 16 None);
four_and_five!(Q5K 176 48 Some(16));

impl Parts<210> for Q6K {
    const D: Option<(usize, f32)> = Some((208, 1.0));
    #[inline(always)]
    unsafe fn part(block: &[u8; 210], p: usize) -> (__m512i, u64) {
        let (h, odd) = (p / 2, p % 2 == 1);
        // SAFETY: the caller's.
        unsafe {
            let mut low = load64(block, 64 * h);
            if odd {
                low = _mm512_srli_epi16(low, 4);
            }
            // The upper pairs, turned to bits 4 and 5.
            let turns = if odd { either(0, 62) } else { either(4, 2) };
            let high = _mm512_rolv_epi64(twice(block, 128 + 32 * h), turns);
            // Where the mask has ones from the second, elsewhere from the first.
            let all = _mm512_ternarylogic_epi64::<0xCA>(_mm512_set1_epi8(15), low, high);
            (_mm512_and_si512(all, _mm512_set1_epi8(63)), 0)
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 210]) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtepi8_epi16(load16(block, 192)) }
    }
}

impl Parts<136> for Iq4Xs {
    const GROUP: usize = 32;
    #[inline(always)]
    unsafe fn part(block: &[u8; 136], p: usize) -> (__m512i, u64) {
        // SAFETY: the caller's.
        unsafe {
            let two = _mm512_castsi256_si512(load32(block, 8 + 32 * p));
            let two = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), two);
            (table(&IQ4_VALUES, _mm512_srlv_epi64(two, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4))), 0)
        }
    }
    #[inline(always)]
    unsafe fn scales16(block: &[u8; 136]) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let (low, high) = (fields(long(block, 4), 4), fields(u32::from(word(block, 2)), 2));
            let six = _mm256_or_si256(low, _mm256_slli_epi32(high, 4));
            doubled(_mm256_sub_epi32(six, _mm256_set1_epi32(32)))
        }
    }
}

/// The values of the low nibbles, counted from 128.
#[inline(always)]
pub unsafe fn table(values: &[i8; 16], nibbles: __m512i) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let values = _mm_xor_si128(_mm_loadu_si128(values.as_ptr().cast()), _mm_set1_epi8(-128));
        let nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), nibbles)
    }
}
