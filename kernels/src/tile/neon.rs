//! Panels in 128-bit registers with the dot product of signed codes: a register has four columns of four rows, and
//! one of activations has sixteen columns of a token, of which the instruction takes four.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::activations::{Activations, TOKENS};
use super::super::weights::Weights;
use super::{Panel, ROWS};

/// Tokens whose sums stay in registers, for half of the rows: eight of integers and eight of floats, beside two of
/// weights and four of activations.
const TEAM: usize = 4;

/// Products.
#[target_feature(enable = "neon,dotprod")]
pub fn tile(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for first in (0..TOKENS).step_by(TEAM) {
        let out: &mut [_; TEAM] = (&mut out[first..first + TEAM]).try_into().expect("a team");
        if token + first < x.tokens() {
            team::<0>(panel, x, token + first, out);
            team::<8>(panel, x, token + first, out);
        } else {
            *out = [[0.0; ROWS]; TEAM];
        }
    }
}

/// Adds to four rows' sums the products of their four codes with the four of `x` from 4 · `AT` on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const AT: usize>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    const { assert!(AT < 4) };
    // SAFETY: the instruction reads and writes the registers that are named, and the feature is on.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inout(vreg) sums,
            in(vreg) w,
            in(vreg) x,
            const AT,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds four columns' products to the sums of eight rows and a team.
///
/// # Safety
/// There are 32 weights.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn quad<const AT: usize>(w: *const i8, x: &[int8x16_t; TEAM], s: &mut [[int32x4_t; 2]; TEAM]) {
    // SAFETY: the caller's.
    let w = unsafe { [vld1q_s8(w), vld1q_s8(w.add(16))] };
    for t in 0..TEAM {
        for i in 0..2 {
            s[t][i] = sdot::<AT>(s[t][i], w[i], x[t]);
        }
    }
}

/// The products of the eight rows from `ROW` on.
#[target_feature(enable = "neon,dotprod")]
fn team<const ROW: usize>(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TEAM]) {
    const { assert!(ROW + 8 <= ROWS) };
    let groups = panel.cols / panel.group;
    let stride = x.stride();
    assert!(panel.cols == x.cols() && x.cols() <= stride && x.codes.len() >= (token + TEAM) * stride);
    assert!(panel.group.is_multiple_of(16));
    // As long as there are groups, which spares their loop the bounds.
    let scales: [_; TEAM] = std::array::from_fn(|t| &x.of(&x.scales, token + t)[..groups]);
    let sums: [_; TEAM] = std::array::from_fn(|t| &x.of(&x.sums, token + t)[..groups]);
    let d = &panel.scales.as_chunks::<ROWS>().0[..groups];
    let m = match panel.mins.is_empty() {
        true => None,
        false => Some(&panel.mins.as_chunks::<ROWS>().0[..groups]),
    };
    let mut acc = [[vdupq_n_f32(0.0); 2]; TEAM];
    for g in 0..groups {
        let w = &panel.codes[g * panel.group * ROWS..][..panel.group * ROWS];
        let mut s = [[vdupq_n_s32(0); 2]; TEAM];
        // SAFETY: `w` has 64 weights for each four of the `group` columns, of which these rows have the 32 from
        // 4 · `ROW` on; every token has `group` codes from column g · group on, as asserted above, in rows of
        // `stride`; and both are walked sixteen columns at a time, of which `group` is a multiple.
        unsafe {
            let q = x.codes.as_ptr().add(token * stride + g * panel.group);
            for k in (0..panel.group).step_by(16) {
                let mut x16 = [vdupq_n_s8(0); TEAM];
                for (t, x16) in x16.iter_mut().enumerate() {
                    *x16 = vld1q_s8(q.add(t * stride + k));
                }
                let w = w.as_ptr().add(k * ROWS + 4 * ROW);
                quad::<0>(w, &x16, &mut s);
                quad::<1>(w.add(4 * ROWS), &x16, &mut s);
                quad::<2>(w.add(8 * ROWS), &x16, &mut s);
                quad::<3>(w.add(12 * ROWS), &x16, &mut s);
            }
        }
        let d = eight(&d[g][ROW..]);
        for t in 0..TEAM {
            for i in 0..2 {
                let part = vmulq_f32(vcvtq_f32_s32(s[t][i]), d[i]);
                acc[t][i] = vfmaq_n_f32(acc[t][i], part, scales[t][g]);
            }
        }
        if let Some(m) = m {
            let m = eight(&m[g][ROW..]);
            for t in 0..TEAM {
                for i in 0..2 {
                    acc[t][i] = vfmaq_n_f32(acc[t][i], m[i], sums[t][g]);
                }
            }
        }
    }
    for t in 0..TEAM {
        let out = out[t][ROW..][..8].as_mut_ptr();
        // SAFETY: eight floats, by the slice.
        unsafe {
            vst1q_f32(out, acc[t][0]);
            vst1q_f32(out.add(4), acc[t][1]);
        }
    }
}

/// The first eight numbers.
#[inline]
#[target_feature(enable = "neon")]
fn eight(x: &[f32]) -> [float32x4_t; 2] {
    let x = x[..8].as_ptr();
    // SAFETY: eight floats, by the slice.
    unsafe { [vld1q_f32(x), vld1q_f32(x.add(4))] }
}

/// [`super::unpack_body`] with a quicker interleaving.
#[target_feature(enable = "neon,dotprod")]
pub fn unpack<const W: usize, const B: usize, T: Weights<W, B>>(rows: &[&[u8]], panel: &mut Panel) {
    super::room::<W, B, T>(rows, panel);
    super::scales::<W, B, T>(rows, panel);
    super::unpack_body::<W, B, T, false>(rows, panel, 0, |codes, out| {
        interleave(codes, out);
    });
}

/// Four rows of sixteen codes are a square of four by four words, which is turned over.
#[inline]
#[target_feature(enable = "neon")]
fn interleave<const W: usize>(codes: &[[u8; W]; ROWS], out: &mut [i8]) {
    const { assert!(W.is_multiple_of(16)) };
    for (k, out) in out.as_chunks_mut::<{ 16 * ROWS }>().0.iter_mut().enumerate().take(W / 16) {
        for r in (0..ROWS).step_by(4) {
            // SAFETY: sixteen codes from column 16 · k on, which is below W, in rows of W, of which 16 is a factor.
            let [a, b, c, d] = [0, 1, 2, 3]
                .map(|i| vreinterpretq_u32_u8(unsafe { vld1q_u8(codes[r + i].as_ptr().add(16 * k)) }));
            let (ab, cd) = (vzipq_u32(a, b), vzipq_u32(c, d));
            for (i, ab, cd) in [(0, ab.0, cd.0), (2, ab.1, cd.1)] {
                let [ab, cd] = [vreinterpretq_u64_u32(ab), vreinterpretq_u64_u32(cd)];
                for (i, four) in [(i, vzip1q_u64(ab, cd)), (i + 1, vzip2q_u64(ab, cd))] {
                    // SAFETY: sixteen bytes for each four of the sixteen rows, and 64 for each of four words.
                    unsafe { vst1q_s8(out.as_mut_ptr().add(64 * i + 4 * r), vreinterpretq_s8_u64(four)) };
                }
            }
        }
    }
}
