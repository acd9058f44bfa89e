//! A fast comparison of many scales for weights of equal importance.
//!
//! It computes rounding errors under many scales, one in each lane, in 16-bit integers. That is precise enough to choose the
//! scale that [`super::batch`] then fits to the weights.

use std::hint::black_box;

use super::search::Lanes;

/// The number of weights in a block of the types that use this.
pub(super) const W: usize = 32;

/// Weights in fixed point, scaled so that the peak is [`TOP`].
pub(super) type Parts = [i16; W];

/// The fixed-point value of a block's peak, or of its range. Under the largest scale of [`Wrap`] it is 127.4 codes, which is
/// not clipped.
pub(super) const TOP: f32 = 32741.0;

/// The number of scales.
const LANES: usize = 16;

/// A comparison of scales, each given by the code of the peak under it.
pub(super) trait Survey {
    /// The code of the peak under the best scale.
    fn best_peak(parts: &Parts) -> f32;
}

/// The lane with the smallest squared error (in codes) times squared step. The table passes through `black_box`: knowing
/// constants, the compiler would treat some lanes separately.
#[inline(always)]
fn best_lane<const L: usize, const SHIFT: u32>(errors: &[u16; L], relative_steps: &[u16; L]) -> usize {
    let relative_steps = black_box(relative_steps);
    let mut best = u16::MAX;
    for l in 0..L {
        let error = errors[l].min(u16::MAX >> SHIFT) << SHIFT;
        let error = ((u32::from(error) * u32::from(relative_steps[l])) >> 16) as u16;
        // The index of the lane replaces the lowest bits, which are noise.
        best = best.min(error & !(L as u16 - 1) | l as u16);
    }
    best as usize % L
}

/// The squared steps, 1 / code², relative to the largest, for [`best_lane`].
const fn relative_steps<const L: usize>(places: &[f32; L]) -> [u16; L] {
    let mut least = f32::INFINITY;
    let mut l = 0;
    while l < L {
        let p = places[l].abs();
        least = if p < least { p } else { least };
        l += 1;
    }
    let mut relative_steps = [0; L];
    l = 0;
    while l < L {
        let part = least / places[l];
        relative_steps[l] = (part * part * 65535.0) as u16;
        l += 1;
    }
    relative_steps
}

/// For scales without clipping. In the 16 low bits of the product with an integer factor, a code is 65536, so that only the
/// distance from the nearest code remains.
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

    const PEAK_CODES: [f32; Self::SCALES] = {
        let mut places = [0.0; Self::SCALES];
        let mut l = 0;
        while l < Self::SCALES {
            places[l] = Self::FACTORS[l] as f32 * TOP / 65536.0;
            l += 1;
        }
        places
    };

    const RELATIVE_STEPS: [u16; Self::SCALES] = relative_steps(&Self::PEAK_CODES);
}

impl Survey for Wrap {
    #[inline(always)]
    fn best_peak(parts: &Parts) -> f32 {
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
        Self::PEAK_CODES[best_lane::<_, 0>(&errors, &Self::RELATIVE_STEPS)]
    }
}

/// For codes from `LO` to `HI`, with scales that clip some weights.
pub(super) struct Clip<const LO: i16, const HI: i16>;

impl<const LO: i16, const HI: i16> Clip<LO, HI> {
    /// Fraction bits: as many as factors of 16 bits allow.
    const FRACTION: u32 = if HI < 8 { 10 } else { 9 };

    const CODE: i16 = 1 << Self::FRACTION;

    /// Added so that the last code is where sums saturate; a multiple of eight codes.
    const OFFSET: i16 = (32768 - (HI as i32 + 1) * Self::CODE as i32) as i16;

    const PEAK_CODES: [f32; LANES] = {
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
            k[l] = (Self::PEAK_CODES[l] * Self::CODE as f32 * (65536.0 / TOP)) as i16;
            l += 1;
        }
        k
    };

    const RELATIVE_STEPS: [u16; LANES] = relative_steps(&Self::PEAK_CODES);
}

impl<const LO: i16, const HI: i16> Survey for Clip<LO, HI> {
    #[inline(always)]
    fn best_peak(parts: &Parts) -> f32 {
        let mut errors = [0u16; LANES];
        for &y in parts {
            for (error, &k) in errors.iter_mut().zip(&Self::FACTORS) {
                let v = ((i32::from(y) * i32::from(k)) >> 16) as i16;
                let q = v.max(LO * Self::CODE).saturating_add(Self::OFFSET + Self::CODE / 2) & -Self::CODE;
                // No weight is four codes beyond the last, so the difference fits; the offset wraps around and vanishes.
                let r = i32::from(v.wrapping_sub(q) << (13 - Self::FRACTION));
                *error = error.saturating_add(((r * r) >> 16) as u16);
            }
        }
        Self::PEAK_CODES[best_lane::<_, 3>(&errors, &Self::RELATIVE_STEPS)]
    }
}

/// The starting points of searches for scale and offset: the codes of the smallest weight, relative to the first code, and of
/// the largest, relative to the last. If both are integers at an even distance, weights that are small multiples of one number
/// are represented exactly. The first two rows are compared here.
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

/// For codes from 0 to `HI` with a scale and an offset. Weights are given as their distance from the smallest one.
pub(super) struct Ends<const HI: i16>;

impl<const HI: i16> Ends<HI> {
    /// As in [`Clip`], but with all codes on one side of zero.
    const FRACTION: u32 = if HI < 16 { 9 } else { 8 };

    const CODE: i16 = 1 << Self::FRACTION;

    const OFFSET: i16 = (32768 - (HI as i32 + 1) * Self::CODE as i32) as i16;

    /// The code of the smallest weight, and the number of codes from there to the largest.
    const PEAK_CODES: ([f32; LANES], [f32; LANES]) = {
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
            k[l] = (Self::PEAK_CODES.1[l] * Self::CODE as f32 * (65536.0 / TOP)) as i16;
            l += 1;
        }
        k
    };

    const FIRST: [i16; LANES] = {
        let mut first = [0; LANES];
        let mut l = 0;
        while l < LANES {
            first[l] = (Self::PEAK_CODES.0[l] * Self::CODE as f32) as i16;
            l += 1;
        }
        first
    };

    const RELATIVE_STEPS: [u16; LANES] = relative_steps(&Self::PEAK_CODES.1);

    /// The best code of the smallest weight and number of codes from there to the largest.
    #[inline(always)]
    pub(super) fn best_ends(parts: &Parts) -> (f32, f32) {
        let mut errors = [0u16; LANES];
        for &y in parts {
            for ((error, &k), first) in errors.iter_mut().zip(&Self::FACTORS).zip(&Self::FIRST) {
                let v = ((i32::from(y) * i32::from(k)) >> 16) as i16 + first;
                let q = v.max(0).saturating_add(Self::OFFSET + Self::CODE / 2) & -Self::CODE;
                let r = i32::from(v.wrapping_sub(q) << (13 - Self::FRACTION));
                *error = error.saturating_add(((r * r) >> 16) as u16);
            }
        }
        let l = best_lane::<_, 3>(&errors, &Self::RELATIVE_STEPS);
        (Self::PEAK_CODES.0[l], Self::PEAK_CODES.1[l])
    }
}
