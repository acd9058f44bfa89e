//! What an encoder is asked for beside the weights.

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
