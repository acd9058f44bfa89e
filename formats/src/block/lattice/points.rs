//! Points and signs under given scales: what they cost, which they are, and which scales would suit them better.

use super::fit::{GROUPS, Lattice};
use super::nearest::{Halves, LANES, Lanes};
use super::sample::{Sample, Signs, add, stored};

/// A super-block as it is stored.
pub(super) struct Code {
    pub d: f32,
    pub scales: [u8; GROUPS],
    pub points: [u16; 64],
    /// A bit for each weight of eight.
    pub signs: [u8; 32],
    /// Whether eight weights are moved down.
    pub down: [bool; 32],
}

/// What a group costs near its best step: `curve` · (step − `step`)², and something that is the same for all.
#[derive(Clone, Copy)]
pub(super) struct Bowl {
    pub step: f32,
    pub curve: f32,
}

/// What scales a trial found, and what they cost.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    pub d: f32,
    pub scales: [u8; GROUPS],
    pub cost: f32,
}

/// The values that levels stand for, moved by `shift`.
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

/// How far points are moved, where they are.
pub(super) const SHIFT: f32 = 0.125;

#[inline(always)]
pub(super) fn shifts(signs: Signs) -> &'static [f32] {
    match signs {
        Signs::Free | Signs::Even => &[0.0],
        Signs::Group | Signs::Vector => &[SHIFT, -SHIFT],
    }
}

/// What group `g` costs under each step.
#[inline(always)]
pub(super) fn costs<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    g: usize,
    steps: &Lanes,
    halves: &mut Halves,
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

/// The nearest points under a trial's scales, and what they cost. With `keep`, points are moved as they were in `code`.
#[inline(always)]
pub(super) fn assign<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    trial: &Trial,
    keep: bool,
    code: &mut Code,
    halves: &mut Halves,
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

/// How many of eight weights are tried with the other sign.
const TURNS: usize = 4;

/// Where eight weights cannot all have their sign, which of them and which points together cost least. The weights that
/// are tried are those whose turning costs least for points that stay.
#[inline(always)]
pub(super) fn turn_signs<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    code: &mut Code,
    halves: &mut Halves,
) {
    let (mut odd, mut count) = ([0; 32], 0);
    for v in 0..32 {
        odd[count] = v;
        count += usize::from(s.odd[v]);
    }
    for pair in odd[..count].chunks(LANES / TURNS) {
        // Lane l has the weight turned[l] of its eight turned.
        let (mut turned, mut eight, mut steps) = ([0; LANES], [0; LANES], [0.0; LANES]);
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
            for l in TURNS * i..TURNS * (i + 1) {
                let mut least = 0;
                for j in 1..8 {
                    least = if price[j] < price[least] { j } else { least };
                }
                price[least] = f32::INFINITY;
                (turned[l], eight[l], steps[l]) = (least, v, step);
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
                if turned[l] / D == part {
                    x[turned[l] % D][l] = -x[turned[l] % D][l];
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
            let mut least = TURNS * i;
            for l in TURNS * i..TURNS * (i + 1) {
                least = if cost[l] < cost[least] { l } else { least };
            }
            code.signs[v] = natural ^ 1 << turned[least];
            for part in 0..8 / D {
                code.points[8 / D * v + part] = points[part][least];
            }
        }
    }
}

/// What groups cost with a code's points, and the scale d that is best for these and the groups' scales.
#[inline(always)]
pub(super) fn refit<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    code: &Code,
    bowls: &mut [Bowl; GROUPS],
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
            bowls[g] = Bowl { step: xy / yy, curve: yy };
        }
        let unit = T::UNIT * f32::from(2 * code.scales[g] + 1);
        all_xy += unit * xy;
        all_yy += unit * unit * yy;
    }
    stored(all_xy / all_yy)
}
