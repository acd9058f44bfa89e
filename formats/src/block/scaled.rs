//! The search for super-blocks whose groups have signed integer scales: x = d·scale·level, with one IEEE half d.

use std::hint::{black_box, select_unpredictable};

use super::Effort;
use super::groups::{Groups, LANES, Levels, Row, clamp, inverse, nearest};
use super::search::{HALF_MIN, stored_scale};

/// The numbers of a super-block.
pub(super) struct Scaled<const G: usize> {
    pub d: f32,
    pub scales: [i8; G],
    pub codes: [u8; 256],
}

/// The parameters of a type: `H` times eight groups of `N` weights.
pub(super) trait Shape {
    type Levels: Levels;
    /// The smallest and the largest integer scale.
    const MIN_SCALE: f32;
    const MAX_SCALE: f32;
    /// The starting points: levels to which the weight of largest magnitude in a group is scaled.
    const PEAK_LEVELS: &'static [f32];
    /// More of them, for weights of different importance.
    const MORE_PEAK_LEVELS: &'static [f32];
    /// The integers to which the largest scale of a group is mapped; their errors are compared.
    const TOP_SCALES: &'static [Row];
    /// How far from the nearest integer scale others are tried: in the first round, and in later ones.
    const REACH: [i32; 2];
}

/// Σ over lanes, as a tree.
#[inline(always)]
pub(super) fn total(v: &Row) -> f32 {
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
}

/// The power of two that scales `peak` to between 1 and 2. Dividing by it restores the weights exactly.
#[inline(always)]
pub(super) fn unit(peak: f32) -> f32 {
    f32::from_bits((254 << 23) - (peak.to_bits() & 0x7F80_0000))
}

/// The largest magnitude, limited to what types can represent.
#[inline(always)]
pub(super) fn top<const W: usize>(x: &[f32; W]) -> f32 {
    let mut top = [0u32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            let m = x[l].to_bits() & 0x7FFF_FFFF;
            top[l] = if m > top[l] { m } else { top[l] };
        }
    }
    let top = black_box(top);
    let mut most = 0;
    for l in 0..LANES {
        most = if top[l] > most { top[l] } else { most };
    }
    let top = f32::from_bits(most);
    if top < (1 << 30) as f32 { top } else { (1 << 30) as f32 }
}

/// Whether some weights are much more important than others, so that clipping the largest may be best.
#[inline(always)]
pub(super) fn uneven<const H: usize, const N: usize>(groups: &[Groups<N>; H]) -> bool {
    let (mut least, mut most) = ([f32::INFINITY; LANES], [0.0; LANES]);
    for g in groups {
        for j in 0..N {
            for l in 0..LANES {
                let w = g.w[j][l];
                least[l] = if w < least[l] { w } else { least[l] };
                most[l] = if w > most[l] { w } else { most[l] };
            }
        }
    }
    let (least, most) = black_box((least, most));
    let least = least.iter().fold(f32::INFINITY, |a, &b| if b < a { b } else { a });
    let most = most.iter().fold(0.0, |a, &b| if b > a { b } else { a });
    most > 8.0 * least
}

/// Puts the groups of a super-block side by side, multiplied by `unit`; importances are multiplied by a power of two that
/// keeps them below 2. If none are given, or all are zero, they are one.
#[inline(always)]
pub(super) fn side_by_side<const H: usize, const N: usize>(
    x: &[f32; 256],
    w: Option<&[f32; 256]>,
    unit: f32,
) -> [Groups<N>; H] {
    let mut groups = [const { Groups::<N>::EMPTY }; H];
    let far = 2.0;
    for h in 0..H {
        for j in 0..N {
            for l in 0..LANES {
                groups[h].x[j][l] = clamp(x[(LANES * h + l) * N + j] * unit, -far, far);
            }
        }
    }
    if let Some(w) = w
        && top(w) > 0.0
    {
        let unit = self::unit(top(w));
        for h in 0..H {
            for j in 0..N {
                for l in 0..LANES {
                    groups[h].w[j][l] = clamp(w[(LANES * h + l) * N + j] * unit, 0.0, 2.0);
                }
            }
        }
    }
    groups
}

/// Finds the numbers to store.
#[inline(always)]
pub(super) fn fit<S: Shape, const H: usize, const N: usize, const G: usize>(
    x: &[f32; 256],
    w: Option<&[f32; 256]>,
    effort: Effort,
) -> Scaled<G> {
    let mut out = Scaled { d: 0.0, scales: [0; G], codes: [0; 256] };
    let peak = top(x);
    // Weights below the smallest scale are stored as zeros.
    let all_zero = peak <= HALF_MIN / 2.0;
    let unit = unit(peak);
    let groups = side_by_side::<H, N>(x, w, if all_zero { 0.0 } else { unit });
    let (d, scales) = match all_zero {
        true => (1.0, [[0.0; LANES]; H]),
        false => search_scales::<S, H, N>(&groups, unit, effort),
    };
    out.d = if all_zero { 0.0 } else { d / unit };
    write::<S, H, N, G>(&mut out, &groups, &scales, d);
    out
}

/// The common scale (times `unit`) and the integer scales of the groups.
#[inline(always)]
fn search_scales<S: Shape, const H: usize, const N: usize>(
    groups: &[Groups<N>; H],
    unit: f32,
    effort: Effort,
) -> (f32, [Row; H]) {
    // The best scale of each group by itself.
    let many = effort > Effort::Normal || effort > Effort::Fast && uneven(groups);
    let (mut s, mut weight) = ([[0.0; LANES]; H], [[0.0; LANES]; H]);
    for h in 0..H {
        let g = &groups[h];
        let places = if many { S::MORE_PEAK_LEVELS } else { S::PEAK_LEVELS };
        (s[h], weight[h]) = g.free_scales::<S::Levels>(places, if effort == Effort::Fast { 1 } else { 2 });
    }

    let mut best: Option<(f32, f32, [Row; H])> = None;
    let starts = match effort {
        Effort::Thorough => 3,
        Effort::Normal if many => 2,
        _ => 1,
    };
    let firsts = common(&s, &weight, S::TOP_SCALES, (S::MIN_SCALE, S::MAX_SCALE), unit);
    for &d in &firsts[..starts] {
        let mut d = d;
        let mut scales = [[0.0; LANES]; H];
        for h in 0..H {
            for l in 0..LANES {
                scales[h][l] =
                    clamp(nearest(clamp(s[h][l] / d, -4096.0, 4096.0)), S::MIN_SCALE, S::MAX_SCALE);
            }
        }
        let rounds = match effort {
            Effort::Fast => 0,
            Effort::Normal => 2,
            Effort::Thorough => 4,
        };
        for round in 0..=rounds {
            if round > 0 {
                let fitted = refit::<S, H, N>(groups, d, &scales, unit);
                if fitted == d {
                    break;
                }
                d = fitted;
            }
            let reach = match round {
                0 if rounds == 0 => 1,
                0 => S::REACH[0],
                _ => S::REACH[1],
            };
            let error = neighbours::<S, H, N>(groups, d, &mut scales, reach);
            keep(&mut best, error, d, &scales);
        }
    }
    let (_, d, scales) = best.expect("there is a start");
    (d, scales)
}

#[inline(always)]
fn keep<const H: usize>(best: &mut Option<(f32, f32, [Row; H])>, error: f32, d: f32, scales: &[Row; H]) {
    match best {
        Some(b) if b.0 <= error => {}
        _ => *best = Some((error, d, *scales)),
    }
}

/// The three best common scales (times `unit`), best first: those with which rounding the groups' own scales to integers
/// from `least` to `most` loses least, among the ones that map the largest scale to one of `tops`.
#[inline(always)]
pub(super) fn common<const H: usize>(
    numbers: &[Row; H],
    weight: &[Row; H],
    tops: &[Row],
    (least, most): (f32, f32),
    unit: f32,
) -> [f32; 3] {
    let mut top = 0.0f32;
    for &number in numbers.as_flattened() {
        top = if number.abs() > top.abs() { number } else { top };
    }
    let usual = if top < 0.0 && least < 0.0 { least } else { most };
    let mut found = [(f32::INFINITY, stored_scale(top / usual / unit) * unit); 3];
    for tops in tops {
        let (mut d, mut lost) = ([0.0; LANES], [0.0; LANES]);
        for c in 0..LANES {
            d[c] = stored_scale(top / tops[c] / unit) * unit;
        }
        let inverse = inverse(&d);
        // The end is hidden: otherwise the compiler would unroll the loop, which saves no time.
        for (&number, &weight) in
            numbers.as_flattened().iter().zip(weight.as_flattened()).take(black_box(LANES * H))
        {
            for c in 0..LANES {
                let r = number - d[c] * nearest(clamp(number * inverse[c], least, most));
                lost[c] += weight * (r * r);
            }
        }
        let lost = black_box(lost);
        for c in 0..LANES {
            let one = (lost[c], d[c]);
            if one.0 < found[0].0 {
                found = [one, found[0], found[1]];
            } else if one.0 < found[1].0 {
                found = [found[0], one, found[1]];
            } else if one.0 < found[2].0 {
                found[2] = one;
            }
        }
    }
    [found[0].1, found[1].1, found[2].1]
}

/// Tries integer scales up to `reach` from those given, each with the nearest levels, and keeps the best. Returns the error
/// of the whole super-block.
#[inline(always)]
fn neighbours<S: Shape, const H: usize, const N: usize>(
    groups: &[Groups<N>; H],
    d: f32,
    scales: &mut [Row; H],
    reach: i32,
) -> f32 {
    let mut all = [0.0; LANES];
    for h in 0..H {
        let center = scales[h];
        let mut least = [f32::INFINITY; LANES];
        for step in -reach..=reach {
            let (mut scale, mut s) = ([0.0; LANES], [0.0; LANES]);
            for l in 0..LANES {
                scale[l] = clamp(center[l] + step as f32, S::MIN_SCALE, S::MAX_SCALE);
                s[l] = d * scale[l];
            }
            let error = groups[h].error::<S::Levels>(&s);
            for l in 0..LANES {
                let better = error[l] < least[l];
                least[l] = select_unpredictable(better, error[l], least[l]);
                scales[h][l] = select_unpredictable(better, scale[l], scales[h][l]);
            }
        }
        for l in 0..LANES {
            all[l] += least[l];
        }
    }
    total(&all)
}

/// The best common scale (times `unit`) for the present levels, as it is stored.
#[inline(always)]
fn refit<S: Shape, const H: usize, const N: usize>(
    groups: &[Groups<N>; H],
    d: f32,
    scales: &[Row; H],
    unit: f32,
) -> f32 {
    let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
    for h in 0..H {
        let mut s = [0.0; LANES];
        for l in 0..LANES {
            s[l] = d * scales[h][l];
        }
        let sums = groups[h].project::<S::Levels>(&inverse(&s));
        for l in 0..LANES {
            xq[l] += scales[h][l] * sums.0[l];
            qq[l] += scales[h][l] * scales[h][l] * sums.1[l];
        }
    }
    let (xq, qq) = (total(&xq), total(&qq));
    if qq > 0.0 && xq != 0.0 { stored_scale(xq / qq / unit) * unit } else { d }
}

/// Rounds with the final scales and stores the codes.
#[inline(always)]
fn write<S: Shape, const H: usize, const N: usize, const G: usize>(
    out: &mut Scaled<G>,
    groups: &[Groups<N>; H],
    scales: &[Row; H],
    d: f32,
) {
    for h in 0..H {
        let mut s = [0.0; LANES];
        for l in 0..LANES {
            s[l] = d * scales[h][l];
        }
        let codes = groups[h].codes::<S::Levels>(&inverse(&s), &[0.0; LANES]);
        for l in 0..LANES {
            out.scales[LANES * h + l] = scales[h][l] as i8;
            out.codes[(LANES * h + l) * N..][..N].copy_from_slice(&codes[l]);
        }
    }
}
