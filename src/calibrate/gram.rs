//! Gram matrices of a matrix's inputs over the tokens of a calibration set: the Hessian of the squared output error, and
//! the same for the error that earlier layers left in the inputs.

use calibration::{factor, rows};

use kernels::Isa;
use kernels::gemm::{Part, View, gemm};
use kernels::parallel;

/// Numbers per thread and step.
const PART: usize = 1 << 14;

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
            parallel::chunks_mut(&mut y, PART, &|i, y| {
                rows::difference(&original[i * PART..], &x[i * PART..], y);
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
        rows::add(&mut self.h, &other.h);
        rows::add(&mut self.yx, &other.yx);
        rows::add(&mut self.yy, &other.yy);
        self.sums.iter_mut().zip(&other.sums).for_each(|(own, other)| rows::add_f64(own, other));
    }

    /// Fills the lower triangles of the symmetric sums. To be called once, after the last [`Gram::add`].
    pub fn symmetrize(&mut self) {
        for square in [&mut self.h, &mut self.yy].into_iter().filter(|s| !s.is_empty()) {
            factor::symmetrize(square, self.width);
        }
    }

    /// Whether no sum is NaN or infinite: such a Hessian could not be factored.
    pub fn is_finite(&self) -> bool {
        let all = [&self.h, &self.yx, &self.yy].into_iter();
        all.flat_map(|square| square.chunks(PART)).all(|part| rows::first_not_finite(part).is_none())
    }

    /// Turns the sums into those of inputs that are divided by `s`, column by column.
    pub fn divide(&mut self, s: &[f32]) {
        let inverse: Vec<f32> = s.iter().map(|s| 1.0 / s).collect();
        for square in [&mut self.h, &mut self.yx, &mut self.yy] {
            parallel::chunks_mut(square, s.len(), &|i, row| rows::multiply_by(row, inverse[i], &inverse));
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
        let [x, y] = [0, 1].map(|i| (&self.sums[i], &mean[i]));
        let squares = [(&mut self.h, x, x), (&mut self.yx, y, x), (&mut self.yy, y, y)];
        for (square, (a, alpha), (b, beta)) in squares.into_iter().filter(|s| !s.0.is_empty()) {
            parallel::chunks_mut(square, self.width, &|i, row| {
                rows::centre(row, tokens, (a[i], alpha[i]), b, beta);
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
    parallel::chunks_mut(sums, COLUMNS, &|i, sums| rows::add_columns(sums, x, width, i * COLUMNS));
}
