//! Types whose weights are coded together, eight or four at a time, as the index of a point of a lattice: super-blocks
//! of 256 weights, whose groups of 16 or 32 have small odd integers for scales under one half for all.
//!
//! The points are given by tables ([`tables`]); an index needs fewer bits than its coordinates would one by one.

// Lanes are counted: in bodies that become vector code, what is done with which is plainer so.
#![allow(clippy::needless_range_loop)]

mod fit;
pub mod grid;
mod iq1;
mod iq2;
mod iq3;
mod nearest;
mod points;
mod sample;
mod tables;

pub(super) use iq1::iq1_m_scale_is_not_finite;
pub use iq1::{Iq1M, Iq1S};
pub use iq2::{Iq2S, Iq2Xs, Iq2Xxs};
pub use iq3::{Iq3S, Iq3Xxs};

/// Eight signs from seven bits: the last makes the number of minuses even.
#[inline(always)]
pub fn eight_signs(seven: u32) -> u8 {
    let seven = seven as u8 & 127;
    let mut parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    seven | parity << 7
}

/// Weights from magnitudes: bit j of `signs` is the minus of weight j.
#[inline(always)]
fn signed<const N: usize>(step: f32, magnitudes: &[u8; N], signs: u8, out: &mut [f32]) {
    for j in 0..N {
        let minus = u32::from(signs >> j & 1) << 31;
        out[j] = f32::from_bits((step * f32::from(magnitudes[j])).to_bits() ^ minus);
    }
}

#[cfg(test)]
mod tests;
