//! The search for blocks with one scale, an IEEE half: x = d·level. Eight blocks are searched side by side.

use std::hint::select_unpredictable;

use super::groups::{Groups, LANES, Levels, Row, clamp, inverse};
use super::scaled::{top, unit};
use super::search::{HALF_MIN, stored_scale};
use super::{Effort, f16_to_f32, f32_to_f16};

/// A type of such blocks, of `W` weights in `B` bytes.
pub(super) trait Shape<const W: usize, const B: usize> {
    type Levels: Levels;
    /// The starting points: levels to which the weight of largest magnitude is scaled.
    const PEAK_LEVELS: &'static [f32];
    /// More of them, for weights of different importance.
    const MORE_PEAK_LEVELS: &'static [f32];
    /// Stores a block.
    fn pack(d: f32, codes: &[u8; W], bytes: &mut [u8; B]);
}

/// Packs blocks.
#[inline(always)]
pub(super) fn encode<S: Shape<W, B>, const W: usize, const B: usize>(
    x: &[[f32; W]],
    w: Option<&[[f32; W]]>,
    effort: Effort,
    bytes: &mut [[u8; B]],
) {
    for (i, (x, bytes)) in x.chunks(LANES).zip(bytes.chunks_mut(LANES)).enumerate() {
        let w = w.map(|w| &w[LANES * i..LANES * i + x.len()]);
        encode_lanes::<S, W, B>(x, w, effort, bytes);
    }
}

/// Puts up to eight blocks side by side, each multiplied by a power of two of its own. If no importances are given, or all of a
/// block are zero, they are one. Missing blocks, and those without a weight above `smallest`, become lanes of zeros. Also
/// returns the powers, which are zero for such lanes.
#[inline(always)]
pub(super) fn gather<const N: usize>(
    x: &[[f32; N]],
    w: Option<&[[f32; N]]>,
    smallest: f32,
) -> (Groups<N>, Row) {
    let (mut groups, mut units) = (Groups::<N>::EMPTY, [0.0; LANES]);
    for l in 0..x.len() {
        let peak = top(&x[l]);
        units[l] = if peak > smallest { unit(peak) } else { 0.0 };
        for j in 0..N {
            groups.x[j][l] = clamp(x[l][j] * units[l], -2.0, 2.0);
        }
        if let Some(w) = w
            && top(&w[l]) > 0.0
        {
            let per = unit(top(&w[l]));
            for j in 0..N {
                groups.w[j][l] = clamp(w[l][j] * per, 0.0, 2.0);
            }
        }
    }
    (groups, units)
}

#[inline(always)]
fn encode_lanes<S: Shape<W, B>, const W: usize, const B: usize>(
    x: &[[f32; W]],
    w: Option<&[[f32; W]]>,
    effort: Effort,
    bytes: &mut [[u8; B]],
) {
    let (groups, units) = gather::<W>(x, w, HALF_MIN / 2.0);
    let many = effort > Effort::Normal || w.is_some() && effort > Effort::Fast;
    let places = if many { S::MORE_PEAK_LEVELS } else { S::PEAK_LEVELS };
    let (free, _) = groups.free_scales::<S::Levels>(places, if effort == Effort::Fast { 1 } else { 2 });

    // Candidates as they are stored: the nearest half, its two neighbours, and the scale of plain rounding.
    let (peaks, mut s, mut least) = (groups.peaks(), [0.0; LANES], [f32::INFINITY; LANES]);
    // Near the smallest and the largest halves, the opposite sign or zero may be better.
    let (mut odd, mut any_odd) = ([false; LANES], false);
    for l in 0..LANES {
        let d = (free[l] / units[l]).abs();
        odd[l] = units[l] > 0.0 && !(64.0 * HALF_MIN..65504.0).contains(&d);
        any_odd |= odd[l];
    }
    for step in 0..if any_odd { 6 } else { 4 } {
        let mut stored = [0.0; LANES];
        for l in 0..LANES {
            let half = f32_to_f16(stored_scale(free[l] / units[l]));
            let half = match step {
                0 => half,
                1 => half + 1,
                2 => half - 1,
                4 if odd[l] => half ^ 0x8000,
                4 | 5 => half,
                _ => f32_to_f16(stored_scale(peaks[l] / S::Levels::LO / units[l])),
            };
            stored[l] = if step == 5 && odd[l] { 0.0 } else { stored_scale(f16_to_f32(half)) * units[l] };
        }
        let error = groups.error::<S::Levels>(&stored);
        for l in 0..LANES {
            let better = error[l] < least[l];
            least[l] = select_unpredictable(better, error[l], least[l]);
            s[l] = select_unpredictable(better, stored[l], s[l]);
        }
    }

    let codes = groups.codes::<S::Levels>(&inverse(&s), &[0.0; LANES]);
    for (l, bytes) in bytes.iter_mut().enumerate() {
        S::pack(if units[l] == 0.0 { 0.0 } else { s[l] / units[l] }, &codes[l], bytes);
    }
}
