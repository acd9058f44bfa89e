//! Scalar grids: blocks whose weights each have a code of their own, taken apart into scales, minimums and codes and put
//! together again.
//!
//! Searches that choose codes and scales themselves, such as GPTQ and coordinate descent, use this instead of encoders.

mod types;

#[cfg(doc)]
use super::DType;
use super::{affine, scaled};

/// How the numbers of a block are combined to weights: with g = j / group, x\[j\] = step(d, scales\[g\]) · levels\[codes\[j\]\]
/// + offset(m, mins\[g\]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Weights of a block.
    pub weights: usize,
    /// Weights that share a step and an offset: `weights` where the block has one scale.
    pub group: usize,
    /// The level of each code, ascending.
    pub levels: &'static [f32],
    /// The smallest and the largest integer scale of a group; `None` if groups have none and the step is the block's d.
    pub scales: Option<[i16; 2]>,
    /// The smallest and the largest integer minimum of a group, whose offset is −(m · min); `None` if groups have none.
    pub mins: Option<[i16; 2]>,
    /// Whether the offset is m itself.
    pub offset: bool,
    /// Whether d (and m, where there is one) may be any finite IEEE half. If not, the block stores no d: a group has only its
    /// scale.
    pub free: bool,
}

impl Shape {
    /// A block with one scale.
    const fn single(weights: usize, levels: &'static [f32]) -> Self {
        Self { weights, group: weights, levels, scales: None, mins: None, offset: false, free: true }
    }

    /// A block with one scale and one offset.
    const fn single_affine(weights: usize, levels: &'static [f32]) -> Self {
        Self { offset: true, ..Self::single(weights, levels) }
    }

    /// Groups with integer scales.
    const fn scaled(weights: usize, group: usize, levels: &'static [f32], scales: [i16; 2]) -> Self {
        Self { group, scales: Some(scales), ..Self::single(weights, levels) }
    }

    /// Groups with integer scales and minimums, none negative.
    const fn affine(group: usize, levels: &'static [f32], most: i16) -> Self {
        Self { mins: Some([0, most]), ..Self::scaled(256, group, levels, [0, most]) }
    }
}

/// The numbers of a block. Those that a type does not have, or that are beyond the block's weights and groups, are zero after
/// unpacking and ignored in packing.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The scale of the block; one where it stores none.
    pub d: f32,
    /// The offset of the block, or the scale of the groups' minimums (`dmin` in ggml).
    pub m: f32,
    /// The integer scale of each group.
    pub scales: [i16; 16],
    /// The integer minimum of each group.
    pub mins: [i16; 16],
    /// The code of each weight: an index into the levels.
    pub codes: [u8; 256],
}

impl Parts {
    /// All zeros.
    pub const ZERO: Self = Self { d: 0.0, m: 0.0, scales: [0; 16], mins: [0; 16], codes: [0; 256] };

    /// The first codes.
    fn first<const N: usize>(&self) -> &[u8; N] {
        &self.codes.as_chunks().0[0]
    }

    /// The numbers of a super-block with minimums.
    fn affine<const G: usize>(&self) -> affine::Affine<G> {
        let (mut scales, mut mins) = ([0; G], [0; G]);
        for g in 0..G {
            (scales[g], mins[g]) = (self.scales[g] as u8, self.mins[g] as u8);
        }
        affine::Affine { d: self.d, dmin: self.m, scales, mins, codes: self.codes }
    }

    /// The numbers of a super-block without minimums.
    fn scaled<const G: usize>(&self) -> scaled::Scaled<G> {
        let mut scales = [0; G];
        for g in 0..G {
            scales[g] = self.scales[g] as i8;
        }
        scaled::Scaled { d: self.d, scales, codes: self.codes }
    }
}

impl Default for Parts {
    fn default() -> Self {
        Self::ZERO
    }
}

/// A type whose blocks have a [`Shape`].
///
/// The value of a weight is `step(d, scale) * level + offset(m, min)` in f32, where product and sum are rounded separately.
/// Except for the sign of a zero, these are the bits that [`Block::decode`](super::Block::decode) gives.
pub trait Grid: Sync + Send {
    /// How the numbers of a block are combined.
    fn shape(&self) -> &'static Shape;

    /// Takes a block apart, little-endian. All numbers are then within the shape. Values that formats can hold but encoders
    /// do not write become the nearest ones that they do write: the code −128 of [`DType::Q8_0`] (becomes −127), the code 3
    /// of [`DType::TQ2_0`] (becomes 1), and NaN scales of [`DType::MXFP4`] and [`DType::NVFP4`]. Negative zeros among the
    /// codes of the last two become the level 0.
    ///
    /// # Panics
    /// If there are fewer bytes than a block has.
    fn unpack(&self, bytes: &[u8], parts: &mut Parts);

    /// Puts a block together, little-endian. The numbers must be within the shape, and d and m exactly representable as IEEE
    /// halves if the block stores them.
    ///
    /// # Panics
    /// If there are fewer bytes than a block has.
    fn pack(&self, parts: &Parts, bytes: &mut [u8]);

    /// The factor of the levels of a group. It increases strictly with the scale if d is above zero. Types that store no d
    /// ignore it.
    fn step(&self, d: f32, scale: i16) -> f32 {
        if self.shape().scales.is_some() { d * f32::from(scale) } else { d }
    }

    /// The number that is added to the weights of a group.
    fn offset(&self, m: f32, min: i16) -> f32 {
        let shape = self.shape();
        if shape.mins.is_some() {
            -(m * f32::from(min))
        } else if shape.offset {
            m
        } else {
            0.0
        }
    }
}
