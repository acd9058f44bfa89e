//! A rough look at many scales, where every weight counts the same.
//!
//! A survey tells in 16-bit integers how far the weights lie from the codes under many scales, one in each lane.
//! That is enough to choose the one that [`super::team`] fits to the weights.

use std::hint::black_box;

use super::search::Lanes;

/// Weights in a block of the types that are searched so.
pub(super) const W: usize = 32;

/// Weights as fixed-point parts of [`TOP`].
pub(super) type Parts = [i16; W];

/// What stands for a block's peak or range. Above the last of [`Wrap`]'s scales it lies 0.4 codes beyond 127: it
/// does not clip.
pub(super) const TOP: f32 = 32741.0;

/// Scales in a survey.
const LANES: usize = 16;

/// How scales are surveyed: by the place (in codes) where each has the peak.
pub(super) trait Survey {
    /// The place that seems best.
    fn place(parts: &Parts) -> f32;
}

/// The lane with the least of squared errors (in codes) × unit. Tables pass through `black_box`: of
/// constants that it sees, the compiler treats some lanes apart.
#[inline(always)]
fn best_lane<const L: usize, const SHIFT: u32>(errors: &[u16; L], units: &[u16; L]) -> usize {
    let units = black_box(units);
    let mut best = u16::MAX;
    for l in 0..L {
        let error = errors[l].min(u16::MAX >> SHIFT) << SHIFT;
        let error = ((u32::from(error) * u32::from(units[l])) >> 16) as u16;
        // The lane takes the lowest bits, where errors are noise.
        best = best.min(error & !(L as u16 - 1) | l as u16);
    }
    best as usize % L
}

/// 1 / place² as [`best_lane`] takes it.
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
        Self::PLACES[best_lane::<_, 0>(&errors, &Self::UNITS)]
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
        Self::PLACES[best_lane::<_, 3>(&errors, &Self::UNITS)]
    }
}

/// Where searches for scale and offset start: the places (in codes) of the least weight, from the first code on, and
/// of the largest, from the last. With both extremes on whole codes, an even number apart, weights that are a few
/// multiples of one number are met exactly. The first two rows are what is surveyed.
pub(super) const ENDS: [[Lanes; 2]; 10] = [
    [[0.0, 0.0, 0.0, 0.5, -0.5, -0.5, 0.0, -0.5], [0.0, -1.0, 0.5, 0.0, 0.0, 0.5, 1.0, 1.0]],
    [[-1.0, -1.0, -1.0, 0.5, -2.0, 0.0, -2.0, 0.3], [0.0, 0.5, 1.0, -0.5, 0.0, 2.0, 2.0, -0.3]],
    [[-0.2, 0.2, -0.2, 0.2, -0.7, 0.2, -0.7, 0.2], [0.2, 0.2, -0.2, -0.2, 0.2, 0.7, 0.7, -0.7]],
    [[-1.5, 0.3, -1.5, -0.3, -1.2, -0.8, -1.5, -2.5], [0.3, 1.5, -0.3, 1.5, 0.8, 1.2, 1.5, 0.5]],
    [[-0.1, -0.3, -0.5, -0.7, -0.9, -1.1, -1.3, -1.7], [0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.7]],
    [[-0.1, -0.3, -0.5, -0.7, -0.9, -1.1, -1.3, -1.7], [0.5, 0.7, 0.9, 0.0, 0.0, 0.5, 0.4, 0.2]],
    [[0.5, 0.7, 0.9, 0.1, 0.1, -0.4, -0.4, -0.2], [-0.1, -0.3, -0.5, -0.7, -0.9, 1.1, 1.3, 1.7]],
    [[0.4, 0.1, -0.2, 0.4, 0.1, -0.2, -0.6, -1.0], [0.4, 0.2, 0.0, 0.0, 0.4, -0.4, -0.6, -0.4]],
    [[-2.5, -3.0, -1.8, -2.2, -0.5, 0.4, -0.2, 0.0], [1.0, 0.0, 0.6, 1.4, 2.5, 2.2, 3.0, 1.8]],
    [
        [-0.25, -0.75, -1.25, -1.75, -0.25, -0.75, -1.25, -0.1],
        [1.25, 1.75, 0.25, 0.75, 0.75, 0.25, 1.75, -0.6],
    ],
];

/// For codes from 0 to `HI` under a scale and an offset. Surveys parts of the range from the least weight.
pub(super) struct Ends<const HI: i16>;

impl<const HI: i16> Ends<HI> {
    /// As in [`Clip`], with twice as many codes on one side of zero.
    const FRACTION: u32 = if HI < 16 { 9 } else { 8 };

    const CODE: i16 = 1 << Self::FRACTION;

    const OFFSET: i16 = (32768 - (HI as i32 + 1) * Self::CODE as i32) as i16;

    /// The place of the least weight, and codes from there to the largest.
    const PLACES: ([f32; LANES], [f32; LANES]) = {
        let (mut first, mut span) = ([0.0; LANES], [0.0; LANES]);
        let mut l = 0;
        while l < LANES {
            let [a, b] = &ENDS[l / 8];
            first[l] = a[l % 8];
            span[l] = HI as f32 + b[l % 8] - a[l % 8];
            l += 1;
        }
        (first, span)
    };

    const FACTORS: [i16; LANES] = {
        let mut k = [0; LANES];
        let mut l = 0;
        while l < LANES {
            k[l] = (Self::PLACES.1[l] * Self::CODE as f32 * (65536.0 / TOP)) as i16;
            l += 1;
        }
        k
    };

    const FIRST: [i16; LANES] = {
        let mut first = [0; LANES];
        let mut l = 0;
        while l < LANES {
            first[l] = (Self::PLACES.0[l] * Self::CODE as f32) as i16;
            l += 1;
        }
        first
    };

    const UNITS: [u16; LANES] = units(&Self::PLACES.1);

    /// The place of the least weight and the codes from there to the largest that seem best.
    #[inline(always)]
    pub(super) fn place(parts: &Parts) -> (f32, f32) {
        let mut errors = [0u16; LANES];
        for &y in parts {
            for ((error, &k), first) in errors.iter_mut().zip(&Self::FACTORS).zip(&Self::FIRST) {
                let v = ((i32::from(y) * i32::from(k)) >> 16) as i16 + first;
                let q = v.max(0).saturating_add(Self::OFFSET + Self::CODE / 2) & -Self::CODE;
                let r = i32::from(v.wrapping_sub(q) << (13 - Self::FRACTION));
                *error = error.saturating_add(((r * r) >> 16) as u16);
            }
        }
        let l = best_lane::<_, 3>(&errors, &Self::UNITS);
        (Self::PLACES.0[l], Self::PLACES.1[l])
    }
}
