//! What an encoder is asked for besides the weights.

use super::{Block, DType, Family, Visitor, layout};

/// Options of encoders.
#[derive(Debug, Clone, Copy, Default)]
pub struct Encode<'a> {
    /// The importance of each weight: the factor of its squared error, finite and not negative. Calibration gives the mean
    /// squares of a matrix's inputs, one for each column (an importance matrix).
    pub importance: Option<&'a [f32]>,
    /// What is minimised; the default of each type if not given.
    pub objective: Option<Objective>,
    /// How much time to spend on the search.
    pub effort: Effort,
}

/// What an encoder minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The sum of squared errors, weighted by the importances if there are any.
    Error,
    /// The same with larger weights counting more, by the type's [`Prior`]. There is no theory for it, but it lowered the KL
    /// divergence in measurements, and llama.cpp's encoders do it.
    Prior,
}

/// How much time an encoder spends on finding the best scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Effort {
    /// Few starting points.
    Fast,
    /// Close to the best known result.
    #[default]
    Normal,
    /// Everything that is known to help, at several times the cost.
    Thorough,
}

impl Effort {
    /// Every effort, with its name in options.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Fast, "fast"), (Self::Normal, "normal"), (Self::Thorough, "thorough")];

    /// Whether the encoder of a type gives other bytes at this effort than at the default one, with an importance matrix or
    /// without. The snapshot of all encoders is compared with it.
    pub fn matters_to(self, dtype: DType, importance: bool) -> bool {
        use DType::{IQ4_NL, MXFP4, NVFP4, Q1_0, Q2_0, Q4_0, Q5_0, Q8_0};
        if !matches!(dtype.info().family, Family::Scalar | Family::Ternary | Family::Lattice) {
            return false;
        }
        match (self, dtype) {
            (Self::Normal, _) | (_, MXFP4 | Q1_0) | (Self::Thorough, NVFP4) => false,
            (Self::Fast, Q4_0 | Q5_0 | Q8_0) | (Self::Thorough, IQ4_NL | Q2_0) => !importance,
            _ => true,
        }
    }
}

impl DType {
    /// Whether [`Objective::Prior`] gives the encoder of the type other bytes than [`Objective::Error`].
    pub fn has_prior(self) -> bool {
        struct HasPrior;
        impl Visitor for HasPrior {
            type Out = bool;
            fn visit<const W: usize, const B: usize, T: Block<W, B>>(self) -> bool {
                T::PRIOR != Prior::Plain
            }
        }
        self.visit(HasPrior).unwrap_or(false)
    }
}

/// How much more a larger weight x counts: its squared error is multiplied by h · √(s·σ² + x²) or by h · ∜(s·σ² + x²), where h
/// is the importance (1 if there is none), σ² the block's mean square and s the number given. The square root is that of
/// llama.cpp with an importance matrix (`quantize_row_q4_0_impl` and its like); the fourth root is between that and plain
/// squared errors, and best for most types (docs/encoders.md).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prior {
    /// Not more: the factor is h.
    Plain,
    /// The square root.
    Root(f32),
    /// The fourth root.
    FourthRoot(f32),
}

impl Prior {
    /// The factors for the weights of a block. Not inlined, and so compiled with the target's plain instructions: roots take as
    /// long in wider ones, and every type would have a copy.
    #[inline(never)]
    pub(super) fn weigh<const W: usize>(self, x: &[f32; W], h: Option<&[f32; W]>, w: &mut [f32; W]) {
        // No type represents larger weights, and the squares of these are finite.
        const FAR: f32 = (1 << 30) as f32;
        let mut near = [0.0; W];
        for j in 0..W {
            near[j] = x[j].abs().min(FAR);
        }
        let x = &near;
        let mut sums = [0.0f32; 8];
        for x in x.as_chunks::<8>().0 {
            for l in 0..8 {
                sums[l] += x[l] * x[l];
            }
        }
        let mean = sums.iter().sum::<f32>() / W as f32;
        match self {
            Self::Plain => *w = [1.0; W],
            Self::Root(s) => {
                for j in 0..W {
                    w[j] = (s * mean + x[j] * x[j]).sqrt();
                }
            }
            Self::FourthRoot(s) => {
                for j in 0..W {
                    w[j] = (s * mean + x[j] * x[j]).sqrt().sqrt();
                }
            }
        }
        if let Some(h) = h {
            for j in 0..W {
                w[j] = (h[j] * w[j]).min(f32::MAX);
            }
        }
    }
}

/// The share of a block's loss of magnitude that amplification restores.
const SHARE: f32 = 0.6;

/// The factor by which a block is multiplied so that it is not too small. Codes and scales with the least squared error
/// are means of the weights that they represent, so the decoded vector is shorter than the original, by the error's share
/// of the energy. With few bits, all outputs become smaller, and that costs more KL divergence than the squared error that
/// is saved. Restoring six tenths of it was best for types of one to three bits (docs/encoders.md).
#[inline(never)]
pub(super) fn amplification<const W: usize>(x: &[f32; W], w: &[f32; W], y: &[f32; W]) -> f32 {
    let (mut all, mut along) = ([0.0f32; 8], [0.0f32; 8]);
    let chunks = x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0).zip(y.as_chunks::<8>().0);
    for ((x, w), y) in chunks {
        for l in 0..8 {
            let wx = w[l] * x[l];
            all[l] += wx * x[l];
            along[l] += wx * y[l];
        }
    }
    let (all, along) = (all.iter().sum::<f32>(), along.iter().sum::<f32>());
    let missing = (all - along) / along;
    // NaN, from sums that are zero or infinite, changes nothing.
    if missing > 0.0 { 1.0 + SHARE * missing.min(0.5) } else { 1.0 }
}

/// Multiplies an IEEE half in a block.
#[inline(always)]
pub(super) fn amplify_half(bytes: &mut [u8], by: f32) {
    let d = (layout::half(bytes) * by).clamp(-65504.0, 65504.0);
    layout::pack_half(d, bytes);
}
