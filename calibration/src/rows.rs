//! Loops over one or two rows of numbers: sums, differences, scales. Plain functions rather than iterators in place, since
//! these loops are the same for every caller, and callers may be compiled without optimization.
//!
//! Where two slices differ in length, the shorter one says how many numbers there are. Every sum is taken in order.

/// x · y, in f64.
#[inline(never)]
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// Σx², in f64.
#[inline(never)]
pub fn square(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
}

/// Σx², in f32.
#[inline(never)]
pub fn square_f32(x: &[f32]) -> f32 {
    x.iter().map(|x| x * x).sum()
}

/// The largest magnitude; 0 without numbers.
#[inline(never)]
pub fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |peak, x| peak.max(x.abs()))
}

/// The index of the first number that is NaN or infinite.
#[inline(never)]
pub fn first_not_finite(x: &[f32]) -> Option<usize> {
    /// Numbers that are looked at together: a loop that may end at each of them is no vector code.
    const PART: usize = 256;
    let part = x.chunks(PART).position(|part| part.iter().fold(false, |bad, x| bad | !x.is_finite()))?;
    x[part * PART..].iter().position(|x| !x.is_finite()).map(|at| part * PART + at)
}

/// Whether all are equal to 0 but `few` of them at most.
#[inline(never)]
pub fn nearly_all_zero(x: &[f32], few: usize) -> bool {
    x.iter().map(|x| usize::from(*x != 0.0)).sum::<usize>() <= few
}

/// x += y.
#[inline(never)]
pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// x += y, in f64.
#[inline(never)]
pub fn add_f64(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// x −= y.
#[inline(never)]
pub fn subtract(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x -= y);
}

/// out = x − y.
#[inline(never)]
pub fn difference(x: &[f32], y: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(x).zip(y).for_each(|((out, x), y)| *out = x - y);
}

/// x = y + by · x.
#[inline(never)]
pub fn scale_and_add(x: &mut [f32], by: f32, y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x = y + by * *x);
}

/// x *= y.
#[inline(never)]
pub fn multiply(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x *= y);
}

/// x *= by · y.
#[inline(never)]
pub fn multiply_by(x: &mut [f32], by: f32, y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x *= by * y);
}

/// x *= by.
#[inline(never)]
pub fn multiply_all(x: &mut [f32], by: f32) {
    x.iter_mut().for_each(|x| *x *= by);
}

/// x /= by.
#[inline(never)]
pub fn divide_all(x: &mut [f32], by: f32) {
    x.iter_mut().for_each(|x| *x /= by);
}

/// x /= y.
#[inline(never)]
pub fn divide(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x /= y);
}

/// x /= y².
#[inline(never)]
pub fn divide_by_squares(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x /= y * y);
}

/// out = x, with the numbers in another order: those at `order`.
///
/// # Panics
/// If `order` has an index that `x` does not.
#[inline(never)]
pub fn gather(x: &[f32], order: &[usize], out: &mut [f32]) {
    out.iter_mut().zip(order).for_each(|(out, &i)| *out = x[i]);
}

/// The inverse of [`gather`]: x is put where `order` says.
///
/// # Panics
/// If `order` has an index that `out` does not.
#[inline(never)]
pub fn scatter(x: &[f32], order: &[usize], out: &mut [f32]) {
    x.iter().zip(order).for_each(|(x, &i)| out[i] = *x);
}

/// The given rows of a matrix with `n` columns, one after the other.
///
/// # Panics
/// If the matrix does not have one of the rows.
#[inline(never)]
pub fn select(x: &[f32], rows: &[usize], n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * n);
    rows.iter().for_each(|r| out.extend_from_slice(&x[r * n..][..n]));
    out
}

/// A range of the columns of a matrix with `n` columns, row by row.
///
/// # Panics
/// If the matrix does not have these columns.
#[inline(never)]
pub fn select_columns(x: &[f32], n: usize, columns: std::ops::Range<usize>) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len() / n.max(1) * columns.len());
    x.chunks_exact(n).for_each(|row| out.extend_from_slice(&row[columns.clone()]));
    out
}

/// Adds to each sum its column of all rows of `x`, which have `n` columns; the first sum is of column `first`.
///
/// # Panics
/// If there is no such column.
#[inline(never)]
pub fn add_columns(sums: &mut [f64], x: &[f32], n: usize, first: usize) {
    for row in x.chunks_exact(n) {
        sums.iter_mut().zip(&row[first..]).for_each(|(s, x)| *s += f64::from(*x));
    }
}

/// Like [`add_columns`], with the squares of the numbers.
///
/// # Panics
/// If there is no such column.
#[inline(never)]
pub fn add_squares(sums: &mut [f64], x: &[f32], n: usize, first: usize) {
    for row in x.chunks_exact(n) {
        sums.iter_mut().zip(&row[first..]).for_each(|(s, x)| *s += f64::from(*x) * f64::from(*x));
    }
}

/// A row of Σab over tokens becomes that of Σ(a − α)(b − β) = Σab − α·Σb − β·Σa + T·αβ, for one a and a row of b. `a` are Σa
/// and α, and `b` and `beta` the Σb and the β of each column.
#[inline(never)]
pub fn centre(row: &mut [f32], tokens: f64, (a, alpha): (f64, f32), b: &[f64], beta: &[f32]) {
    let alpha = f64::from(alpha);
    for ((r, b), beta) in row.iter_mut().zip(b).zip(beta) {
        let beta = f64::from(*beta);
        *r = (f64::from(*r) - alpha * b - beta * a + tokens * alpha * beta) as f32;
    }
}

/// The mean error of an output, (w − q)·x + w·y in f64: of weights `w` that are stored as `q`, with the means of the inputs x
/// and of what they lack, y. `y` may be empty.
#[inline(never)]
pub fn mean_error(w: &[f32], q: &[f32], x: &[f32], y: &[f32]) -> f64 {
    let lost = w.iter().zip(q).zip(x).map(|((w, q), x)| f64::from(w - q) * f64::from(*x));
    lost.sum::<f64>() + dot(w, y)
}

/// The rounding error of numbers in 8-bit codes, with a scale for each `group` of them.
///
/// # Panics
/// If the group is empty.
#[inline(never)]
pub fn rounding(x: &[f32], group: usize) -> Vec<f32> {
    let mut lost = vec![0f32; x.len()];
    for (lost, x) in lost.chunks_mut(group).zip(x.chunks(group)) {
        let scale = peak(x) / 127.0;
        if scale > 0.0 {
            lost.iter_mut().zip(x).for_each(|(l, x)| *l = x - scale * (x / scale).round());
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed_and_combined() {
        let (x, y) = ([1.0, -2.0, 3.0], [4.0, 5.0, -6.0]);
        assert_eq!((dot(&x, &y), dot(&x, &[])), (-24.0, 0.0));
        assert_eq!((square(&x), square_f32(&x), peak(&y), peak(&[])), (14.0, 14.0, 6.0, 0.0));
        let of = |change: &dyn Fn(&mut [f32])| {
            let mut x = x;
            change(&mut x);
            x
        };
        assert_eq!(of(&|x| add(x, &y)), [5.0, 3.0, -3.0]);
        assert_eq!(of(&|x| subtract(x, &y)), [-3.0, -7.0, 9.0]);
        assert_eq!(of(&|x| difference(&y, &[1.0; 3], x)), [3.0, 4.0, -7.0]);
        assert_eq!(of(&|x| scale_and_add(x, 0.5, &y)), [4.5, 4.0, -4.5]);
        assert_eq!(of(&|x| multiply(x, &y)), [4.0, -10.0, -18.0]);
        assert_eq!(of(&|x| multiply_by(x, 0.5, &y)), [2.0, -5.0, -9.0]);
        assert_eq!(of(&|x| multiply_all(x, 0.5)), [0.5, -1.0, 1.5]);
        assert_eq!(of(&|x| divide_all(x, 0.5)), [2.0, -4.0, 6.0]);
        assert_eq!(of(&|x| divide(x, &[2.0, 4.0, 8.0])), [0.5, -0.5, 0.375]);
        assert_eq!(of(&|x| divide_by_squares(x, &[2.0, 4.0, 8.0])), [0.25, -0.125, 0.046875]);
        assert_eq!(of(&|x| gather(&y, &[2, 0, 1], x)), [-6.0, 4.0, 5.0]);
        assert_eq!(of(&|x| scatter(&y, &[2, 0, 1], x)), [5.0, -6.0, 4.0]);
        let mut wide = [1.0, 2.0];
        add_f64(&mut wide, &[0.5, 0.25]);
        assert_eq!(wide, [1.5, 2.25]);
    }

    #[test]
    fn rows_and_columns_are_selected_and_summed() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        assert_eq!(select(&x, &[2, 0], 3), [7.0, 8.0, 9.0, 1.0, 2.0, 3.0]);
        assert_eq!(select_columns(&x, 3, 1..3), [2.0, 3.0, 5.0, 6.0, 8.0, 9.0]);
        let mut sums = [1.0, 0.0];
        add_columns(&mut sums, &x, 3, 1);
        assert_eq!(sums, [16.0, 18.0]);
        add_squares(&mut sums, &x, 3, 1);
        assert_eq!(sums, [16.0 + 4.0 + 25.0 + 64.0, 18.0 + 9.0 + 36.0 + 81.0]);
    }

    #[test]
    fn what_is_not_finite_is_found_wherever_it_is() {
        for n in [1, 255, 256, 257, 1000] {
            let mut x = vec![0.5f32; n];
            assert_eq!(first_not_finite(&x), None);
            assert!(!nearly_all_zero(&x, n - 1) && nearly_all_zero(&x, n));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                x[n - 1] = bad;
                assert_eq!(first_not_finite(&x), Some(n - 1));
                x[n / 2] = bad;
                assert_eq!(first_not_finite(&x), Some(n / 2));
                (x[n / 2], x[n - 1]) = (0.5, 0.5);
            }
        }
        assert_eq!(first_not_finite(&[]), None);
    }

    #[test]
    fn means_are_taken_out() {
        // Two tokens: a of 1 and 3, b of 2 and 6 and of 0 and 4.
        let mut row = [2.0 + 18.0, 12.0];
        centre(&mut row, 2.0, (4.0, 2.0), &[8.0, 4.0], &[4.0, 2.0]);
        assert_eq!(row, [(-1.0 * -2.0) + (1.0 * 2.0), (-1.0 * -2.0) + (1.0 * 2.0)]);
        assert_eq!(mean_error(&[1.0, 2.0], &[0.5, 2.5], &[4.0, 8.0], &[]), -2.0);
        assert_eq!(mean_error(&[1.0, 2.0], &[0.5, 2.5], &[4.0, 8.0], &[1.0, 1.0]), 1.0);
    }

    #[test]
    fn rounding_to_codes_loses_half_a_step_at_most() {
        let x: Vec<f32> =
            (0..70).map(|i| (i as f32 * 0.37).sin() * if i < 32 { 1.0 } else { 100.0 }).collect();
        for (lost, x) in rounding(&x, 32).chunks(32).zip(x.chunks(32)) {
            assert!(peak(lost) <= 0.5001 * peak(x) / 127.0 && peak(lost) > 0.0);
        }
        assert_eq!(rounding(&[0.0, 0.0], 32), [0.0, 0.0]);
    }
}
