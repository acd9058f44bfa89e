//! The fast search for a block's scale, where every weight counts the same.
//!
//! A *survey* tells in 16-bit integers how far the weights lie from the codes under many scales, one in each lane;
//! the best of them is then fitted to the weights in f32, and what comes out is compared with plain rounding.
//! Each of these steps is done for several blocks before the next begins, so that the processor need not wait
//! for one block's few last numbers; the blocks do not touch, and a block alone gives the same bits. As in
//! [`super::search`], sums have fixed lanes.

use std::hint::{black_box, select_unpredictable};

use super::search::{Codes, Lanes, Sample, TO_INTEGER, fit_scale, stored_scale};

/// Weights in a block of the types that are searched here.
const W: usize = 32;

/// Weights as fixed-point parts of their block's peak, which is positive.
type Parts = [i16; W];

/// The peak itself. Above the last of [`Wrap`]'s scales it lies 0.4 codes beyond 127: it does not clip.
const TOP: f32 = 32741.0;

/// Scales in a survey.
const LANES: usize = 16;

/// Partial sums in f32.
const SUMS: usize = 8;

/// How scales are surveyed: by the place (in codes) where each has the peak.
pub(super) trait Survey {
    /// The place that seems best.
    fn place(parts: &Parts) -> f32;
}

/// The place in the lane with the least of squared errors (in codes) / place². Tables pass through `black_box`: of
/// constants that it sees, the compiler treats some lanes apart.
#[inline(always)]
fn best_lane<const L: usize, const SHIFT: u32>(
    errors: &[u16; L],
    places: &[f32; L],
    units: &[u16; L],
) -> f32 {
    let units = black_box(units);
    let mut best = u16::MAX;
    for l in 0..L {
        let error = errors[l].min(u16::MAX >> SHIFT) << SHIFT;
        let error = ((u32::from(error) * u32::from(units[l])) >> 16) as u16;
        // The lane takes the lowest bits, where errors are noise.
        best = best.min(error & !(L as u16 - 1) | l as u16);
    }
    places[best as usize % L]
}

/// The factors of [`best_lane`].
const fn units<const L: usize>(places: &[f32; L]) -> [u16; L] {
    let mut least = f32::INFINITY;
    let mut l = 0;
    while l < L {
        let p = places[l].abs();
        least = if p < least { p } else { least };
        l += 1;
    }
    let mut units = [0; L];
    l = 0;
    while l < L {
        let part = least / places[l];
        units[l] = (part * part * 65535.0) as u16;
        l += 1;
    }
    units
}

/// For codes of which none clips: in the low half of a product with a whole factor, a code is 65536, and what is
/// beyond the nearest code is all that fits.
pub(super) struct Wrap;

impl Wrap {
    const SCALES: usize = 2 * LANES;

    const FACTORS: [i16; Self::SCALES] = {
        let mut k = [255; Self::SCALES];
        let mut l = 0;
        while l < Self::SCALES {
            k[l] -= l as i16;
            l += 1;
        }
        k
    };

    const PLACES: [f32; Self::SCALES] = {
        let mut places = [0.0; Self::SCALES];
        let mut l = 0;
        while l < Self::SCALES {
            places[l] = Self::FACTORS[l] as f32 * TOP / 65536.0;
            l += 1;
        }
        places
    };

    const UNITS: [u16; Self::SCALES] = units(&Self::PLACES);
}

impl Survey for Wrap {
    #[inline(always)]
    fn place(parts: &Parts) -> f32 {
        let mut errors = [0u16; Self::SCALES];
        for four in parts.as_chunks::<4>().0 {
            for (error, k) in errors.iter_mut().zip(&Self::FACTORS) {
                // At most 2^14 each. Eight times an eighth of four fits in any case.
                let mut sum = 0u16;
                for y in four {
                    let r = i32::from(y.wrapping_mul(*k));
                    sum = sum.wrapping_add(((r * r) >> 16) as u16);
                }
                *error += sum >> 3;
            }
        }
        best_lane::<_, 0>(&errors, &Self::PLACES, &Self::UNITS)
    }
}

/// For codes from `LO` to `HI`, with scales under which weights clip.
pub(super) struct Clip<const LO: i16, const HI: i16>;

impl<const LO: i16, const HI: i16> Clip<LO, HI> {
    /// The bits after the point: with them, factors fit 16 bits.
    const FRACTION: u32 = if HI < 8 { 10 } else { 9 };

    const CODE: i16 = 1 << Self::FRACTION;

    /// Lifts the last code to where sums saturate; a multiple of eight codes.
    const OFFSET: i16 = (32768 - (HI as i32 + 1) * Self::CODE as i32) as i16;

    const PLACES: [f32; LANES] = {
        let mut places = [0.0; LANES];
        let mut l = 0;
        while l < LANES / 2 {
            places[l] = LO as f32 + 0.8 - 0.35 * l as f32;
            places[LANES / 2 + l] = HI as f32 - 0.7 + 0.35 * l as f32;
            l += 1;
        }
        places
    };

    const FACTORS: [i16; LANES] = {
        let mut k = [0; LANES];
        let mut l = 0;
        while l < LANES {
            k[l] = (Self::PLACES[l] * Self::CODE as f32 * (65536.0 / TOP)) as i16;
            l += 1;
        }
        k
    };

    const UNITS: [u16; LANES] = units(&Self::PLACES);
}

impl<const LO: i16, const HI: i16> Survey for Clip<LO, HI> {
    #[inline(always)]
    fn place(parts: &Parts) -> f32 {
        let mut errors = [0u16; LANES];
        for &y in parts {
            for (error, &k) in errors.iter_mut().zip(&Self::FACTORS) {
                let v = ((i32::from(y) * i32::from(k)) >> 16) as i16;
                let q = v.max(LO * Self::CODE).saturating_add(Self::OFFSET + Self::CODE / 2) & -Self::CODE;
                // No place is four codes beyond the last, so this fits; the offset does not, and is gone.
                let r = i32::from(v.wrapping_sub(q) << (13 - Self::FRACTION));
                *error = error.saturating_add(((r * r) >> 16) as u16);
            }
        }
        best_lane::<_, 3>(&errors, &Self::PLACES, &Self::UNITS)
    }
}

/// The sum of lanes, as a tree.
#[inline(always)]
fn total(s: &[f32; SUMS]) -> f32 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// Σ (x − d·q)².
#[inline(always)]
fn error(x: &[f32; W], d: f32, codes: Codes) -> f32 {
    let inverse = 1.0 / d;
    let mut sum = [0.0; SUMS];
    for x in x.as_chunks::<SUMS>().0 {
        for l in 0..SUMS {
            let r = x[l] - d * codes.nearest(x[l] * inverse);
            sum[l] += r * r;
        }
    }
    total(&black_box(sum))
}

/// The scales to store for x = d·q. `plain` is the code on which the peak lies where nothing is searched: no
/// scale is worse than that.
#[inline(always)]
pub(super) fn fit_scales<S: Survey, const N: usize>(
    x: &[[f32; W]; N],
    codes: Codes,
    plain: f32,
    grid: &[Lanes; 2],
) -> [f32; N] {
    let mut peaks = [0.0; N];
    for b in 0..N {
        // Magnitude above sign; of two with one magnitude, the positive.
        let mut top = [0; SUMS];
        for x in x[b].as_chunks::<SUMS>().0 {
            for l in 0..SUMS {
                top[l] = top[l].max(x[l].to_bits().rotate_left(1) ^ 1);
            }
        }
        let top = *black_box(top).iter().max().expect("eight");
        peaks[b] = f32::from_bits((top ^ 1).rotate_right(1));
    }

    let mut parts = [[0i16; W]; N];
    for b in 0..N {
        let unit = TOP / peaks[b];
        for j in 0..W {
            parts[b][j] = (x[b][j] * unit + TO_INTEGER).to_bits() as i16;
        }
    }

    let mut inverse = [0.0; N];
    for b in 0..N {
        inverse[b] = S::place(&parts[b]) / peaks[b];
    }

    let (mut xq, mut qq) = ([0.0; N], [0.0; N]);
    for b in 0..N {
        let (mut sum_xq, mut sum_qq) = ([0.0; SUMS], [0.0; SUMS]);
        for x in x[b].as_chunks::<SUMS>().0 {
            for l in 0..SUMS {
                let q = codes.nearest(x[l] * inverse[b]);
                sum_xq[l] += x[l] * q;
                sum_qq[l] += q * q;
            }
        }
        let (sum_xq, sum_qq) = black_box((sum_xq, sum_qq));
        (xq[b], qq[b]) = (total(&sum_xq), total(&sum_qq));
    }

    let (mut fitted, mut usual) = ([0.0; N], [0.0; N]);
    for b in 0..N {
        fitted[b] = stored_scale(xq[b] / qq[b]);
        usual[b] = stored_scale(peaks[b] / plain);
    }

    let mut scales = [0.0; N];
    for b in 0..N {
        let better = error(&x[b], fitted[b], codes) < error(&x[b], usual[b], codes);
        scales[b] = select_unpredictable(better, fitted[b], usual[b]);
    }

    for b in 0..N {
        // Outside of these, halves are too coarse or too small, or what is above does not fit its numbers.
        let usual = (peaks[b] / plain).abs();
        if !(1.0 / 131_072.0..=1024.0).contains(&usual) {
            scales[b] = odd_scale(&x[b], codes, plain, grid);
        }
    }
    scales
}

#[cold]
#[inline(never)]
fn odd_scale(x: &[f32; W], codes: Codes, plain: f32, grid: &[Lanes; 2]) -> f32 {
    fit_scale(&Sample::new(x, None), codes, plain, grid)
}
