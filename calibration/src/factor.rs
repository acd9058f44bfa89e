//! The Cholesky factorization of a Hessian, H = R·Rᵀ with R upper triangular, within a block of columns. What lies between
//! the blocks are products of matrices, which are up to the caller.
//!
//! Hessians and factors are `[n, n]`; their entries below the diagonal are neither read nor written.

use std::ops::Range;

/// The factor of a block on the diagonal of a Hessian, `[size, size]` for `size` columns; zero below the diagonal. `None` if
/// the block is not positive definite.
///
/// # Panics
/// If the block is not within the Hessian.
#[inline(never)]
pub fn diagonal(h: &[f32], n: usize, block: Range<usize>) -> Option<Vec<f64>> {
    let (first, size) = (block.start, block.len());
    let mut a = vec![0f64; size * size];
    for (i, row) in a.chunks_exact_mut(size).enumerate() {
        let from = &h[(first + i) * n + first + i..][..size - i];
        row[i..].iter_mut().zip(from).for_each(|(a, h)| *a = f64::from(*h));
    }
    // The column that is divided by its pivot, in one piece.
    let mut column = vec![0f64; size];
    for k in (0..size).rev() {
        let pivot = a[k * size + k];
        if pivot <= 0.0 || !pivot.is_finite() {
            return None;
        }
        let root = pivot.sqrt();
        a[k * size + k] = root;
        for (i, c) in column[..k].iter_mut().enumerate() {
            a[i * size + k] /= root;
            *c = a[i * size + k];
        }
        for (i, x) in column[..k].iter().enumerate() {
            let row = &mut a[i * size + i..i * size + k];
            row.iter_mut().zip(&column[i..k]).for_each(|(a, c)| *a -= x * c);
        }
    }
    Some(a)
}

/// Puts the factor of a block on the diagonal into the matrix `[n, n]`, from row and column `first` on.
///
/// # Panics
/// If the block is not within the matrix.
#[inline(never)]
pub fn put(factor: &[f64], r: &mut [f32], n: usize, block: Range<usize>) {
    let (first, size) = (block.start, block.len());
    for (i, factor) in factor.chunks_exact(size).enumerate() {
        let row = &mut r[(first + i) * n + first..][..size];
        row[i..].iter_mut().zip(&factor[i..]).for_each(|(r, f)| *r = *f as f32);
    }
}

/// Solves x·R_bbᵀ = a in place for a row above a block, with the block's factor of [`diagonal`].
///
/// # Panics
/// If the factor has fewer rows than the row has numbers.
#[inline(never)]
pub fn solve_row(row: &mut [f32], factor: &[f64]) {
    let size = row.len();
    for k in (0..size).rev() {
        let factor = &factor[k * size..(k + 1) * size];
        let mut sum = f64::from(row[k]);
        for (x, f) in row[k + 1..].iter().zip(&factor[k + 1..]) {
            sum -= f64::from(*x) * f;
        }
        row[k] = (sum / factor[k]) as f32;
    }
}

/// The inverse of a block on the diagonal of R, `[size, size]` for `size` columns; upper triangular too, and zero below.
///
/// # Panics
/// If the block is not within R.
#[inline(never)]
pub fn inverse(r: &[f32], n: usize, block: Range<usize>) -> Vec<f32> {
    let (first, size) = (block.start, block.len());
    let mut inverse = vec![0f64; size * size];
    // Row by row from the last: X_i = (e_i − Σ_j R_ij·X_j) / R_ii over the rows below.
    for i in (0..size).rev() {
        let r = &r[(first + i) * n + first..][..size];
        let (own, below) = inverse[i * size..].split_at_mut(size);
        own[i] = 1.0;
        for (j, below) in (i + 1..size).zip(below.chunks_exact(size)) {
            let by = f64::from(r[j]);
            own[j..].iter_mut().zip(&below[j..]).for_each(|(x, y)| *x -= by * y);
        }
        let pivot = f64::from(r[i]);
        own[i..].iter_mut().for_each(|x| *x /= pivot);
    }
    inverse.into_iter().map(|x| x as f32).collect()
}

/// Solves x·R_bb = e in place for the block of columns of R that starts at column `first` and is as wide as `e`.
///
/// # Panics
/// If the block is not within R.
#[inline(never)]
pub fn solve_down(e: &mut [f32], r: &[f32], n: usize, first: usize) {
    let width = e.len();
    for k in 0..width {
        let r = &r[(first + k) * n + first..][k..width];
        let (own, later) = e[k..].split_first_mut().expect("k is below the width");
        *own /= r[0];
        later.iter_mut().zip(&r[1..]).for_each(|(e, r)| *e -= *own * r);
    }
}

/// A row of a Hessian, regularized: entries off the diagonal are multiplied by `share`, and `more` is added to the one on
/// it, which is entry `i`.
///
/// # Panics
/// If there is no such entry.
#[inline(never)]
pub fn regularize_row(row: &mut [f32], i: usize, share: f32, more: f32) {
    let own = row[i];
    row.iter_mut().for_each(|x| *x *= share);
    row[i] = own + more;
}

/// Fills the lower triangle of a symmetric matrix, `[n, n]`, from the upper one.
///
/// # Panics
/// If it has another size.
#[inline(never)]
pub fn symmetrize(square: &mut [f32], n: usize) {
    /// Side of the square tiles that are copied across the diagonal, since the source is read column by column.
    const TILE: usize = 64;
    assert_eq!(square.len(), n * n, "a square of {n} rows");
    for first in (0..n).step_by(TILE) {
        for left in (0..=first).step_by(TILE) {
            for i in first..(first + TILE).min(n) {
                for j in left..(left + TILE).min(i) {
                    square[i * n + j] = square[j * n + i];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block in a larger matrix, with what must not be read around it.
    const H: [f32; 16] = [
        f32::NAN,
        f32::NAN,
        f32::NAN,
        f32::NAN, //
        f32::NAN,
        14.0,
        8.0,
        3.0, //
        f32::NAN,
        f32::NAN,
        5.0,
        2.0, //
        f32::NAN,
        f32::NAN,
        f32::NAN,
        1.0,
    ];

    #[test]
    fn a_block_is_factored_and_solved_with() {
        // [[1, 2, 3], [0, 1, 2], [0, 0, 1]] times its transpose.
        let factor = diagonal(&H, 4, 1..4).unwrap();
        assert_eq!(factor[..6], [1.0, 2.0, 3.0, 0.0, 1.0, 2.0]);
        assert_eq!(factor[8], 1.0);
        // x·Rᵀ of x = [1, -1, 2] is [5, 3, 2].
        let mut row = [5.0, 3.0, 2.0];
        solve_row(&mut row, &factor);
        assert_eq!(row, [1.0, -1.0, 2.0]);

        let mut r = [f32::NAN; 16];
        put(&factor, &mut r, 4, 1..4);
        assert_eq!((r.iter().filter(|x| x.is_nan()).count(), &r[5..8]), (10, &[1.0, 2.0, 3.0][..]));
        assert_eq!(inverse(&r, 4, 1..4), [1.0, -2.0, 1.0, 0.0, 1.0, -2.0, 0.0, 0.0, 1.0]);
        assert_eq!(inverse(&r, 4, 2..3), [1.0]);
        // x·R of x = [1, -1, 2] is [1, 1, 3].
        let mut row = [1.0, 1.0, 3.0];
        solve_down(&mut row, &r, 4, 1);
        assert_eq!(row, [1.0, -1.0, 2.0]);
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(diagonal(&[1.0, 2.0, 2.0, 1.0], 2, 0..2).is_none());
        assert!(diagonal(&[0.0], 1, 0..1).is_none());
        assert!(diagonal(&[f32::NAN], 1, 0..1).is_none());
        assert!(diagonal(&[f32::INFINITY], 1, 0..1).is_none());
    }

    #[test]
    fn rows_are_regularized_and_triangles_filled() {
        let mut row = [2.0, 4.0, 8.0];
        regularize_row(&mut row, 1, 0.5, 3.0);
        assert_eq!(row, [1.0, 7.0, 4.0]);
        for n in [1, 3, 64, 130] {
            let mut square: Vec<f32> = (0..n * n).map(|i| i as f32).collect();
            let upper = square.clone();
            symmetrize(&mut square, n);
            for i in 0..n {
                for j in 0..n {
                    assert_eq!(square[i * n + j], upper[i.min(j) * n + i.max(j)], "{n} {i} {j}");
                }
            }
        }
    }
}
