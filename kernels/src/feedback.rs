//! Error feedback and coordinate descent for quantization, compiled for each instruction set. What is computed, and the
//! shapes of all slices, are told in [`calibration::feedback`]; so are the panics.

use calibration::feedback::{self, Levels, Panel};
use formats::block::grid::{Grid, Parts};

use super::isa::per_isa;

per_isa! {
    /// [`feedback::feed_back`] on a set: chooses codes column by column, each with the errors of those before it in mind.
    pub fn feed_back(
        targets: &[f32],
        wanted: &mut [f32],
        factor: &[f32],
        stride: usize,
        steps: &[f32],
        offsets: &[f32],
        levels: Levels<'_>,
        codes: &mut [u8],
        errors: &mut [f32],
    ) = feedback::feed_back
}

per_isa! {
    /// [`feedback::descend`] on a set: changes one code after the other where that lessens the error; whether any changed.
    pub fn descend(
        grid: &dyn Grid,
        levels: Levels<'_>,
        panel: &Panel<'_>,
        rounds: usize,
        parts: &mut [Parts],
        values: &mut [f32],
        gradient: &mut [f32],
    ) -> bool = feedback::descend
}

#[cfg(test)]
mod tests;
