//! What a matrix's inputs are like: sums over the tokens of a text.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use crate::kernels::Isa;
use crate::kernels::gemm::{Part, View, gemm};

/// Sums over tokens of products of a matrix's inputs x, as the model that is being made has them, and of what the
/// original has more, y = x₀ − x.
pub struct Gram {
    /// Columns of the matrix.
    pub width: usize,
    /// Tokens.
    pub tokens: u64,
    /// Σ xᵀx, `[width, width]`; symmetric once [`Gram::finish`] was called.
    pub h: Vec<f32>,
    /// Σ yᵀx, `[width, width]`, row by y; empty where x and x₀ are the same.
    pub more: Vec<f32>,
    /// Σ yᵀy, where losses are to be known whole; else empty. Symmetric as `h` is.
    pub apart: Vec<f32>,
}

impl Gram {
    /// Nothing seen yet.
    pub fn new(width: usize, two: bool) -> Self {
        let square = vec![0.0; width * width];
        let more = if two { square.clone() } else { Vec::new() };
        Self { width, tokens: 0, more, h: square, apart: Vec::new() }
    }

    /// The same, for whole losses.
    pub fn judging(width: usize, two: bool) -> Self {
        let mut gram = Self::new(width, two);
        gram.apart = gram.more.clone();
        gram
    }

    /// Takes inputs in, `[tokens, width]`; `original` are those of the original model, of the same tokens.
    pub fn add(&mut self, isa: Isa, x: &[f32], original: Option<&[f32]>) {
        let n = self.width;
        let tokens = x.len() / n;
        self.tokens += tokens as u64;
        let view = View::rows(x, n);
        gemm(isa, Part::Upper, (n, n, tokens), 1.0, view.transposed(), view, &mut self.h, n);
        if let Some(original) = original {
            let more: Vec<f32> = original.iter().zip(x).map(|(o, x)| o - x).collect();
            let more = View::rows(&more, n);
            gemm(isa, Part::Whole, (n, n, tokens), 1.0, more.transposed(), view, &mut self.more, n);
            if !self.apart.is_empty() {
                gemm(isa, Part::Upper, (n, n, tokens), 1.0, more.transposed(), more, &mut self.apart, n);
            }
        }
    }

    /// Takes another's sums in.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.h.iter_mut().zip(&other.h).for_each(|(a, b)| *a += b);
        self.more.iter_mut().zip(&other.more).for_each(|(a, b)| *a += b);
        self.apart.iter_mut().zip(&other.apart).for_each(|(a, b)| *a += b);
    }

    /// Fills what lies below the diagonal.
    pub fn finish(&mut self) {
        let n = self.width;
        for square in [&mut self.h, &mut self.apart].into_iter().filter(|s| !s.is_empty()) {
            for i in 1..n {
                for j in 0..i {
                    square[i * n + j] = square[j * n + i];
                }
            }
        }
    }

    /// Whether all sums are numbers: where one is not, no factor is found.
    pub fn is_finite(&self) -> bool {
        self.h.par_iter().chain(&self.more).chain(&self.apart).all(|x| x.is_finite())
    }

    /// What it would be of inputs divided by s.
    pub fn divide(&mut self, s: &[f32]) {
        let inverse: Vec<f32> = s.iter().map(|s| 1.0 / s).collect();
        for square in [&mut self.h, &mut self.more, &mut self.apart] {
            square.par_chunks_exact_mut(s.len()).zip(&inverse).for_each(|(row, a)| {
                row.iter_mut().zip(&inverse).for_each(|(x, b)| *x *= a * b);
            });
        }
    }

    /// The mean squares of the inputs.
    pub fn means(&self) -> Vec<f32> {
        let per = 1.0 / self.tokens.max(1) as f32;
        (0..self.width).map(|i| self.h[i * self.width + i] * per).collect()
    }
}
