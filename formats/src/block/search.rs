//! The search for the scale of a block, or for its scale and offset, with importances.
//!
//! *Fit* chooses the numbers that a block stores, *round* finds the codes for these numbers, *pack* (of each type) stores
//! them. Fits compare many scales at once, one in each of [`LANES`] lanes. Sums run over the weights and not across lanes, and
//! nothing fuses a product with a sum, so every instruction set gives the same bits.

use std::hint::{black_box, select_unpredictable};

use super::{f16_to_f32, f32_to_f16};

/// The number of scales that are tried side by side.
pub(super) const LANES: usize = 8;

/// One number for each scale that is being tried.
pub(super) type Lanes = [f32; LANES];

/// The smallest IEEE half above zero.
pub(super) const HALF_MIN: f32 = 1.0 / 16_777_216.0;

/// The largest finite IEEE half.
const HALF_MAX: f32 = 65504.0;

/// Weights are clipped to this. It is so far above what any type represents (65504 · 32) that clipping does not change which
/// scale is best, and its square is finite.
const FAR: f32 = (1u64 << 40) as f32;

/// Adding this number, 1.5·2²³, rounds an f32 to the nearest integer, ties to even, in its lowest bits.
pub(super) const TO_INTEGER: f32 = 12_582_912.0;

/// Unlike `f32::clamp`, this compiles to one minimum and one maximum.
#[inline(always)]
fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < hi { v } else { hi };
    if v > lo { v } else { lo }
}

/// The scale as it is stored: the nearest IEEE half, never infinite and never zero. Instead of a zero scale, codes are zero.
#[inline(always)]
pub(super) fn stored_scale(d: f32) -> f32 {
    f16_to_f32(f32_to_f16(clamp(d.abs(), HALF_MIN, HALF_MAX).copysign(d)))
}

/// The offset as it is stored: the nearest IEEE half, neither infinite nor -0.0.
#[inline(always)]
pub(super) fn stored_offset(m: f32) -> f32 {
    f16_to_f32(f32_to_f16(clamp(m, -HALF_MAX, HALF_MAX))) + 0.0
}

// Two rules for all searches. Arrays are filled in plain loops: closures, as of `map` and `from_fn`, are not always compiled for
// the instruction set of the caller. And sums pass through `black_box`, that is through memory: otherwise the compiler lays out
// registers for what is done with each lane later, and shuffles them in every iteration.

/// 1 / d in each lane.
#[inline(always)]
fn inverse(d: &Lanes) -> Lanes {
    let mut inverse = [0.0; LANES];
    for l in 0..LANES {
        inverse[l] = 1.0 / d[l];
    }
    inverse
}

/// The range of a type's codes.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    /// The smallest code, an integer.
    pub lo: f32,
    /// The largest code, an integer.
    pub hi: f32,
}

impl Codes {
    /// The code nearest to `v`.
    #[inline(always)]
    pub(super) fn nearest(self, v: f32) -> f32 {
        clamp(v, self.lo, self.hi) + TO_INTEGER - TO_INTEGER
    }

    /// The codes of x = d·q + m, as their distance from the smallest code.
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

/// A block in the form in which it is searched.
pub(super) struct Sample<const W: usize> {
    /// The weights, clipped.
    pub x: [f32; W],
    /// The importance of each: at most 2, and not all zero.
    pub w: [f32; W],
}

impl<const W: usize> Sample<W> {
    /// If all importances are zero, they are ignored.
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
                // Multiplied by a power of two: that is exact, and sums of squares stay in range.
                let unit = f32::from_bits((254 << 23) - (top & 0x7F80_0000).min(253 << 23));
                for (w, i) in w.iter_mut().zip(importance) {
                    *w = i.abs() * unit;
                }
            }
        }
        Self { x: near, w }
    }

    /// The weights, with `blank` for those of importance zero.
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

    /// Rounds in each lane, then fits the scale to the codes. Returns the error and the scale. With r = x − d·q − m, the scale
    /// changes by Σwrq / Σwqq.
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

    /// The same for scale and offset together. Their changes a and b are the solution of Σwqq·a + Σwq·b = Σwrq and
    /// Σwq·a + Σw·b = Σwr.
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
            // If all important weights have one code, the equations are singular and only the offset is fitted.
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

/// An integer with the order of the float. Integer maxima become vector code.
#[inline(always)]
pub(super) fn order(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The inverse of [`order`].
#[inline(always)]
pub(super) fn from_order(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) as u32 >> 1) as i32) as u32)
}

/// The smallest and the largest weight.
#[inline(always)]
fn bounds<const W: usize>(x: &[f32; W]) -> (f32, f32) {
    let (mut lo, mut hi) = (i32::MAX, i32::MIN);
    for &x in x {
        lo = lo.min(order(x));
        hi = hi.max(order(x));
    }
    (from_order(lo), from_order(hi))
}

/// The weight of largest magnitude; of two, the positive one.
#[inline(always)]
fn peak<const W: usize>(x: &[f32; W]) -> f32 {
    let (lo, hi) = bounds(x);
    if hi >= -lo { hi } else { lo }
}

/// The best solution of each lane so far.
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

    /// Replaces the worst solution of the other lanes by that of the first, if it is worse.
    #[inline(always)]
    fn free_first(&mut self) {
        let worst = (1..LANES).fold(0, |worst, l| if self.error[l] > self.error[worst] { l } else { worst });
        (self.d[worst], self.m[worst]) = (self.d[0], self.m[0]);
    }
}

/// The lane with the smallest error, the first of equals.
#[inline(always)]
pub(super) fn least(error: &Lanes) -> usize {
    (1..LANES).fold(0, |best, l| if error[l] < error[best] { l } else { best })
}

/// The scale to store for x = d·q. `plain` is the code of the peak in plain rounding: the result is never worse than that. The
/// search starts from scales that give the peak the codes of `grid`, each shifted by every one of `shifts` times `step`; where
/// these are beyond the range of codes, the peak is clipped.
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

/// The scale and the offset to store for x = d·q + m with q from 0. They are never worse than those of plain rounding, which
/// give the smallest and the largest weight the first and the last code. `grid` has the starting points: the code of the
/// smallest weight, relative to the first code, and that of the largest, relative to the last. If they are beyond the range of
/// codes, these weights are clipped.
#[inline(always)]
pub(super) fn fit_affine<const W: usize>(
    sample: &Sample<W>,
    codes: Codes,
    grid: &[[Lanes; 2]],
) -> (f32, f32) {
    let (lo, hi) = bounds(&sample.x);
    let plain_m = stored_offset(lo);
    let plain_d = stored_scale((hi - lo) / codes.hi);
    // An extreme of importance zero is replaced by the other one.
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
    // Rounding the offset may change it by more than a code, so the scale is fitted again.
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
