//! The Cholesky factorization of a Hessian, H = R·Rᵀ with R upper triangular, and linear systems solved with it.

use std::ops::Range;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use kernels::Isa;
use kernels::gemm::{Part, View, gemm};

/// Columns per block of the factorization.
const BLOCK: usize = 128;
/// Columns per block of a solution.
const SOLVED: usize = 256;

/// The upper triangular R of H = R·Rᵀ.
pub struct Factor {
    /// R, `[width, width]`; entries below the diagonal are undefined.
    pub r: Vec<f32>,
    width: usize,
}

impl Factor {
    /// Factors a symmetric matrix, of which only the upper triangle is read: blocked Cholesky, from the last column to the
    /// first. `None` if the matrix is not positive definite.
    pub fn new(isa: Isa, mut h: Vec<f32>, width: usize) -> Option<Self> {
        let n = width;
        let mut first = n.next_multiple_of(BLOCK);
        while first > 0 {
            let last = first.min(n);
            first -= BLOCK;
            let block = diagonal(&h, n, first, last)?;
            let size = last - first;
            // Above the block: A = X·R_bbᵀ, row by row from the last column.
            h[..first * n].par_chunks_exact_mut(n).for_each(|row| {
                let row = &mut row[first..last];
                for k in (0..size).rev() {
                    let mut sum = f64::from(row[k]);
                    for j in k + 1..size {
                        sum -= f64::from(row[j]) * block[k * size + j];
                    }
                    row[k] = (sum / block[k * size + k]) as f32;
                }
            });
            for i in 0..size {
                for j in i..size {
                    h[(first + i) * n + first + j] = block[i * size + j] as f32;
                }
            }
            let panel: Vec<f32> =
                h[..first * n].chunks_exact(n).flat_map(|row| &row[first..last]).copied().collect();
            let panel = View::rows(&panel, size);
            gemm(isa, Part::Upper, (first, first, size), -1.0, panel, panel.transposed(), &mut h, n);
        }
        Some(Self { r: h, width })
    }

    /// Solves X·H = B for each row of B, `[rows, width]`, in place.
    pub fn solve(&self, isa: Isa, b: &mut [f32]) {
        let (n, r) = (self.width, &self.r);
        let rows = b.len() / n;
        let blocks: Vec<_> = (0..n).step_by(SOLVED).map(|first| first..n.min(first + SOLVED)).collect();
        let inverses: Vec<Vec<f32>> = blocks.par_iter().map(|block| self.inverse(block.clone())).collect();
        let (mut own, mut found) = (vec![0f32; rows * SOLVED], vec![0f32; rows * SOLVED]);
        // Y·Rᵀ = B from the last columns to the first, then X·R = Y from the first to the last.
        let down = blocks.iter().zip(&inverses).rev().map(|block| (block, true));
        let up = blocks.iter().zip(&inverses).map(|block| (block, false));
        for ((block, inverse), transposed) in down.chain(up) {
            let (first, last, size) = (block.start, block.end, block.len());
            let own = &mut own[..rows * size];
            own.par_chunks_exact_mut(size)
                .zip(b.par_chunks_exact(n))
                .for_each(|(own, row)| own.copy_from_slice(&row[first..last]));
            let (others, factor) = match transposed {
                true => (last..n, View::rows(r, n).from(first, last.min(n - 1)).transposed()),
                false => (0..first, View::rows(r, n).from(0, first)),
            };
            if !others.is_empty() {
                let a = View::rows(b, n).from(0, others.start);
                gemm(isa, Part::Whole, (rows, size, others.len()), -1.0, a, factor, own, size);
            }
            let found = &mut found[..rows * size];
            found.fill(0.0);
            let inverse = View::rows(inverse, size);
            let inverse = if transposed { inverse.transposed() } else { inverse };
            gemm(isa, Part::Whole, (rows, size, size), 1.0, View::rows(own, size), inverse, found, size);
            b.par_chunks_exact_mut(n)
                .zip(found.par_chunks_exact(size))
                .for_each(|(row, found)| row[first..last].copy_from_slice(found));
        }
    }

    /// The inverse of a diagonal block of R; upper triangular too.
    fn inverse(&self, block: Range<usize>) -> Vec<f32> {
        let (n, size, first) = (self.width, block.len(), block.start);
        let at = |i: usize, j: usize| f64::from(self.r[(first + i) * n + first + j]);
        let mut inverse = vec![0f64; size * size];
        // Row by row from the last: X_i = (e_i − Σ_j R_ij·X_j) / R_ii over the rows below.
        for i in (0..size).rev() {
            let (own, below) = inverse[i * size..].split_at_mut(size);
            own[i] = 1.0;
            for (j, below) in (i + 1..size).zip(below.chunks_exact(size)) {
                let by = at(i, j);
                own[j..].iter_mut().zip(&below[j..]).for_each(|(x, y)| *x -= by * y);
            }
            let pivot = at(i, i);
            own[i..].iter_mut().for_each(|x| *x /= pivot);
        }
        inverse.into_iter().map(|x| x as f32).collect()
    }

    /// The unit upper triangular U of H = U·D·Uᵀ: R with every column divided by its diagonal entry.
    pub fn unit(mut self) -> Vec<f32> {
        let n = self.width;
        let inverse: Vec<f32> = (0..n).map(|k| 1.0 / self.r[k * n + k]).collect();
        self.r.par_chunks_exact_mut(n).for_each(|row| {
            row.iter_mut().zip(&inverse).for_each(|(x, i)| *x *= i);
        });
        self.r
    }
}

/// The Cholesky factor of the diagonal block of columns `first..last`, `[last - first, last - first]`.
fn diagonal(h: &[f32], n: usize, first: usize, last: usize) -> Option<Vec<f64>> {
    let size = last - first;
    let mut a = vec![0f64; size * size];
    for i in 0..size {
        for j in i..size {
            a[i * size + j] = f64::from(h[(first + i) * n + first + j]);
        }
    }
    for k in (0..size).rev() {
        let pivot = a[k * size + k];
        if pivot <= 0.0 || !pivot.is_finite() {
            return None;
        }
        let root = pivot.sqrt();
        a[k * size + k] = root;
        for i in 0..k {
            a[i * size + k] /= root;
        }
        for i in 0..k {
            let x = a[i * size + k];
            for j in i..k {
                a[i * size + j] -= x * a[j * size + k];
            }
        }
    }
    Some(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// H of so many columns, which is positive definite.
    fn square(n: usize) -> Vec<f32> {
        let mut random = Random::new(n as u64);
        let x: Vec<f64> = (0..(n + 5) * n).map(|_| random.unit() - 0.4).collect();
        let mut h = vec![0f32; n * n];
        for i in 0..n {
            for j in 0..n {
                let sum: f64 = (0..n + 5).map(|t| x[t * n + i] * x[t * n + j]).sum();
                h[i * n + j] = sum as f32 + if i == j { 0.05 } else { 0.0 };
            }
        }
        h
    }

    #[test]
    fn the_factor_gives_the_matrix_back_and_solves_with_it() {
        for n in [1, 7, 128, 129, 300] {
            let (h, isa) = (square(n), Isa::current());
            let f = Factor::new(isa, h.clone(), n).unwrap();
            for i in 0..n {
                for j in i..n {
                    let sum: f64 =
                        (j..n).map(|k| f64::from(f.r[i * n + k]) * f64::from(f.r[j * n + k])).sum();
                    let wanted = f64::from(h[i * n + j]);
                    assert!(
                        (sum - wanted).abs() < 1e-3 * n as f64 / 100.0 + 1e-5,
                        "{n} {i} {j} {sum} {wanted}"
                    );
                }
            }
            let mut random = Random::new(1);
            let x: Vec<f32> = (0..3 * n).map(|_| random.unit() as f32 - 0.5).collect();
            let mut b = vec![0f32; 3 * n];
            for (x, b) in x.chunks(n).zip(b.chunks_mut(n)) {
                for j in 0..n {
                    b[j] = (0..n).map(|k| f64::from(x[k]) * f64::from(h[k * n + j])).sum::<f64>() as f32;
                }
            }
            f.solve(isa, &mut b);
            for (x, b) in x.iter().zip(&b) {
                assert!((x - b).abs() < 5e-3, "{n}: {x} {b}");
            }
            let unit = f.unit();
            assert!((0..n).all(|k| (unit[k * n + k] - 1.0).abs() < 1e-6));
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(Factor::new(Isa::current(), vec![1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(Factor::new(Isa::current(), vec![f32::NAN], 1).is_none());
        assert!(Factor::new(Isa::current(), vec![0.0], 1).is_none());
    }
}
