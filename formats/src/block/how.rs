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

/// How much more a larger weight counts. With importances h, an error counts h · √(s·σ² + x²) for every prior but
/// [`Prior::Plain`], σ² being the block's mean square and s the prior's number; without, what is said here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prior {
    /// All weights count the same, h where there is importance.
    Plain,
    /// Without importance, all weights count the same.
    Root(f32),
    /// Without importance, x².
    Square(f32),
    /// Without importance, |x|.
    Magnitude(f32),
    /// Without importance, σ + |x|.
    Shifted(f32),
}

impl Prior {
    /// Whether it says something without importances.
    #[inline(always)]
    pub(super) fn alone(self) -> bool {
        !matches!(self, Self::Plain | Self::Root(_))
    }

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
        match (self, h) {
            (Self::Plain, Some(h)) => *w = *h,
            (Self::Root(s) | Self::Square(s) | Self::Magnitude(s) | Self::Shifted(s), Some(h)) => {
                for j in 0..W {
                    w[j] = (h[j] * (s * mean + x[j] * x[j]).sqrt()).min(f32::MAX);
                }
            }
            (Self::Plain | Self::Root(_), None) => *w = [1.0; W],
            (Self::Square(_), None) => {
                for j in 0..W {
                    w[j] = x[j] * x[j];
                }
            }
            (Self::Magnitude(_), None) => {
                *w = *x;
            }
            (Self::Shifted(_), None) => {
                let rms = mean.sqrt();
                for j in 0..W {
                    w[j] = rms + x[j];
                }
            }
        }
    }
}
