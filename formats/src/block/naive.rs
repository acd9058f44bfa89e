//! Plain rounding.

use super::search::stored_scale;

pub(super) struct Affine<const G: usize, const N: usize> {
    pub d: f32,
    pub dmin: f32,
    pub scales: [u8; G],
    pub mins: [u8; G],
    pub q: [u8; 256],
}

pub(super) struct Scaled<const G: usize, const N: usize> {
    pub d: f32,
    pub scales: [i8; G],
    pub q: [u8; 256],
}

/// The weight that is furthest from zero.
#[inline(always)]
pub(super) fn peak(x: &[f32]) -> f32 {
    let mut top = 0.0f32;
    for &x in x {
        top = if x.abs() > top.abs() { x } else { top };
    }
    top
}

impl<const G: usize, const N: usize> Affine<G, N> {
    pub(super) fn naive(x: &[f32; 256], hi: f32, top: f32) -> Self {
        let mut fit = Self { d: 0.0, dmin: 0.0, scales: [0; G], mins: [0; G], q: [0; 256] };
        let (mut lows, mut ranges) = ([0.0f32; G], [0.0f32; G]);
        for g in 0..G {
            let part = &x[N * g..N * (g + 1)];
            lows[g] = part.iter().fold(0.0f32, |a, &b| a.min(b)).max(-1e9);
            ranges[g] = part.iter().fold(lows[g], |a, &b| a.max(b)).min(1e9) - lows[g];
        }
        let d = ranges.iter().fold(0.0f32, |a, &b| a.max(b)) / hi / top;
        let dmin = lows.iter().fold(0.0f32, |a, &b| a.max(-b)) / top;
        fit.d = if d > 0.0 { stored_scale(d) } else { 0.0 };
        fit.dmin = if dmin > 0.0 { stored_scale(dmin) } else { 0.0 };
        for g in 0..G {
            fit.scales[g] = (ranges[g] / hi / fit.d).round().clamp(0.0, top) as u8;
            fit.mins[g] = (-lows[g] / fit.dmin).round().clamp(0.0, top) as u8;
            let (s, m) = (fit.d * f32::from(fit.scales[g]), fit.dmin * f32::from(fit.mins[g]));
            for j in N * g..N * (g + 1) {
                fit.q[j] = ((x[j] + m) / s).round().clamp(0.0, hi) as u8;
            }
        }
        fit
    }
}

impl<const G: usize, const N: usize> Scaled<G, N> {
    pub(super) fn naive(x: &[f32; 256], lo: f32, top: f32) -> Self {
        let mut fit = Self { d: 0.0, scales: [0; G], q: [0; 256] };
        let mut s = [0.0f32; G];
        for g in 0..G {
            s[g] = (peak(&x[N * g..N * (g + 1)]) / lo).clamp(-1e9, 1e9);
        }
        let most = peak(&s);
        fit.d = if most == 0.0 { 0.0 } else { stored_scale(most / -(top + 1.0)) };
        for g in 0..G {
            fit.scales[g] = (s[g] / fit.d).round().clamp(-top - 1.0, top) as i8;
            let step = fit.d * f32::from(fit.scales[g]);
            for j in N * g..N * (g + 1) {
                fit.q[j] = ((x[j] / step).round().clamp(lo, -lo - 1.0) - lo) as u8;
            }
        }
        fit
    }
}
