//! Gram matrices of a matrix's inputs over the tokens of a calibration set: the Hessian of the squared output error, and
//! the same for the error that earlier layers left in the inputs.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use kernels::Isa;
use kernels::gemm::{Part, View, gemm};

/// Numbers per thread and step.
const PART: usize = 1 << 14;
/// Side of the square tiles that are copied across the diagonal.
const TILE: usize = 64;

/// Sums over tokens of products of two row vectors: the inputs x of a matrix in the model that is being quantized, and
/// y = x₀ − x, with x₀ the inputs in the original model.
pub struct Gram {
    /// Columns of the matrix.
    pub width: usize,
    /// Tokens that were added.
    pub tokens: u64,
    /// Σ xᵀx, `[width, width]`: half the Hessian of the squared output error. Only the upper triangle is filled until
    /// [`Gram::symmetrize`] is called.
    pub h: Vec<f32>,
    /// Σ yᵀx, `[width, width]`; empty unless calibration is asymmetric (x₀ differs from x).
    pub yx: Vec<f32>,
    /// Σ yᵀy, `[width, width]`, for losses in full; empty unless made by [`Gram::for_loss`]. Filled as `h` is.
    pub yy: Vec<f32>,
    /// Σx and Σy, the latter empty where `yx` is.
    pub sums: [Vec<f64>; 2],
}

impl Gram {
    /// Sums of zero. `asymmetric` keeps those of y as well.
    pub fn new(width: usize, asymmetric: bool) -> Self {
        let square = vec![0.0; width * width];
        let yx = if asymmetric { square.clone() } else { Vec::new() };
        let sums = [vec![0.0; width], vec![0.0; if asymmetric { width } else { 0 }]];
        Self { width, tokens: 0, yx, h: square, yy: Vec::new(), sums }
    }

    /// Like [`Gram::new`], with Σ yᵀy, so that losses can be computed in full.
    pub fn for_loss(width: usize, asymmetric: bool) -> Self {
        let mut gram = Self::new(width, asymmetric);
        gram.yy = gram.yx.clone();
        gram
    }

    /// Adds inputs, `[tokens, width]`; `original` are those of the same tokens in the original model.
    pub fn add(&mut self, isa: Isa, x: &[f32], original: Option<&[f32]>) {
        let n = self.width;
        let tokens = x.len() / n;
        self.tokens += tokens as u64;
        let view = View::rows(x, n);
        add_rows(&mut self.sums[0], x);
        gemm(isa, Part::Upper, (n, n, tokens), 1.0, view.transposed(), view, &mut self.h, n);
        if let Some(original) = original {
            let mut y = vec![0f32; x.len()];
            let parts = y.par_chunks_mut(PART).zip(original.par_chunks(PART)).zip(x.par_chunks(PART));
            parts.for_each(|((y, original), x)| {
                y.iter_mut().zip(original).zip(x).for_each(|((y, o), x)| *y = o - x);
            });
            add_rows(&mut self.sums[1], &y);
            let y = View::rows(&y, n);
            gemm(isa, Part::Whole, (n, n, tokens), 1.0, y.transposed(), view, &mut self.yx, n);
            if !self.yy.is_empty() {
                gemm(isa, Part::Upper, (n, n, tokens), 1.0, y.transposed(), y, &mut self.yy, n);
            }
        }
    }

    /// Adds another part's sums.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.h.iter_mut().zip(&other.h).for_each(|(a, b)| *a += b);
        self.yx.iter_mut().zip(&other.yx).for_each(|(a, b)| *a += b);
        self.yy.iter_mut().zip(&other.yy).for_each(|(a, b)| *a += b);
        for (own, other) in self.sums.iter_mut().zip(&other.sums) {
            own.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
    }

    /// Fills the lower triangles of the symmetric sums. To be called once, after the last [`Gram::add`].
    pub fn symmetrize(&mut self) {
        let n = self.width;
        for square in [&mut self.h, &mut self.yy].into_iter().filter(|s| !s.is_empty()) {
            // Tile by tile, since the source is read column by column.
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

    /// Whether no sum is NaN or infinite: such a Hessian could not be factored.
    pub fn is_finite(&self) -> bool {
        self.h.par_iter().chain(&self.yx).chain(&self.yy).all(|x| x.is_finite())
    }

    /// Turns the sums into those of inputs that are divided by `s`, column by column.
    pub fn divide(&mut self, s: &[f32]) {
        let inverse: Vec<f32> = s.iter().map(|s| 1.0 / s).collect();
        for square in [&mut self.h, &mut self.yx, &mut self.yy] {
            square.par_chunks_exact_mut(s.len()).zip(&inverse).for_each(|(row, a)| {
                row.iter_mut().zip(&inverse).for_each(|(x, b)| *x *= a * b);
            });
        }
    }

    /// The means of x and of y, the latter empty where `yx` is.
    pub fn input_means(&self) -> [Vec<f32>; 2] {
        let per = 1.0 / self.tokens.max(1) as f64;
        [0, 1].map(|i| self.sums[i].iter().map(|s| (s * per) as f32).collect())
    }

    /// Subtracts constants from the inputs: the sums become those of x − `mean[0]` and y − `mean[1]`. To be called once,
    /// after the last [`Gram::add`].
    pub fn centre(&mut self, mean: &[Vec<f32>; 2]) {
        let tokens = self.tokens as f64;
        // Σ(a − α)(b − β) = Σab − α·Σb − β·Σa + T·αβ.
        let [x, y] = [0, 1].map(|i| (&self.sums[i], &mean[i]));
        let squares = [(&mut self.h, x, x), (&mut self.yx, y, x), (&mut self.yy, y, y)];
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

    /// The mean squares of the inputs, `[width]`: the diagonal of `h` per token.
    pub fn mean_squares(&self) -> Vec<f32> {
        let per = 1.0 / self.tokens.max(1) as f32;
        (0..self.width).map(|i| self.h[i * self.width + i] * per).collect()
    }
}

/// Adds the rows of `x` to `sums`.
fn add_rows(sums: &mut [f64], x: &[f32]) {
    /// Columns per thread and step.
    const COLUMNS: usize = 128;
    let width = sums.len();
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, sums)| {
        for row in x.chunks_exact(width) {
            sums.iter_mut().zip(&row[i * COLUMNS..]).for_each(|(s, x)| *s += f64::from(*x));
        }
    });
}
