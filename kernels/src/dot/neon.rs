//! Rows times a vector in 128-bit registers with the dot product of signed bytes: half a block of 32 weights, or a
//! sixteenth of 256, at a time.
//!
//! The compiler has no name for that instruction yet, nor for the conversion of halves: both are spelled out.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::activations::Activations;
use super::super::weights::{FP4_VALUES, IQ4_VALUES, Iq4Nl, Mxfp4, Nested, Tq2_0, Weights};
use super::{FLOATS, Sums, total};

/// A row; see [`super::DotKernel`].
#[target_feature(enable = "neon,dotprod")]
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
        super::portable::<W, B, T>(row, x, token)
    } else {
        row256::<W, B, T>(row, x, token)
    }
}

/// Adds the products of four signed codes each to four sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes the registers that are named, and the feature is on.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums,
            in(vreg) w,
            in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Four halves as floats.
#[inline]
#[target_feature(enable = "neon")]
fn widen(halves: uint16x4_t) -> float32x4_t {
    let floats;
    // SAFETY: the instruction reads and writes the registers that are named, and every processor has it.
    unsafe {
        asm!(
            "fcvtl {0:v}.4s, {1:v}.4h",
            out(vreg) floats,
            in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    floats
}

/// Blocks that go through together: there are as many sums of mins.
const TEAM: usize = 8;

#[target_feature(enable = "neon,dotprod")]
fn row32<const W: usize, const B: usize, T: Weights<W, B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    let (q, lanes) = (x.codes(token), x.lanes(token));
    let (scales, sums) = (x.of(&x.scales, token), x.of(&x.sums, token));
    let blocks = row.len() / B;
    assert!(q.len() >= blocks * 32 && lanes.len() >= blocks * 8);
    assert!(scales.len() >= blocks && sums.len() >= blocks);
    // The two registers of even blocks, then those of odd ones.
    let mut s = [vdupq_n_f32(0.0); 4];
    let mut mins = [vdupq_n_f32(0.0); 2];
    let mut at = 0;
    while at + TEAM <= blocks {
        // SAFETY: a team of blocks begins at `at`, and as much of everything else, as asserted above; the halves at 0 and,
        // where there is a min, at 2 are in every block.
        unsafe {
            let bytes = row.as_ptr().add(at * B);
            let (q, lanes) = (q.as_ptr().add(at * 32), lanes.as_ptr().add(at * 8));
            let mut d = [vdupq_n_f32(0.0); 2];
            for half in 0..2 {
                let (first, at) = (bytes.add(4 * half * B), at + 4 * half);
                d[half] = vmulq_f32(four_scales::<W, B, T>(first), vld1q_f32(scales.as_ptr().add(at)));
                if T::MIN {
                    let sums = vld1q_f32(sums.as_ptr().add(at));
                    mins[half] = vfmaq_f32(mins[half], heads::<B>(first, 2), sums);
                }
            }
            let d = [
                [vgetq_lane_f32::<0>(d[0]), vgetq_lane_f32::<1>(d[0])],
                [vgetq_lane_f32::<2>(d[0]), vgetq_lane_f32::<3>(d[0])],
                [vgetq_lane_f32::<0>(d[1]), vgetq_lane_f32::<1>(d[1])],
                [vgetq_lane_f32::<2>(d[1]), vgetq_lane_f32::<3>(d[1])],
            ];
            for (pair, d) in d.into_iter().enumerate() {
                let (bytes, q, lanes) = (bytes.add(2 * pair * B), q.add(pair * 64), lanes.add(pair * 16));
                [s[0], s[1]] = add::<W, B, T>(bytes, q, lanes, d[0], [s[0], s[1]]);
                let (bytes, q, lanes) = (bytes.add(B), q.add(32), lanes.add(8));
                [s[2], s[3]] = add::<W, B, T>(bytes, q, lanes, d[1], [s[2], s[3]]);
            }
        }
        at += TEAM;
    }
    let mut all = Sums::default();
    // SAFETY: eight floats.
    unsafe {
        vst1q_f32(all.mins.as_mut_ptr(), mins[0]);
        vst1q_f32(all.mins.as_mut_ptr().add(4), mins[1]);
    }
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate().skip(at) {
        let d = T::scale(block, 0) * scales[b];
        let odd = b % 2 * 2;
        // SAFETY: the block, and the codes and lanes of block b, as asserted above.
        [s[odd], s[odd + 1]] = unsafe {
            let (q, lanes) = (q.as_ptr().add(b * 32), lanes.as_ptr().add(b * 8));
            add::<W, B, T>(block.as_ptr(), q, lanes, d, [s[odd], s[odd + 1]])
        };
        if T::MIN {
            all.mins[b % 8] = T::min(block).mul_add(sums[b], all.mins[b % 8]);
        }
    }
    finish(s, all)
}

#[target_feature(enable = "neon")]
fn finish(s: [float32x4_t; 4], mut all: Sums) -> f32 {
    for (i, s) in s.into_iter().enumerate() {
        // SAFETY: sixteen floats.
        unsafe { vst1q_f32(all.lanes.as_mut_ptr().add(4 * i), s) };
    }
    all.total()
}

/// The scales of four blocks.
///
/// # Safety
/// There are four blocks.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn four_scales<const W: usize, const B: usize, T: Weights<W, B>>(bytes: *const u8) -> float32x4_t {
    // SAFETY: the caller's; four floats.
    unsafe {
        if !is::<T, Mxfp4>() {
            return heads::<B>(bytes, 0);
        }
        let scale = |b: usize| T::scale(&*bytes.add(b * B).cast::<[u8; B]>(), 0);
        vld1q_f32([scale(0), scale(1), scale(2), scale(3)].as_ptr())
    }
}

/// Whether two types are one. The answer is known when the code is compiled.
#[inline(always)]
fn is<A: 'static, C: 'static>() -> bool {
    std::any::TypeId::of::<A>() == std::any::TypeId::of::<C>()
}

/// The halves at `at` in each of four blocks.
///
/// # Safety
/// There are four blocks of B bytes, with halves at `at`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn heads<const B: usize>(bytes: *const u8, at: usize) -> float32x4_t {
    // SAFETY: the caller's.
    let word = |b: usize| unsafe { u16::from_le_bytes(bytes.add(b * B + at).cast::<[u8; 2]>().read()) };
    let words = vdup_n_u16(word(0));
    let words = vset_lane_u16::<1>(word(1), words);
    let words = vset_lane_u16::<2>(word(2), words);
    widen(vset_lane_u16::<3>(word(3), words))
}

/// Adds a block of 32 under the scale `d` to its eight sums.
///
/// # Safety
/// There is a block of B bytes, 32 codes, and 8 lanes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn add<const W: usize, const B: usize, T: Weights<W, B>>(
    bytes: *const u8,
    q: *const i8,
    lanes: *const i32,
    d: f32,
    s: [float32x4_t; 2],
) -> [float32x4_t; 2] {
    // SAFETY: the caller's.
    let (w, x) = unsafe { (block32::<W, B, T>(bytes), [vld1q_s8(q), vld1q_s8(q.add(16))]) };
    // Where codes are counted from the offset, sums begin with what that adds: loading it is cheaper than taking
    // the offset off the codes, as vector units have more to do here than loads.
    let first = |i: usize| match T::OFFSET {
        // No offset, or codes that are signed as they are stored.
        0 | 128 => vdupq_n_s32(0),
        // SAFETY: the caller's.
        _ => unsafe { vld1q_s32(lanes.add(4 * i)) },
    };
    let sum = |i: usize| vcvtq_f32_s32(sdot(first(i), w[i], x[i]));
    [vfmaq_n_f32(s[0], sum(0), d), vfmaq_n_f32(s[1], sum(1), d)]
}

/// The codes of a block of 32: those of Q8_0 and of tables signed, others counted from the type's offset.
///
/// # Safety
/// There is a block of B bytes.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn block32<const W: usize, const B: usize, T: Weights<W, B>>(p: *const u8) -> [int8x16_t; 2] {
    assert!(W == 32 && B >= 17);
    if B == 34 {
        // SAFETY: the caller's; 32 bytes behind the scale's two; they are signed as they are.
        return unsafe { [vld1q_s8(p.add(2).cast()), vld1q_s8(p.add(18).cast())] };
    }
    // Sixteen bytes of nibbles at the end.
    // SAFETY: the caller's; all blocks are longer than that, as asserted.
    let bytes = unsafe { vld1q_u8(p.add(B - 16)) };
    let mut codes = [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)];
    if T::OFFSET == 128 {
        let values = if is::<T, Iq4Nl>() { &IQ4_VALUES } else { &FP4_VALUES };
        // SAFETY: sixteen values.
        let values = unsafe { vld1q_s8(values.as_ptr()) };
        return codes.map(|c| vqtbl1q_s8(values, c));
    }
    if B == 22 || B == 24 {
        // A fifth bit each, in the four bytes before: each byte goes to eight lanes, and each of these tests its bit.
        // SAFETY: these blocks have them.
        let word = unsafe { u32::from_le_bytes(p.add(B - 20).cast::<[u8; 4]>().read()) };
        let fifths = vreinterpretq_u8_u32(vdupq_n_u32(word));
        let bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        for (i, code) in codes.iter_mut().enumerate() {
            let places = vcombine_u8(vdup_n_u8(2 * i as u8), vdup_n_u8(2 * i as u8 + 1));
            let set = vtstq_u8(vqtbl1q_u8(fifths, places), bits);
            *code = vorrq_u8(*code, vandq_u8(set, vdupq_n_u8(16)));
        }
    }
    codes.map(|c| vreinterpretq_s8_u8(c))
}

#[target_feature(enable = "neon,dotprod")]
fn row256<const W: usize, const B: usize, T: Weights<W, B>>(
    row: &[u8],
    x: &Activations,
    token: usize,
) -> f32 {
    let (q, scales) = (x.codes(token), x.of(&x.scales, token));
    let mut s = [vdupq_n_f32(0.0); 4];
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        let q = &q[b * 256..][..256];
        let w = match is::<T, Tq2_0>() {
            true => pairs(block),
            false => trits(block),
        };
        // Register i of the codes belongs to the sums of its half, and of where it is in each 32.
        let mut sums = [vdupq_n_s32(0); 4];
        for i in 0..16 {
            let sum = &mut sums[i / 8 * 2 + i % 2];
            // SAFETY: the sixteen from 16 · i on of 256 codes, by the slice.
            let x = unsafe { vld1q_s8(q.as_ptr().add(16 * i)) };
            *sum = sdot(*sum, w[i], x);
        }
        let d = T::scale(block, 0) * scales[b];
        for i in 0..4 {
            s[i] = vfmaq_n_f32(s[i], vcvtq_f32_s32(sums[i]), d);
        }
    }
    finish(s, Sums::default())
}

/// A row of a type with integer scales; see [`super::DotKernel`].
#[target_feature(enable = "neon,dotprod")]
pub fn nested<const B: usize, T: Nested<B>>(row: &[u8], x: &Activations, token: usize) -> f32 {
    super::check_nested::<B, T>(row, x, token);
    let (q, scales, sixteens) = (x.codes(token), x.of(&x.scales, token), x.sixteens(token));
    let mut s = [vdupq_n_f32(0.0); 4];
    let mut all = Sums::default();
    let mut codes = [0i8; 256];
    for (b, block) in row.as_chunks::<B>().0.iter().enumerate() {
        T::codes(block, &mut codes);
        let integers = T::scales(block);
        let q = &q[b * 256..][..256];
        let mut sums = [vdupq_n_s32(0); 4];
        for i in 0..16 {
            // SAFETY: the sixteen from 16 · i on, of the array's 256 and the slice's.
            let (w, x) = unsafe { (vld1q_s8(codes.as_ptr().add(16 * i)), vld1q_s8(q.as_ptr().add(16 * i))) };
            let four = sdot(vdupq_n_s32(0), w, x);
            sums[i % 4] = vmlaq_n_s32(sums[i % 4], four, i32::from(integers[i]));
        }
        let d = T::d(block) * scales[b];
        for i in 0..4 {
            s[i] = vfmaq_n_f32(s[i], vcvtq_f32_s32(sums[i]), d);
        }
        if T::MIN {
            let (mins, d) = (T::mins(block), T::dmin(block) * scales[b]);
            let sixteens = &sixteens[b * 16..][..16];
            for i in 0..8 {
                let min = |g: usize| i32::from(mins[g]) * i32::from(sixteens[g]);
                all.mins[i] = ((min(2 * i) + min(2 * i + 1)) as f32).mul_add(d, all.mins[i]);
            }
        }
    }
    finish(s, all)
}

/// The signed codes of a block of 256 pairs of bits (TQ2_0).
#[inline]
#[target_feature(enable = "neon")]
fn pairs<const B: usize>(block: &[u8; B]) -> [int8x16_t; 16] {
    let bytes = block[..64].as_ptr();
    let mut codes = [vdupq_n_s8(0); 16];
    for i in 0..4 {
        // SAFETY: 64 bytes, by the slice.
        let four = unsafe { vld1q_u8(bytes.add(16 * i)) };
        let mask = vdupq_n_u8(3);
        let parts = [
            vandq_u8(four, mask),
            vandq_u8(vshrq_n_u8::<2>(four), mask),
            vandq_u8(vshrq_n_u8::<4>(four), mask),
            vshrq_n_u8::<6>(four),
        ];
        for n in 0..4 {
            codes[i / 2 * 8 + 2 * n + i % 2] = vsubq_s8(vreinterpretq_s8_u8(parts[n]), vdupq_n_s8(1));
        }
    }
    codes
}

/// The signed codes of a block of 256 digits of base three (TQ1_0).
#[inline]
#[target_feature(enable = "neon")]
fn trits<const B: usize>(block: &[u8; B]) -> [int8x16_t; 16] {
    // A byte is a fraction of 256; three times it has the digit above the byte: 1 from 86 on, 2 from 171 on. What a
    // comparison gives is −1 where it holds.
    let digit = |fraction: uint8x16_t| {
        let one = vreinterpretq_s8_u8(vcgeq_u8(fraction, vdupq_n_u8(86)));
        let two = vreinterpretq_s8_u8(vcgeq_u8(fraction, vdupq_n_u8(171)));
        vsubq_s8(vsubq_s8(vdupq_n_s8(-1), one), two)
    };
    let bytes = block[..52].as_ptr();
    let mut codes = [vdupq_n_s8(0); 16];
    // Twice sixteen bytes of five digits, which alternate, and sixteen more.
    for (i, first, step) in [(0, 0, 2), (1, 1, 2), (2, 10, 1)] {
        // SAFETY: 48 of the 52 bytes.
        let mut fraction = unsafe { vld1q_u8(bytes.add(16 * i)) };
        for n in 0..5 {
            codes[first + step * n] = digit(fraction);
            fraction = vmulq_u8(fraction, vdupq_n_u8(3));
        }
    }
    // Four bytes of four digits: the first of each, then the second.
    let last = u32::from_le_bytes([block[48], block[49], block[50], block[51]]);
    let powers = [1, 3, 9, 27].map(|p| u32::from_le_bytes([p; 4]));
    // SAFETY: four numbers.
    let powers = unsafe { vld1q_u32(powers.as_ptr()) };
    codes[15] = digit(vmulq_u8(vreinterpretq_u8_u32(vdupq_n_u32(last)), vreinterpretq_u8_u32(powers)));
    codes
}

/// A row of halves.
///
/// # Panics
/// If the row is shorter than `x`.
#[target_feature(enable = "neon")]
pub fn f16(row: &[u8], x: &[f32]) -> f32 {
    let mut s = [vdupq_n_f32(0.0); 8];
    let (chunks, rest) = x.as_chunks::<FLOATS>();
    let tail = &row[chunks.len() * FLOATS * 2..];
    for (x, w) in chunks.iter().zip(row.as_chunks::<{ 2 * FLOATS }>().0) {
        for (i, s) in s.iter_mut().enumerate() {
            // SAFETY: four of the 32 halves and floats of two arrays; any eight bytes are four halves.
            unsafe {
                let w = widen(vreinterpret_u16_u8(vld1_u8(w.as_ptr().add(8 * i))));
                *s = vfmaq_f32(*s, w, vld1q_f32(x.as_ptr().add(4 * i)));
            }
        }
    }
    let mut all = [0f32; FLOATS];
    for (i, s) in s.into_iter().enumerate() {
        // SAFETY: four of 32 floats.
        unsafe { vst1q_f32(all.as_mut_ptr().add(4 * i), s) };
    }
    for (i, (x, w)) in rest.iter().zip(tail.as_chunks::<2>().0).enumerate() {
        all[i] = formats::block::f16_to_f32(u16::from_le_bytes(*w)).mul_add(*x, all[i]);
    }
    total(&all)
}
