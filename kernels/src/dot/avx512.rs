//! Rows times a vector in 512-bit registers with VNNI: two blocks of 32 weights, or a quarter of 256, at a time.

use std::arch::x86_64::*;

use super::super::activations::Activations;
use super::super::weights::{FP4_VALUES, IQ4_VALUES, Iq4Nl, Mxfp4, Nvfp4, Q1_0, Tq2_0, Weights};
use super::parts::table;
use super::{FLOATS, Sums, total};

/// A row; see [`super::DotKernel`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub fn row<const W: usize, const B: usize, T: Weights<W, B>>(
    row: &[u8],
    x: &Activations,
    token: usize,
) -> f32 {
    super::check::<W, B, T>(row, x, token);
    // Constants, so that what is not taken is not compiled.
    if const { W == 32 } {
        row32::<W, B, T>(row, x, token)
    } else if const { W == 64 || W == 128 } {
        units::<W, B, T>(row, x, token)
    } else {
        row256::<W, B, T>(row, x, token)
    }
}

/// Blocks that go through together: their scales fill a 256-bit register.
const TEAM: usize = 8;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn row32<const W: usize, const B: usize, T: Weights<W, B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    let (q, lanes) = (x.codes(token), x.lanes(token));
    let (scales, sums) = (x.of(&x.scales, token), x.of(&x.sums, token));
    let blocks = row.len() / B;
    let padded = blocks.next_multiple_of(TEAM);
    assert!(q.len() >= padded * 32 && lanes.len() >= padded * 8);
    assert!(scales.len() >= padded && sums.len() >= padded);
    let (q, lanes) = (q.as_ptr(), lanes.as_ptr());
    let (scales, sums) = (scales.as_ptr(), sums.as_ptr());
    let mut s = _mm512_setzero_ps();
    let mut mins = _mm256_setzero_ps();
    // SAFETY: whole teams of blocks, and as many of everything else, as asserted above. A token's codes and lanes begin at
    // a multiple of 256 bytes in buffers that are aligned to 64, and a team is as many bytes of either.
    unsafe {
        let mut at = 0;
        while at + TEAM <= blocks {
            let bytes = row.as_ptr().add(at * B);
            match B {
                ..=18 => ahead::<{ 8 * 18 }>(bytes),
                _ => ahead::<{ 8 * 34 }>(bytes),
            }
            team::<W, B, T>(
                bytes,
                q.add(at * 32),
                lanes.add(at * 8),
                scales.add(at),
                sums.add(at),
                &mut s,
                &mut mins,
            );
            at += TEAM;
        }
        if at < blocks {
            // The last few, with blocks of zeros behind them; the activations there are zeros too.
            let mut bytes = [[0u8; B]; TEAM];
            let tail = &row[at * B..];
            bytes.as_flattened_mut()[..tail.len()].copy_from_slice(tail);
            let bytes = bytes.as_ptr().cast();
            team::<W, B, T>(
                bytes,
                q.add(at * 32),
                lanes.add(at * 8),
                scales.add(at),
                sums.add(at),
                &mut s,
                &mut mins,
            );
        }
    }
    finish(s, mins)
}

/// Asks for N bytes that a stream of rows comes to in a while: the processor's own guesses stop at pages.
#[inline(always)]
pub(super) fn ahead<const N: usize>(bytes: *const u8) {
    for line in 0..N.div_ceil(64) {
        // SAFETY: a hint only; addresses that are nobody's are ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD + 64 * line).cast()) };
    }
}

/// Bytes that are asked for in advance.
const AHEAD: usize = 1536;

#[target_feature(enable = "avx512f,avx2")]
pub(super) fn finish(s: __m512, mins: __m256) -> f32 {
    let mut all = Sums::default();
    // SAFETY: the arrays have the registers' sizes.
    unsafe {
        _mm512_storeu_ps(all.lanes.as_mut_ptr(), s);
        _mm256_storeu_ps(all.mins.as_mut_ptr(), mins);
    }
    all.total()
}

/// The halves at `at` in each of a team's blocks.
///
/// # Safety
/// There is a team of blocks of B bytes; the half at `at` is within a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c")]
unsafe fn heads<const B: usize>(bytes: *const u8, at: usize) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        if B == 18 {
            // Eight blocks of 18 bytes have their scales within 128 bytes: words 0, 9, 18, ...
            let (a, b) = (_mm512_loadu_si512(bytes.cast()), _mm512_loadu_si512(bytes.add(64).cast()));
            let places = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
            return _mm256_cvtph_ps(_mm512_castsi512_si128(_mm512_permutex2var_epi16(a, places, b)));
        }
        if B == 17 {
            // Half of powers of two: e − 1 is the float's exponent, and below that are halves of the least.
            let byte = |b: usize| i32::from(*bytes.add(b * B));
            let [a, b, c, d] = [byte(0), byte(1), byte(2), byte(3)];
            let e = _mm256_setr_epi32(a, b, c, d, byte(4), byte(5), byte(6), byte(7));
            let normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
            let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
            let few = _mm256_cmplt_epi32_mask(e, _mm256_set1_epi32(2));
            return _mm256_castsi256_ps(_mm256_mask_mov_epi32(normal, few, small));
        }
        let word = |b: usize| i16::from_le_bytes(bytes.add(b * B + at).cast::<[u8; 2]>().read());
        _mm256_cvtph_ps(_mm_setr_epi16(
            word(0),
            word(1),
            word(2),
            word(3),
            word(4),
            word(5),
            word(6),
            word(7),
        ))
    }
}

/// Whether two types are one. The answer is known when the code is compiled.
#[inline(always)]
fn is<A: 'static, B: 'static>() -> bool {
    std::any::TypeId::of::<A>() == std::any::TypeId::of::<B>()
}

/// Adds a team of blocks to the sums.
///
/// # Safety
/// There is a team of blocks, of their codes, lanes, scales and sums; codes and lanes are aligned to 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn team<const W: usize, const B: usize, T: Weights<W, B>>(
    bytes: *const u8,
    q: *const i8,
    lanes: *const i32,
    scales: *const f32,
    sums: *const f32,
    s: &mut __m512,
    mins: &mut __m256,
) {
    // SAFETY: the caller's. Of 64 codes and of sixteen lanes a register is made, for each of four pairs of blocks; the
    // halves at 0 and, where there is a min, at 2 are in every block.
    unsafe {
        let d = _mm256_mul_ps(heads::<B>(bytes, 0), _mm256_loadu_ps(scales));
        let d = _mm512_castps256_ps512(d);
        for pair in 0..TEAM / 2 {
            let codes = pair_of::<W, B, T>(bytes.add(pair * 2 * B));
            let x = _mm512_load_si512(q.add(pair * 64).cast());
            let lane = _mm512_load_si512(lanes.add(pair * 16).cast());
            let sum = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(lane, codes, x));
            let (a, b) = (2 * pair as i32, 2 * pair as i32 + 1);
            let which = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
            *s = _mm512_fmadd_ps(sum, _mm512_permutexvar_ps(which, d), *s);
        }
        if T::MIN {
            *mins = _mm256_fmadd_ps(heads::<B>(bytes, 2), _mm256_loadu_ps(sums), *mins);
        }
    }
}

/// The codes of two blocks.
///
/// # Safety
/// Two blocks of B bytes begin at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
pub(crate) unsafe fn pair_of<const W: usize, const B: usize, T: Weights<W, B>>(p: *const u8) -> __m512i {
    assert!(W == 32 && B >= 17);
    // SAFETY: the caller's. All loads are within 2 · B bytes: the last sixteen of a block, or its last 32 where B is 34;
    // the four bytes at B − 20 are read of blocks of 22 and 24.
    unsafe {
        if B == 34 {
            // Codes behind either block's scale.
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(2).cast()));
            let both = _mm512_inserti64x4(first, _mm256_loadu_si256(p.add(B + 2).cast()), 1);
            return _mm512_xor_si512(both, _mm512_set1_epi8(-128));
        }
        // Sixteen bytes of nibbles at the end of either block, twice; the second copy's high ones move down.
        let first = _mm512_broadcast_i32x4(_mm_loadu_si128(p.add(B - 16).cast()));
        let both = _mm512_mask_broadcast_i32x4(first, 0xFF00, _mm_loadu_si128(p.add(2 * B - 16).cast()));
        let shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
        let both = _mm512_srlv_epi64(both, shifts);
        if is::<T, Iq4Nl>() {
            return table(&IQ4_VALUES, both);
        }
        if is::<T, Mxfp4>() {
            return table(&FP4_VALUES, both);
        }
        let low = _mm512_and_si512(both, _mm512_set1_epi8(15));
        if B == 18 || B == 20 {
            return low;
        }
        // A fifth bit each, in the four bytes before.
        let word = |at: usize| u64::from(u32::from_le_bytes(p.add(at).cast::<[u8; 4]>().read()));
        let fifths = word(B - 20) | word(2 * B - 20) << 32;
        _mm512_mask_add_epi8(low, fifths, low, _mm512_set1_epi8(16))
    }
}

/// The codes of the 64 weights from 64 · `u` on of a block of 64 or 128.
///
/// # Safety
/// A block of B bytes begins at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
pub(crate) unsafe fn unit<const W: usize, const B: usize, T: Weights<W, B>>(
    p: *const u8,
    u: usize,
) -> __m512i {
    assert!((B == 36 || B == 18) && u < W / 64);
    // SAFETY: the caller's. 32 bytes behind the first four of 36; of 18, eight bytes behind the first two and 8 · `u`,
    // or sixteen behind the first two.
    unsafe {
        if is::<T, Nvfp4>() {
            // Eight bytes of nibbles for sixteen weights, the first half of them low.
            let bytes = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(4).cast()));
            let each = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), bytes);
            return table(&FP4_VALUES, _mm512_srlv_epi64(each, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4)));
        }
        if is::<T, Q1_0>() {
            let bits = u64::from_le_bytes(p.add(2 + 8 * u).cast::<[u8; 8]>().read());
            return _mm512_maskz_set1_epi8(bits, 2);
        }
        // Pairs of bits: each byte goes to the lowest pairs of four.
        let x = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.add(2).cast()));
        let x = _mm512_or_si512(x, _mm512_slli_epi32(x, 12));
        let x = _mm512_or_si512(x, _mm512_slli_epi32(x, 6));
        _mm512_and_si512(x, _mm512_set1_epi8(3))
    }
}

/// What the four bytes of NVFP4's scales stand for.
static SMALL_FLOATS: [f32; 256] = {
    let mut all = [0.0; 256];
    let mut s = 0;
    while s < 256 {
        all[s] = formats::block::half_ue4m3(s as u8);
        s += 1;
    }
    all
};

/// Rows of blocks of 64 and 128, 64 weights at a time: these are a register, and the sixteen sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn units<const W: usize, const B: usize, T: Weights<W, B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    let cols = row.len() / B * W;
    let (q, lanes) = (&x.codes(token)[..cols], &x.lanes(token)[..cols / 4]);
    let scales = &x.of(&x.scales, token)[..cols / T::GROUP];
    let mut s = _mm512_setzero_ps();
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        ahead::<B>(block.as_ptr());
        let head = u16::from_le_bytes([block[0], block[1]]);
        for u in 0..W / 64 {
            let at = b * W + 64 * u;
            // SAFETY: there are codes, lanes and scales of whole blocks, by the slices: of these 64 weights they have 64, 16,
            // and 64 / GROUP, which is four or two. The first two are aligned as a token's are, since 64 codes and sixteen
            // lanes are 64 bytes. `unit` gets a block.
            unsafe {
                let d = if T::GROUP == 16 {
                    let small = |g: usize| SMALL_FLOATS[usize::from(block[g])];
                    let d = _mm_setr_ps(small(0), small(1), small(2), small(3));
                    let d = _mm_mul_ps(d, _mm_loadu_ps(scales.as_ptr().add(at / 16)));
                    let each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                    _mm512_permutexvar_ps(each, _mm512_castps128_ps512(d))
                } else {
                    let d = _mm_cvtph_ps(_mm_set1_epi16(head as i16));
                    let two = _mm_castpd_ps(_mm_load_sd(scales.as_ptr().add(at / 32).cast()));
                    let each = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
                    _mm512_permutexvar_ps(each, _mm512_castps128_ps512(_mm_mul_ps(d, two)))
                };
                let first = _mm512_load_si512(lanes.as_ptr().add(at / 4).cast());
                let x = _mm512_load_si512(q.as_ptr().add(at).cast());
                let sum = _mm512_dpbusd_epi32(first, unit::<W, B, T>(block.as_ptr(), u), x);
                s = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), d, s);
            }
        }
    }
    finish(s, _mm256_setzero_ps())
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn row256<const W: usize, const B: usize, T: Weights<W, B>>(
    row: &[u8],
    x: &Activations,
    token: usize,
) -> f32 {
    let (q, lanes, scales) = (x.codes(token), x.lanes(token), x.of(&x.scales, token));
    let mut s = _mm512_setzero_ps();
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        ahead::<64>(block.as_ptr());
        let (q, lanes) = (&q[b * 256..][..256], &lanes[b * 64..][..64]);
        // Part n of either half: weights 32 · n and 128 + 32 · n and those that follow.
        // SAFETY: parts of 256 codes and of 64 lanes, by the slices above.
        let (x, offset) = unsafe {
            let x = |n: usize| {
                let first = _mm512_castsi256_si512(_mm256_loadu_si256(q.as_ptr().add(32 * n).cast()));
                _mm512_inserti64x4(first, _mm256_loadu_si256(q.as_ptr().add(128 + 32 * n).cast()), 1)
            };
            let lane = |n: usize| {
                let first = _mm512_castsi256_si512(_mm256_loadu_si256(lanes.as_ptr().add(8 * n).cast()));
                _mm512_inserti64x4(first, _mm256_loadu_si256(lanes.as_ptr().add(32 + 8 * n).cast()), 1)
            };
            let offset =
                _mm512_add_epi32(_mm512_add_epi32(lane(0), lane(1)), _mm512_add_epi32(lane(2), lane(3)));
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
        let d = _mm512_set1_ps(T::scale(block, 0) * scales[b]);
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
    // SAFETY: parts of 256 codes, by the slice.
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
            // SAFETY: sixteen of the 32 halves and floats of two arrays.
            unsafe {
                let w = _mm512_cvtph_ps(_mm256_loadu_si256(w.as_ptr().add(32 * i).cast()));
                s[i] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x.as_ptr().add(16 * i)), s[i]);
            }
        }
    }
    let mut all = [0f32; FLOATS];
    // SAFETY: twice sixteen floats of 32.
    unsafe {
        _mm512_storeu_ps(all.as_mut_ptr(), s[0]);
        _mm512_storeu_ps(all.as_mut_ptr().add(16), s[1]);
    }
    for (i, (x, w)) in rest.iter().zip(row[chunks.len() * FLOATS * 2..].as_chunks::<2>().0).enumerate() {
        all[i] = formats::block::f16_to_f32(u16::from_le_bytes(*w)).mul_add(*x, all[i]);
    }
    total(&all)
}
