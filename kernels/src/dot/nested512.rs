//! Rows of types with integer scales times a vector, in 512-bit registers with VNNI: a quarter of a block at a time.

use std::arch::x86_64::*;

use super::super::activations::Activations;
use super::avx512::{ahead, finish};
use super::parts::Parts;

/// Which of sixteen scales belongs to each 16 bits of part p's sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn places(p: usize) -> __m512i {
    let p = 4 * p as i64;
    let of = |g: i64| (p + g) * 0x0001_0001_0001_0001;
    _mm512_setr_epi64(of(0), of(0), of(1), of(1), of(2), of(2), of(3), of(3))
}

/// A row; see [`super::DotKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub fn row<const B: usize, T: Parts<B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    super::check_nested::<B, T>(row, x, token);
    let blocks = row.len() / B;
    let (q, lanes) = (&x.codes(token)[..blocks * 256], &x.lanes(token)[..blocks * 64]);
    let (scales, sixteens) = (x.of(&x.scales, token), &x.sixteens(token)[..blocks * 16]);
    let mut s = _mm512_setzero_ps();
    let mut mins = _mm256_setzero_ps();
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        ahead::<B>(block.as_ptr());
        // SAFETY: this function has the features that `Parts` asks for. There are 256 codes, 64 lanes and sixteen sums for
        // each block, by the slices above. A token's codes and lanes begin at a multiple of 256 bytes in buffers that are
        // aligned to 64, and registers are taken every 64 bytes from there.
        unsafe {
            let (q, lanes) = (q.as_ptr().add(b * 256), lanes.as_ptr().add(b * 64));
            let integers = _mm512_castsi256_si512(T::scales16(block));
            let mut sum = _mm512_setzero_si512();
            for p in 0..4 {
                let (codes, minus) = T::part(block, p);
                let mut x = _mm512_load_si512(q.add(64 * p).cast());
                if T::SIGNS {
                    x = _mm512_mask_sub_epi8(x, minus, _mm512_setzero_si512(), x);
                }
                let first = match T::OFFSET {
                    0 => _mm512_setzero_si512(),
                    _ => _mm512_load_si512(lanes.add(16 * p).cast()),
                };
                let four = _mm512_dpbusd_epi32(first, codes, x);
                if T::LARGE {
                    let scale = _mm512_maskz_permutexvar_epi16(0xAAAA_AAAA, places(p), integers);
                    let scale = _mm512_srai_epi32(scale, 16);
                    sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(four, scale));
                } else {
                    // The sum of four fits the lower half, and the upper one is multiplied by zero.
                    let scale = _mm512_maskz_permutexvar_epi16(0x5555_5555, places(p), integers);
                    sum = _mm512_dpwssd_epi32(sum, four, scale);
                }
            }
            let d = _mm512_set1_ps(T::step(block) * scales[b]);
            s = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), d, s);
            if T::MIN {
                let sixteens = _mm256_loadu_si256(sixteens.as_ptr().add(b * 16).cast());
                let sum = _mm256_madd_epi16(T::mins16(block), sixteens);
                let d = _mm256_set1_ps(T::min_step(block) * scales[b]);
                mins = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), d, mins);
            }
        }
    }
    finish(s, mins)
}
