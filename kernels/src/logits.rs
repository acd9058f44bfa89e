//! Exponentials and sums over a row of logits. They are plain loops over a fixed number of lanes, without fused
//! multiply-add and without the system's `libm` (whose last bits depend on the processor), so that the same logits give the
//! same bits on every machine.

use std::f64::consts::{LN_2, LOG2_E, SQRT_2};

/// A row that has no largest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowError {
    /// A value is NaN or infinite.
    NotFinite {
        /// Its index.
        at: usize,
        /// The value.
        value: f32,
    },
    /// The row is empty.
    Empty,
}

/// The number of partial sums of a row. They are added up in order, so changing the number changes results.
const LANES: usize = 8;

/// 1.5 · 2^52: added to a number below 2^51, it leaves the nearest integer in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// ln(2)^n/n!, the coefficients of 2^f.
const SERIES: [f64; 14] = {
    let mut c = [1.0; 14];
    let mut n = 1;
    while n < c.len() {
        c[n] = c[n - 1] * LN_2 / n as f64;
        n += 1;
    }
    c
};

/// 2^f for |f| ≤ ½ as a polynomial: 1 + f·q(f), with q through (2^f − 1)/f at the seven Chebyshev points of the range.
/// The error is at most 1.2e-10; the Taylor series would need two more terms for that.
const POWERS: [f64; 8] = [
    1.0,
    LN_2,
    0.240_226_509_222_887_57,
    0.055_504_108_839_096_185,
    0.009_618_056_678_524_637,
    0.001_333_350_238_616_276_6,
    0.000_154_614_446_985_691_3,
    0.000_015_297_323_760_702_4,
];

/// 2^y = 2^k · 2^f with k the integer nearest to y and 2^f from `series`; −1021 ≤ y ≤ 1023.
#[inline(always)]
fn exp2<const N: usize>(y: f64, series: &[f64; N]) -> f64 {
    let shifted = y + ROUND;
    let f = y - (shifted - ROUND);
    let mut p = series[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        p = p * f + series[i];
    }
    // The low bits of `shifted` are k; shifted left, they are added to the exponent of p.
    f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52))
}

/// e^x with a relative error of at most 2e-10, for the terms of a long sum; x ≤ 709. Below −707 it gives e^−707, which is
/// negligible in a sum of 1 or more.
#[inline(always)]
fn exp_term(x: f64) -> f64 {
    let x = if x < -707.0 { -707.0 } else { x };
    exp2(x * LOG2_E, &POWERS)
}

/// e^x with a relative error of at most 1e-12; 0 below −707, infinite above 709.
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        x
    } else if x < -707.0 {
        0.0
    } else if x > 709.0 {
        f64::INFINITY
    } else {
        exp2(x * LOG2_E, &SERIES)
    }
}

/// The natural logarithm of a positive normal number, with an error of at most 1e-15 times max(1, |ln x|):
/// ln(2^k m) = k ln 2 + 2 artanh((m − 1) / (m + 1)) with m between √½ and √2.
pub fn ln(x: f64) -> f64 {
    debug_assert!(x.is_normal() && x > 0.0);
    let bits = x.to_bits();
    let mut k = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m > SQRT_2 {
        m *= 0.5;
        k += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for n in (1..=23).rev().step_by(2) {
        series = series * square + 1.0 / f64::from(n);
    }
    k as f64 * LN_2 + 2.0 * s * series
}

/// The largest value of a row and its first index.
///
/// # Errors
/// [`RowError::Empty`] for an empty row; [`RowError::NotFinite`] for a row with NaN or an infinity.
pub fn peak(row: &[f32]) -> Result<(f32, usize), RowError> {
    const WIDTH: usize = 16;
    let (mut max, mut wrong) = ([f32::NEG_INFINITY; WIDTH], [false; WIDTH]);
    let (blocks, rest) = row.as_chunks::<WIDTH>();
    for x in blocks {
        for i in 0..WIDTH {
            max[i] = if x[i] > max[i] { x[i] } else { max[i] };
            wrong[i] |= !x[i].is_finite();
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        max[i] = if x > max[i] { x } else { max[i] };
        wrong[i] |= !x.is_finite();
    }
    if wrong.contains(&true) {
        let at = row.iter().position(|x| !x.is_finite()).unwrap_or_default();
        return Err(RowError::NotFinite { at, value: row[at] });
    }
    let max = max.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let at = row.iter().position(|&x| x == max).ok_or(RowError::Empty)?;
    Ok((max, at))
}

/// Σ e^(x − max) over a row: between 1 and the row's length if `max` is the largest value.
pub fn sum_exp(row: &[f32], max: f32) -> f64 {
    let max = f64::from(max);
    let mut sum = [0f64; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for x in blocks {
        for i in 0..LANES {
            sum[i] += exp_term(f64::from(x[i]) - max);
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        sum[i] += exp_term(f64::from(x) - max);
    }
    sum.iter().sum()
}

/// The sums from which the KL divergence of two rows of logits is computed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairSums {
    /// Σ e^(p − max p).
    pub p: f64,
    /// Σ e^(q − max q).
    pub q: f64,
    /// Σ e^(p − max p) · ((p − max p) − (q − max q)).
    pub cross: f64,
}

/// The sums over two rows of equal length, in one pass; `p_max` and `q_max` are their largest values.
pub fn pair_sums(p: &[f32], p_max: f32, q: &[f32], q_max: f32) -> PairSums {
    let (p_max, q_max) = (f64::from(p_max), f64::from(q_max));
    let (mut sp, mut sq, mut cross) = ([0f64; LANES], [0f64; LANES], [0f64; LANES]);
    let ((ps, p_rest), (qs, q_rest)) = (p.as_chunks::<LANES>(), q.as_chunks::<LANES>());
    for (p, q) in ps.iter().zip(qs) {
        for i in 0..LANES {
            let (p, q) = (f64::from(p[i]) - p_max, f64::from(q[i]) - q_max);
            let weight = exp_term(p);
            sp[i] += weight;
            sq[i] += exp_term(q);
            cross[i] += weight * (p - q);
        }
    }
    for (i, (&p, &q)) in p_rest.iter().zip(q_rest).enumerate() {
        let (p, q) = (f64::from(p) - p_max, f64::from(q) - q_max);
        let weight = exp_term(p);
        sp[i] += weight;
        sq[i] += exp_term(q);
        cross[i] += weight * (p - q);
    }
    PairSums { p: sp.iter().sum(), q: sq.iter().sum(), cross: cross.iter().sum() }
}

/// Σ e^p · (p − q + `q_log_sum`) over the entries whose log-probability p is above `floor`; q are logits whose
/// log-sum-exp is `q_log_sum`.
pub fn cross_above(p: &[f32], floor: f32, q: &[f32], q_log_sum: f64) -> f64 {
    let mut sum = [0f64; LANES];
    let term = |p: f32, q: f32| {
        let wide = f64::from(p);
        let term = exp_term(wide) * (wide - f64::from(q) + q_log_sum);
        if p > floor { term } else { 0.0 }
    };
    let ((ps, p_rest), (qs, q_rest)) = (p.as_chunks::<LANES>(), q.as_chunks::<LANES>());
    for (p, q) in ps.iter().zip(qs) {
        for i in 0..LANES {
            sum[i] += term(p[i], q[i]);
        }
    }
    for (i, (&p, &q)) in p_rest.iter().zip(q_rest).enumerate() {
        sum[i] += term(p, q);
    }
    sum.iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sum_has_the_same_bits_on_every_machine() {
        // The true sum is 84.670848935414; what is checked is that no compiler, machine or change moves a bit unseen.
        let row: Vec<f32> = (0..1003).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
        let (max, at) = peak(&row).unwrap();
        assert_eq!((max, at), (6.25, row.iter().position(|&x| x == 6.25).unwrap()));
        assert_eq!(sum_exp(&row, max).to_bits(), 0x4055_2aef_305f_da10);
        assert_eq!(ln(sum_exp(&row, max)).to_bits(), 0x4011_c14d_4877_27e4);
    }

    #[test]
    fn wrong_logits_are_told_with_their_place() {
        let mut row = vec![0.0; 40];
        row[33] = f32::NEG_INFINITY;
        row[37] = f32::NAN;
        assert_eq!(peak(&row), Err(RowError::NotFinite { at: 33, value: f32::NEG_INFINITY }));
        assert_eq!(peak(&[]), Err(RowError::Empty));
    }

    proptest! {
        #[test]
        fn exponentials_and_logarithms_are_the_systems(x in -707f64..709.0, y in 1e-300f64..1e300, z in 1e-3f64..1e3) {
            prop_assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12);
            prop_assert!((exp_term(x) / x.exp() - 1.0).abs() < 2e-10);
            for y in [y, z] {
                prop_assert!((ln(y) - y.ln()).abs() <= 1e-15 * y.ln().abs().max(1.0));
            }
        }

        #[test]
        fn sums_are_those_of_a_plain_loop(row in prop::collection::vec(-90f32..90.0, 1..70)) {
            let (max, _) = peak(&row).unwrap();
            prop_assert_eq!(max, row.iter().copied().fold(f32::MIN, f32::max));
            let plain: f64 = row.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).sum();
            prop_assert!((sum_exp(&row, max) / plain - 1.0).abs() < 2e-10);
            let pair = pair_sums(&row, max, &row, max);
            prop_assert_eq!((pair.p, pair.q, pair.cross), (sum_exp(&row, max), sum_exp(&row, max), 0.0));
        }
    }
}
