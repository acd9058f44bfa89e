//! Attention over a cache of keys and values (arXiv 1706.03762), several queries at a time.
//!
//! Keys of [`KEYS`] tokens stand side by side, so that their scores are lanes; values stand token by token, so that
//! their sums are. **Definition.** A score is the sum over dimensions, in order, of query · key, in one sum for each
//! 32 dimensions where keys are in 8-bit codes (then times their scale), in one sum for all elsewhere; a result is
//! the sum over tokens, in order, of weight · value.

use formats::block::{f16_to_f32, f32_to_f16};

use super::float::soft_max;
use super::isa::per_isa;
use super::{Aligned, Isa};

/// Tokens whose keys stand side by side.
pub const KEYS: usize = 16;
/// Queries that go through together.
const TEAM: usize = 4;
/// Dimensions under one scale.
const GROUP: usize = 32;

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As f32.
    F32,
    /// As halves.
    F16,
    /// As 8-bit codes, 32 under a scale that is a half.
    Q8_0,
}

impl Kind {
    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::Q8_0].into_iter().find(|k| k.name() == name)
    }

    /// "f32", "f16" or "q8_0".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }
}

/// Numbers of one kind.
enum Store {
    F32(Aligned<f32>),
    F16(Aligned<u16>),
    Q8_0 { codes: Aligned<i8>, scales: Aligned<f32> },
}

impl Store {
    fn new(kind: Kind, numbers: usize) -> Self {
        match kind {
            Kind::F32 => Self::F32(Aligned::zeros(numbers)),
            Kind::F16 => Self::F16(Aligned::zeros(numbers)),
            Kind::Q8_0 => {
                Self::Q8_0 { codes: Aligned::zeros(numbers), scales: Aligned::zeros(numbers.div_ceil(GROUP)) }
            }
        }
    }
}

/// Keys and values of one head over the tokens of one sequence.
pub struct Head {
    dim: usize,
    /// `[capacity / KEYS, dim, KEYS]`; scales `[capacity / KEYS, dim / GROUP, KEYS]`.
    keys: Store,
    /// `[capacity, dim]`; scales `[capacity, dim / GROUP]`.
    values: Store,
}

impl Head {
    /// Room for `capacity` tokens of `dim` dimensions.
    ///
    /// # Panics
    /// If 32 does not divide the dimensions of a [`Kind::Q8_0`].
    pub fn new(kind: Kind, dim: usize, capacity: usize) -> Self {
        assert!(kind != Kind::Q8_0 || dim.is_multiple_of(GROUP));
        let numbers = capacity.next_multiple_of(KEYS) * dim;
        Self { dim, keys: Store::new(kind, numbers), values: Store::new(kind, numbers) }
    }

    /// Keeps the key and value of the token at `position`.
    pub fn put(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let (dim, block, lane) = (self.dim, position / KEYS, position % KEYS);
        match &mut self.keys {
            Store::F32(k) => {
                key.iter().enumerate().for_each(|(d, &x)| k[(block * dim + d) * KEYS + lane] = x);
            }
            Store::F16(k) => {
                key.iter().enumerate().for_each(|(d, &x)| k[(block * dim + d) * KEYS + lane] = half(x));
            }
            Store::Q8_0 { codes, scales } => {
                for (g, x) in key.chunks_exact(GROUP).enumerate() {
                    let (scale, inverse) = scale(x);
                    scales[(block * (dim / GROUP) + g) * KEYS + lane] = scale;
                    for (i, &x) in x.iter().enumerate() {
                        codes[(block * dim + g * GROUP + i) * KEYS + lane] = code(x, inverse);
                    }
                }
            }
        }
        match &mut self.values {
            Store::F32(v) => v[position * dim..][..dim].copy_from_slice(value),
            Store::F16(v) => {
                v[position * dim..][..dim].iter_mut().zip(value).for_each(|(v, &x)| *v = half(x));
            }
            Store::Q8_0 { codes, scales } => {
                for (g, x) in value.chunks_exact(GROUP).enumerate() {
                    let (scale, inverse) = scale(x);
                    scales[position * (dim / GROUP) + g] = scale;
                    let codes = &mut codes[position * dim + g * GROUP..][..GROUP];
                    codes.iter_mut().zip(x).for_each(|(q, &x)| *q = code(x, inverse));
                }
            }
        }
    }

    /// Attends with each of some queries: the `i`th sees the first `seen(i)` tokens. `queries` and `out` are
    /// `[queries, dim]`; `scores` is scratch.
    pub fn attend(
        &self,
        isa: Isa,
        queries: &[f32],
        seen: impl Fn(usize) -> usize,
        scale: f32,
        scores: &mut Aligned<f32>,
        out: &mut [f32],
    ) {
        let dim = self.dim;
        let count = queries.len() / dim;
        let mut first = 0;
        while first < count {
            let n = (count - first).min(TEAM);
            let most = (first..first + n).map(&seen).max().unwrap_or(0);
            let width = most.next_multiple_of(KEYS);
            // A short team's last query stands in for those that are missing.
            let rows: [usize; TEAM] = std::array::from_fn(|i| first + i.min(n - 1));
            scores.resize(TEAM * width);
            scores_of(isa, &self.keys, dim, queries, rows, scores, width);
            for i in 0..n {
                let (scores, seen) = (&mut scores[i * width..][..width], seen(first + i));
                soft_max(isa, &mut scores[..seen], scale);
                scores[seen..].fill(0.0);
            }
            for i in n..TEAM {
                scores[i * width..][..width].fill(0.0);
            }
            let mut part = [0f32; TEAM * LANES];
            for d in (0..dim).step_by(LANES) {
                let lanes = LANES.min(dim - d);
                sums_of(isa, &self.values, dim, d, scores, width, most, &mut part);
                for i in 0..n {
                    out[(first + i) * dim + d..][..lanes].copy_from_slice(&part[i * LANES..][..lanes]);
                }
            }
            first += n;
        }
    }
}

fn half(x: f32) -> u16 {
    f32_to_f16(x)
}

fn scale(x: &[f32]) -> (f32, f32) {
    let peak = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    (f16_to_f32(f32_to_f16(peak / 127.0)), if peak > 0.0 { 127.0 / peak } else { 0.0 })
}

fn code(x: f32, inverse: f32) -> i8 {
    (x * inverse).round_ties_even().clamp(-128.0, 127.0) as i8
}

per_isa! {
    fn scores_of(keys: &Store, dim: usize, queries: &[f32], rows: [usize; TEAM], scores: &mut [f32], width: usize)
        = scores_body
}

/// Scores of a team of queries with all keys; for a block of keys they stay in registers.
#[inline(always)]
fn scores_body(
    keys: &Store,
    dim: usize,
    queries: &[f32],
    rows: [usize; TEAM],
    scores: &mut [f32],
    width: usize,
) {
    // Copied so that a query's numbers for a dimension stand together.
    let query = |d: usize, i: usize| queries[rows[i] * dim + d];
    let mut together = vec![[0f32; TEAM]; dim];
    for (d, q) in together.iter_mut().enumerate() {
        for i in 0..TEAM {
            q[i] = query(d, i);
        }
    }
    for block in 0..width / KEYS {
        let mut sum = [[0f32; KEYS]; TEAM];
        match keys {
            Store::F32(k) => {
                let k = &k.as_chunks::<KEYS>().0[block * dim..][..dim];
                for (q, k) in together.iter().zip(k) {
                    for i in 0..TEAM {
                        for l in 0..KEYS {
                            sum[i][l] = q[i].mul_add(k[l], sum[i][l]);
                        }
                    }
                }
            }
            Store::F16(k) => {
                let k = &k.as_chunks::<KEYS>().0[block * dim..][..dim];
                for (q, k) in together.iter().zip(k) {
                    let k = halves(k);
                    for i in 0..TEAM {
                        for l in 0..KEYS {
                            sum[i][l] = q[i].mul_add(k[l], sum[i][l]);
                        }
                    }
                }
            }
            Store::Q8_0 { codes, scales } => {
                let groups = dim / GROUP;
                let codes = &codes.as_chunks::<KEYS>().0[block * dim..][..dim];
                let scales = &scales.as_chunks::<KEYS>().0[block * groups..][..groups];
                for g in 0..groups {
                    let mut part = [[0f32; KEYS]; TEAM];
                    for d in g * GROUP..(g + 1) * GROUP {
                        for i in 0..TEAM {
                            for l in 0..KEYS {
                                part[i][l] = together[d][i].mul_add(f32::from(codes[d][l]), part[i][l]);
                            }
                        }
                    }
                    for i in 0..TEAM {
                        for l in 0..KEYS {
                            sum[i][l] = part[i][l].mul_add(scales[g][l], sum[i][l]);
                        }
                    }
                }
            }
        }
        for i in 0..TEAM {
            scores[i * width + block * KEYS..][..KEYS].copy_from_slice(&sum[i]);
        }
    }
}

/// Sixteen halves as floats, without branches: shifting aligns exponents, a product mends their offset (and makes
/// the small ones normal).
#[inline(always)]
fn halves(h: &[u16; KEYS]) -> [f32; KEYS] {
    let mut out = [0f32; KEYS];
    for l in 0..KEYS {
        let bits = u32::from(h[l]);
        let size = f32::from_bits((bits & 0x7FFF) << 13) * f32::from_bits(0x7780_0000);
        out[l] = f32::from_bits(size.to_bits() | (bits & 0x8000) << 16);
    }
    out
}

/// Dimensions of results that go through together.
const LANES: usize = 32;

per_isa! {
    fn sums_of(values: &Store, dim: usize, d: usize, weights: &[f32], width: usize, seen: usize,
               out: &mut [f32; TEAM * LANES]) = sums_body
}

/// Sums of values for dimensions `d..d + LANES`, as many as there are.
#[inline(always)]
fn sums_body(
    values: &Store,
    dim: usize,
    d: usize,
    weights: &[f32],
    width: usize,
    seen: usize,
    out: &mut [f32; TEAM * LANES],
) {
    let mut sum = [[0f32; LANES]; TEAM];
    let lanes = LANES.min(dim - d);
    let weights: [&[f32]; TEAM] = [
        &weights[..width][..seen],
        &weights[width..][..seen],
        &weights[2 * width..][..seen],
        &weights[3 * width..][..seen],
    ];
    let mut value = [0f32; LANES];
    for t in 0..seen {
        let at = t * dim + d;
        match values {
            Store::F32(v) if lanes == LANES => value.copy_from_slice(&v[at..at + LANES]),
            Store::F16(v) if lanes == LANES => {
                let (v, _) = v[at..at + LANES].as_chunks::<KEYS>();
                value[..KEYS].copy_from_slice(&halves(&v[0]));
                value[KEYS..].copy_from_slice(&halves(&v[1]));
            }
            Store::F32(v) => value[..lanes].copy_from_slice(&v[at..at + lanes]),
            Store::F16(v) => {
                for l in 0..lanes {
                    value[l] = f16_to_f32(v[at + l]);
                }
            }
            Store::Q8_0 { codes, scales } => {
                let scale = scales[at / GROUP];
                for (value, q) in value.iter_mut().zip(&codes[at..at + LANES]) {
                    *value = f32::from(*q) * scale;
                }
            }
        }
        for i in 0..TEAM {
            let w = weights[i][t];
            for l in 0..LANES {
                sum[i][l] = w.mul_add(value[l], sum[i][l]);
            }
        }
    }
    out.copy_from_slice(sum.as_flattened());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dot::tests::noise;

    #[test]
    fn it_is_attention() {
        for (dim, tokens) in [(64, 37), (32, 1), (6, 19), (128, 64)] {
            let mut next = noise(dim as u32);
            let keys: Vec<f32> = (0..tokens * dim).map(|_| next()).collect();
            let values: Vec<f32> = (0..tokens * dim).map(|_| next()).collect();
            let count = 7;
            let queries: Vec<f32> = (0..count * dim).map(|_| 4.0 * next()).collect();
            let seen = |i: usize| (tokens * (i + 1) / count).max(1);
            let truth: Vec<f64> = (0..count)
                .flat_map(|i| {
                    let q = &queries[i * dim..][..dim];
                    let e: Vec<f64> = (0..seen(i))
                        .map(|t| {
                            let k = &keys[t * dim..][..dim];
                            (0.3 * q.iter().zip(k).map(|(q, k)| f64::from(q * k)).sum::<f64>()).exp()
                        })
                        .collect();
                    let total: f64 = e.iter().sum();
                    (0..dim)
                        .map(|d| {
                            e.iter()
                                .enumerate()
                                .map(|(t, e)| e / total * f64::from(values[t * dim + d]))
                                .sum()
                        })
                        .collect::<Vec<f64>>()
                })
                .collect();
            for (kind, near) in [(Kind::F32, 1e-5), (Kind::F16, 1e-2), (Kind::Q8_0, 5e-2)] {
                if kind == Kind::Q8_0 && dim % GROUP != 0 {
                    continue;
                }
                let mut head = Head::new(kind, dim, tokens);
                for t in 0..tokens {
                    head.put(t, &keys[t * dim..][..dim], &values[t * dim..][..dim]);
                }
                let run = |isa| {
                    let mut out = vec![f32::NAN; count * dim];
                    head.attend(isa, &queries, seen, 0.3, &mut Aligned::default(), &mut out);
                    out
                };
                let found = run(Isa::Portable);
                for (found, truth) in found.iter().zip(&truth) {
                    assert!((f64::from(*found) - truth).abs() < near, "{kind:?} {dim}: {found} {truth}");
                }
                for isa in Isa::available() {
                    assert_eq!(found, run(isa), "{kind:?} {dim} {}", isa.name());
                }
            }
        }
    }

    #[test]
    fn all_halves() {
        for h in 0..=u16::MAX {
            let truth = f16_to_f32(h);
            if truth.is_finite() {
                assert_eq!(halves(&[h; KEYS])[3].to_bits(), truth.to_bits());
            }
        }
    }
}
