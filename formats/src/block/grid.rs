//! Blocks whose weights lie on a grid of their own scale, taken apart and put together again.
//!
//! For searches that choose codes and scales themselves, such as error feedback (GPTQ) and coordinate descent: they
//! need what the numbers of a block mean, and how to get at them, but none of the encoders.

mod types;

#[cfg(doc)]
use super::DType;
use super::{affine, scaled};

/// What the numbers of a block mean: with g = j / group, x\[j\] = step(d, scales\[g\]) · levels\[codes\[j\]\] +
/// offset(m, mins\[g\]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Weights of a block.
    pub weights: usize,
    /// Weights that share a step and an offset: `weights` where the block has one scale.
    pub group: usize,
    /// What each code stands for, ascending.
    pub levels: &'static [f32],
    /// The least and the largest scale of a group; `None` if the block's d is the step.
    pub scales: Option<[i16; 2]>,
    /// The least and the largest min of a group, whose offset is −(m · min); `None` if groups have none.
    pub mins: Option<[i16; 2]>,
    /// Whether the offset is m itself.
    pub offset: bool,
    /// Whether d (and m, where there is one) may be any finite half. Where not, the block stores no d: the scale of
    /// a group is all there is.
    pub free: bool,
}

impl Shape {
    /// One scale for all weights of a block.
    const fn single(weights: usize, levels: &'static [f32]) -> Self {
        Self { weights, group: weights, levels, scales: None, mins: None, offset: false, free: true }
    }

    /// A scale and an offset for all weights of a block.
    const fn single_affine(weights: usize, levels: &'static [f32]) -> Self {
        Self { offset: true, ..Self::single(weights, levels) }
    }

    /// Scales of groups.
    const fn scaled(weights: usize, group: usize, levels: &'static [f32], scales: [i16; 2]) -> Self {
        Self { group, scales: Some(scales), ..Self::single(weights, levels) }
    }

    /// Scales and mins of groups, none negative.
    const fn affine(group: usize, levels: &'static [f32], most: i16) -> Self {
        Self { mins: Some([0, most]), ..Self::scaled(256, group, levels, [0, most]) }
    }
}

/// The numbers of a block. What a type has no use for, or is beyond the block's weights and groups, is zero when it is
/// unpacked and not looked at when it is packed.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The scale of the block; one where it stores none.
    pub d: f32,
    /// The offset of the block, or the scale of the groups' mins.
    pub m: f32,
    /// The scale of each group.
    pub scales: [i16; 16],
    /// The min of each group.
    pub mins: [i16; 16],
    /// The code of each weight: an index of the levels.
    pub codes: [u8; 256],
}

impl Parts {
    /// Nothing but zeros.
    pub const ZERO: Self = Self { d: 0.0, m: 0.0, scales: [0; 16], mins: [0; 16], codes: [0; 256] };

    /// The first codes.
    fn first<const N: usize>(&self) -> &[u8; N] {
        &self.codes.as_chunks().0[0]
    }

    /// As super-blocks with mins have them.
    fn affine<const G: usize>(&self) -> affine::Affine<G> {
        let (mut scales, mut mins) = ([0; G], [0; G]);
        for g in 0..G {
            (scales[g], mins[g]) = (self.scales[g] as u8, self.mins[g] as u8);
        }
        affine::Affine { d: self.d, dmin: self.m, scales, mins, codes: self.codes }
    }

    /// As super-blocks without mins have them.
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
/// The value of a weight is `step(d, scale) * level + offset(m, min)` in f32, a product and a sum that are rounded one
/// after the other: but for the sign of a zero, these are the bits that [`Block::decode`](super::Block::decode) gives.
pub trait Grid: Sync + Send {
    /// What the numbers of a block mean.
    fn shape(&self) -> &'static Shape;

    /// Takes a block apart, little-endian. All numbers come within the shape. The few that formats can hold but
    /// encoders do not write become the nearest that they do: the code −128 of [`DType::Q8_0`] (−127), the code 3 of
    /// [`DType::TQ2_0`] (1), and scales that are not a number, of [`DType::MXFP4`] and [`DType::NVFP4`]. Minus
    /// zeros among the latters' codes become the level 0.
    ///
    /// # Panics
    ///
    /// If there are fewer bytes than a block has.
    fn unpack(&self, bytes: &[u8], parts: &mut Parts);

    /// Puts a block together, little-endian. The numbers have to be within the shape, and d and m have to be halves
    /// already if the block stores them.
    ///
    /// # Panics
    ///
    /// If there are fewer bytes than a block has.
    fn pack(&self, parts: &Parts, bytes: &mut [u8]);

    /// What the levels of a group are multiplied by. It grows strictly with the scale if d is above zero; where the
    /// block stores no d, that is not looked at.
    fn step(&self, d: f32, scale: i16) -> f32 {
        if self.shape().scales.is_some() { d * f32::from(scale) } else { d }
    }

    /// What is added to the weights of a group.
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

#[cfg(test)]
mod tests;
