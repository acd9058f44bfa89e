//! The search for a block's scale, or for its scale and offset.
//!
//! It has three parts, each usable alone: *fit* chooses the numbers that a block stores, *round* finds the codes
//! under stored numbers, *pack* (with each type) lays them out in bytes. Fits compare many scales at once, one in
//! each of [`LANES`] lanes: sums run over the weights, so none crosses lanes, and every instruction set gives
//! the same bits. For the same reason nothing here fuses a product with a sum.

use std::hint::{black_box, select_unpredictable};

use super::{f16_to_f32, f32_to_f16};

/// Scales that are tried side by side.
pub(super) const LANES: usize = 8;

/// One number for each scale that is being tried.
pub(super) type Lanes = [f32; LANES];

/// The smallest half above zero.
pub(super) const HALF_MIN: f32 = 1.0 / 16_777_216.0;

/// The largest half.
const HALF_MAX: f32 = 65504.0;

/// So much further than any type reaches (65504 · 32) that where a weight beyond it lies does not tell one scale from
/// another, and its square is still finite.
const FAR: f32 = (1u64 << 40) as f32;

/// Adding this leaves the nearest integer in an f32's lowest bits, ties to even.
pub(super) const TO_INTEGER: f32 = 12_582_912.0;

/// Written so that it becomes one minimum and one maximum, unlike `f32::clamp`.
#[inline(always)]
fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < hi { v } else { hi };
    if v > lo { v } else { lo }
}

/// The scale as it is stored, the nearest half. Never infinite, and never zero: codes of zero under the smallest
/// scale do all that a scale of zero could.
#[inline(always)]
pub(super) fn stored_scale(d: f32) -> f32 {
    f16_to_f32(f32_to_f16(clamp(d.abs(), HALF_MIN, HALF_MAX).copysign(d)))
}

/// The offset as it is stored, the nearest half; never infinite, nor -0.0.
#[inline(always)]
pub(super) fn stored_offset(m: f32) -> f32 {
    f16_to_f32(f32_to_f16(clamp(m, -HALF_MAX, HALF_MAX))) + 0.0
}

/// Arrays are filled in plain loops: what `map` and `from_fn` call is not always compiled for the instruction set
/// of the caller. And sums pass through `black_box`, that is through memory, or the compiler plans their
/// registers by what is done with each lane afterwards, and shuffles them in every round of the loop.
#[inline(always)]
fn inverse(d: &Lanes) -> Lanes {
    let mut inverse = [0.0; LANES];
    for l in 0..LANES {
        inverse[l] = 1.0 / d[l];
    }
    inverse
}

/// The codes that a type has.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    /// The least, an integer.
    pub lo: f32,
    /// The largest, an integer.
    pub hi: f32,
}

impl Codes {
    /// The code nearest to `v`.
    #[inline(always)]
    pub(super) fn nearest(self, v: f32) -> f32 {
        clamp(v, self.lo, self.hi) + TO_INTEGER - TO_INTEGER
    }

    /// The codes of x = d·q + m, counted from the least.
    #[inline(always)]
    pub(super) fn round<const W: usize>(self, x: &[f32; W], d: f32, m: f32) -> [u8; W] {
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let lo = (self.lo + TO_INTEGER).to_bits();
        let mut codes = [0; W];
        for (code, x) in codes.iter_mut().zip(x) {
            let q = clamp((x - m) * inverse, self.lo, self.hi) + TO_INTEGER;
            *code = q.to_bits().wrapping_sub(lo) as u8;
        }
        codes
    }
}

/// A block as the fits see it.
pub(super) struct Sample<const W: usize> {
    /// The weights, within reach.
    pub x: [f32; W],
    /// What a squared error of each counts: at most 2, and not all zero.
    pub w: [f32; W],
}

impl<const W: usize> Sample<W> {
    /// An importance of zero throughout says nothing and is as none.
    #[inline(always)]
    pub(super) fn new(x: &[f32; W], importance: Option<&[f32; W]>) -> Self {
        let mut near = [0.0; W];
        for (near, &x) in near.iter_mut().zip(x) {
            *near = clamp(x, -FAR, FAR);
        }
        let mut w = [1.0; W];
        if let Some(importance) = importance {
            let top = importance.iter().fold(0, |top, w| top.max(w.to_bits() & 0x7FFF_FFFF));
            if top > 0 {
                // By a power of two: exact, and sums of squares stay in range.
                let unit = f32::from_bits((254 << 23) - (top & 0x7F80_0000).min(253 << 23));
                for (w, i) in w.iter_mut().zip(importance) {
                    *w = i.abs() * unit;
                }
            }
        }
        Self { x: near, w }
    }

    /// The weights, with `blank` for those whose errors do not count.
    #[inline(always)]
    fn counted(&self, blank: f32) -> [f32; W] {
        let mut x = self.x;
        for (x, &w) in x.iter_mut().zip(&self.w) {
            *x = if w > 0.0 { *x } else { blank };
        }
        x
    }

    /// Σ w·(x − d·q − m)² in each lane.
    #[inline(always)]
    pub(super) fn error(&self, d: &Lanes, m: &Lanes, codes: Codes) -> Lanes {
        let inverse = inverse(d);
        let mut error = [0.0; LANES];
        for (&x, &w) in self.x.iter().zip(&self.w) {
            for l in 0..LANES {
                let y = x - m[l];
                let r = y - d[l] * codes.nearest(y * inverse[l]);
                error[l] += w * r * r;
            }
        }
        black_box(error)
    }

    /// Rounds in each lane, then moves the scale to where it is best for those codes: the error there, and the
    /// scale. With r = x − d·q − m, the step is Σwrq / Σwqq.
    #[inline(always)]
    fn refit_scale(&self, d: &Lanes, m: &Lanes, codes: Codes) -> (Lanes, Lanes) {
        let inverse = inverse(d);
        let (mut error, mut rq, mut qq) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for (&x, &w) in self.x.iter().zip(&self.w) {
            for l in 0..LANES {
                let y = x - m[l];
                let q = codes.nearest(y * inverse[l]);
                let r = y - d[l] * q;
                let (wr, wq) = (w * r, w * q);
                error[l] += wr * r;
                rq[l] += wr * q;
                qq[l] += wq * q;
            }
        }
        let (mut error, rq, qq) = black_box((error, rq, qq));
        let mut d = *d;
        for l in 0..LANES {
            let step = rq[l] / (qq[l] + f32::MIN_POSITIVE);
            error[l] -= rq[l] * step;
            d[l] += step;
        }
        (error, d)
    }

    /// The same for scale and offset together; the steps solve
    /// Σwqq·a + Σwq·b = Σwrq, Σwq·a + Σw·b = Σwr.
    #[inline(always)]
    fn refit_both(&self, d: &Lanes, m: &Lanes, codes: Codes) -> (Lanes, Lanes, Lanes) {
        let inverse = inverse(d);
        let zero = [0.0; LANES];
        let (mut error, mut rq, mut r1, mut qq, mut q1) = (zero, zero, zero, zero, zero);
        let mut total = 0.0;
        for (&x, &w) in self.x.iter().zip(&self.w) {
            total += w;
            for l in 0..LANES {
                let y = x - m[l];
                let q = codes.nearest(y * inverse[l]);
                let r = y - d[l] * q;
                let (wr, wq) = (w * r, w * q);
                error[l] += wr * r;
                rq[l] += wr * q;
                r1[l] += wr;
                qq[l] += wq * q;
                q1[l] += wq;
            }
        }
        let (mut error, rq, r1, qq, q1) = black_box((error, rq, r1, qq, q1));
        let (mut d, mut m) = (*d, *m);
        for l in 0..LANES {
            let det = total * qq[l] - q1[l] * q1[l];
            // Where all that counts has one code, scale and offset cannot be told apart.
            let sound = det > 1e-5 * total * qq[l];
            let a = select_unpredictable(sound, (total * rq[l] - q1[l] * r1[l]) / det, 0.0);
            let b = select_unpredictable(sound, (qq[l] * r1[l] - q1[l] * rq[l]) / det, r1[l] / total);
            error[l] -= a * rq[l] + b * r1[l];
            d[l] += a;
            m[l] += b;
        }
        (error, d, m)
    }
}

/// Bits of floats of one sign are in the order of the floats, and integer maxima become vector code.
#[inline(always)]
pub(super) fn order(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// And back.
#[inline(always)]
pub(super) fn from_order(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) as u32 >> 1) as i32) as u32)
}

/// The least and the largest.
#[inline(always)]
fn bounds<const W: usize>(x: &[f32; W]) -> (f32, f32) {
    let (mut lo, mut hi) = (i32::MAX, i32::MIN);
    for &x in x {
        lo = lo.min(order(x));
        hi = hi.max(order(x));
    }
    (from_order(lo), from_order(hi))
}

/// The weight that is furthest from zero; of two, the positive one.
#[inline(always)]
fn peak<const W: usize>(x: &[f32; W]) -> f32 {
    let (lo, hi) = bounds(x);
    if hi >= -lo { hi } else { lo }
}

/// The best that each lane has found.
struct Best {
    error: Lanes,
    d: Lanes,
    m: Lanes,
}

impl Best {
    #[inline(always)]
    fn offer(&mut self, error: &Lanes, d: &Lanes, m: &Lanes) {
        for l in 0..LANES {
            let better = error[l] < self.error[l];
            self.error[l] = select_unpredictable(better, error[l], self.error[l]);
            self.d[l] = select_unpredictable(better, d[l], self.d[l]);
            self.m[l] = select_unpredictable(better, m[l], self.m[l]);
        }
    }

    /// Keeps what the first lane has found in place of what is worse, if anything is.
    #[inline(always)]
    fn free_first(&mut self) {
        let worst = (1..LANES).fold(0, |worst, l| if self.error[l] > self.error[worst] { l } else { worst });
        (self.d[worst], self.m[worst]) = (self.d[0], self.m[0]);
    }
}

/// The lane with the least error, the first of equals.
#[inline(always)]
pub(super) fn least(error: &Lanes) -> usize {
    (1..LANES).fold(0, |best, l| if error[l] < error[best] { l } else { best })
}

/// The scale to store for x = d·q. `plain` is the code on which the peak lies where nothing is searched: what
/// is returned is never worse than that. `grid` says where the search starts, as the places (in codes) of the
/// peak; it is clipped where they are beyond the codes. All of it is tried with each of `shifts` (in `step`s).
#[inline(always)]
pub(super) fn fit_scale<const W: usize>(
    sample: &Sample<W>,
    codes: Codes,
    plain: f32,
    grid: &[Lanes],
    (step, shifts): (f32, &[f32]),
) -> f32 {
    let all = peak(&sample.x);
    if all.abs() <= HALF_MIN / 2.0 {
        return 0.0;
    }
    let counted = peak(&sample.counted(0.0));
    let counted = if counted.abs() <= HALF_MIN / 2.0 { all } else { counted };

    let none = [0.0; LANES];
    let mut best = Best { error: [f32::INFINITY; LANES], d: [all / plain; LANES], m: none };
    for shift in shifts {
        for places in grid {
            let mut start = [0.0; LANES];
            for l in 0..LANES {
                start[l] = counted / (places[l] + shift * step);
            }
            let (error, d) = sample.refit_scale(&start, &none, codes);
            best.offer(&error, &d, &none);
        }
    }
    let (error, d) = sample.refit_scale(&best.d, &none, codes);
    best.offer(&error, &d, &none);

    best.free_first();
    for d in &mut best.d {
        *d = stored_scale(*d);
    }
    best.d[0] = stored_scale(all / plain);
    best.d[least(&sample.error(&best.d, &none, codes))]
}

/// The scale and the offset to store for x = d·q + m with q from 0. Never worse than the least and the largest
/// weight on the first and the last code. `grid` says where the search starts, as the places (in codes) of the
/// least weight, from the first code on, and of the largest, from the last; places below zero for the one and
/// above zero for the other clip.
#[inline(always)]
pub(super) fn fit_affine<const W: usize>(
    sample: &Sample<W>,
    codes: Codes,
    grid: &[[Lanes; 2]],
) -> (f32, f32) {
    let (lo, hi) = bounds(&sample.x);
    let plain_m = stored_offset(lo);
    let plain_d = stored_scale((hi - lo) / codes.hi);
    // Where an extreme does not count, the other stands in for it.
    let lo = bounds(&sample.counted(hi)).0;
    let hi = bounds(&sample.counted(lo)).1;
    let range = hi - lo;

    let mut best = Best { error: [f32::INFINITY; LANES], d: [plain_d; LANES], m: [plain_m; LANES] };
    for [first, last] in grid {
        let (mut d, mut m) = ([0.0; LANES], [0.0; LANES]);
        for l in 0..LANES {
            d[l] = clamp(range / (codes.hi + last[l] - first[l]), HALF_MIN, HALF_MAX);
            m[l] = lo - first[l] * d[l];
        }
        let (error, d, m) = sample.refit_both(&d, &m, codes);
        best.offer(&error, &d, &m);
    }
    let (error, d, m) = sample.refit_both(&best.d, &best.m, codes);
    best.offer(&error, &d, &m);

    best.free_first();
    // The offset's rounding may exceed the scale's steps, so the scale is fitted anew after it.
    for l in 0..LANES {
        best.m[l] = stored_offset(best.m[l]);
        best.d[l] = stored_scale(best.d[l]);
    }
    best.d = sample.refit_scale(&best.d, &best.m, codes).1;
    for d in &mut best.d {
        *d = stored_scale(*d);
    }
    (best.d[0], best.m[0]) = (plain_d, plain_m);
    let l = least(&sample.error(&best.d, &best.m, codes));
    (best.d[l], best.m[l])
}
