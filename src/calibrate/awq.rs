//! AWQ's column scales (Lin et al., arXiv 2306.00978): important columns are quantized with finer steps, and the model
//! computes the same function.
//!
//! The columns of a tap's matrices are multiplied by s, and the tensor that produces their input (the producer) is divided
//! by s: the norm weight before query, key and value and before gate and up projection; the rows of the value projection
//! (and its bias) before the attention output, where query heads that share a value head share its scales; the rows of the
//! up projection before the down projection. Where a second norm stands in between (BitNet), nothing is scaled.

use calibration::rows;
use formats::block::{DType, Encode, Family, Number, f16_to_f32, f32_to_f16};

use super::gptq::HeldOutLoss;
use super::gram::Gram;
use crate::arch::Config;
use crate::random::Random;
use crate::runner::layerwise::Tap;
use kernels::{self, Isa, parallel};

/// The tensor that produces a tap's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producer {
    /// A norm weight, by its name within the layer.
    Norm(&'static str),
    /// The rows of a matrix, by its name within the layer.
    Rows(&'static str),
}

/// The producer of a tap's input.
pub fn producer(tap: Tap) -> Producer {
    match tap {
        Tap::Attention => Producer::Norm("attn_norm"),
        Tap::Output => Producer::Rows("attn_v"),
        Tap::FeedForward => Producer::Norm("ffn_norm"),
        Tap::Down => Producer::Rows("ffn_up"),
    }
}

/// Whether rows of this type can be multiplied by a power of two by changing their f16 scales only.
pub fn is_scalable(dtype: DType) -> bool {
    let halves = dtype.info().fields.iter().any(|f| f.number == Number::F16);
    // Ternary models are trained to be ternary: AWQ does not apply.
    let ternary = dtype.info().family == Family::Ternary;
    halves && !ternary || matches!(dtype, DType::F32 | DType::BF16)
}

/// Divides the weights of an encoded row by a power of two.
pub fn divide(dtype: DType, row: &mut [u8], by: f32) {
    let info = dtype.info();
    if matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
        let codec = kernels::codec(dtype).expect("floats have codecs");
        let mut x = vec![0f32; row.len() / info.bytes];
        codec.decode(row, &mut x);
        x.iter_mut().for_each(|x| *x /= by);
        codec.encode(&x, &Encode::default(), row);
        return;
    }
    for block in row.chunks_exact_mut(info.bytes) {
        for field in info.fields.iter().filter(|f| f.number == Number::F16) {
            for i in 0..field.count {
                let at = field.at + i * field.stride;
                let half = f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]));
                block[at..at + 2].copy_from_slice(&f32_to_f16(half / by).to_le_bytes());
            }
        }
    }
}

/// Whether dividing an encoded row by a power of two loses no bits: subnormal f16 scales have fewer.
pub fn divides_exactly(dtype: DType, row: &[u8], by: f32) -> bool {
    let mut copy = row.to_vec();
    divide(dtype, &mut copy, by);
    divide(dtype, &mut copy, 1.0 / by);
    copy == row
}

/// Moves column scales towards 1, one power of two at a time, until `exact` holds for the producer's row and its scale.
pub fn limit_scales(config: &Config, tap: Tap, s: &mut [f32], exact: impl Fn(usize, f32) -> bool) {
    let mut all = producer_scales(config, tap, s);
    for (c, s) in all.iter_mut().enumerate() {
        while *s != 1.0 && !exact(c, *s) {
            *s *= if *s > 1.0 { 0.5 } else { 2.0 };
        }
    }
    let group = s.len() / all.len();
    let head = config.head as usize;
    for (i, s) in s.iter_mut().enumerate() {
        *s = if group == 1 { all[i] } else { all[i / (head * group) * head + i % head] };
    }
}

/// The scales of the producer's rows, from those of a tap's columns: query heads that share a value head (grouped-query
/// attention) have the same scales.
pub fn producer_scales(config: &Config, tap: Tap, s: &[f32]) -> Vec<f32> {
    if tap != Tap::Output {
        return s.to_vec();
    }
    let (head, group) = (config.head as usize, (config.heads / config.kv_heads) as usize);
    s.chunks_exact(head * group).flat_map(|heads| &heads[..head]).copied().collect()
}

/// The root mean squares of the inputs and of the weights of each column.
fn magnitudes(config: &Config, tap: Tap, gram: &Gram, matrices: &[&[f32]]) -> (Vec<f32>, Vec<f32>) {
    let n = gram.width;
    let mut x: Vec<f32> = gram.mean_squares();
    let mut w = vec![0f64; n];
    let count: usize = matrices.iter().map(|m| m.len() / n).sum();
    matrices.iter().for_each(|m| rows::add_squares(&mut w, m, n, 0));
    let mut w: Vec<f32> = w.iter().map(|s| (s / count.max(1) as f64) as f32).collect();
    if tap == Tap::Output {
        let (head, group) = (config.head as usize, (config.heads / config.kv_heads) as usize);
        for all in [&mut x, &mut w] {
            for heads in all.chunks_exact_mut(head * group) {
                for c in 0..head {
                    let mean = (0..group).map(|g| heads[g * head + c]).sum::<f32>() / group as f32;
                    (0..group).for_each(|g| heads[g * head + c] = mean);
                }
            }
        }
    }
    (x.iter().map(|x| x.sqrt()).collect(), w.iter().map(|w| w.sqrt()).collect())
}

/// Rows of each matrix that the search for scales encodes.
const ROWS: usize = 128;

/// A matrix whose columns are to be scaled.
pub struct Consumer<'a> {
    /// `[rows, width]`.
    pub weights: &'a [f32],
    /// The type that it is quantized to.
    pub dtype: DType,
    /// The importance of its columns, `[width]`.
    pub importance: &'a [f32],
}

/// The column scales, `[width]`, with the least loss on held-out tokens when the tap's matrices are quantized with the plain
/// search; `None` if no scales reduce the loss by at least 0.5 %. Where the producer is a matrix, scales are powers of two,
/// by which its f16 block scales can be divided exactly.
pub fn search(
    isa: Isa,
    config: &Config,
    tap: Tap,
    (gram, held_out): (&Gram, &Gram),
    matrices: &[Consumer],
    how: &Encode,
) -> Option<Vec<f32>> {
    let n = gram.width;
    let all: Vec<&[f32]> = matrices.iter().map(|m| m.weights).collect();
    let (x, w) = magnitudes(config, tap, gram, &all);
    let samples: Vec<Vec<f32>> = matrices
        .iter()
        .map(|m| {
            let all = m.weights.len() / n;
            let count = all.min(ROWS);
            let sampled: Vec<usize> = (0..count).map(|i| i * all / count).collect();
            rows::select(m.weights, &sampled, n)
        })
        .collect();
    let plain = Gram { h: held_out.h.clone(), tokens: held_out.tokens, ..Gram::new(n, false) };
    let cost = |s: &[f32]| -> Vec<f64> {
        let tried = matrices.iter().zip(&samples);
        tried
            .map(|(m, sample)| HeldOutLoss::new(isa, sample, &plain).loss(&rounded(isa, m, sample, s, how)))
            .collect()
    };
    let ones = vec![1f32; n];
    let baseline = cost(&ones);
    let mut best: (f64, Option<Vec<f32>>) = (0.995 * matrices.len() as f64, None);
    for step in 1..=20 {
        // Both forms of AWQ's code: from inputs alone, and from inputs and weights.
        let (alpha, both) = (0.1 * f64::from((step + 1) / 2), step % 2 == 0);
        let mut s: Vec<f32> = x
            .iter()
            .zip(&w)
            .map(|(x, w)| {
                let s = f64::from(*x).max(1e-8).powf(alpha);
                let s = if both { s / (f64::from(*w).powf(1.0 - alpha) + 1e-4) } else { s };
                s.max(1e-4) as f32
            })
            .collect();
        let (smallest, largest) = s.iter().fold((f32::MAX, 0f32), |(a, b), s| (a.min(*s), b.max(*s)));
        let middle = (smallest * largest).sqrt();
        s.iter_mut().for_each(|s| *s = (*s / middle).clamp(1.0 / 256.0, 256.0));
        if matches!(producer(tap), Producer::Rows(_)) {
            s.iter_mut().for_each(|s| *s = s.log2().round().exp2());
        }
        let total = cost(&s).iter().zip(&baseline).map(|(a, b)| if *b > 0.0 { a / b } else { 1.0 }).sum();
        if total < best.0 {
            best = (total, Some(s));
        }
    }
    best.1
}

/// Random scales between 1/4 and 4, for tests; powers of two where the producer is a matrix.
pub fn random(config: &Config, tap: Tap, width: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut s: Vec<f32> = (0..width).map(|_| (4.0 * random.unit() - 2.0).exp2() as f32).collect();
    if matches!(producer(tap), Producer::Rows(_)) {
        s.iter_mut().for_each(|s| *s = s.log2().round().exp2());
    }
    if tap == Tap::Output {
        let (head, group) = (config.head as usize, (config.heads / config.kv_heads) as usize);
        for heads in s.chunks_exact_mut(head * group) {
            let (first, others) = heads.split_at_mut(head);
            others.chunks_exact_mut(head).for_each(|other| other.copy_from_slice(first));
        }
    }
    s
}

/// Rows after their columns were multiplied by s, quantized, and divided by s again.
fn rounded(isa: Isa, matrix: &Consumer, sample: &[f32], s: &[f32], how: &Encode) -> Vec<f32> {
    let n = s.len();
    let codec = kernels::codec_for(matrix.dtype, isa).expect("plans encode into types that have a codec");
    let size = matrix.dtype.bytes_for(n as u64).expect("whole blocks") as usize;
    let importance: Vec<f32> = matrix.importance.iter().zip(s).map(|(i, s)| i / (s * s)).collect();
    let mut out = vec![0f32; sample.len()];
    parallel::chunks_mut(&mut out, n, &|i, out| {
        let mut scaled = sample[i * n..][..n].to_vec();
        rows::multiply(&mut scaled, s);
        let mut bytes = vec![0u8; size];
        codec.encode(&scaled, &Encode { importance: Some(&importance), ..*how }, &mut bytes);
        codec.decode(&bytes, out);
        rows::divide(out, s);
    });
    out
}
