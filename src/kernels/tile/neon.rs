//! Panels in 128-bit registers with the dot product of signed codes: a register has four columns of four rows, and
//! one of activations has sixteen columns of a token, of which the instruction takes four.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::activations::{Activations, TOKENS};
use super::{Panel, ROWS};

/// Tokens whose sums stay in registers, for half of the rows: eight of integers and eight of floats, beside two of
/// weights and four of activations.
const TEAM: usize = 4;

/// Products.
pub fn tile(panel: &Panel, x: &Activations, token: usize, out: &mut [[f32; ROWS]; TOKENS]) {
    for first in (0..TOKENS).step_by(TEAM) {
        let out: &mut [_; TEAM] = (&mut out[first..first + TEAM]).try_into().expect("a team");
        if token + first < x.tokens {
            for half in 0..2 {
                // SAFETY: this function is named only where the features were found.
                unsafe { team(panel, x, token + first, half, out) };
            }
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

#[target_feature(enable = "neon,dotprod")]
fn team(panel: &Panel, x: &Activations, token: usize, half: usize, out: &mut [[f32; ROWS]; TEAM]) {
    let groups = panel.cols / panel.group;
    let all = x.stride / x.group;
    assert!(panel.group == x.group && panel.cols == x.cols && x.codes.len() >= (token + TEAM) * x.stride);
    assert!(panel.group.is_multiple_of(16) && x.cols <= x.stride && half < 2);
    let scales = &x.scales[token * all..(token + TEAM) * all];
    let sums = &x.sums[token * all..(token + TEAM) * all];
    let mut acc = [[vdupq_n_f32(0.0); 2]; TEAM];
    for g in 0..groups {
        let w = &panel.codes[g * panel.group * ROWS..][..panel.group * ROWS];
        let mut s = [[vdupq_n_s32(0); 2]; TEAM];
        // SAFETY: `w` has a quarter of `group` times 64 weights, of which this half has the 32 at 32 · half; every
        // token has `group` codes from column g · group on, as asserted above, in rows of `stride`; and both are
        // walked sixteen columns at a time, which `group` is a multiple of.
        unsafe {
            let q = x.codes.as_ptr().add(token * x.stride + g * panel.group);
            for k in (0..panel.group).step_by(16) {
                let mut x16 = [vdupq_n_s8(0); TEAM];
                for t in 0..TEAM {
                    x16[t] = vld1q_s8(q.add(t * x.stride + k));
                }
                let w = w.as_ptr().add(k * ROWS + half * 32);
                quad::<0>(w, &x16, &mut s);
                quad::<1>(w.add(4 * ROWS), &x16, &mut s);
                quad::<2>(w.add(8 * ROWS), &x16, &mut s);
                quad::<3>(w.add(12 * ROWS), &x16, &mut s);
            }
        }
        let at = g * ROWS + half * 8;
        let d = eight(&panel.scales[at..]);
        for t in 0..TEAM {
            for i in 0..2 {
                let part = vmulq_f32(vcvtq_f32_s32(s[t][i]), d[i]);
                acc[t][i] = vfmaq_n_f32(acc[t][i], part, scales[t * all + g]);
            }
        }
        if !panel.mins.is_empty() {
            let m = eight(&panel.mins[at..]);
            for t in 0..TEAM {
                for i in 0..2 {
                    acc[t][i] = vfmaq_n_f32(acc[t][i], m[i], sums[t * all + g]);
                }
            }
        }
    }
    for t in 0..TEAM {
        let out = out[t][half * 8..][..8].as_mut_ptr();
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
