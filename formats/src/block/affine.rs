//! The search for super-blocks whose groups have integer scales and minimums: x = d·scale·q − dmin·min, with q from zero and
//! two IEEE halves d and dmin.

use std::hint::{black_box, select_unpredictable};

use super::Effort;
use super::groups::{Groups, LANES, Levels, Row, clamp, inverse, nearest};
use super::scaled::{common, side_by_side, top, total, uneven, unit};
use super::search::{HALF_MIN, stored_scale};

/// The numbers of a super-block.
pub(super) struct Affine<const G: usize> {
    pub d: f32,
    pub dmin: f32,
    pub scales: [u8; G],
    pub mins: [u8; G],
    pub codes: [u8; 256],
}

/// The parameters of a type.
pub(super) trait Shape {
    type Levels: Levels;
    /// The largest integer scale and minimum.
    const MAX_SCALE: f32;
    /// The starting points: the level of a group's smallest weight, relative to the first level, and that of its largest,
    /// relative to the last.
    const ENDS: &'static [[f32; 2]];
    /// The integers to which the largest scale of a group is mapped, and the largest minimum; their errors are compared.
    const TOP_SCALES: &'static [Row];
    /// How far from the nearest integer scales and minimums others are tried: in the first round, and in later ones.
    const REACH: [[i32; 2]; 2];
}

/// The best scale and offset of each group by itself, and the sums with its levels.
#[derive(Clone, Copy)]
struct GroupFit {
    s: Row,
    o: Row,
    /// Σwqq and Σwq.
    qq: Row,
    q1: Row,
}

const ZERO: Row = [0.0; LANES];

/// Sums that do not depend on levels: Σw and Σwx.
#[derive(Clone, Copy)]
struct Sums {
    w: Row,
    x: Row,
}

impl<const N: usize> Groups<N> {
    /// The smallest and the largest of zero and the weights of nonzero importance.
    #[inline(always)]
    fn bounds(&self) -> (Row, Row) {
        let (mut lo, mut hi) = (ZERO, ZERO);
        for j in 0..N {
            for l in 0..LANES {
                let x = if self.w[j][l] == 0.0 { 0.0 } else { self.x[j][l] };
                lo[l] = if x < lo[l] { x } else { lo[l] };
                hi[l] = if x > hi[l] { x } else { hi[l] };
            }
        }
        black_box((lo, hi))
    }

    /// Σw and Σwx.
    #[inline(always)]
    fn sums(&self) -> Sums {
        let (mut w, mut x) = (ZERO, ZERO);
        for j in 0..N {
            for l in 0..LANES {
                w[l] += self.w[j][l];
                x[l] += self.w[j][l] * self.x[j][l];
            }
        }
        let (w, x) = black_box((w, x));
        Sums { w, x }
    }

    /// Rounds (x − o)/s: Σwxq, Σwqq and Σwq.
    #[inline(always)]
    fn project_from<L: Levels>(&self, inverse: &Row, o: &Row) -> (Row, Row, Row) {
        let (mut xq, mut qq, mut q1) = (ZERO, ZERO, ZERO);
        for j in 0..N {
            for l in 0..LANES {
                let q = L::level((self.x[j][l] - o[l]) * inverse[l]);
                let wq = self.w[j][l] * q;
                xq[l] += self.x[j][l] * wq;
                qq[l] += wq * q;
                q1[l] += wq;
            }
        }
        black_box((xq, qq, q1))
    }

    /// Σw(x − o − s·q)² with the nearest levels.
    #[inline(always)]
    fn error_from<L: Levels>(&self, s: &Row, o: &Row) -> Row {
        let inverse = inverse(s);
        let mut error = ZERO;
        for j in 0..N {
            for l in 0..LANES {
                let y = self.x[j][l] - o[l];
                let r = y - s[l] * L::level(y * inverse[l]);
                error[l] += self.w[j][l] * r * r;
            }
        }
        black_box(error)
    }
}

/// Finds the numbers to store. Minimums are subtracted and not negative, so groups above zero are searched as their negatives,
/// with negative halves. At [`Effort::Thorough`], both signs are tried.
#[inline(always)]
pub(super) fn fit<S: Shape, const H: usize, const N: usize, const G: usize>(
    x: &[f32; 256],
    w: Option<&[f32; 256]>,
    effort: Effort,
) -> Affine<G> {
    let mut out = Affine { d: 0.0, dmin: 0.0, scales: [0; G], mins: [0; G], codes: [0; 256] };
    let peak = top(x);
    if peak <= HALF_MIN / 2.0 {
        return out;
    }
    let unit = unit(peak);
    let mut groups = side_by_side::<H, N>(x, w, unit);
    // The search is called once, in a loop: with every further call, all of it would be compiled again.
    let mut negated = mostly_positive(&groups);
    let (mut found, mut best_negated) = (Candidate::<H>::NONE, negated);
    for side in 0..if effort == Effort::Thorough { 2 } else { 1 } {
        if negated || side == 1 {
            negate(&mut groups);
        }
        negated ^= side == 1;
        let other = search::<S, H, N>(&groups, unit, effort);
        if side == 0 || other.error < found.error {
            (found, best_negated) = (other, negated);
        }
    }
    if best_negated != negated {
        negate(&mut groups);
    }
    found.write::<S, N, G>(&mut out, &groups, unit);
    if best_negated {
        (out.d, out.dmin) = (-out.d, 0.0 - out.dmin);
    }
    out
}

/// Whether groups that are entirely above zero are further from it, in sum, than groups entirely below.
#[inline(always)]
fn mostly_positive<const H: usize, const N: usize>(groups: &[Groups<N>; H]) -> bool {
    let mut beyond = ZERO;
    for g in groups {
        let (mut lo, mut hi) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        for j in 0..N {
            for l in 0..LANES {
                lo[l] = if g.x[j][l] < lo[l] { g.x[j][l] } else { lo[l] };
                hi[l] = if g.x[j][l] > hi[l] { g.x[j][l] } else { hi[l] };
            }
        }
        let (lo, hi) = black_box((lo, hi));
        for l in 0..LANES {
            beyond[l] += if lo[l] > 0.0 { lo[l] } else { 0.0 };
            beyond[l] += if hi[l] < 0.0 { hi[l] } else { 0.0 };
        }
    }
    total(&beyond) > 0.0
}

#[inline(always)]
fn negate<const H: usize, const N: usize>(groups: &mut [Groups<N>; H]) {
    for g in groups {
        for j in 0..N {
            for l in 0..LANES {
                g.x[j][l] = -g.x[j][l];
            }
        }
    }
}

/// A candidate solution: halves (times the unit), the integers of each group, and the error.
#[derive(Clone, Copy)]
struct Candidate<const H: usize> {
    error: f32,
    d: f32,
    dmin: f32,
    scales: [Row; H],
    mins: [Row; H],
}

#[inline(always)]
fn search<S: Shape, const H: usize, const N: usize>(
    groups: &[Groups<N>; H],
    unit: f32,
    effort: Effort,
) -> Candidate<H> {
    let many = effort > Effort::Normal || effort > Effort::Fast && uneven(groups);
    let mut sums = [Sums { w: ZERO, x: ZERO }; H];
    let mut free = [GroupFit { s: ZERO, o: ZERO, qq: ZERO, q1: ZERO }; H];
    for h in 0..H {
        sums[h] = groups[h].sums();
        free[h] =
            fit_group::<S, N>(&groups[h], &sums[h], S::ENDS, if effort == Effort::Fast { 1 } else { 2 });
    }

    let rounds = match effort {
        Effort::Fast => 1,
        Effort::Normal => 3,
        Effort::Thorough => 5,
    };
    let (mut scales, mut weight) = ([ZERO; H], [ZERO; H]);
    for h in 0..H {
        scales[h] = free[h].s;
        for l in 0..LANES {
            // The curvature of the error along the scale when the offset is the best for it.
            weight[h][l] = free[h].qq[l] - free[h].q1[l] * free[h].q1[l] / (sums[h].w[l] + f32::MIN_POSITIVE);
        }
    }
    let starts = common(&scales, &weight, S::TOP_SCALES, (0.0, S::MAX_SCALE), unit);
    let mut best = Candidate::<H>::NONE;
    // The first by the proxy is rarely the best: all three are refined a little, and the best ones fully.
    let mut at = [best; 3];
    let (short, count) = match effort {
        Effort::Fast => (1, 1),
        Effort::Normal if !many => (3, 1),
        Effort::Normal => (3, 2),
        Effort::Thorough => (3, 3),
    };
    // First the short refinements, then the full ones, in one loop: each part is much code, compiled for every call.
    for i in 0..short + count {
        let is_short = i < short;
        if is_short {
            at[i] = round_to_integers::<S, H>(&free, &sums, starts[i], unit);
            if effort == Effort::Fast {
                continue;
            }
        } else if i == short && short > 1 {
            sort(&mut at);
        }
        let at = &mut at[if is_short { i } else { i - short }];
        for round in 0..=if is_short { 0 } else { rounds } {
            if round > 0 {
                let (d, dmin) = (at.d, at.dmin);
                at.refit::<S, N>(groups, &sums, unit);
                if (d, dmin) == (at.d, at.dmin) {
                    break;
                }
            }
            let reach = match (is_short, round) {
                (true, _) => [1, 0],
                (false, 0) => S::REACH[0],
                (false, _) => S::REACH[1],
            };
            at.neighbours::<S, N>(groups, &free, &sums, reach);
            best = if !is_short && at.error < best.error { *at } else { best };
        }
    }
    best
}

/// Sorts candidates by their error, keeping the order of equal ones.
#[inline(always)]
fn sort<const H: usize>(at: &mut [Candidate<H>; 3]) {
    for pass in [0, 1, 0] {
        if at[pass + 1].error.total_cmp(&at[pass].error).is_lt() {
            at.swap(pass, pass + 1);
        }
    }
}

/// The best scale and offset of each group by itself: levels from each of the starting points, then rounding and fitting
/// alternately. Offsets are not above zero.
#[inline(always)]
fn fit_group<S: Shape, const N: usize>(
    groups: &Groups<N>,
    sums: &Sums,
    ends: &[[f32; 2]],
    rounds: usize,
) -> GroupFit {
    let (lo, hi) = groups.bounds();
    let mut range = ZERO;
    for l in 0..LANES {
        range[l] = hi[l] - lo[l];
    }
    let mut saved = ZERO;
    let mut free = GroupFit { s: ZERO, o: lo, qq: ZERO, q1: ZERO };
    for i in 0..ends.len() + rounds {
        let (mut s, mut o) = (free.s, free.o);
        if i < ends.len() {
            let [first, last] = ends[i];
            let per = 1.0 / (S::Levels::HI + last - first);
            for l in 0..LANES {
                s[l] = range[l] * per;
                let put = lo[l] - first * s[l];
                o[l] = if put < 0.0 { put } else { 0.0 };
            }
        }
        let (xq, qq, q1) = groups.project_from::<S::Levels>(&inverse(&s), &o);
        for l in 0..LANES {
            let det = sums.w[l] * qq[l] - q1[l] * q1[l];
            let sound = det > 1e-5 * sums.w[l] * qq[l];
            let per = 1.0 / (det + f32::MIN_POSITIVE);
            let a = (sums.w[l] * xq[l] - q1[l] * sums.x[l]) * per;
            let b = (qq[l] * sums.x[l] - q1[l] * xq[l]) * per;
            // If the offset would be above zero, or all important weights have one level, only the scale is fitted.
            let both = sound & (b < 0.0);
            let alone = xq[l] / (qq[l] + f32::MIN_POSITIVE);
            let a = select_unpredictable(both, a, alone);
            let b = select_unpredictable(both, b, 0.0);
            let gain = a * xq[l] + b * sums.x[l];
            let better = gain > saved[l];
            saved[l] = select_unpredictable(better, gain, saved[l]);
            free.s[l] = select_unpredictable(better, a, free.s[l]);
            free.o[l] = select_unpredictable(better, b, free.o[l]);
            free.qq[l] = select_unpredictable(better, qq[l], free.qq[l]);
            free.q1[l] = select_unpredictable(better, q1[l], free.q1[l]);
        }
    }
    free
}

/// The best offset, not above zero, for another scale and the same levels.
#[inline(always)]
fn best_offset(free: &GroupFit, sums: &Sums, l: usize, s: f32) -> f32 {
    let o = free.o[l] + free.q1[l] * (free.s[l] - s) / (sums.w[l] + f32::MIN_POSITIVE);
    if o < 0.0 { o } else { 0.0 }
}

/// The nearest integers to the groups' own scales, and a common scale of minimums for the offsets that are best then.
#[inline(always)]
fn round_to_integers<S: Shape, const H: usize>(
    free: &[GroupFit; H],
    sums: &[Sums; H],
    d: f32,
    unit: f32,
) -> Candidate<H> {
    let mut at = Candidate { d, ..Candidate::<H>::NONE };
    let mut offsets = [ZERO; H];
    let mut most = 0.0f32;
    for h in 0..H {
        for l in 0..LANES {
            at.scales[h][l] = nearest(clamp(free[h].s[l] / d, 0.0, S::MAX_SCALE));
            offsets[h][l] = -best_offset(&free[h], &sums[h], l, d * at.scales[h][l]);
            most = if offsets[h][l] > most { offsets[h][l] } else { most };
        }
    }
    if most == 0.0 {
        return at;
    }
    let mut weight = [ZERO; H];
    for h in 0..H {
        weight[h] = sums[h].w;
    }
    at.dmin = common(&offsets, &weight, S::TOP_SCALES, (0.0, S::MAX_SCALE), unit)[0];
    for h in 0..H {
        for l in 0..LANES {
            at.mins[h][l] = nearest(clamp(offsets[h][l] / at.dmin, 0.0, S::MAX_SCALE));
        }
    }
    at
}

impl<const H: usize> Candidate<H> {
    const NONE: Self = Self { error: f32::INFINITY, d: 0.0, dmin: 0.0, scales: [ZERO; H], mins: [ZERO; H] };

    /// Tries integers up to `reach` (scales, minimums) from the present ones, each with the nearest levels, and keeps the best.
    #[inline(always)]
    fn neighbours<S: Shape, const N: usize>(
        &mut self,
        groups: &[Groups<N>; H],
        free: &[GroupFit; H],
        sums: &[Sums; H],
        reach: [i32; 2],
    ) {
        let per_min = if self.dmin > 0.0 { 1.0 / self.dmin } else { 0.0 };
        let mut all = ZERO;
        for h in 0..H {
            let (center, mut least) = (self.scales[h], [f32::INFINITY; LANES]);
            for step in -reach[0]..=reach[0] {
                let (mut scale, mut s, mut middle) = (ZERO, ZERO, ZERO);
                for l in 0..LANES {
                    scale[l] = clamp(center[l] + step as f32, 0.0, S::MAX_SCALE);
                    s[l] = self.d * scale[l];
                    middle[l] = nearest(clamp(
                        -best_offset(&free[h], &sums[h], l, s[l]) * per_min,
                        0.0,
                        S::MAX_SCALE,
                    ));
                }
                for shift in -reach[1]..=reach[1] {
                    let (mut min, mut o) = (ZERO, ZERO);
                    for l in 0..LANES {
                        min[l] = clamp(middle[l] + shift as f32, 0.0, S::MAX_SCALE);
                        o[l] = -(self.dmin * min[l]);
                    }
                    let error = groups[h].error_from::<S::Levels>(&s, &o);
                    for l in 0..LANES {
                        let better = error[l] < least[l];
                        least[l] = select_unpredictable(better, error[l], least[l]);
                        self.scales[h][l] = select_unpredictable(better, scale[l], self.scales[h][l]);
                        self.mins[h][l] = select_unpredictable(better, min[l], self.mins[h][l]);
                    }
                }
            }
            for l in 0..LANES {
                all[l] += least[l];
            }
        }
        self.error = total(&all);
    }

    /// The best halves for the present levels and integers, as they are stored.
    #[inline(always)]
    fn refit<S: Shape, const N: usize>(&mut self, groups: &[Groups<N>; H], sums: &[Sums; H], unit: f32) {
        let (mut dd, mut de, mut ee, mut bd, mut be) = (ZERO, ZERO, ZERO, ZERO, ZERO);
        for h in 0..H {
            let (mut s, mut o) = (ZERO, ZERO);
            for l in 0..LANES {
                s[l] = self.d * self.scales[h][l];
                o[l] = -(self.dmin * self.mins[h][l]);
            }
            let (xq, qq, q1) = groups[h].project_from::<S::Levels>(&inverse(&s), &o);
            for l in 0..LANES {
                let (scale, min) = (self.scales[h][l], self.mins[h][l]);
                dd[l] += scale * scale * qq[l];
                de[l] -= scale * min * q1[l];
                ee[l] += min * min * sums[h].w[l];
                bd[l] += scale * xq[l];
                be[l] -= min * sums[h].x[l];
            }
        }
        let (dd, de, ee, bd, be) = (total(&dd), total(&de), total(&ee), total(&bd), total(&be));
        let det = dd * ee - de * de;
        let (d, dmin) = if det > 1e-5 * dd * ee {
            ((ee * bd - de * be) / det, (dd * be - de * bd) / det)
        } else if dd > 0.0 {
            ((bd - de * self.dmin) / dd, self.dmin)
        } else {
            (self.d, self.dmin)
        };
        if d > 0.0 {
            self.d = stored_scale(d / unit) * unit;
        }
        if dmin > 0.0 && self.dmin > 0.0 {
            self.dmin = stored_scale(dmin / unit) * unit;
        }
    }

    /// Rounds with the final numbers and stores the codes.
    #[inline(always)]
    fn write<S: Shape, const N: usize, const G: usize>(
        &self,
        out: &mut Affine<G>,
        groups: &[Groups<N>; H],
        unit: f32,
    ) {
        (out.d, out.dmin) = (self.d / unit, self.dmin / unit);
        for h in 0..H {
            let (mut s, mut o) = (ZERO, ZERO);
            for l in 0..LANES {
                s[l] = self.d * self.scales[h][l];
                o[l] = -(self.dmin * self.mins[h][l]);
            }
            let codes = groups[h].codes::<S::Levels>(&inverse(&s), &o);
            for l in 0..LANES {
                out.scales[LANES * h + l] = self.scales[h][l] as u8;
                out.mins[LANES * h + l] = self.mins[h][l] as u8;
                out.codes[(LANES * h + l) * N..][..N].copy_from_slice(&codes[l]);
            }
        }
    }
}
