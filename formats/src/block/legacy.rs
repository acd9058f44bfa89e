//! Blocks of 32 weights with one scale, or with a scale and an offset. Layouts: `block_q4_0` to `block_q8_0` in ggml.

use super::batch::{fit_affines, fit_scales};
use super::layout::{half, nibbles, pack_half, pack_nibbles};
use super::search::{Codes, LANES, Lanes, Sample, fit_affine, fit_scale};
use super::survey::{Clip, ENDS, Survey, Wrap};
use super::{BATCH, Block, Effort, Prior};

/// Adds the fifth bits to codes: bit j of a 32-bit number is that of code j.
#[inline(always)]
pub(super) fn fifth_bits(q: &mut [u8; 32], bits: &[u8]) {
    for j in 0..32 {
        q[j] |= (bits[j / 8] >> (j % 8) & 1) << 4;
    }
}

#[inline(always)]
fn pack_fifth_bits(q: &[u8; 32], bits: &mut [u8]) {
    for i in 0..4 {
        bits[i] = (0..8).fold(0, |b, j| b | (q[8 * i + j] >> 4) << j);
    }
}

/// `first`, `first + step`, and so on.
const fn progression(first: f32, step: f32) -> Lanes {
    let mut lanes = [first; LANES];
    let mut l = 1;
    while l < LANES {
        lanes[l] = lanes[l - 1] + step;
        l += 1;
    }
    lanes
}

/// A type whose blocks are x = d · q.
pub(super) trait Scaled<const B: usize> {
    /// How scales are compared for weights of equal importance.
    type Survey: Survey;
    const CODES: Codes;
    /// The code of the peak in plain rounding.
    const PLAIN: f32;
    /// The starting points of the search with importances: codes of the peak.
    const GRID: &'static [Lanes];
    /// The distance between two of them.
    const STEP: f32;

    /// Stores a block. Codes are given as their distance from the smallest one.
    fn pack(d: f32, q: &[u8; 32], bytes: &mut [u8; B]);
}

#[inline(always)]
fn encode_all_scaled<const B: usize, T: Scaled<B>>(
    x: &[[f32; 32]],
    w: Option<&[[f32; 32]]>,
    effort: Effort,
    bytes: &mut [[u8; B]],
) {
    if w.is_some() || effort == Effort::Thorough {
        let shifts: &[f32] = if effort == Effort::Thorough { &[0.0, 0.25, 0.5, 0.75] } else { &[0.0] };
        for (i, (x, bytes)) in x.iter().zip(bytes).enumerate() {
            let sample = Sample::new(x, w.map(|w| &w[i]));
            let d = fit_scale(&sample, T::CODES, T::PLAIN, T::GRID, (T::STEP, shifts));
            T::pack(d, &T::CODES.round(x, d, 0.0), bytes);
        }
        return;
    }
    let mut padded = [[0.0; 32]; BATCH];
    for (x, bytes) in x.chunks(BATCH).zip(bytes.chunks_mut(BATCH)) {
        let batch = whole_batch(x, &mut padded);
        let d = fit_scales::<T::Survey, BATCH>(batch, T::CODES, T::PLAIN, T::GRID, effort);
        for b in 0..x.len() {
            T::pack(d[b], &T::CODES.round(&x[b], d[b], 0.0), &mut bytes[b]);
        }
    }
}

/// A batch of blocks; the last one is filled up with copies of its first block, whose results nobody looks at. A second
/// search for fewer blocks would be as much code again.
#[inline(always)]
fn whole_batch<'a>(x: &'a [[f32; 32]], padded: &'a mut [[f32; 32]; BATCH]) -> &'a [[f32; 32]; BATCH] {
    if let Some(batch) = x.as_chunks::<BATCH>().0.first() {
        return batch;
    }
    for b in 0..BATCH {
        padded[b] = x[if b < x.len() { b } else { 0 }];
    }
    padded
}

/// A type whose blocks are x = d · q + m, with codes from 0 to `HI`.
pub(super) trait Affine<const HI: i16, const B: usize> {
    /// Stores a block.
    fn pack(d: f32, m: f32, q: &[u8; 32], bytes: &mut [u8; B]);
}

/// Rounds and stores a block.
#[inline(always)]
fn finish_affine<const HI: i16, const B: usize, T: Affine<HI, B>>(
    x: &[f32; 32],
    (d, m): (f32, f32),
    bytes: &mut [u8; B],
) {
    let q = Codes { lo: 0.0, hi: f32::from(HI) }.round(x, d, m);
    let d = if q == [0; 32] { 0.0 } else { d };
    T::pack(d, m, &q, bytes);
}

#[inline(always)]
fn encode_all_affine<const HI: i16, const B: usize, T: Affine<HI, B>>(
    x: &[[f32; 32]],
    w: Option<&[[f32; 32]]>,
    effort: Effort,
    bytes: &mut [[u8; B]],
) {
    if w.is_some() || effort == Effort::Thorough {
        let codes = Codes { lo: 0.0, hi: f32::from(HI) };
        let ends = match effort {
            Effort::Fast => &ENDS[..2],
            Effort::Normal => &ENDS[..4],
            Effort::Thorough => &ENDS[..],
        };
        for (i, (x, bytes)) in x.iter().zip(bytes).enumerate() {
            let fit = fit_affine(&Sample::new(x, w.map(|w| &w[i])), codes, ends);
            finish_affine::<HI, B, T>(x, fit, bytes);
        }
        return;
    }
    let mut padded = [[0.0; 32]; BATCH];
    for (x, bytes) in x.chunks(BATCH).zip(bytes.chunks_mut(BATCH)) {
        let (d, m) = fit_affines::<HI, BATCH>(whole_batch(x, &mut padded), effort);
        for b in 0..x.len() {
            finish_affine::<HI, B, T>(&x[b], (d[b], m[b]), &mut bytes[b]);
        }
    }
}

/// d, q[32]: x[j] = d · (q[j] − 8); byte j of q holds q[j] low and q[j + 16] high.
pub struct Q4_0;

impl Block<32, 18> for Q4_0 {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [false, false];

    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 32]) {
        let d = half(bytes);
        for (x, q) in out.iter_mut().zip(nibbles(&bytes[2..])) {
            *x = f32::from(q as i8 - 8) * d;
        }
    }

    #[inline(always)]
    fn encode_all(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, effort: Effort, bytes: &mut [[u8; 18]]) {
        encode_all_scaled::<18, Self>(x, w, effort, bytes);
    }
}

impl Scaled<18> for Q4_0 {
    type Survey = Clip<-8, 7>;
    const CODES: Codes = Codes { lo: -8.0, hi: 7.0 };
    const PLAIN: f32 = -8.0;
    const GRID: &'static [Lanes] = &[progression(-7.2, -0.45), progression(6.3, 0.45)];
    const STEP: f32 = 0.45;

    #[inline(always)]
    fn pack(d: f32, q: &[u8; 32], bytes: &mut [u8; 18]) {
        pack_half(d, bytes);
        pack_nibbles(q, &mut bytes[2..]);
    }
}

/// d, m, q[32]: x[j] = d · q[j] + m; q as in [`Q4_0`].
pub struct Q4_1;

impl Block<32, 20> for Q4_1 {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [false, true];

    #[inline(always)]
    fn decode(bytes: &[u8; 20], out: &mut [f32; 32]) {
        let (d, m) = (half(bytes), half(&bytes[2..]));
        for (x, q) in out.iter_mut().zip(nibbles(&bytes[4..])) {
            *x = f32::from(q) * d + m;
        }
    }

    #[inline(always)]
    fn encode_all(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, effort: Effort, bytes: &mut [[u8; 20]]) {
        encode_all_affine::<15, 20, Self>(x, w, effort, bytes);
    }
}

impl Affine<15, 20> for Q4_1 {
    #[inline(always)]
    fn pack(d: f32, m: f32, q: &[u8; 32], bytes: &mut [u8; 20]) {
        pack_half(d, bytes);
        pack_half(m, &mut bytes[2..]);
        pack_nibbles(q, &mut bytes[4..]);
    }
}

/// d, h, q[32]: x[j] = d · (q[j] + 16 · h[j] − 16); q as in [`Q4_0`], h[j] is bit j of a 32-bit number.
pub struct Q5_0;

impl Block<32, 22> for Q5_0 {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [false, false];

    #[inline(always)]
    fn decode(bytes: &[u8; 22], out: &mut [f32; 32]) {
        let d = half(bytes);
        let mut q = nibbles(&bytes[6..]);
        fifth_bits(&mut q, &bytes[2..6]);
        for (x, q) in out.iter_mut().zip(q) {
            *x = f32::from(q as i8 - 16) * d;
        }
    }

    #[inline(always)]
    fn encode_all(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, effort: Effort, bytes: &mut [[u8; 22]]) {
        encode_all_scaled::<22, Self>(x, w, effort, bytes);
    }
}

impl Scaled<22> for Q5_0 {
    type Survey = Clip<-16, 15>;
    const CODES: Codes = Codes { lo: -16.0, hi: 15.0 };
    const PLAIN: f32 = -16.0;
    const GRID: &'static [Lanes] = &[progression(-15.2, -0.45), progression(14.3, 0.45)];
    const STEP: f32 = 0.45;

    #[inline(always)]
    fn pack(d: f32, q: &[u8; 32], bytes: &mut [u8; 22]) {
        pack_half(d, bytes);
        pack_fifth_bits(q, &mut bytes[2..6]);
        pack_nibbles(q, &mut bytes[6..]);
    }
}

/// d, m, h, q[32]: x[j] = d · (q[j] + 16 · h[j]) + m; h and q as in [`Q5_0`].
pub struct Q5_1;

impl Block<32, 24> for Q5_1 {
    const PRIOR: Prior = Prior::FourthRoot(1.0);
    const PREFERS_PRIOR: [bool; 2] = [false, false];

    #[inline(always)]
    fn decode(bytes: &[u8; 24], out: &mut [f32; 32]) {
        let (d, m) = (half(bytes), half(&bytes[2..]));
        let mut q = nibbles(&bytes[8..]);
        fifth_bits(&mut q, &bytes[4..8]);
        for (x, q) in out.iter_mut().zip(q) {
            *x = f32::from(q) * d + m;
        }
    }

    #[inline(always)]
    fn encode_all(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, effort: Effort, bytes: &mut [[u8; 24]]) {
        encode_all_affine::<31, 24, Self>(x, w, effort, bytes);
    }
}

impl Affine<31, 24> for Q5_1 {
    #[inline(always)]
    fn pack(d: f32, m: f32, q: &[u8; 32], bytes: &mut [u8; 24]) {
        pack_half(d, bytes);
        pack_half(m, &mut bytes[2..]);
        pack_fifth_bits(q, &mut bytes[4..8]);
        pack_nibbles(q, &mut bytes[8..]);
    }
}

/// d, q[32]: x[j] = d · q[j], q[j] a signed byte. −128 is never written: kernels that multiply magnitudes of seven bits
/// could not handle it.
pub struct Q8_0;

impl Block<32, 34> for Q8_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 34], out: &mut [f32; 32]) {
        let d = half(bytes);
        for (x, &q) in out.iter_mut().zip(&bytes[2..]) {
            *x = f32::from(q as i8) * d;
        }
    }

    #[inline(always)]
    fn encode_all(x: &[[f32; 32]], w: Option<&[[f32; 32]]>, effort: Effort, bytes: &mut [[u8; 34]]) {
        encode_all_scaled::<34, Self>(x, w, effort, bytes);
    }
}

impl Scaled<34> for Q8_0 {
    type Survey = Wrap;
    const CODES: Codes = Codes { lo: -127.0, hi: 127.0 };
    const PLAIN: f32 = 127.0;
    const GRID: &'static [Lanes] = &[
        progression(128.0, -0.6),
        progression(123.2, -0.6),
        progression(118.4, -0.6),
        progression(113.6, -0.6),
    ];
    const STEP: f32 = 0.6;

    #[inline(always)]
    fn pack(d: f32, q: &[u8; 32], bytes: &mut [u8; 34]) {
        pack_half(d, bytes);
        for (b, q) in bytes[2..].iter_mut().zip(q) {
            *b = q.wrapping_sub(127);
        }
    }
}
