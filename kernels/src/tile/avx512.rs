//! Panels in 512-bit registers: a register has four columns of sixteen rows.

use std::arch::x86_64::*;

use super::super::activations::{Activations, TOKENS};
use super::super::dot::avx512::{pair_of, unit};
use super::super::weights::Weights;
use super::{Panel, ROWS};

/// Tokens whose sums stay in registers.
const TEAM: usize = 8;

/// Products with VNNI, which wants one side unsigned: codes are counted from the offset, and the activations bring
/// what that adds too much.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub fn tile(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for first in (0..TOKENS).step_by(TEAM) {
        let out = (&mut out[first..first + TEAM]).try_into().expect("a team");
        if token + first < x.tokens() {
            team(panel, x, token + first, out);
        } else {
            *out = [[0.0; ROWS]; TEAM];
        }
    }
}

// By itself, so that its sums have all registers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn team(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TEAM]) {
    let groups = panel.cols / panel.group;
    let stride = x.stride();
    let all = stride / panel.group;
    assert!(panel.cols == x.cols() && panel.cols <= stride && x.codes.len() >= (token + TEAM) * stride);
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
            let q = x.codes.as_ptr().add(token * stride + g * panel.group);
            for k in 0..quads {
                let w = _mm512_loadu_si512(w.as_ptr().add(k * 4 * ROWS).cast());
                for t in 0..TEAM {
                    let four = q.add(t * stride + 4 * k).cast::<i32>().read_unaligned();
                    s[t] = _mm512_dpbusd_epi32(s[t], w, _mm512_set1_epi32(four));
                }
            }
        }
        // SAFETY: sixteen scales, or mins, by the slices.
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

/// Unpacks rows: 64 columns at a time where blocks are small.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub fn unpack<const W: usize, const B: usize, T: Weights<W, B>, const RAW: bool>(
    rows: &[&[u8]],
    panel: &mut Panel,
) {
    super::room::<W, B, T>(rows, panel);
    super::scales::<W, B, T>(rows, panel);
    let blocks = panel.cols / W;
    let mut first = 0;
    if const { W < 256 } {
        let offset = _mm512_set1_epi8(T::OFFSET as i8);
        let mut codes = [if RAW { offset } else { _mm512_setzero_si512() }; ROWS];
        // Blocks that go through together.
        let step = if W == 32 { 2 } else { 1 };
        while first + step <= blocks {
            for u in 0..step * W / 64 {
                for (r, row) in rows.iter().enumerate() {
                    let block = row[first * B..][..step * B].as_ptr();
                    // SAFETY: two blocks of 32 weights or a longer one, by the slice.
                    let code = unsafe {
                        // A constant, so that what is not taken is not compiled.
                        if const { W == 32 } { pair_of::<W, B, T>(block) } else { unit::<W, B, T>(block, u) }
                    };
                    codes[r] = if RAW { code } else { _mm512_sub_epi8(code, offset) };
                }
                transpose(&codes, &mut panel.codes[(first * W + 64 * u) * ROWS..][..64 * ROWS]);
            }
            first += step;
        }
    }
    super::unpack_body::<W, B, T, RAW>(rows, panel, first, |codes, out| {
        interleave(codes, out);
    });
}

/// Puts four codes of each row side by side: of sixteen rows of sixteen words, word k of row r becomes word r of
/// row k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
pub fn transpose(rows: &[__m512i; ROWS], out: &mut [i8]) {
    assert!(out.len() >= 64 * ROWS);
    // Words of two rows, then of four, within each quarter of the registers.
    let mut four = [_mm512_setzero_si512(); ROWS];
    for r in (0..ROWS).step_by(4) {
        let (a, b) =
            (_mm512_unpacklo_epi32(rows[r], rows[r + 1]), _mm512_unpackhi_epi32(rows[r], rows[r + 1]));
        let (c, d) = (
            _mm512_unpacklo_epi32(rows[r + 2], rows[r + 3]),
            _mm512_unpackhi_epi32(rows[r + 2], rows[r + 3]),
        );
        four[r] = _mm512_unpacklo_epi64(a, c);
        four[r + 1] = _mm512_unpackhi_epi64(a, c);
        four[r + 2] = _mm512_unpacklo_epi64(b, d);
        four[r + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Register 4 · i + j has word 4 · n + j of rows 4 · i to 4 · i + 3 in its quarter n.
    for j in 0..4 {
        let [a, b, c, d] = [four[j], four[4 + j], four[8 + j], four[12 + j]];
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
        let (ef, gh) = (_mm512_shuffle_i32x4::<0xEE>(a, b), _mm512_shuffle_i32x4::<0xEE>(c, d));
        let words = [
            _mm512_shuffle_i32x4::<0x88>(ab, cd),
            _mm512_shuffle_i32x4::<0xDD>(ab, cd),
            _mm512_shuffle_i32x4::<0x88>(ef, gh),
            _mm512_shuffle_i32x4::<0xDD>(ef, gh),
        ];
        for (n, words) in words.into_iter().enumerate() {
            // SAFETY: sixteen registers of room, as asserted above.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(64 * (4 * n + j)).cast(), words) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2")]
fn interleave<const W: usize>(codes: &[[u8; W]; ROWS], out: &mut [i8]) {
    let rows = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(W as i32),
    );
    for (k, out) in out.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().enumerate().take(W / 4) {
        // SAFETY: four bytes at column 4 · k, which is below W, of each of the sixteen rows of W bytes; and sixteen times
        // four bytes of room.
        unsafe {
            let four = _mm512_i32gather_epi32::<1>(rows, codes.as_ptr().cast::<i32>().byte_add(4 * k));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), four);
        }
    }
}
