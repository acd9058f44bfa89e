//! The fast search for the scale of a block, or its scale and offset, for weights of equal importance.
//!
//! The best scale of a [`super::survey`] is fitted to the weights in f32, and the result is compared with plain rounding. Each
//! step is done for several blocks before the next one, so that the processor does not wait for the result of a single block.
//! Blocks do not influence each other. As in [`super::search`], sums have fixed lanes and pass through memory.

use std::hint::{black_box, select_unpredictable};

use super::Effort;
use super::search::{
    Codes, Lanes, Sample, TO_INTEGER, fit_affine, fit_scale, from_order, order, stored_offset, stored_scale,
};
use super::survey::{ENDS, Ends, Parts, Survey, TOP, W};

/// The number of partial sums.
const SUMS: usize = 8;

/// The sum of lanes, as a tree.
#[inline(always)]
fn total(s: &[f32; SUMS]) -> f32 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// Σ (x − d·q − m)².
#[inline(always)]
fn error(x: &[f32; W], d: f32, m: f32, codes: Codes) -> f32 {
    let inverse = 1.0 / d;
    let mut sum = [0.0; SUMS];
    for x in x.as_chunks::<SUMS>().0 {
        for l in 0..SUMS {
            let y = x[l] - m;
            let r = y - d * codes.nearest(y * inverse);
            sum[l] += r * r;
        }
    }
    total(&black_box(sum))
}

/// The scales to store for x = d·q. `plain` is the code of the peak in plain rounding: no scale is worse than that.
#[inline(always)]
pub(super) fn fit_scales<S: Survey, const N: usize>(
    x: &[[f32; W]; N],
    codes: Codes,
    plain: f32,
    grid: &[Lanes],
    effort: Effort,
) -> [f32; N] {
    let mut peaks = [0.0; N];
    for b in 0..N {
        // Keys with the sign in the lowest bit are ordered by magnitude; of two equal ones, the positive wins.
        let mut top = [0; SUMS];
        for x in x[b].as_chunks::<SUMS>().0 {
            for l in 0..SUMS {
                top[l] = top[l].max(x[l].to_bits().rotate_left(1) ^ 1);
            }
        }
        let top = *black_box(top).iter().max().expect("eight");
        peaks[b] = f32::from_bits((top ^ 1).rotate_right(1));
    }

    let mut inverse = [0.0; N];
    if effort == Effort::Fast {
        for b in 0..N {
            inverse[b] = plain / peaks[b];
        }
    } else {
        let mut parts: [Parts; N] = [[0; W]; N];
        for b in 0..N {
            let unit = TOP / peaks[b];
            for j in 0..W {
                parts[b][j] = (x[b][j] * unit + TO_INTEGER).to_bits() as i16;
            }
        }
        for b in 0..N {
            inverse[b] = S::best_peak(&parts[b]) / peaks[b];
        }
    }

    let (mut xq, mut qq) = ([0.0; N], [0.0; N]);
    for b in 0..N {
        let (mut sum_xq, mut sum_qq) = ([0.0; SUMS], [0.0; SUMS]);
        for x in x[b].as_chunks::<SUMS>().0 {
            for l in 0..SUMS {
                let q = codes.nearest(x[l] * inverse[b]);
                sum_xq[l] += x[l] * q;
                sum_qq[l] += q * q;
            }
        }
        let (sum_xq, sum_qq) = black_box((sum_xq, sum_qq));
        (xq[b], qq[b]) = (total(&sum_xq), total(&sum_qq));
    }

    let (mut fitted, mut usual) = ([0.0; N], [0.0; N]);
    for b in 0..N {
        fitted[b] = stored_scale(xq[b] / qq[b]);
        usual[b] = stored_scale(peaks[b] / plain);
    }

    let mut scales = fitted;
    for b in 0..if effort == Effort::Fast { 0 } else { N } {
        let better = error(&x[b], fitted[b], 0.0, codes) < error(&x[b], usual[b], 0.0, codes);
        scales[b] = select_unpredictable(better, fitted[b], usual[b]);
    }

    for b in 0..N {
        // Outside of this range, halves are too coarse, or the fixed-point numbers overflow.
        let usual = (peaks[b] / plain).abs();
        if !(1.0 / 131_072.0..=1024.0).contains(&usual) {
            scales[b] = odd_scale(&x[b], codes, plain, grid);
        }
    }
    scales
}

#[cold]
#[inline(never)]
fn odd_scale(x: &[f32; W], codes: Codes, plain: f32, grid: &[Lanes]) -> f32 {
    fit_scale(&Sample::new(x, None), codes, plain, grid, (0.0, &[0.0]))
}

/// The smallest and the largest weight.
#[inline(always)]
fn bounds(x: &[f32; W]) -> (f32, f32) {
    let (mut lo, mut hi) = ([i32::MAX; SUMS], [i32::MIN; SUMS]);
    for x in x.as_chunks::<SUMS>().0 {
        for l in 0..SUMS {
            lo[l] = lo[l].min(order(x[l]));
            hi[l] = hi[l].max(order(x[l]));
        }
    }
    let (lo, hi) = black_box((lo, hi));
    (from_order(*lo.iter().min().expect("eight")), from_order(*hi.iter().max().expect("eight")))
}

/// Rounds, and fits scale and offset to the codes, as `refit_both` in the search with importances does.
#[inline(always)]
fn refit<const N: usize>(x: &[[f32; W]; N], d: &mut [f32; N], m: &mut [f32; N], codes: Codes) {
    let (mut rq, mut r1, mut qq, mut q1) = ([0.0; N], [0.0; N], [0.0; N], [0.0; N]);
    for b in 0..N {
        let zero = [0.0; SUMS];
        let (mut sum_rq, mut sum_r1, mut sum_qq, mut sum_q1) = (zero, zero, zero, zero);
        let inverse = 1.0 / d[b];
        for x in x[b].as_chunks::<SUMS>().0 {
            for l in 0..SUMS {
                let y = x[l] - m[b];
                let q = codes.nearest(y * inverse);
                let r = y - d[b] * q;
                sum_rq[l] += r * q;
                sum_r1[l] += r;
                sum_qq[l] += q * q;
                sum_q1[l] += q;
            }
        }
        let (sum_rq, sum_r1, sum_qq, sum_q1) = black_box((sum_rq, sum_r1, sum_qq, sum_q1));
        (rq[b], r1[b]) = (total(&sum_rq), total(&sum_r1));
        (qq[b], q1[b]) = (total(&sum_qq), total(&sum_q1));
    }
    const COUNT: f32 = W as f32;
    for b in 0..N {
        let det = COUNT * qq[b] - q1[b] * q1[b];
        let sound = det > 1e-5 * COUNT * qq[b];
        d[b] += select_unpredictable(sound, (COUNT * rq[b] - q1[b] * r1[b]) / det, 0.0);
        m[b] += select_unpredictable(sound, (qq[b] * r1[b] - q1[b] * rq[b]) / det, r1[b] / COUNT);
    }
}

/// Scale and offset as they are stored, or those of plain rounding if these are better.
#[inline(always)]
fn settle<const N: usize>(
    x: &[[f32; W]; N],
    d: &mut [f32; N],
    m: &mut [f32; N],
    lo: &[f32; N],
    range: &[f32; N],
    codes: Codes,
) {
    // Rounding the offset may change it by more than a code, so the scale is fitted again.
    let (mut rq, mut qq) = ([0.0; N], [0.0; N]);
    for b in 0..N {
        m[b] = stored_offset(m[b]);
        let (mut sum_rq, mut sum_qq) = ([0.0; SUMS], [0.0; SUMS]);
        let inverse = 1.0 / d[b];
        for x in x[b].as_chunks::<SUMS>().0 {
            for l in 0..SUMS {
                let y = x[l] - m[b];
                let q = codes.nearest(y * inverse);
                sum_rq[l] += (y - d[b] * q) * q;
                sum_qq[l] += q * q;
            }
        }
        let (sum_rq, sum_qq) = black_box((sum_rq, sum_qq));
        (rq[b], qq[b]) = (total(&sum_rq), total(&sum_qq));
    }
    let (mut plain_d, mut plain_m) = ([0.0; N], [0.0; N]);
    for b in 0..N {
        d[b] = stored_scale(d[b] + rq[b] / (qq[b] + f32::MIN_POSITIVE));
        plain_d[b] = stored_scale(range[b] / codes.hi);
        plain_m[b] = stored_offset(lo[b]);
    }

    for b in 0..N {
        let better = error(&x[b], d[b], m[b], codes) < error(&x[b], plain_d[b], plain_m[b], codes);
        d[b] = select_unpredictable(better, d[b], plain_d[b]);
        m[b] = select_unpredictable(better, m[b], plain_m[b]);
    }
}

/// The scales and offsets to store for x = d·q + m with q from 0 to `HI`, none worse than plain rounding, which gives the
/// smallest and the largest weight the first and the last code.
#[inline(always)]
pub(super) fn fit_affines<const HI: i16, const N: usize>(
    x: &[[f32; W]; N],
    effort: Effort,
) -> ([f32; N], [f32; N]) {
    let codes = Codes { lo: 0.0, hi: f32::from(HI) };
    let (mut lo, mut range) = ([0.0; N], [0.0; N]);
    for b in 0..N {
        let (least, largest) = bounds(&x[b]);
        (lo[b], range[b]) = (least, largest - least);
    }

    let (mut d, mut m) = ([0.0; N], [0.0; N]);
    if effort == Effort::Fast {
        // Clipping a little is best for most blocks; scale and offset are then fitted once.
        for b in 0..N {
            d[b] = range[b] / (codes.hi + 0.5);
            m[b] = lo[b] + 0.25 * d[b];
        }
        refit(x, &mut d, &mut m, codes);
    } else {
        let mut parts: [Parts; N] = [[0; W]; N];
        for b in 0..N {
            let unit = TOP / range[b];
            for j in 0..W {
                parts[b][j] = ((x[b][j] - lo[b]) * unit + TO_INTEGER).to_bits() as i16;
            }
        }
        for b in 0..N {
            let (first, span) = Ends::<HI>::best_ends(&parts[b]);
            d[b] = range[b] / span;
            m[b] = lo[b] - first * d[b];
        }
        refit(x, &mut d, &mut m, codes);
        refit(x, &mut d, &mut m, codes);
    }

    if effort == Effort::Fast {
        for b in 0..N {
            d[b] = stored_scale(d[b]);
            m[b] = stored_offset(m[b]);
        }
    } else {
        settle(x, &mut d, &mut m, &lo, &range, codes);
    }
    for b in 0..N {
        // As for scales alone; also, offsets must not be so large that halves are coarse compared with the scale.
        let usual = range[b] / codes.hi;
        if !((1.0 / 131_072.0..=256.0).contains(&usual) && lo[b].abs() <= 128.0 * usual) {
            (d[b], m[b]) = odd_affine(&x[b], codes);
        }
    }
    (d, m)
}

#[cold]
#[inline(never)]
fn odd_affine(x: &[f32; W], codes: Codes) -> (f32, f32) {
    fit_affine(&Sample::new(x, None), codes, &ENDS[..2])
}
