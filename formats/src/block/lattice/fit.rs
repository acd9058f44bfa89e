//! The search for the scales, points and signs of a super-block.
//!
//! It estimates the best step of each group and how the error grows beside it, from a ladder of steps. By these estimates it
//! chooses a few values of d, computes their exact cost with the best scale for each group, and then fits d to the points and
//! finds the points again, alternately. Costs are those of the nearest points with the numbers as they will be stored.

use std::hint::{black_box, select_unpredictable};

use super::grid::QuadList;
use super::nearest::{HalfCosts, LANES, Lanes};
use super::points::{Code, Parabola, SHIFT, Trial, costs, refit, shifts};
use super::queries::{Answers, Flips, assign, batches, columns, take};
use super::sample::{Sample, Signs, clamp, stored};
use crate::block::Effort;

/// The largest number of groups in a super-block.
pub(super) const GROUPS: usize = 16;

/// Adding this number, 1.5·2²³, rounds an f32 to the nearest integer, ties to even, in its lowest bits.
const TO_INTEGER: f32 = 12_582_912.0;

/// How much time is spent on the scales of a super-block.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Whether the estimate for each group is refined with true points of the grid.
    pub ladder: bool,
    /// Rounds in which scales follow from the estimates alone.
    pub guesses: usize,
    /// Rounds after those in which several scales are tried with true points.
    pub trials: usize,
}

/// The plan at [`Effort::Thorough`].
const THOROUGH: Plan = Plan { ladder: true, guesses: 0, trials: 6 };

/// The parameters of a type whose vectors of `D` weights are points with coordinates of `L` levels.
pub(super) trait Lattice<const D: usize, const L: usize> {
    /// The levels of coordinates.
    const LEVELS: [f32; L];
    /// The grid in the order of the search.
    const WALK: &'static QuadList;
    /// The coordinates of each point, minus [`Lattice::ORIGIN`].
    const POINTS: &'static [[u8; D]];
    const ORIGIN: f32 = 0.0;
    const SIGNS: Signs;
    /// The number of weights in a group, which share a scale.
    const GROUP: usize;
    /// The number of integer scales. The step of a group is d · UNIT · (2·scale + 1).
    const SCALES: usize;
    const UNIT: f32;
    /// A typical step for weights whose mean square is 1.
    const USUAL: f32;
    /// The plans at [`Effort::Fast`] and [`Effort::Normal`].
    const PLANS: [Plan; 2];
}

/// The steps that are tried for each group, relative to the typical one: two rows of lanes.
const LADDER: [Lanes; 2] =
    [[0.45, 0.53, 0.62, 0.7, 0.77, 0.83, 0.89, 0.95], [1.0, 1.06, 1.13, 1.21, 1.3, 1.42, 1.6, 1.9]];

/// An estimate of a group's best step. Its weights are rounded one by one to evenly spaced levels, as if all points were in the
/// grid, and the step is fitted to the result.
#[inline(always)]
fn coarse_fit<const D: usize, const L: usize, T: Lattice<D, L>>(
    s: &Sample,
    g: usize,
    usual: f32,
) -> Parabola {
    let mut best = Parabola { step: usual, curve: 0.0 };
    let mut gain = 0.0;
    let gap = (T::LEVELS[L - 1] - T::LEVELS[0]) / (L - 1) as f32;
    for row in &LADDER {
        let (mut steps, mut inverse) = ([0.0; LANES], [0.0; LANES]);
        for l in 0..LANES {
            steps[l] = usual * row[l];
            inverse[l] = 1.0 / (gap * steps[l]);
        }
        let (mut xy, mut yy) = ([[0.0; LANES]; 2], [[0.0; LANES]; 2]);
        for v in 0..T::GROUP / 8 {
            let (mut dot, mut square) = ([[0.0; LANES]; 2], [[0.0; LANES]; 2]);
            for (i, &shift) in shifts(T::SIGNS).iter().enumerate() {
                let least = T::LEVELS[0] + shift;
                for j in 0..8 {
                    let at = T::GROUP * g + 8 * v + j;
                    let (x, w) = (s.x[at], s.w[at]);
                    for l in 0..LANES {
                        let q = clamp(x * inverse[l] - least / gap, 0.0, (L - 1) as f32);
                        let y = (q + TO_INTEGER - TO_INTEGER) * gap + least;
                        let wy = w * y;
                        dot[i][l] += wy * x;
                        square[i][l] += wy * y;
                    }
                }
            }
            if T::SIGNS == Signs::Vector {
                for l in 0..LANES {
                    let up = steps[l] * square[0][l] - 2.0 * dot[0][l];
                    let down = steps[l] * square[1][l] - 2.0 * dot[1][l];
                    dot[0][l] = select_unpredictable(down < up, dot[1][l], dot[0][l]);
                    square[0][l] = select_unpredictable(down < up, square[1][l], square[0][l]);
                }
            }
            for i in 0..2 {
                for l in 0..LANES {
                    xy[i][l] += dot[i][l];
                    yy[i][l] += square[i][l];
                }
            }
        }
        let (xy, yy) = black_box((xy, yy));
        let sides = if T::SIGNS == Signs::Group { 2 } else { 1 };
        for i in 0..sides {
            for l in 0..LANES {
                let step = xy[i][l] / yy[i][l];
                if step * xy[i][l] > gain && step > 0.0 {
                    gain = step * xy[i][l];
                    best = Parabola { step, curve: yy[i][l] };
                }
            }
        }
    }
    best
}

/// The steps near the estimated one, relative to it.
const NEAR: Lanes = [0.76, 0.83, 0.9, 0.96, 1.02, 1.09, 1.17, 1.27];

/// The steps near a group's estimated one.
#[inline(always)]
fn near(from: &Parabola) -> Lanes {
    let mut steps = [0.0; LANES];
    for l in 0..LANES {
        steps[l] = from.step * NEAR[l];
    }
    steps
}

/// A group's best step and how the cost grows beside it: the parabola through the smallest of the costs `e` with the steps `t`
/// and its neighbours.
#[inline(always)]
fn refine(from: &Parabola, t: &Lanes, e: &Lanes) -> Parabola {
    let mut k = 0;
    for l in 1..LANES {
        k = if e[l] < e[k] { l } else { k };
    }
    let m = k.clamp(1, LANES - 2);
    let (left, right) = (t[m] - t[m - 1], t[m + 1] - t[m]);
    let (down, up) = ((e[m - 1] - e[m]) / left, (e[m + 1] - e[m]) / right);
    let curve = (down + up) / (left + right);
    let step = t[m] + (down * right - up * left) / (2.0 * (left + right)) / curve;
    if curve > 0.0 && step.is_finite() {
        Parabola { step: clamp(step, t[0], t[LANES - 1]), curve }
    } else {
        Parabola { step: t[k], curve: from.curve }
    }
}

/// For a value of d, the scale of each group that gives the step nearest to its best one.
#[inline(always)]
fn nearest_scales<const D: usize, const L: usize, T: Lattice<D, L>>(
    d: f32,
    parabolas: &[Parabola; GROUPS],
) -> Trial {
    let mut trial = Trial { d, scales: [0; GROUPS], cost: 0.0 };
    for g in 0..256 / T::GROUP {
        let place = (parabolas[g].step / (d * T::UNIT) - 1.0) * 0.5;
        trial.scales[g] = clamp(place + 0.5, 0.0, (T::SCALES - 1) as f32) as u8;
    }
    trial
}

/// The number of values of d that are tried together.
const TRIED: usize = 2;

/// The number of scales of each group that are tried with each of them.
const WIDTH: usize = LANES / TRIED;

/// For each of these values of d, the lowest of the scales of a group whose steps are nearest to its best one.
#[inline(always)]
fn lowest_scales<const D: usize, const L: usize, T: Lattice<D, L>>(
    d: &[f32; TRIED],
    best: &Parabola,
) -> [u8; TRIED] {
    let mut lowest = [0; TRIED];
    for n in 0..TRIED {
        let place = (best.step / (d[n] * T::UNIT) - 1.0) * 0.5 - (WIDTH as f32 - 1.0) * 0.5;
        lowest[n] = clamp(place + 0.5, 0.0, (T::SCALES - WIDTH) as f32) as u8;
    }
    lowest
}

/// The steps with these scales.
#[inline(always)]
fn steps_from<const D: usize, const L: usize, T: Lattice<D, L>>(
    d: &[f32; TRIED],
    lowest: &[u8; TRIED],
) -> Lanes {
    let mut steps = [0.0; LANES];
    for n in 0..TRIED {
        for i in 0..WIDTH {
            steps[n * WIDTH + i] = d[n] * T::UNIT * (2 * (usize::from(lowest[n]) + i) + 1) as f32;
        }
    }
    steps
}

/// Of these values of d, each with the scales that cost least in each group, the one that costs least.
#[inline(always)]
fn best_trial(
    groups: usize,
    d: &[f32; TRIED],
    lowest: &[[u8; TRIED]; GROUPS],
    costs: &[Lanes; GROUPS],
) -> Trial {
    let mut trials = [Trial { d: 0.0, scales: [0; GROUPS], cost: 0.0 }; TRIED];
    for n in 0..TRIED {
        trials[n].d = d[n];
        for g in 0..groups {
            let cost = &costs[g].as_chunks::<WIDTH>().0[n];
            let mut k = 0;
            for i in 1..WIDTH {
                k = if cost[i] < cost[k] { i } else { k };
            }
            trials[n].scales[g] = lowest[g][n] + k as u8;
            trials[n].cost += cost[k];
        }
    }
    let mut best = 0;
    for n in 0..TRIED {
        best = if trials[n].cost < trials[best].cost { n } else { best };
    }
    trials[best]
}

/// The values of d that are compared by the estimates, in rows of eight.
const ASKED: usize = 4;

/// The values of d that are best by the estimates, as they are stored.
#[inline(always)]
fn promising_scales<const D: usize, const L: usize, T: Lattice<D, L>>(
    parabolas: &[Parabola; GROUPS],
) -> [f32; TRIED] {
    let mut top = 0.0;
    for g in 0..256 / T::GROUP {
        top = if parabolas[g].step > top { parabolas[g].step } else { top };
    }
    let last = (2 * T::SCALES - 1) as f32;
    let (mut d, mut cost) = ([[0.0; LANES]; ASKED], [[0.0; LANES]; ASKED]);
    // The ends of loops that take little time are hidden, so that the compiler does not unroll them.
    for i in 0..black_box(ASKED) {
        for l in 0..LANES {
            let part = (i * LANES + l) as f32 / (ASKED * LANES - 1) as f32;
            d[i][l] = stored(top / (T::UNIT * last * (1.2 - 0.75 * part)));
        }
        for g in 0..256 / T::GROUP {
            let Parabola { step, curve } = parabolas[g];
            for l in 0..LANES {
                let unit = d[i][l] * T::UNIT;
                let scale = clamp((step / unit - 1.0) * 0.5, 0.0, (T::SCALES - 1) as f32);
                let scale = scale + TO_INTEGER - TO_INTEGER;
                let r = step - unit * (2.0 * scale + 1.0);
                cost[i][l] += curve * (r * r);
            }
        }
    }
    let mut best = [0.0; TRIED];
    for n in 0..black_box(TRIED) {
        // The first of the smallest: in each lane, then among lanes.
        let (mut row, mut least) = ([0; LANES], cost[0]);
        for i in 1..ASKED {
            for l in 0..LANES {
                let better = cost[i][l] < least[l];
                least[l] = if better { cost[i][l] } else { least[l] };
                row[l] = if better { i } else { row[l] };
            }
        }
        let mut k = 0;
        for l in 1..LANES {
            let better = least[l] < least[k] || least[l] == least[k] && row[l] < row[k];
            k = if better { l } else { k };
        }
        best[n] = d[row[k]][k];
        cost[row[k]][k] = f32::INFINITY;
    }
    best
}

/// The turns of [`fit`], in their order. Costs of steps and nearest points are asked for in one place each, in a loop over the
/// turns: a search is much code, and a second call in the source would compile all of it again.
#[derive(Clone, Copy)]
enum Turn {
    /// The estimates of the groups' best steps are refined by the cost of steps near them, if the plan says so.
    Refine,
    /// Scales are chosen, by the estimates or by their cost; the nearest points are taken; and d is fitted to them. Repeated as
    /// long as the cost falls.
    Round(usize),
    /// Last, where the parity of eight signs is wrong, one of them is flipped.
    Parity,
}

/// Packs a super-block.
#[inline(always)]
pub(super) fn fit<const D: usize, const L: usize, T: Lattice<D, L>>(
    x: &[f32; 256],
    w: Option<&[f32; 256]>,
    effort: Effort,
) -> Code {
    let s = Sample::new(x, w, T::SIGNS);
    let mut code = Code { d: 0.0, scales: [0; GROUPS], points: [0; 64], signs: [0; 32], down: [false; 32] };
    let mut halves = HalfCosts::NEW;
    let plan = match effort {
        Effort::Fast => T::PLANS[0],
        Effort::Normal => T::PLANS[1],
        Effort::Thorough => THOROUGH,
    };

    let groups = 256 / T::GROUP;
    let mut parabolas = [Parabola { step: 0.0, curve: 0.0 }; GROUPS];
    let (mut energies, mut energy) = ([0.0; GROUPS], 0.0);
    for g in 0..groups {
        let (e, total) = s.energy(T::GROUP * g, T::GROUP);
        energies[g] = e;
        energy += e;
        if e > 0.0 {
            parabolas[g] = coarse_fit::<D, L, T>(&s, g, (e / total).sqrt() * T::USUAL);
        } else {
            let least = if T::SIGNS == Signs::Free || T::SIGNS == Signs::Even { T::LEVELS[0] } else { SHIFT };
            parabolas[g].curve = total * (least * least);
        }
    }
    if energy == 0.0 {
        return code;
    }

    let mut turn = if plan.ladder { Turn::Refine } else { Turn::Round(0) };
    let (mut d, mut lowest) = ([0.0; TRIED], [[0; TRIED]; GROUPS]);
    let mut best = Trial { d: 0.0, scales: [0; GROUPS], cost: energy };
    let mut next = Code { ..code };
    let (mut steps, mut cost) = ([[0.0; LANES]; GROUPS], [[0.0; LANES]; GROUPS]);
    let (mut answers, mut flips) = (Answers::NONE, Flips::NONE);
    let (x, w) = (columns::<D>(&s.x), columns::<D>(&s.w));
    let mut flipped = ([[0.0; LANES]; D], [[0.0; LANES]; D]);
    loop {
        if let Turn::Round(round) = turn {
            let promising = promising_scales::<D, L, T>(&parabolas);
            // After the first round, d[0] is the one that was fitted to the points.
            d = if round == 0 { promising } else { [d[0], promising[0]] };
        }
        let costed = match turn {
            Turn::Refine => groups,
            Turn::Round(round) if round >= plan.guesses => groups,
            _ => 0,
        };
        for g in 0..costed {
            let now = if matches!(turn, Turn::Refine) {
                if energies[g] == 0.0 {
                    continue;
                }
                near(&parabolas[g])
            } else {
                lowest[g] = lowest_scales::<D, L, T>(&d, &parabolas[g]);
                steps_from::<D, L, T>(&d, &lowest[g])
            };
            steps[g] = now;
            cost[g] = costs::<D, L, T>(&s, g, &now, &mut halves);
        }

        let (mut trial, mut sides) = (best, 1);
        let asked = match turn {
            Turn::Refine => 0,
            Turn::Round(round) => {
                trial = if round < plan.guesses {
                    nearest_scales::<D, L, T>(d[0], &parabolas)
                } else {
                    best_trial(groups, &d, &lowest, &cost)
                };
                sides = if round == 0 { shifts(T::SIGNS).len() } else { 1 };
                sides * batches(D)
            }
            Turn::Parity => flips.queries::<D>(),
        };
        for q in 0..asked {
            let query = match turn {
                Turn::Round(round) => assign::<D, L, T>((&x, &w), &trial, round > 0, &code, q),
                _ => flips.query::<D>(&s, q, &mut flipped.0, &mut flipped.1),
            };
            answers.ask::<D, L, T>(q, &query, &mut halves);
        }

        turn = match turn {
            Turn::Refine => {
                for g in 0..groups {
                    if energies[g] > 0.0 {
                        parabolas[g] = refine(&parabolas[g], &steps[g], &cost[g]);
                    }
                }
                Turn::Round(0)
            }
            Turn::Round(round) => {
                next = Code { d: trial.d, scales: trial.scales, signs: s.signs, down: code.down, ..next };
                trial.cost = take::<D, L, T>(&answers, sides, &mut next);
                let better = trial.cost < best.cost;
                if better {
                    best = trial;
                    std::mem::swap(&mut code, &mut next);
                    d[0] = refit::<D, L, T>(&s, &code, &mut parabolas);
                }
                if better && round + 1 < plan.guesses + plan.trials {
                    Turn::Round(round + 1)
                } else if best.cost >= energy || T::SIGNS != Signs::Even {
                    break;
                } else {
                    flips = Flips::of::<D, L, T>(&s, &code);
                    Turn::Parity
                }
            }
            Turn::Parity => {
                flips.take::<D>(&s, &answers, &mut code);
                break;
            }
        };
    }
    if best.cost >= energy {
        code.d = 0.0;
    }
    code
}
