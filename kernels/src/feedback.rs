//! Error feedback and descent ([`calibration::feedback`]), compiled for each instruction set.

use calibration::feedback::{self, Levels, Panel};
use formats::block::grid::{Grid, Parts};

use super::isa::per_isa;

per_isa! {
    /// [`feedback::feed_back`].
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
    /// [`feedback::descend`].
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
