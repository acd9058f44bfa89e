//! Lattice types (codebooks): four or eight weights at a time are the index of a point in a grid. Super-blocks of 256 weights,
//! whose groups of 16 or 32 have small odd integers as scales, multiplied by one IEEE half. Layouts: `block_iq1_s` to
//! `block_iq3_s` in ggml.
//!
//! The grids are tables ([`grid`]). An index has fewer bits than separate codes for its coordinates would have.

// Loops over lanes have an index: in bodies that become vector code, that shows best which lane is combined with which.
#![allow(clippy::needless_range_loop)]

mod fit;
pub mod grid;
mod iq1;
mod iq2;
mod iq3;
mod nearest;
mod points;
mod queries;
mod sample;
mod tables;

pub(super) use iq1::iq1_m_scale_is_not_finite;
pub use iq1::{Iq1M, Iq1S};
pub use iq2::{Iq2S, Iq2Xs, Iq2Xxs};
pub use iq3::{Iq3S, Iq3Xxs};

/// Eight signs from seven bits (`ksigns_iq2xs` in ggml): the eighth makes the number of minus signs even.
#[inline(always)]
pub fn eight_signs(seven: u32) -> u8 {
    let seven = seven as u8 & 127;
    let mut parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    seven | parity << 7
}

/// Weights from magnitudes: weight j is negative if bit j of `signs` is set.
#[inline(always)]
fn signed<const N: usize>(step: f32, magnitudes: &[u8; N], signs: u8, out: &mut [f32]) {
    for j in 0..N {
        let minus = u32::from(signs >> j & 1) << 31;
        out[j] = f32::from_bits((step * f32::from(magnitudes[j])).to_bits() ^ minus);
    }
}

#[cfg(test)]
mod tests;
