//! H = R·Rᵀ with R upper triangular, and what is solved with it.

use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSliceMut;

use crate::kernels::Isa;
use crate::kernels::gemm::{Part, View, gemm};

/// Columns that are factored together.
const BLOCK: usize = 128;

/// R of H = R·Rᵀ, `[width, width]`; what is below the diagonal means nothing.
pub struct Factor {
    /// The numbers.
    pub r: Vec<f32>,
    width: usize,
}

impl Factor {
    /// Factors a symmetric matrix of which the upper triangle is read: Cholesky's way, from the last column to the
    /// first. `None` if it is not positive definite.
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

    /// X of X·H = B, for rows of B.
    pub fn solve(&self, isa: Isa, b: &mut [f32]) {
        let (n, r) = (self.width, &self.r);
        let rows = b.len() / n;
        // Y·Rᵀ = B from the last columns to the first.
        let mut first = n.next_multiple_of(BLOCK);
        while first > 0 {
            let last = first.min(n);
            first -= BLOCK;
            if last < n {
                let later = columns(b, n, last, n);
                let a = View::rows(&later, n - last);
                let factor = View::rows(r, n).from(first, last).transposed();
                gemm(isa, Part::Whole, (rows, last - first, n - last), -1.0, a, factor, &mut b[first..], n);
            }
            b.par_chunks_mut(n).for_each(|row| {
                for k in (first..last).rev() {
                    let sum: f64 = (k + 1..last).map(|j| f64::from(row[j]) * f64::from(r[k * n + j])).sum();
                    row[k] = ((f64::from(row[k]) - sum) / f64::from(r[k * n + k])) as f32;
                }
            });
        }
        // X·R = Y from the first columns to the last.
        for first in (0..n).step_by(BLOCK) {
            let last = n.min(first + BLOCK);
            if first > 0 {
                let earlier = columns(b, n, 0, first);
                let a = View::rows(&earlier, first);
                let factor = View::rows(r, n).from(0, first);
                gemm(isa, Part::Whole, (rows, last - first, first), -1.0, a, factor, &mut b[first..], n);
            }
            b.par_chunks_mut(n).for_each(|row| {
                for k in first..last {
                    let sum: f64 = (first..k).map(|j| f64::from(row[j]) * f64::from(r[j * n + k])).sum();
                    row[k] = ((f64::from(row[k]) - sum) / f64::from(r[k * n + k])) as f32;
                }
            });
        }
    }

    /// U of H = U·D·Uᵀ with ones on its diagonal: R with every column divided by what it has there.
    pub fn unit(mut self) -> Vec<f32> {
        let n = self.width;
        let inverse: Vec<f32> = (0..n).map(|k| 1.0 / self.r[k * n + k]).collect();
        self.r.par_chunks_exact_mut(n).for_each(|row| {
            row.iter_mut().zip(&inverse).for_each(|(x, i)| *x *= i);
        });
        self.r
    }
}

/// A copy of some columns.
fn columns(b: &[f32], n: usize, first: usize, last: usize) -> Vec<f32> {
    b.chunks_exact(n).flat_map(|row| &row[first..last]).copied().collect()
}

/// The factor of a block on the diagonal.
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
