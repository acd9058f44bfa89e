//! Panels of types with integer scales in 512-bit registers: unpacking, and products without the matrix unit. These
//! multiply bytes, a group at a time, and the groups' sums with their scales.

use std::arch::x86_64::*;

use super::super::activations::{Activations, TOKENS};
use super::super::dot::nested512::places;
use super::super::dot::parts::Parts;
use super::avx512::transpose;
use super::{Panel, ROWS, nested};

/// Takes over what block `b` of the rows has beside codes, but for the integer scales, which are given.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
fn integers<const B: usize, T: Parts<B>>(
    rows: &[&[[u8; B]]],
    b: usize,
    panel: &mut Panel,
) -> [__m256i; ROWS] {
    let mut scales = [_mm256_setzero_si256(); ROWS];
    for (r, row) in rows.iter().enumerate() {
        let block = &row[b];
        // SAFETY: this function has the features that `Parts` asks for.
        unsafe {
            scales[r] = T::scales16(block);
            panel.scales[b * ROWS + r] = T::step(block);
            if T::MIN {
                panel.mins[b * ROWS + r] = T::min_step(block);
                put_pairs(T::mins16(block), r, &mut panel.integers[b * 16 * ROWS..]);
            }
        }
    }
    scales
}

/// Puts a row's sixteen numbers among those of the others, two and two.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn put_pairs(numbers: __m256i, r: usize, out: &mut [i16]) {
    let mut pairs = [0i16; 16];
    // SAFETY: sixteen numbers of sixteen bits.
    unsafe { _mm256_storeu_si256(pairs.as_mut_ptr().cast(), numbers) };
    for (i, pair) in pairs.as_chunks::<2>().0.iter().enumerate() {
        out[(i * ROWS + r) * 2..][..2].copy_from_slice(pair);
    }
}

/// What codes are lifted by, to be above zero: the instructions want one side so.
const fn lift<const B: usize, T: Parts<B>>() -> i32 {
    if T::SIGNS { 128 } else { T::OFFSET }
}

/// The blocks of rows, which are found once, since that takes a division.
fn blocks_of<'a, 'r, const B: usize>(
    rows: &[&'r [u8]],
    all: &'a mut [&'r [[u8; B]]; ROWS],
) -> &'a [&'r [[u8; B]]] {
    for (blocks, row) in all.iter_mut().zip(rows) {
        *blocks = row.as_chunks::<B>().0;
    }
    &all[..rows.len()]
}

/// Unpacks rows into codes above zero, with their scales beside them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub fn unpack_codes<const B: usize, T: Parts<B>>(rows: &[&[u8]], panel: &mut Panel) {
    nested::room::<B, T>(rows, panel, nested::Form::Codes(T::GROUP, lift::<B, T>()));
    nested::clear(rows.len(), panel);
    let mut found = [&[][..]; ROWS];
    let rows = blocks_of(rows, &mut found);
    let (lift, groups) = (lift::<B, T>(), 256 / T::GROUP);
    let mut all = [_mm512_setzero_si512(); ROWS];
    for b in 0..panel.cols / 256 {
        let scales = integers::<B, T>(rows, b, panel);
        for r in 0..rows.len() {
            let mut sixteen = [0i16; 16];
            // SAFETY: sixteen numbers of sixteen bits.
            unsafe { _mm256_storeu_si256(sixteen.as_mut_ptr().cast(), scales[r]) };
            for g in 0..groups {
                panel.factors[(b * groups + g) * ROWS + r] = i32::from(sixteen[g * 16 / groups]);
            }
            if lift > 0 {
                let lifts = _mm256_mullo_epi16(scales[r], _mm256_set1_epi16(-lift as i16));
                put_pairs(lifts, r, &mut panel.lifts[b * 16 * ROWS..]);
            }
        }
        for p in 0..4 {
            for (r, row) in rows.iter().enumerate() {
                // SAFETY: this function has the features that `Parts` asks for.
                let (codes, minus) = unsafe { T::part(&row[b], p) };
                all[r] = codes;
                if T::SIGNS {
                    let codes = _mm512_mask_sub_epi8(codes, minus, _mm512_setzero_si512(), codes);
                    all[r] = _mm512_xor_si512(codes, _mm512_set1_epi8(-128));
                }
            }
            transpose(&all, &mut panel.codes[(b * 256 + 64 * p) * ROWS..][..64 * ROWS]);
        }
    }
}

/// Unpacks rows into planes of bytes. Codes times scales are made of even and odd columns, in sixteen bits each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub fn unpack_planes<const B: usize, T: Parts<B>>(rows: &[&[u8]], panel: &mut Panel) {
    nested::room::<B, T>(rows, panel, nested::Form::Planes);
    nested::clear(rows.len(), panel);
    let mut found = [&[][..]; ROWS];
    let rows = blocks_of(rows, &mut found);
    let offset = _mm512_set1_epi8(T::OFFSET as i8);
    let (low, high) = (_mm_cvtsi32_si128(T::LOW as i32), _mm_cvtsi32_si128(8 - T::LOW as i32));
    let bytes = _mm512_set1_epi16(255);
    let mask = _mm512_set1_epi8((1 << T::LOW) - 1);
    let (mut lower, mut upper) = ([_mm512_setzero_si512(); ROWS], [_mm512_setzero_si512(); ROWS]);
    for b in 0..panel.cols / 256 {
        let scales = integers::<B, T>(rows, b, panel);
        for p in 0..4 {
            for (r, row) in rows.iter().enumerate() {
                // SAFETY: this function has the features that `Parts` asks for.
                let (codes, minus) = unsafe { T::part(&row[b], p) };
                let mut codes = _mm512_sub_epi8(codes, offset);
                let scale = _mm512_permutexvar_epi16(places(p), _mm512_castsi256_si512(scales[r]));
                let mut size = scale;
                if T::SIGNS {
                    codes = _mm512_mask_sub_epi8(codes, minus, _mm512_setzero_si512(), codes);
                } else if T::OFFSET != 0 {
                    // Codes with the sign of the scale, times its size.
                    size = _mm512_abs_epi16(scale);
                    let sign = _mm512_srai_epi16(scale, 15);
                    codes = _mm512_sub_epi8(_mm512_xor_si512(codes, sign), sign);
                }
                let even = _mm512_maddubs_epi16(size, codes);
                let odd = _mm512_maddubs_epi16(_mm512_slli_epi16(size, 8), codes);
                // Where `bytes` has ones from the first, elsewhere from the second.
                let all = _mm512_ternarylogic_epi64::<0xCA>(bytes, even, _mm512_slli_epi16(odd, 8));
                if T::LOW == 0 {
                    lower[r] = all;
                } else {
                    lower[r] = _mm512_and_si512(all, mask);
                    let (even, odd) = (_mm512_sra_epi16(even, low), _mm512_sll_epi16(odd, high));
                    upper[r] = _mm512_ternarylogic_epi64::<0xCA>(bytes, even, odd);
                }
            }
            let at = (b * 256 + 64 * p) * ROWS;
            transpose(&lower, &mut panel.codes[at..][..64 * ROWS]);
            if T::LOW > 0 {
                transpose(&upper, &mut panel.upper[at..][..64 * ROWS]);
            }
        }
    }
}

/// Tokens whose sums stay in registers.
const TEAM: usize = 8;

/// Products of panels of [`unpack_codes`], with scales for each `GROUP` columns. Block after block: what a block has is
/// read from afar once for all tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub fn tile<const GROUP: usize>(
    panel: &Panel,
    x: &Activations,
    token: usize,
    out: &mut [[f32; ROWS]; TOKENS],
) {
    *out = [[0.0; ROWS]; TOKENS];
    let teams = (x.tokens() - token).min(TOKENS).div_ceil(TEAM);
    for b in 0..panel.cols / 256 {
        for (i, out) in out.as_chunks_mut::<TEAM>().0.iter_mut().enumerate().take(teams) {
            team::<GROUP>(panel, x, b, token + i * TEAM, out);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn team<const GROUP: usize>(
    panel: &Panel,
    x: &Activations,
    b: usize,
    token: usize,
    out: &mut [[f32; ROWS]; TEAM],
) {
    let (all, stride) = (x.stride() / 256, x.stride() / 16);
    let scales = &x.scales[token * all + b..];
    let w = &panel.codes[b * 256 * ROWS..][..256 * ROWS];
    let factors = &panel.factors[b * 256 / GROUP * ROWS..][..256 / GROUP * ROWS];
    let sixteens = &x.sixteens[token * stride + b * 16..];
    let mut s = match panel.lifts.get(b * 16 * ROWS..(b + 1) * 16 * ROWS) {
        Some(lifts) => pairs(lifts, sixteens, stride),
        None => [_mm512_setzero_si512(); TEAM],
    };
    scaled::<GROUP>(w, factors, &x.codes[token * x.stride() + b * 256..], x.stride(), &mut s);
    add(&s, &panel.scales[b * ROWS..], scales, all, out);
    if !panel.mins.is_empty() {
        let s = pairs(&panel.integers[b * 16 * ROWS..][..16 * ROWS], sixteens, stride);
        add(&s, &panel.mins[b * ROWS..], scales, all, out);
    }
}

/// Adds the products of a block's codes, times the scales of their groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn scaled<const GROUP: usize>(
    w: &[i8],
    factors: &[i32],
    q: &[i8],
    stride: usize,
    sums: &mut [__m512i; TEAM],
) {
    assert!(
        w.len() == 256 * ROWS && factors.len() == 256 / GROUP * ROWS && q.len() >= (TEAM - 1) * stride + 256
    );
    // SAFETY: 256 columns of sixteen codes, sixteen scales for each group, and 256 codes of each token, as asserted.
    unsafe {
        for g in 0..256 / GROUP {
            let mut s = [_mm512_setzero_si512(); TEAM];
            for k in g * GROUP / 4..(g + 1) * GROUP / 4 {
                let w = _mm512_loadu_si512(w.as_ptr().add(k * 4 * ROWS).cast());
                for t in 0..TEAM {
                    let four = q.as_ptr().add(t * stride + 4 * k).cast::<i32>().read_unaligned();
                    s[t] = _mm512_dpbusd_epi32(s[t], w, _mm512_set1_epi32(four));
                }
            }
            let factor = _mm512_loadu_si512(factors.as_ptr().add(g * ROWS).cast());
            for t in 0..TEAM {
                sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(s[t], factor));
            }
        }
    }
}

/// Adds integers under their rows' scales `d`, and the tokens', `stride` one after the other.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
fn add(s: &[__m512i; TEAM], d: &[f32], scales: &[f32], stride: usize, out: &mut [[f32; ROWS]; TEAM]) {
    // SAFETY: sixteen floats, by the slice.
    let d = unsafe { _mm512_loadu_ps(d[..ROWS].as_ptr()) };
    for t in 0..TEAM {
        let part = _mm512_mul_ps(_mm512_cvtepi32_ps(s[t]), d);
        // SAFETY: sixteen floats.
        unsafe {
            let sum =
                _mm512_fmadd_ps(part, _mm512_set1_ps(scales[t * stride]), _mm512_loadu_ps(out[t].as_ptr()));
            _mm512_storeu_ps(out[t].as_mut_ptr(), sum);
        }
    }
}

/// Sums of products of pairs of columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn pairs(w: &[i16], q: &[i16], stride: usize) -> [__m512i; TEAM] {
    let pairs = w.len() / (2 * ROWS);
    assert!(q.len() >= (TEAM - 1) * stride + 2 * pairs);
    let mut s = [_mm512_setzero_si512(); TEAM];
    for k in 0..pairs {
        // SAFETY: `pairs` times 32 weights, and two codes of each token, as asserted above.
        unsafe {
            let w = _mm512_loadu_si512(w.as_ptr().add(k * 2 * ROWS).cast());
            for t in 0..TEAM {
                let two = q.as_ptr().add(t * stride + 2 * k).cast::<i32>().read_unaligned();
                s[t] = _mm512_dpwssd_epi32(s[t], w, _mm512_set1_epi32(two));
            }
        }
    }
    s
}
