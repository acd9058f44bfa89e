//! Panels in 256-bit registers: a register has four columns of eight rows.

use std::arch::x86_64::*;

use super::super::activations::{Activations, TOKENS};
use super::super::weights::{Nested, Weights};
use super::{Panel, ROWS};

/// Tokens whose sums stay in registers.
const TEAM: usize = 4;

/// Products.
#[target_feature(enable = "avx2,fma")]
pub fn tile(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for first in (0..TOKENS).step_by(TEAM) {
        let out: &mut [_; TEAM] = (&mut out[first..first + TEAM]).try_into().expect("a team");
        if token + first < x.tokens() {
            for half in 0..2 {
                team(panel, x, token + first, half, out);
            }
        } else {
            *out = [[0.0; ROWS]; TEAM];
        }
    }
}

// By itself, so that its sums have all registers.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn team(panel: &Panel, x: &Activations, token: usize, half: usize, out: &mut [[f32; ROWS]; TEAM]) {
    let groups = panel.cols / panel.group;
    let stride = x.stride();
    let all = stride / panel.group;
    assert!(
        panel.cols == x.cols()
            && panel.cols <= stride
            && x.codes.len() >= (token + TEAM) * stride
            && half < 2
    );
    let quads = panel.group / 4;
    let scales = &x.scales[token * all..(token + TEAM) * all];
    let sums = &x.sums[token * all..(token + TEAM) * all];
    let ones = _mm256_set1_epi16(1);
    let mut acc = [_mm256_setzero_ps(); TEAM];
    for g in 0..groups {
        let w = &panel.codes[g * panel.group * ROWS..][..panel.group * ROWS];
        let mut s = [_mm256_setzero_si256(); TEAM];
        // SAFETY: `quads` times 64 weights in `w`, of which this half has 32; every token has `group` codes from
        // column g · group on, as asserted above, in rows of `stride`.
        unsafe {
            let q = x.codes.as_ptr().add(token * stride + g * panel.group);
            for k in 0..quads {
                let w = _mm256_loadu_si256(w.as_ptr().add(k * 4 * ROWS + half * 32).cast());
                let size = _mm256_abs_epi8(w);
                for t in 0..TEAM {
                    let four = q.add(t * stride + 4 * k).cast::<i32>().read_unaligned();
                    let signed = _mm256_sign_epi8(_mm256_set1_epi32(four), w);
                    let pairs = _mm256_maddubs_epi16(size, signed);
                    s[t] = _mm256_add_epi32(s[t], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        let at = g * ROWS + half * 8;
        // SAFETY: eight scales, or mins, by the slices.
        let d = unsafe { _mm256_loadu_ps(panel.scales[at..][..8].as_ptr()) };
        for t in 0..TEAM {
            let part = _mm256_mul_ps(_mm256_cvtepi32_ps(s[t]), d);
            acc[t] = _mm256_fmadd_ps(part, _mm256_set1_ps(scales[t * all + g]), acc[t]);
        }
        if !panel.mins.is_empty() {
            // SAFETY: as above.
            let m = unsafe { _mm256_loadu_ps(panel.mins[at..][..8].as_ptr()) };
            for t in 0..TEAM {
                acc[t] = _mm256_fmadd_ps(m, _mm256_set1_ps(sums[t * all + g]), acc[t]);
            }
        }
    }
    for t in 0..TEAM {
        // SAFETY: eight floats, by the slice.
        unsafe { _mm256_storeu_ps(out[t][half * 8..][..8].as_mut_ptr(), acc[t]) };
    }
}

/// [`super::unpack_body`], compiled for this set.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn unpack<const W: usize, const B: usize, T: Weights<W, B>>(rows: &[&[u8]], panel: &mut Panel) {
    super::room::<W, B, T>(rows, panel);
    super::scales::<W, B, T>(rows, panel);
    super::unpack_body::<W, B, T, false>(rows, panel, 0, super::interleave);
}

/// Products of types with integer scales.
#[target_feature(enable = "avx2,fma")]
pub fn nested(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for first in (0..TOKENS).step_by(TEAM) {
        let out: &mut [_; TEAM] = (&mut out[first..first + TEAM]).try_into().expect("a team");
        if token + first < x.tokens() {
            for half in 0..2 {
                nested_team(panel, x, token + first, half, out);
            }
        } else {
            *out = [[0.0; ROWS]; TEAM];
        }
    }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn nested_team(panel: &Panel, x: &Activations, token: usize, half: usize, out: &mut [[f32; ROWS]; TEAM]) {
    let blocks = panel.cols / 256;
    let stride = x.stride();
    let scales: [&[f32]; TEAM] = std::array::from_fn(|t| x.of(&x.scales, token + t));
    let mut acc = [_mm256_setzero_ps(); TEAM];
    for b in 0..blocks {
        let mut add = |w: &[i16], q: &[i16], stride: usize, d: &[f32]| {
            let s = pairs(w, q, stride, half);
            // SAFETY: eight scales, by the slice.
            let d = unsafe { _mm256_loadu_ps(d[half * 8..][..8].as_ptr()) };
            for t in 0..TEAM {
                let part = _mm256_mul_ps(_mm256_cvtepi32_ps(s[t]), d);
                acc[t] = _mm256_fmadd_ps(part, _mm256_set1_ps(scales[t][b]), acc[t]);
            }
        };
        let w = &panel.pairs[b * 256 * ROWS..][..256 * ROWS];
        add(w, &x.wide[token * stride + b * 256..], stride, &panel.scales[b * ROWS..]);
        if !panel.mins.is_empty() {
            let m = &panel.integers[b * 16 * ROWS..][..16 * ROWS];
            let stride = stride / 16;
            add(m, &x.sixteens[token * stride + b * 16..], stride, &panel.mins[b * ROWS..]);
        }
    }
    for t in 0..TEAM {
        // SAFETY: eight floats, by the slice.
        unsafe { _mm256_storeu_ps(out[t][half * 8..][..8].as_mut_ptr(), acc[t]) };
    }
}

/// Sums of products of pairs of columns, for eight rows and a team.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pairs(w: &[i16], q: &[i16], stride: usize, half: usize) -> [__m256i; TEAM] {
    let pairs = w.len() / (2 * ROWS);
    assert!(q.len() >= (TEAM - 1) * stride + 2 * pairs && half < 2);
    let mut s = [_mm256_setzero_si256(); TEAM];
    for k in 0..pairs {
        // SAFETY: `pairs` times 32 weights, of which this half has sixteen; two codes of each token, as asserted above.
        unsafe {
            let w = _mm256_loadu_si256(w.as_ptr().add(k * 2 * ROWS + half * ROWS).cast());
            for t in 0..TEAM {
                let two = q.as_ptr().add(t * stride + 2 * k).cast::<i32>().read_unaligned();
                s[t] = _mm256_add_epi32(s[t], _mm256_madd_epi16(w, _mm256_set1_epi32(two)));
            }
        }
    }
    s
}

/// [`super::nested::unpack_body`], compiled for this set.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn unpack_nested<const B: usize, T: Nested<B>>(rows: &[&[u8]], panel: &mut Panel) {
    super::nested::unpack_body::<B, T>(rows, panel);
}
