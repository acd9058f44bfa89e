//! Points and signs for given scales, their cost, and the scales that fit them better.

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

/// Finds the nearest points for the scales of a trial, and returns their cost. With `keep`, points are shifted as in `code`.
#[inline(always)]
pub(super) fn assign<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    trial: &Trial,
    keep: bool,
    code: &mut Code,
    halves: &mut HalfCosts,
) -> f32 {
    code.d = trial.d;
    code.scales = trial.scales;
    code.signs = s.signs;
    let mut total = 0.0;
    let (mut found, mut cost) = ([[0u16; 64]; 2], [[0.0f32; 64]; 2]);
    let sides = if keep { 1 } else { shifts(T::SIGNS).len() };
    for batch in 0..256 / D / LANES {
        let (mut x, mut w, mut steps) = ([[0.0; LANES]; D], [[0.0; LANES]; D], [0.0; LANES]);
        for l in 0..LANES {
            let at = (batch * LANES + l) * D;
            steps[l] = trial.d * T::UNIT * f32::from(2 * trial.scales[at / T::GROUP] + 1);
            for j in 0..D {
                x[j][l] = s.x[at + j];
                w[j][l] = s.w[at + j];
            }
        }
        for i in 0..sides {
            let mut shift = [shifts(T::SIGNS)[i]; LANES];
            for l in 0..LANES {
                if keep && code.down[(batch * LANES + l) * D / 8] {
                    shift[l] = -shift[l];
                }
            }
            halves.fill(&x, &w, &values::<D, L, T>(&steps, &shift));
            let (c, p) = halves.nearest(T::WALK);
            for l in 0..LANES {
                cost[i][batch * LANES + l] = c[l];
                found[i][batch * LANES + l] = p[l];
            }
        }
    }
    code.points = found[0];
    if sides == 1 {
        for v in 0..256 / D {
            total += cost[0][v];
        }
        return total;
    }
    let together = if T::SIGNS == Signs::Group { T::GROUP / 8 } else { 1 };
    for first in (0..32).step_by(together) {
        let mut sum = [0.0; 2];
        for v in first..first + together {
            sum[0] += cost[0][v];
            sum[1] += cost[1][v];
        }
        let down = sum[1] < sum[0];
        total += sum[usize::from(down)];
        for v in first..first + together {
            code.down[v] = down;
            code.points[v] = found[usize::from(down)][v];
        }
    }
    total
}

/// How many of eight weights are tried with the opposite sign.
const FLIPS: usize = 4;

/// Where the parity of signs does not allow all eight weights to keep theirs, finds the weight to flip and the points that
/// together cost least. Tried are the weights whose flipping costs least with the present points.
#[inline(always)]
pub(super) fn fix_parity<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    code: &mut Code,
    halves: &mut HalfCosts,
) {
    let (mut odd, mut count) = ([0; 32], 0);
    for v in 0..32 {
        odd[count] = v;
        count += usize::from(s.odd[v]);
    }
    for pair in odd[..count].chunks(LANES / FLIPS) {
        // In lane l, weight flipped[l] of the eight is flipped.
        let (mut flipped, mut eight, mut steps) = ([0; LANES], [0; LANES], [0.0; LANES]);
        for (i, &v) in pair.iter().enumerate() {
            let step = code.d * T::UNIT * f32::from(2 * code.scales[8 * v / T::GROUP] + 1);
            let mut price = [0.0; 8];
            for part in 0..8 / D {
                let point = &T::POINTS[usize::from(code.points[8 / D * v + part])];
                for j in 0..D {
                    let at = 8 * v + D * part + j;
                    price[D * part + j] = s.w[at] * s.x[at].abs() * f32::from(point[j]);
                }
            }
            for l in FLIPS * i..FLIPS * (i + 1) {
                let mut least = 0;
                for j in 1..8 {
                    least = if price[j] < price[least] { j } else { least };
                }
                price[least] = f32::INFINITY;
                (flipped[l], eight[l], steps[l]) = (least, v, step);
            }
        }
        let values = values::<D, L, T>(&steps, &[0.0; LANES]);
        let (mut cost, mut points) = ([0.0; LANES], [[0; LANES]; 2]);
        for part in 0..8 / D {
            let (mut x, mut w) = ([[0.0; LANES]; D], [[0.0; LANES]; D]);
            for l in 0..LANES {
                for j in 0..D {
                    let at = 8 * eight[l] + part * D + j;
                    x[j][l] = s.x[at].abs();
                    w[j][l] = s.w[at];
                }
                if flipped[l] / D == part {
                    x[flipped[l] % D][l] = -x[flipped[l] % D][l];
                }
            }
            halves.fill(&x, &w, &values);
            let (c, p) = halves.nearest(T::WALK);
            points[part] = p;
            for l in 0..LANES {
                cost[l] += c[l];
            }
        }
        for (i, &v) in pair.iter().enumerate() {
            let mut natural = code.signs[v];
            for j in 0..8 {
                natural ^= u8::from(s.x[8 * v + j].is_sign_negative()) << j;
            }
            let mut least = FLIPS * i;
            for l in FLIPS * i..FLIPS * (i + 1) {
                least = if cost[l] < cost[least] { l } else { least };
            }
            code.signs[v] = natural ^ 1 << flipped[least];
            for part in 0..8 / D {
                code.points[8 / D * v + part] = points[part][least];
            }
        }
    }
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
