//! What an encoder is asked for beside the weights.

use super::layout;

/// How blocks are to be packed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Encode<'a> {
    /// What a squared error counts, for each weight: finite, not negative. Calibration gives the mean squares of a
    /// matrix' inputs, one for each column.
    pub importance: Option<&'a [f32]>,
    /// What is made least; each type's own choice if not given.
    pub objective: Option<Objective>,
    /// How hard to look for it.
    pub effort: Effort,
}

/// What an encoder makes as small as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The sum of squared errors, times the importances where there are any.
    Error,
    /// The same with larger weights counting more, by the type's [`Prior`]. No theory asks for it, but models whose
    /// large weights are kept well have lost less in measurements, and llama.cpp's encoders do it.
    Prior,
}

/// How hard an encoder looks for the best scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Effort {
    /// What costs little.
    Fast,
    /// Near the best.
    #[default]
    Normal,
    /// All that is known to help, at several times the cost.
    Thorough,
}

impl Effort {
    /// Every effort, with the name that people give it.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Fast, "fast"), (Self::Normal, "normal"), (Self::Thorough, "thorough")];
}

/// How much more a larger weight counts: an error counts h · √(s·σ² + x²), or h · ∜(s·σ² + x²), h being the importance
/// (1 where there is none), σ² the block's mean square and s the number given. The square root is llama.cpp's, for
/// importances; the fourth root is between that and plain errors, and what most types do best with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prior {
    /// No more: h.
    Plain,
    /// The square root.
    Root(f32),
    /// The fourth root.
    FourthRoot(f32),
}

impl Prior {
    /// What each weight of a block counts.
    #[inline(always)]
    pub(super) fn weigh<const W: usize>(self, x: &[f32; W], h: Option<&[f32; W]>, w: &mut [f32; W]) {
        // No type reaches further, and squares stay finite.
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

/// How much of what is missing of a block is given back.
const SHARE: f32 = 0.6;

/// What a block is multiplied by so that it is not too small. Codes and scales with the least squared error are means of
/// what they stand for, so they are shorter than that, by the error's share of the whole; with few bits, outputs are
/// smaller throughout, and that costs more KL divergence than the error that is saved. Most is lost least if six
/// tenths of it are given back (seen on real models for types of one to three bits: docs/encoders.md).
#[inline(always)]
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
    // What is no number, where all is zero or too large for sums, is not changed.
    if missing > 0.0 { 1.0 + SHARE * missing.min(0.5) } else { 1.0 }
}

/// Multiplies a half in a block.
#[inline(always)]
pub(super) fn amplify_half(bytes: &mut [u8], by: f32) {
    let d = (layout::half(bytes) * by).clamp(-65504.0, 65504.0);
    layout::pack_half(d, bytes);
}
