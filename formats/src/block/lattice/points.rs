//! The cost of groups with given steps, and the scales that fit given points better.

use super::fit::{GROUPS, Lattice};
use super::nearest::{HalfCosts, LANES, Lanes};
use super::sample::{Sample, Signs, add, stored};

/// The numbers of a super-block.
pub(super) struct Code {
    pub d: f32,
    pub scales: [u8; GROUPS],
    pub points: [u16; 64],
    /// The signs of eight weights in each byte.
    pub signs: [u8; 32],
    /// Whether eight weights are shifted down.
    pub down: [bool; 32],
}

/// The cost of a group as a function of its step s, near the best one: `curve` · (s − `step`)², plus a constant.
#[derive(Clone, Copy)]
pub(super) struct Parabola {
    pub step: f32,
    pub curve: f32,
}

/// The scales of a trial and their cost.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    pub d: f32,
    pub scales: [u8; GROUPS],
    pub cost: f32,
}

/// The values of levels, shifted by `shift`.
#[inline(always)]
pub(super) fn values<const D: usize, const L: usize, T: Lattice<D, L>>(
    steps: &Lanes,
    shift: &Lanes,
) -> [Lanes; L] {
    let mut values = [[0.0; LANES]; L];
    for i in 0..L {
        for l in 0..LANES {
            values[i][l] = steps[l] * (T::LEVELS[i] + shift[l]);
        }
    }
    values
}

/// How far points are shifted, in types that do so (`IQ1S_DELTA` in ggml).
pub(super) const SHIFT: f32 = 0.125;

#[inline(always)]
pub(super) fn shifts(signs: Signs) -> &'static [f32] {
    match signs {
        Signs::Free | Signs::Even => &[0.0],
        Signs::Group | Signs::Vector => &[SHIFT, -SHIFT],
    }
}

/// The cost of group `g` with each step.
#[inline(always)]
pub(super) fn costs<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    g: usize,
    steps: &Lanes,
    halves: &mut HalfCosts,
) -> Lanes {
    let mut sum = [[0.0; LANES]; 2];
    for v in 0..T::GROUP / D {
        let at = T::GROUP * g + D * v;
        let (mut x, mut w) = ([[0.0; LANES]; D], [[0.0; LANES]; D]);
        for j in 0..D {
            x[j] = [s.x[at + j]; LANES];
            w[j] = [s.w[at + j]; LANES];
        }
        let mut least = [[0.0; LANES]; 2];
        for (i, &shift) in shifts(T::SIGNS).iter().enumerate() {
            halves.fill(&x, &w, &values::<D, L, T>(steps, &[shift; LANES]));
            least[i] = halves.least(T::WALK);
        }
        if T::SIGNS == Signs::Vector {
            for l in 0..LANES {
                sum[0][l] += if least[0][l] < least[1][l] { least[0][l] } else { least[1][l] };
            }
        } else {
            for l in 0..LANES {
                sum[0][l] += least[0][l];
                sum[1][l] += least[1][l];
            }
        }
    }
    if T::SIGNS == Signs::Group {
        for l in 0..LANES {
            sum[0][l] = if sum[0][l] < sum[1][l] { sum[0][l] } else { sum[1][l] };
        }
    }
    sum[0]
}

/// The costs of groups with the points of a code, and the best d for these points and scales.
#[inline(always)]
pub(super) fn refit<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    code: &Code,
    parabolas: &mut [Parabola; GROUPS],
) -> f32 {
    let (mut all_xy, mut all_yy) = (0.0, 0.0);
    for g in 0..256 / T::GROUP {
        let (mut xy, mut yy) = ([0.0; 8], [0.0; 8]);
        for v in g * (T::GROUP / 8)..(g + 1) * (T::GROUP / 8) {
            let mut origin = T::ORIGIN;
            if matches!(T::SIGNS, Signs::Group | Signs::Vector) {
                origin += if code.down[v] { -SHIFT } else { SHIFT };
            }
            for part in 0..8 / D {
                let point = &T::POINTS[usize::from(code.points[8 / D * v + part])];
                for j in 0..D {
                    let y = f32::from(point[j]) + origin;
                    let at = 8 * v + D * part + j;
                    let wy = s.w[at] * y;
                    xy[D * part + j] += wy * s.x[at];
                    yy[D * part + j] += wy * y;
                }
            }
        }
        let (xy, yy) = (add(&xy), add(&yy));
        if xy > 0.0 {
            parabolas[g] = Parabola { step: xy / yy, curve: yy };
        }
        let unit = T::UNIT * f32::from(2 * code.scales[g] + 1);
        all_xy += unit * xy;
        all_yy += unit * unit * yy;
    }
    stored(all_xy / all_yy)
}
