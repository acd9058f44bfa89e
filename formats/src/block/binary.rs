//! One and two bits per weight with one scale. Layouts: `block_q1_0` and `block_q2_0` in ggml.

use super::groups::Integers;
use super::layout::{half, pack_half};
use super::scaled::{self, unit};
use super::{Block, Effort, single};

/// d, 128 bits, the lowest first: d where the bit is one, −d where it is not.
pub struct Q1_0;

impl Block<128, 18> for Q1_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 128]) {
        let d = half(bytes);
        for j in 0..128 {
            out[j] = if bytes[2 + j / 8] >> (j % 8) & 1 == 1 { d } else { -d };
        }
    }

    /// For any scale, the signs of the weights are the best codes; the weighted mean magnitude is then the best scale.
    #[inline(always)]
    fn encode(x: &[f32; 128], w: Option<&[f32; 128]>, _: Effort, bytes: &mut [u8; 18]) {
        let one = [1.0; 128];
        let top = |v: &[f32; 128]| v.iter().fold(0.0f32, |t, v| if v.abs() > t { v.abs() } else { t });
        let w = w.filter(|w| top(w) > 0.0).unwrap_or(&one);
        let unit = unit(top(w));
        let (mut sum, mut total) = ([0.0; 8], [0.0; 8]);
        for (x, w) in x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0) {
            for l in 0..8 {
                let w = w[l] * unit;
                sum[l] += w * x[l].abs().min(65504.0);
                total[l] += w;
            }
        }
        let mut codes = [0; 128];
        for j in 0..128 {
            codes[j] = u8::from(x[j] >= 0.0);
        }
        Self::lay_out(scaled::total(&sum) / scaled::total(&total), &codes, bytes);
    }
}

impl Q1_0 {
    /// Stores a block.
    #[inline(always)]
    pub(super) fn lay_out(d: f32, codes: &[u8; 128], bytes: &mut [u8; 18]) {
        *bytes = [0; 18];
        pack_half(d, bytes);
        for j in 0..128 {
            bytes[2 + j / 8] |= codes[j] << (j % 8);
        }
    }
}

/// d, 64 codes of two bits, the lowest first: x = d · (q − 1).
pub struct Q2_0;

impl Block<64, 18> for Q2_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 64]) {
        let d = half(bytes);
        for j in 0..64 {
            out[j] = (f32::from(bytes[2 + j / 4] >> (2 * (j % 4)) & 3) - 1.0) * d;
        }
    }

    #[inline(always)]
    fn encode_all(x: &[[f32; 64]], w: Option<&[[f32; 64]]>, effort: Effort, bytes: &mut [[u8; 18]]) {
        single::encode::<Self, 64, 18>(x, w, effort, bytes);
    }
}

impl single::Shape<64, 18> for Q2_0 {
    type Levels = Integers<-1, 2>;
    const PEAK_LEVELS: &'static [f32] = &[-1.3, -1.7, -2.2, -2.8, 1.7, 2.0, 2.4, 2.8, 3.3, 4.0];
    const MORE_PEAK_LEVELS: &'static [f32] = &[
        -1.2, -1.45, -1.7, -2.0, -2.3, -2.7, -3.2, -4.0, 1.3, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6, 2.9, 3.2, 3.6,
        4.2, 5.0, 6.5,
    ];

    #[inline(always)]
    fn pack(d: f32, codes: &[u8; 64], bytes: &mut [u8; 18]) {
        pack_half(d, bytes);
        for j in 0..16 {
            let at = 4 * j;
            bytes[2 + j] = codes[at] | codes[at + 1] << 2 | codes[at + 2] << 4 | codes[at + 3] << 6;
        }
    }
}
