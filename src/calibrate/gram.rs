//! What a matrix's inputs are like: sums over the tokens of a text.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use kernels::Isa;
use kernels::gemm::{Part, View, gemm};

/// Numbers that a thread takes at a time.
const PART: usize = 1 << 14;
/// Rows and columns that are copied across the diagonal together.
const TILE: usize = 64;

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
    /// Σx and Σy, the latter empty where `more` is.
    pub sums: [Vec<f64>; 2],
}

impl Gram {
    /// Nothing seen yet.
    pub fn new(width: usize, two: bool) -> Self {
        let square = vec![0.0; width * width];
        let more = if two { square.clone() } else { Vec::new() };
        let sums = [vec![0.0; width], vec![0.0; if two { width } else { 0 }]];
        Self { width, tokens: 0, more, h: square, apart: Vec::new(), sums }
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
        add_rows(&mut self.sums[0], x);
        gemm(isa, Part::Upper, (n, n, tokens), 1.0, view.transposed(), view, &mut self.h, n);
        if let Some(original) = original {
            let mut more = vec![0f32; x.len()];
            let parts = more.par_chunks_mut(PART).zip(original.par_chunks(PART)).zip(x.par_chunks(PART));
            parts.for_each(|((more, original), x)| {
                more.iter_mut().zip(original).zip(x).for_each(|((m, o), x)| *m = o - x);
            });
            add_rows(&mut self.sums[1], &more);
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
        for (own, other) in self.sums.iter_mut().zip(&other.sums) {
            own.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
    }

    /// Fills what lies below the diagonal.
    pub fn finish(&mut self) {
        let n = self.width;
        for square in [&mut self.h, &mut self.apart].into_iter().filter(|s| !s.is_empty()) {
            // Tile by tile: what is read goes down columns.
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

    /// The means of x and of y, the latter empty where `more` is.
    pub fn mean(&self) -> [Vec<f32>; 2] {
        let per = 1.0 / self.tokens.max(1) as f64;
        [0, 1].map(|i| self.sums[i].iter().map(|s| (s * per) as f32).collect())
    }

    /// Takes constants off the inputs: the sums become those of x less `mean[0]`, and of y less `mean[1]`. To be called
    /// once, when nothing more is added.
    pub fn centre(&mut self, mean: &[Vec<f32>; 2]) {
        let tokens = self.tokens as f64;
        // Σ(a − α)(b − β) = Σab − α·Σb − β·Σa + T·αβ.
        let [x, y] = [0, 1].map(|i| (&self.sums[i], &mean[i]));
        let squares = [(&mut self.h, x, x), (&mut self.more, y, x), (&mut self.apart, y, y)];
        for (square, (a, alpha), (b, beta)) in squares.into_iter().filter(|s| !s.0.is_empty()) {
            square.par_chunks_exact_mut(self.width).enumerate().for_each(|(i, row)| {
                let (sum, alpha) = (a[i], f64::from(alpha[i]));
                for ((r, b), beta) in row.iter_mut().zip(b).zip(beta) {
                    let beta = f64::from(*beta);
                    *r = (f64::from(*r) - alpha * b - beta * sum + tokens * alpha * beta) as f32;
                }
            });
        }
    }

    /// The mean squares of the inputs.
    pub fn means(&self) -> Vec<f32> {
        let per = 1.0 / self.tokens.max(1) as f32;
        (0..self.width).map(|i| self.h[i * self.width + i] * per).collect()
    }
}

/// Adds the sums of columns.
fn add_rows(sums: &mut [f64], x: &[f32]) {
    /// Columns that a thread takes at a time.
    const COLUMNS: usize = 128;
    let width = sums.len();
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, sums)| {
        for row in x.chunks_exact(width) {
            sums.iter_mut().zip(&row[i * COLUMNS..]).for_each(|(s, x)| *s += f64::from(*x));
        }
    });
}
