//! Scales that are moved from the inputs of matrices into what makes those inputs (AWQ, arXiv 2306.00978): columns that
//! matter get finer steps, and the model computes the same.
//!
//! Columns of the matrices of a tap are multiplied by s, and what gives their input is divided by it: the weight of
//! the norm before queries, keys and values and before gate and up; the rows of the value matrix (and its bias) before
//! the attention's output, where heads of queries that share a head of values share its scales; the rows of up before
//! down. Where a second norm stands between (BitNet), nothing is folded.

use formats::block::{DType, Encode, Family, Number, f16_to_f32, f32_to_f16};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::gptq::HeldOutLoss;
use super::gram::Gram;
use crate::arch::Config;
use crate::random::Random;
use crate::runner::layerwise::Tap;
use kernels::{self, Isa};

/// What makes a tap's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producer {
    /// A norm's weight, by its name in a layer.
    Norm(&'static str),
    /// The rows of a matrix.
    Rows(&'static str),
}

/// What makes the input of a tap.
pub fn producer(tap: Tap) -> Producer {
    match tap {
        Tap::Attention => Producer::Norm("attn_norm"),
        Tap::Output => Producer::Rows("attn_v"),
        Tap::FeedForward => Producer::Norm("ffn_norm"),
        Tap::Down => Producer::Rows("ffn_up"),
    }
}

/// Whether rows of blocks of this type can be multiplied by a power of two by changing their halves.
pub fn scalable(dtype: DType) -> bool {
    let halves = dtype.info().fields.iter().any(|f| f.number == Number::F16);
    // These are ternary by training, and have no scales to move.
    let ternary = dtype.info().family == Family::Ternary;
    halves && !ternary || matches!(dtype, DType::F32 | DType::BF16)
}

/// Divides the weights of a row by a power of two.
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

/// Whether a row keeps all its bits when it is divided by a power of two: halves near zero have fewer.
pub fn exact(dtype: DType, row: &[u8], by: f32) -> bool {
    let mut there = row.to_vec();
    divide(dtype, &mut there, by);
    divide(dtype, &mut there, 1.0 / by);
    there == row
}

/// Takes scales of columns nearer to one, power by power, where the channel that they divide says so.
pub fn limit(config: &Config, tap: Tap, s: &mut [f32], exact: impl Fn(usize, f32) -> bool) {
    let mut all = channels(config, tap, s);
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

/// Channels of the producer's output, from those of a tap's input: the heads of queries that share a head of values
/// have one scale for each of its channels.
pub fn channels(config: &Config, tap: Tap, s: &[f32]) -> Vec<f32> {
    if tap != Tap::Output {
        return s.to_vec();
    }
    let (head, group) = (config.head as usize, (config.heads / config.kv_heads) as usize);
    s.chunks_exact(head * group).flat_map(|heads| &heads[..head]).copied().collect()
}

/// What columns are like: the roots of the mean squares of their inputs and of their weights.
fn magnitudes(config: &Config, tap: Tap, gram: &Gram, matrices: &[&[f32]]) -> (Vec<f32>, Vec<f32>) {
    let n = gram.width;
    let mut x: Vec<f32> = gram.means();
    let mut w = vec![0f64; n];
    let rows: usize = matrices.iter().map(|m| m.len() / n).sum();
    for row in matrices.iter().flat_map(|m| m.chunks_exact(n)) {
        w.iter_mut().zip(row).for_each(|(s, x)| *s += f64::from(*x) * f64::from(*x));
    }
    let mut w: Vec<f32> = w.iter().map(|s| (s / rows.max(1) as f64) as f32).collect();
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

/// Rows of a matrix that are tried.
const ROWS: usize = 128;

/// A matrix as the search for scales sees it.
pub struct Consumer<'a> {
    /// `[rows, width]`.
    pub weights: &'a [f32],
    /// What it becomes.
    pub dtype: DType,
    /// What columns count.
    pub importance: &'a [f32],
}

/// The scales of a tap's columns with the least loss on held-out tokens when its matrices are quantized into their own
/// types by themselves; `None` if none are better than ones. Those of rows are powers of two, which blocks' halves
/// take exactly.
pub fn search(
    isa: Isa,
    config: &Config,
    tap: Tap,
    (gram, held): (&Gram, &Gram),
    matrices: &[Consumer],
    how: &Encode,
) -> Option<Vec<f32>> {
    let n = gram.width;
    let all: Vec<&[f32]> = matrices.iter().map(|m| m.weights).collect();
    let (x, w) = magnitudes(config, tap, gram, &all);
    let samples: Vec<Vec<f32>> = matrices
        .iter()
        .map(|m| {
            let rows = m.weights.len() / n;
            let count = rows.min(ROWS);
            (0..count).flat_map(|i| &m.weights[i * rows / count * n..][..n]).copied().collect()
        })
        .collect();
    let plain = Gram { h: held.h.clone(), tokens: held.tokens, ..Gram::new(n, false) };
    let cost = |s: &[f32]| -> Vec<f64> {
        let tried = matrices.iter().zip(&samples);
        tried
            .map(|(m, sample)| HeldOutLoss::new(isa, sample, &plain).loss(&rounded(isa, m, sample, s, how)))
            .collect()
    };
    let ones = vec![1f32; n];
    let usual = cost(&ones);
    let mut best: (f64, Option<Vec<f32>>) = (0.995 * matrices.len() as f64, None);
    for step in 1..=20 {
        // The published forms: of inputs alone, and of inputs and weights.
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
        let (least, most) = s.iter().fold((f32::MAX, 0f32), |(a, b), s| (a.min(*s), b.max(*s)));
        let middle = (least * most).sqrt();
        s.iter_mut().for_each(|s| *s = (*s / middle).clamp(1.0 / 256.0, 256.0));
        if matches!(producer(tap), Producer::Rows(_)) {
            s.iter_mut().for_each(|s| *s = s.log2().round().exp2());
        }
        let total = cost(&s).iter().zip(&usual).map(|(a, b)| if *b > 0.0 { a / b } else { 1.0 }).sum();
        if total < best.0 {
            best = (total, Some(s));
        }
    }
    best.1
}

/// Scales between a quarter and four; of rows, powers of two.
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

/// What becomes of rows when their columns are multiplied by s, quantized, and divided again.
fn rounded(isa: Isa, matrix: &Consumer, rows: &[f32], s: &[f32], how: &Encode) -> Vec<f32> {
    let n = s.len();
    let codec = kernels::codec_for(matrix.dtype, isa).expect("plans encode into types that have a codec");
    let size = matrix.dtype.bytes_for(n as u64).expect("whole blocks") as usize;
    let importance: Vec<f32> = matrix.importance.iter().zip(s).map(|(i, s)| i / (s * s)).collect();
    let mut out = vec![0f32; rows.len()];
    out.par_chunks_exact_mut(n).zip(rows.par_chunks_exact(n)).for_each(|(out, row)| {
        let scaled: Vec<f32> = row.iter().zip(s).map(|(x, s)| x * s).collect();
        let mut bytes = vec![0u8; size];
        codec.encode(&scaled, &Encode { importance: Some(&importance), ..*how }, &mut bytes);
        codec.decode(&bytes, out);
        out.iter_mut().zip(s).for_each(|(x, s)| *x /= s);
    });
    out
}
