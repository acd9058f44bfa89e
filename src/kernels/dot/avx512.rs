//! Rows times a vector in 512-bit registers with VNNI: two blocks of 32 weights, or a quarter of 256, at a time.

use std::arch::x86_64::*;

use super::super::activations::Activations;
use super::super::weights::{Q4_0, Q8_0, Tq2_0, Weights};
use super::{FLOATS, Sums, total};

/// A row; see [`super::Dot`].
pub fn row<const W: usize, const B: usize, T: Weights<W, B>>(
    row: &[u8],
    x: &Activations,
    token: usize,
) -> f32 {
    assert!(x.group == W && x.offset == T::OFFSET && row.len() / B * W == x.cols);
    // SAFETY: this function is named only where the features were found.
    unsafe {
        match W {
            32 => row32::<W, B, T>(row, x, token),
            _ => row256::<W, B, T>(row, x, token),
        }
    }
}

/// Blocks that go through together: their scales fill a 256-bit register.
const TEAM: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn row32<const W: usize, const B: usize, T: Weights<W, B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    let (q, lanes) = (x.codes(token), x.lanes(token));
    let (scales, sums) = (x.of(&x.scales, token), x.of(&x.sums, token));
    let mut s = _mm512_setzero_ps();
    let mut mins = _mm256_setzero_ps();
    let blocks = row.len() / B;
    let teams = blocks / TEAM;
    for team in 0..teams {
        let bytes = &row[team * TEAM * B..][..TEAM * B];
        let (d, m) = heads::<W, B, T>(bytes);
        let at = team * TEAM;
        add32::<W, B, T>(bytes, d, &q[at * 32..], &lanes[at * 8..], &scales[at..], &mut s);
        if T::MIN {
            // SAFETY: activations are padded to whole teams.
            mins = _mm256_fmadd_ps(m, unsafe { _mm256_loadu_ps(sums[at..at + TEAM].as_ptr()) }, mins);
        }
    }
    if blocks % TEAM != 0 {
        // The last few, with blocks of zeros behind them; the activations there are zeros too.
        let mut bytes = [[0u8; B]; TEAM];
        let bytes = bytes.as_flattened_mut();
        let tail = &row[teams * TEAM * B..];
        bytes[..tail.len()].copy_from_slice(tail);
        let (d, m) = heads::<W, B, T>(bytes);
        let at = teams * TEAM;
        add32::<W, B, T>(bytes, d, &q[at * 32..], &lanes[at * 8..], &scales[at..], &mut s);
        if T::MIN {
            // SAFETY: as above.
            mins = _mm256_fmadd_ps(m, unsafe { _mm256_loadu_ps(sums[at..at + TEAM].as_ptr()) }, mins);
        }
    }
    finish(s, mins)
}

#[target_feature(enable = "avx512f,avx2")]
fn finish(s: __m512, mins: __m256) -> f32 {
    let mut all = Sums::default();
    // SAFETY: the arrays have the registers' sizes.
    unsafe {
        _mm512_storeu_ps(all.lanes.as_mut_ptr(), s);
        _mm256_storeu_ps(all.mins.as_mut_ptr(), mins);
    }
    all.total()
}

/// Scales and mins of a team.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c")]
fn heads<const W: usize, const B: usize, T: Weights<W, B>>(bytes: &[u8]) -> (__m256, __m256) {
    let head = |at: usize| {
        let word = |b: usize| i16::from_le_bytes([bytes[b * B + at], bytes[b * B + at + 1]]);
        _mm256_cvtph_ps(_mm_setr_epi16(
            word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7),
        ))
    };
    let d = if is::<T, Q4_0>() {
        // The scales of eight blocks of 18 bytes lie within 128 bytes: words 0, 9, 18, ...
        // SAFETY: a team of 8 · 18 bytes.
        let (a, b) = unsafe {
            let p = bytes[..128].as_ptr();
            (_mm512_loadu_si512(p.cast()), _mm512_loadu_si512(p.add(64).cast()))
        };
        let places = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
        _mm256_cvtph_ps(_mm512_castsi512_si128(_mm512_permutex2var_epi16(a, places, b)))
    } else {
        head(0)
    };
    (d, if T::MIN { head(2) } else { _mm256_setzero_ps() })
}

/// Whether two types are one. The answer is known when the code is compiled.
#[inline(always)]
fn is<A: 'static, B: 'static>() -> bool {
    std::any::TypeId::of::<A>() == std::any::TypeId::of::<B>()
}

/// Adds a team of blocks to the sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn add32<const W: usize, const B: usize, T: Weights<W, B>>(
    bytes: &[u8],
    d: __m256,
    q: &[i8],
    lanes: &[i32],
    scales: &[f32],
    s: &mut __m512,
) {
    let (bytes, q, lanes) = (&bytes[..TEAM * B], &q[..TEAM * 32], &lanes[..TEAM * 8]);
    // SAFETY: eight scales, by the slice.
    let d = unsafe { _mm256_mul_ps(d, _mm256_loadu_ps(scales[..TEAM].as_ptr())) };
    let d = _mm512_castps256_ps512(d);
    let second = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    for pair in 0..TEAM / 2 {
        let codes = pair_of::<W, B, T>(&bytes[pair * 2 * B..][..2 * B]);
        // SAFETY: 64 codes and 16 lanes for a pair, by the slices above.
        let (x, lane) = unsafe {
            (
                _mm512_loadu_si512(q[pair * 64..].as_ptr().cast()),
                _mm512_loadu_si512(lanes[pair * 16..].as_ptr().cast()),
            )
        };
        let sum = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(lane, codes, x));
        let which = _mm512_add_epi32(second, _mm512_set1_epi32(2 * pair as i32));
        *s = _mm512_fmadd_ps(sum, _mm512_permutexvar_ps(which, d), *s);
    }
}

/// The codes of two blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
fn pair_of<const W: usize, const B: usize, T: Weights<W, B>>(bytes: &[u8]) -> __m512i {
    let bytes = &bytes[..2 * B];
    let p = bytes.as_ptr();
    if is::<T, Q4_0>() {
        // SAFETY: 16 bytes behind either block's scale.
        let both = unsafe {
            let first = _mm512_broadcast_i32x4(_mm_loadu_si128(p.add(2).cast()));
            _mm512_mask_broadcast_i32x4(first, 0xFF00, _mm_loadu_si128(p.add(B + 2).cast()))
        };
        let shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
        return _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
    }
    if is::<T, Q8_0>() {
        // SAFETY: 32 bytes behind either block's scale.
        let both = unsafe {
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(2).cast()));
            _mm512_inserti64x4(first, _mm256_loadu_si256(p.add(B + 2).cast()), 1)
        };
        return _mm512_xor_si512(both, _mm512_set1_epi8(-128));
    }
    let mut codes = [[0u8; W]; 2];
    for (codes, block) in codes.iter_mut().zip(bytes.as_chunks::<B>().0) {
        T::codes(block, codes);
    }
    // SAFETY: 64 codes.
    unsafe { _mm512_loadu_si512(codes.as_flattened()[..64].as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn row256<const W: usize, const B: usize, T: Weights<W, B>>(
    row: &[u8],
    x: &Activations,
    token: usize,
) -> f32 {
    let (q, lanes, scales) = (x.codes(token), x.lanes(token), x.of(&x.scales, token));
    let mut s = _mm512_setzero_ps();
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        let (q, lanes) = (&q[b * 256..][..256], &lanes[b * 64..][..64]);
        // Part n of either half: weights 32 · n and 128 + 32 · n and those that follow.
        // SAFETY: 256 codes, 64 lanes, by the slices above.
        let (x, offset) = unsafe {
            let x = |n: usize| {
                let first = _mm512_castsi256_si512(_mm256_loadu_si256(q.as_ptr().add(32 * n).cast()));
                _mm512_inserti64x4(first, _mm256_loadu_si256(q.as_ptr().add(128 + 32 * n).cast()), 1)
            };
            let lane = |n: usize| {
                let first = _mm512_castsi256_si512(_mm256_loadu_si256(lanes.as_ptr().add(8 * n).cast()));
                _mm512_inserti64x4(first, _mm256_loadu_si256(lanes.as_ptr().add(32 + 8 * n).cast()), 1)
            };
            let offset = _mm512_add_epi32(
                _mm512_add_epi32(lane(0), lane(1)),
                _mm512_add_epi32(lane(2), lane(3)),
            );
            ([x(0), x(1), x(2), x(3)], offset)
        };
        let codes = if is::<T, Tq2_0>() {
            // SAFETY: the block begins with 64 bytes of codes.
            let bytes = unsafe { _mm512_loadu_si512(block[..64].as_ptr().cast()) };
            let mask = _mm512_set1_epi8(3);
            [
                _mm512_and_si512(bytes, mask),
                _mm512_and_si512(_mm512_srli_epi16(bytes, 2), mask),
                _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask),
                _mm512_and_si512(_mm512_srli_epi16(bytes, 6), mask),
            ]
        } else {
            trits::<W, B, T>(block)
        };
        let mut sum = offset;
        for n in 0..4 {
            sum = _mm512_dpbusd_epi32(sum, codes[n], x[n]);
        }
        let d = _mm512_set1_ps(T::scale(block) * scales[b]);
        s = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), d, s);
    }
    finish(s, _mm256_setzero_ps())
}

/// The codes of a block of 256, each register with a part of the first half and one of the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
fn trits<const W: usize, const B: usize, T: Weights<W, B>>(block: &[u8; B]) -> [__m512i; 4] {
    let mut codes = [0u8; W];
    T::codes(block, &mut codes);
    let p = codes[..256].as_ptr();
    // SAFETY: 256 codes.
    unsafe {
        let part = |n: usize| {
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(32 * n).cast()));
            _mm512_inserti64x4(first, _mm256_loadu_si256(p.add(128 + 32 * n).cast()), 1)
        };
        [part(0), part(1), part(2), part(3)]
    }
}

/// A row of halves.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub fn f16(row: &[u8], x: &[f32]) -> f32 {
    let mut s = [_mm512_setzero_ps(); 2];
    let (chunks, rest) = x.as_chunks::<FLOATS>();
    for (x, w) in chunks.iter().zip(row.as_chunks::<{ 2 * FLOATS }>().0) {
        for i in 0..2 {
            // SAFETY: 32 numbers of two and of four bytes.
            unsafe {
                let w = _mm512_cvtph_ps(_mm256_loadu_si256(w.as_ptr().add(32 * i).cast()));
                s[i] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x.as_ptr().add(16 * i)), s[i]);
            }
        }
    }
    let mut all = [0f32; FLOATS];
    // SAFETY: 32 floats.
    unsafe {
        _mm512_storeu_ps(all.as_mut_ptr(), s[0]);
        _mm512_storeu_ps(all.as_mut_ptr().add(16), s[1]);
    }
    for (i, (x, w)) in rest.iter().zip(row[chunks.len() * FLOATS * 2..].as_chunks::<2>().0).enumerate() {
        all[i] = formats::block::f16_to_f32(u16::from_le_bytes(*w)).mul_add(*x, all[i]);
    }
    total(&all)
}
