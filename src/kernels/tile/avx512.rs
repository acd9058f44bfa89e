//! Panels in 512-bit registers: a register has four columns of sixteen rows.

use std::arch::x86_64::*;

use super::super::activations::{Activations, TOKENS};
use super::super::weights::Weights;
use super::{Panel, ROWS};

/// Tokens whose sums stay in registers.
const TEAM: usize = 8;

/// Products with VNNI, which wants one side unsigned: codes are counted from the offset, and the activations bring
/// what that adds too much.
pub fn tile(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for first in (0..TOKENS).step_by(TEAM) {
        let out = (&mut out[first..first + TEAM]).try_into().expect("a team");
        if token + first < x.tokens {
            // SAFETY: this function is named only where the features were found.
            unsafe { team(panel, x, token + first, out) };
        } else {
            *out = [[0.0; ROWS]; TEAM];
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn team(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TEAM]) {
    let groups = panel.cols / panel.group;
    let all = x.stride / x.group;
    assert!(panel.group == x.group && panel.cols == x.cols && x.codes.len() >= (token + TEAM) * x.stride);
    let quads = panel.group / 4;
    let (scales, bias) =
        (&x.scales[token * all..(token + TEAM) * all], &x.bias[token * all..(token + TEAM) * all]);
    let sums = &x.sums[token * all..(token + TEAM) * all];
    let mut acc = [_mm512_setzero_ps(); TEAM];
    for g in 0..groups {
        let w = &panel.codes[g * panel.group * ROWS..][..panel.group * ROWS];
        let mut s = [_mm512_setzero_si512(); TEAM];
        for t in 0..TEAM {
            s[t] = _mm512_set1_epi32(bias[t * all + g]);
        }
        // SAFETY: `quads` registers of weights in `w`; every token has `group` codes from column g · group on, as
        // asserted above, in rows of `stride`.
        unsafe {
            let q = x.codes.as_ptr().add(token * x.stride + g * panel.group);
            for k in 0..quads {
                let w = _mm512_loadu_si512(w.as_ptr().add(k * 4 * ROWS).cast());
                for t in 0..TEAM {
                    let four = q.add(t * x.stride + 4 * k).cast::<i32>().read_unaligned();
                    s[t] = _mm512_dpbusd_epi32(s[t], w, _mm512_set1_epi32(four));
                }
            }
        }
        // SAFETY: sixteen scales, or mins, for each group.
        let d = unsafe { _mm512_loadu_ps(panel.scales[g * ROWS..][..ROWS].as_ptr()) };
        for t in 0..TEAM {
            let part = _mm512_mul_ps(_mm512_cvtepi32_ps(s[t]), d);
            acc[t] = _mm512_fmadd_ps(part, _mm512_set1_ps(scales[t * all + g]), acc[t]);
        }
        if !panel.mins.is_empty() {
            // SAFETY: as above.
            let m = unsafe { _mm512_loadu_ps(panel.mins[g * ROWS..][..ROWS].as_ptr()) };
            for t in 0..TEAM {
                acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(sums[t * all + g]), acc[t]);
            }
        }
    }
    for t in 0..TEAM {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out[t].as_mut_ptr(), acc[t]) };
    }
}

/// [`super::unpack_body`] with a quicker interleaving.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub fn unpack<const W: usize, const B: usize, T: Weights<W, B>, const RAW: bool>(
    rows: &[&[u8]],
    panel: &mut Panel,
) {
    super::unpack_body::<W, B, T, RAW>(rows, panel, |codes, out| {
        interleave(codes, out);
    });
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
fn interleave<const W: usize>(codes: &[[u8; W]; ROWS], out: &mut [i8]) {
    let rows = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(W as i32),
    );
    for (k, out) in out.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().enumerate().take(W / 4) {
        // SAFETY: four bytes at column 4 · k of each of the sixteen rows of W bytes.
        unsafe {
            let four = _mm512_i32gather_epi32::<1>(rows, codes.as_ptr().cast::<i32>().byte_add(4 * k));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), four);
        }
    }
}
