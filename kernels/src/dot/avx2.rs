//! Rows times a vector in 256-bit registers: a block of 32 weights, or an eighth of 256, at a time.

use std::arch::x86_64::*;

use super::super::activations::Activations;
use super::super::weights::{Nested, Weights};
use super::{FLOATS, Sums, total};

/// A row; see [`super::DotKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn row<const W: usize, const B: usize, T: Weights<W, B>>(
    row: &[u8],
    x: &Activations,
    token: usize,
) -> f32 {
    super::check::<W, B, T>(row, x, token);
    let (q, lanes) = (x.codes(token), x.lanes(token));
    let (scales, sums) = (x.of(&x.scales, token), x.of(&x.sums, token));
    let mut s = [_mm256_setzero_ps(); 2];
    let mut all = Sums::default();
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        let mut codes = [0u8; W];
        T::codes(block, &mut codes);
        if W < 256 {
            for n in 0..W / 32 {
                let at = b * W + 32 * n;
                let d =
                    |k: usize| T::scale(block, (32 * n + k) * T::SCALES / W) * scales[(at + k) / T::GROUP];
                let d = _mm256_set_m128(_mm_set1_ps(d(16)), _mm_set1_ps(d(0)));
                let sum = eight::<W, B, T>(&codes[32 * n..], &q[at..], &lanes[at / 4..]);
                let s = &mut s[at / 32 % 2];
                *s = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), d, *s);
            }
        } else {
            let d = _mm256_set1_ps(T::scale(block, 0) * scales[b]);
            for h in 0..2 {
                let mut sum = _mm256_setzero_si256();
                for n in 0..4 {
                    let at = 128 * h + 32 * n;
                    let part = eight::<W, B, T>(&codes[at..], &q[b * 256 + at..], &lanes[b * 64 + at / 4..]);
                    sum = _mm256_add_epi32(sum, part);
                }
                s[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), d, s[h]);
            }
        }
        if T::MIN {
            all.mins[b % 8] = T::min(block).mul_add(sums[b], all.mins[b % 8]);
        }
    }
    // SAFETY: `lanes` has sixteen floats.
    unsafe {
        _mm256_storeu_ps(all.lanes.as_mut_ptr(), s[0]);
        _mm256_storeu_ps(all.lanes.as_mut_ptr().add(8), s[1]);
    }
    all.total()
}

/// Products of 32 codes, in sums of four.
#[inline]
#[target_feature(enable = "avx2")]
fn eight<const W: usize, const B: usize, T: Weights<W, B>>(codes: &[u8], q: &[i8], lanes: &[i32]) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: 32 codes, 32 numbers and 8 lanes are read, and the slices have them.
    unsafe {
        let c = _mm256_loadu_si256(codes[..32].as_ptr().cast());
        let x = _mm256_loadu_si256(q[..32].as_ptr().cast());
        if T::OFFSET == 128 {
            // Two products of 8 bits with 255 would not fit into 16; signed, they do.
            let w = _mm256_xor_si256(c, _mm256_set1_epi8(-128));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            return _mm256_madd_epi16(pairs, ones);
        }
        let sums = _mm256_madd_epi16(_mm256_maddubs_epi16(c, x), ones);
        _mm256_add_epi32(sums, _mm256_loadu_si256(lanes[..8].as_ptr().cast()))
    }
}

/// A row of a type with integer scales; see [`super::DotKernel`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn nested<const B: usize, T: Nested<B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    super::check_nested::<B, T>(row, x, token);
    let (q, scales, sixteens) = (x.codes(token), x.of(&x.scales, token), x.sixteens(token));
    let mut s = [_mm256_setzero_ps(); 2];
    let mut mins = _mm256_setzero_ps();
    let mut codes = [0i8; 256];
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        T::codes(block, &mut codes);
        let integers = T::scales(block);
        let q = &q[b * 256..][..256];
        let mut sums = [_mm256_setzero_si256(); 2];
        for n in 0..8 {
            // SAFETY: the 32 from 32 · n on, of the array's 256 and the slice's.
            let (w, x) = unsafe {
                let w = _mm256_loadu_si256(codes.as_ptr().add(32 * n).cast());
                (w, _mm256_loadu_si256(q.as_ptr().add(32 * n).cast()))
            };
            // Two products fit sixteen bits: no code is beyond 127.
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            let [first, second] = [integers[2 * n], integers[2 * n + 1]];
            let scale = _mm256_set_m128i(_mm_set1_epi16(second), _mm_set1_epi16(first));
            sums[n % 2] = _mm256_add_epi32(sums[n % 2], _mm256_madd_epi16(pairs, scale));
        }
        let d = _mm256_set1_ps(T::d(block) * scales[b]);
        for h in 0..2 {
            s[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[h]), d, s[h]);
        }
        if T::MIN {
            let (integers, d) = (T::mins(block), _mm256_set1_ps(T::dmin(block) * scales[b]));
            // SAFETY: sixteen numbers are read of an array of so many, and of a slice.
            let sum = unsafe {
                let sixteens = _mm256_loadu_si256(sixteens[b * 16..][..16].as_ptr().cast());
                _mm256_madd_epi16(_mm256_loadu_si256(integers.as_ptr().cast()), sixteens)
            };
            mins = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), d, mins);
        }
    }
    let mut all = Sums::default();
    // SAFETY: `lanes` has sixteen floats, and `mins` eight.
    unsafe {
        _mm256_storeu_ps(all.lanes.as_mut_ptr(), s[0]);
        _mm256_storeu_ps(all.lanes.as_mut_ptr().add(8), s[1]);
        _mm256_storeu_ps(all.mins.as_mut_ptr(), mins);
    }
    all.total()
}

/// A row of halves.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn f16(row: &[u8], x: &[f32]) -> f32 {
    let mut s = [_mm256_setzero_ps(); 4];
    let (chunks, rest) = x.as_chunks::<FLOATS>();
    for (x, w) in chunks.iter().zip(row.as_chunks::<{ 2 * FLOATS }>().0) {
        for i in 0..4 {
            // SAFETY: eight of the 32 halves and floats of two arrays.
            unsafe {
                let w = _mm256_cvtph_ps(_mm_loadu_si128(w.as_ptr().add(16 * i).cast()));
                s[i] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x.as_ptr().add(8 * i)), s[i]);
            }
        }
    }
    let mut all = [0f32; FLOATS];
    for i in 0..4 {
        // SAFETY: eight of 32 floats.
        unsafe { _mm256_storeu_ps(all.as_mut_ptr().add(8 * i), s[i]) };
    }
    for (i, (x, w)) in rest.iter().zip(row[chunks.len() * FLOATS * 2..].as_chunks::<2>().0).enumerate() {
        all[i] = formats::block::f16_to_f32(u16::from_le_bytes(*w)).mul_add(*x, all[i]);
    }
    total(&all)
}
