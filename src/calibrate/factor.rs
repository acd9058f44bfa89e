//! The Cholesky factorization of a Hessian, H = R·Rᵀ with R upper triangular, and linear systems solved with it.

use calibration::{factor, rows};

use kernels::Isa;
use kernels::gemm::{Part, View, gemm};
use kernels::parallel;

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
            let block = factor::diagonal(&h, n, first..last)?;
            let size = last - first;
            // Above the block: A = X·R_bbᵀ, row by row.
            parallel::chunks_mut(&mut h[..first * n], n, &|_, row| {
                factor::solve_row(&mut row[first..last], &block);
            });
            factor::put(&block, &mut h, n, first..last);
            let panel = rows::select_columns(&h[..first * n], n, first..last);
            let panel = View::rows(&panel, size);
            gemm(isa, Part::Upper, (first, first, size), -1.0, panel, panel.transposed(), &mut h, n);
        }
        Some(Self { r: h, width })
    }

    /// Solves X·H = B for each row of B, `[rows, width]`, in place.
    pub fn solve(&self, isa: Isa, b: &mut [f32]) {
        let (n, r) = (self.width, &self.r);
        let count = b.len() / n;
        let blocks: Vec<_> = (0..n).step_by(SOLVED).map(|first| first..n.min(first + SOLVED)).collect();
        let inverses: Vec<Vec<f32>> =
            parallel::map(blocks.len(), &|i| factor::inverse(r, n, blocks[i].clone()));
        let mut found = vec![0f32; count * SOLVED];
        // Y·Rᵀ = B from the last columns to the first, then X·R = Y from the first to the last.
        let down = blocks.iter().zip(&inverses).rev().map(|block| (block, true));
        let up = blocks.iter().zip(&inverses).map(|block| (block, false));
        for ((block, inverse), transposed) in down.chain(up) {
            let (first, last, size) = (block.start, block.end, block.len());
            let mut own = rows::select_columns(b, n, block.clone());
            let own = &mut own[..];
            let (others, factor) = match transposed {
                true => (last..n, View::rows(r, n).from(first, last.min(n - 1)).transposed()),
                false => (0..first, View::rows(r, n).from(0, first)),
            };
            if !others.is_empty() {
                let a = View::rows(b, n).from(0, others.start);
                gemm(isa, Part::Whole, (count, size, others.len()), -1.0, a, factor, own, size);
            }
            let found = &mut found[..count * size];
            found.fill(0.0);
            let inverse = View::rows(inverse, size);
            let inverse = if transposed { inverse.transposed() } else { inverse };
            gemm(isa, Part::Whole, (count, size, size), 1.0, View::rows(own, size), inverse, found, size);
            let solved = b.chunks_exact_mut(n).zip(found.chunks_exact(size));
            solved.for_each(|(row, found)| row[first..last].copy_from_slice(found));
        }
    }

    /// The unit upper triangular U of H = U·D·Uᵀ: R with every column divided by its diagonal entry.
    pub fn unit(mut self) -> Vec<f32> {
        let n = self.width;
        let inverse: Vec<f32> = (0..n).map(|k| 1.0 / self.r[k * n + k]).collect();
        parallel::chunks_mut(&mut self.r, n, &|_, row| rows::multiply(row, &inverse));
        self.r
    }
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
