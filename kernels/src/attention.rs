//! Attention over a cache of keys and values (arXiv 1706.03762), several queries at a time.
//!
//! Keys of [`KEYS`] tokens stand side by side, so that their scores are lanes; values stand token by token, so that
//! their sums are. **Definition.** A score is the sum over dimensions, in order, of query · key, in one sum for each
//! 32 dimensions where keys are in 8-bit codes (then times their scale), in one sum for all elsewhere; a result is
//! the sum over tokens, in order, of weight · value.

use formats::block::{f16_to_f32, f32_to_f16};

use super::float::soft_max;
use super::lanes::{Lanes, Unit, per_lanes};
use super::{Aligned, Isa};

/// Tokens whose keys stand side by side.
pub const KEYS: usize = 16;
/// Queries whose sums stay in registers.
const TEAM: usize = 8;
/// Queries that keys and values become floats for once.
const CROWD: usize = 64;
/// Tokens whose keys and values are made room for at once, at most.
const AT_ONCE: usize = 1 << 14;
/// Dimensions under one scale.
const GROUP: usize = 32;

/// How the keys and values of a KV cache are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// As f32.
    F32,
    /// As halves.
    F16,
    /// As 8-bit codes, 32 under a scale that is a half.
    Q8_0,
}

impl KvType {
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
    fn new(kind: KvType) -> Self {
        match kind {
            KvType::F32 => Self::F32(Aligned::default()),
            KvType::F16 => Self::F16(Aligned::default()),
            KvType::Q8_0 => Self::Q8_0 { codes: Aligned::default(), scales: Aligned::default() },
        }
    }

    fn grow(&mut self, numbers: usize) {
        match self {
            Self::F32(x) => x.resize(numbers),
            Self::F16(x) => x.resize(numbers),
            Self::Q8_0 { codes, scales } => {
                codes.resize(numbers);
                scales.resize(numbers.div_ceil(GROUP));
            }
        }
    }
}

/// The KV cache of one head: the keys and values of the tokens of one sequence.
///
/// ```
/// use kernels::attention::{KvHead, KvType};
/// use kernels::{Aligned, Isa};
///
/// let mut head = KvHead::new(KvType::F32, 2, 16);
/// head.put(0, &[1.0, 0.0], &[3.0, 4.0]);
/// head.put(1, &[0.0, 1.0], &[5.0, 6.0]);
/// // A query that is near the second key sees both tokens.
/// let mut out = [0.0; 2];
/// head.attend(Isa::current(), &[0.0, 50.0], |_| 2, 1.0, &mut Aligned::default(), &mut out);
/// assert_eq!(out, [5.0, 6.0]);
/// ```
pub struct KvHead {
    dim: usize,
    /// Tokens that there will be at most.
    most: usize,
    /// Tokens that there is room for: more is made as they come.
    capacity: usize,
    /// `[capacity / KEYS, dim, KEYS]`; scales `[capacity / KEYS, dim / GROUP, KEYS]`.
    keys: Store,
    /// `[capacity, dim]`; scales `[capacity, dim / GROUP]`.
    values: Store,
}

impl KvHead {
    /// A cache without tokens, for keys and values of `dim` dimensions and at most `most` tokens.
    ///
    /// # Panics
    /// If there are no dimensions, or 32 does not divide those of a [`KvType::Q8_0`].
    pub fn new(kind: KvType, dim: usize, most: usize) -> Self {
        assert!(
            dim > 0 && (kind != KvType::Q8_0 || dim.is_multiple_of(GROUP)),
            "{dim} dimensions of {}",
            kind.name()
        );
        Self { dim, most, capacity: 0, keys: Store::new(kind), values: Store::new(kind) }
    }

    /// Keeps the key and value of the token at `position`, in place of what was there.
    ///
    /// # Panics
    /// If they are not of as many dimensions as the head.
    pub fn put(&mut self, position: usize, key: &[f32], value: &[f32]) {
        let (dim, block, lane) = (self.dim, position / KEYS, position % KEYS);
        assert!(key.len() == dim && value.len() == dim, "a key and a value have {dim} numbers each");
        if position >= self.capacity {
            // What there will be at most is taken at once, unless that is very much: steps would leave gaps in memory.
            let step = if self.most <= AT_ONCE { self.most } else { self.capacity + self.capacity / 2 };
            let more = step.next_multiple_of(8 * KEYS);
            let capacity = more.min(self.most).max(position + 1).checked_next_multiple_of(KEYS);
            let numbers = capacity.and_then(|tokens| tokens.checked_mul(dim)).expect("keys fit into memory");
            self.keys.grow(numbers);
            self.values.grow(numbers);
            self.capacity = numbers / dim;
        }
        match &mut self.keys {
            Store::F32(k) => {
                key.iter().enumerate().for_each(|(d, &x)| k[(block * dim + d) * KEYS + lane] = x);
            }
            Store::F16(k) => {
                // Halves side by side first, which is vectors' work.
                let place = k[block * dim * KEYS..][..dim * KEYS].as_chunks_mut::<KEYS>().0;
                for (key, place) in key.chunks(GROUP).zip(place.chunks_mut(GROUP)) {
                    let mut halves = [0; GROUP];
                    halves.iter_mut().zip(key).for_each(|(h, &x)| *h = half(x));
                    place.iter_mut().zip(halves).for_each(|(k, h)| k[lane] = h);
                }
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

    /// Attends with each of some queries: the `i`th sees the first `seen(i)` tokens, one at least and no fewer than the one
    /// before. `queries` and `out` are `[queries, dim]`; products of queries and keys are multiplied by `scale`; `scores` is
    /// memory to work in, whatever is there.
    ///
    /// # Panics
    /// If sizes do not agree, or a query is to see more tokens than there is room for, none, or fewer than the one before.
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
        assert!(
            queries.len() == out.len() && queries.len().is_multiple_of(dim),
            "queries and results have {dim} numbers"
        );
        let part = CROWD * dim;
        for (c, (queries, out)) in queries.chunks(part).zip(out.chunks_mut(part)).enumerate() {
            let seen: Vec<usize> = (0..queries.len() / dim).map(|i| seen(c * CROWD + i)).collect();
            self.attend_together(isa, queries, &seen, scale, scores, out);
        }
    }

    /// [`KvHead::attend`] with few queries. Not generic, and so compiled with this crate.
    fn attend_together(
        &self,
        isa: Isa,
        queries: &[f32],
        seen: &[usize],
        scale: f32,
        scores: &mut Aligned<f32>,
        out: &mut [f32],
    ) {
        let (dim, count) = (self.dim, seen.len());
        assert!(
            seen[0] > 0 && seen.is_sorted() && seen[count - 1] <= self.capacity,
            "tokens that are not there"
        );
        let width = seen[count - 1].next_multiple_of(KEYS);
        // Whole teams; those that are missing score zero with everything.
        let teams = count.div_ceil(TEAM);
        let mut together = vec![[0f32; TEAM]; teams * dim];
        for (i, query) in queries.chunks_exact(dim).enumerate() {
            for (d, x) in query.iter().enumerate() {
                together[i / TEAM * dim + d][i % TEAM] = *x;
            }
        }
        scores.resize(teams * TEAM * width);
        scores_of(isa, &self.keys, dim, &together, seen, scores, width);
        for (scores, &seen) in scores.chunks_exact_mut(width).zip(seen) {
            soft_max(isa, &mut scores[..seen], scale);
            scores[seen..].fill(0.0);
        }
        scores[count * width..].fill(0.0);
        sums_of(isa, &self.values, dim, seen, scores, width, out);
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

per_lanes! {
    fn scores_of(keys: &Store, dim: usize, queries: &[[f32; TEAM]], seen: &[usize], scores: &mut [f32], width: usize)
        = scores_body
}

/// Scores of all queries with all keys that they see. The keys of a block become floats once for all queries.
#[inline(always)]
fn scores_body<U: Unit>(
    unit: U,
    keys: &Store,
    dim: usize,
    queries: &[[f32; TEAM]],
    seen: &[usize],
    scores: &mut [f32],
    width: usize,
) {
    let zero = [0f32; KEYS];
    let mut block_keys = vec![zero; dim];
    let mut scales = vec![[1f32; KEYS]; dim.div_ceil(GROUP)];
    // Where keys have no scales there is one sum for all dimensions.
    let mut group = dim;
    for block in 0..width / KEYS {
        match keys {
            Store::F32(k) => block_keys.copy_from_slice(&k.as_chunks::<KEYS>().0[block * dim..][..dim]),
            Store::F16(k) => {
                let k = &k.as_chunks::<KEYS>().0[block * dim..][..dim];
                for d in 0..dim {
                    unit.halves(&k[d]).store(&mut block_keys[d]);
                }
            }
            Store::Q8_0 { codes, scales: stored } => {
                group = GROUP;
                let codes = &codes.as_chunks::<KEYS>().0[block * dim..][..dim];
                for d in 0..dim {
                    unit.codes(&codes[d]).store(&mut block_keys[d]);
                }
                let groups = dim / GROUP;
                scales.copy_from_slice(&stored.as_chunks::<KEYS>().0[block * groups..][..groups]);
            }
        }
        for (team, queries) in queries.chunks_exact(dim).enumerate() {
            let last = seen[((team + 1) * TEAM - 1).min(seen.len() - 1)];
            if block * KEYS >= last {
                continue;
            }
            let mut sum = [unit.splat(0.0); TEAM];
            // Indices, not iterators side by side: those are calls where the compiler splits the crate into units.
            let mut start = 0;
            while start < dim {
                let end = dim.min(start + group);
                let mut part = [unit.splat(0.0); TEAM];
                for d in start..end {
                    let k = unit.load(&block_keys[d]);
                    for i in 0..TEAM {
                        part[i] = k.fma(unit.splat(queries[d][i]), part[i]);
                    }
                }
                let scale = unit.load(&scales[start / group]);
                start = end;
                for i in 0..TEAM {
                    sum[i] = part[i].fma(scale, sum[i]);
                }
            }
            for i in 0..TEAM {
                let at = (team * TEAM + i) * width + block * KEYS;
                let out = &mut scores[at..at + KEYS];
                sum[i].store(out.try_into().expect("a block"));
            }
        }
    }
}

per_lanes! {
    fn sums_of(values: &Store, dim: usize, seen: &[usize], weights: &[f32], width: usize, out: &mut [f32]) = sums_body
}

/// Sums of values, sixteen dimensions at a time, which become floats once for all queries.
#[inline(always)]
fn sums_body<U: Unit>(
    unit: U,
    values: &Store,
    dim: usize,
    seen: &[usize],
    weights: &[f32],
    width: usize,
    out: &mut [f32],
) {
    let most = seen[seen.len() - 1];
    let mut block_values = vec![[0f32; KEYS]; most];
    for d in (0..dim).step_by(KEYS) {
        let lanes = KEYS.min(dim - d);
        for (t, out) in block_values.iter_mut().enumerate() {
            let at = t * dim + d;
            match values {
                Store::F32(v) if dim.is_multiple_of(KEYS) => *out = v.as_chunks::<KEYS>().0[at / KEYS],
                Store::F16(v) if dim.is_multiple_of(KEYS) => {
                    unit.halves(&v.as_chunks::<KEYS>().0[at / KEYS]).store(out);
                }
                Store::F32(v) => out[..lanes].copy_from_slice(&v[at..at + lanes]),
                Store::F16(v) => {
                    for l in 0..lanes {
                        out[l] = f16_to_f32(v[at + l]);
                    }
                }
                Store::Q8_0 { codes, scales } => {
                    let codes = unit.codes(&codes.as_chunks::<KEYS>().0[at / KEYS]);
                    codes.mul(unit.splat(scales[at / GROUP])).store(out);
                }
            }
        }
        for (team, weights) in weights.chunks_exact(TEAM * width).enumerate() {
            let first = team * TEAM;
            let last = seen[(first + TEAM - 1).min(seen.len() - 1)];
            let mut rows: [&[f32]; TEAM] = [&[]; TEAM];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &weights[i * width..][..last];
            }
            let mut sum = [unit.splat(0.0); TEAM];
            for (t, v) in block_values[..last].iter().enumerate() {
                let v = unit.load(v);
                for i in 0..TEAM {
                    sum[i] = v.fma(unit.splat(rows[i][t]), sum[i]);
                }
            }
            for (i, sum) in sum.iter().enumerate().take(seen.len() - first) {
                let mut part = [0f32; KEYS];
                sum.store(&mut part);
                out[(first + i) * dim + d..][..lanes].copy_from_slice(&part[..lanes]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot::tests::noise;

    #[test]
    fn it_is_attention() {
        for (dim, tokens) in [(64, 37), (32, 1), (6, 19), (24, 40), (128, 64)] {
            let mut next = noise(dim as u32);
            let keys: Vec<f32> = (0..tokens * dim).map(|_| next()).collect();
            let values: Vec<f32> = (0..tokens * dim).map(|_| next()).collect();
            let count = 71;
            let queries: Vec<f32> = (0..count * dim).map(|_| 4.0 * next()).collect();
            let seen = |i: usize| (tokens * (i + 1)).div_ceil(count);
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
            for (kind, near) in [(KvType::F32, 1e-5), (KvType::F16, 1e-2), (KvType::Q8_0, 5e-2)] {
                if kind == KvType::Q8_0 && dim % GROUP != 0 {
                    continue;
                }
                let mut head = KvHead::new(kind, dim, usize::MAX);
                for t in 0..tokens {
                    head.put(t, &keys[t * dim..][..dim], &values[t * dim..][..dim]);
                }
                let run = |isa| {
                    let mut out = vec![f32::NAN; count * dim];
                    head.attend(isa, &queries, seen, 0.3, &mut Aligned::default(), &mut out);
                    out
                };
                let found = run(Isa::PORTABLE);
                for (found, truth) in found.iter().zip(&truth) {
                    assert!((f64::from(*found) - truth).abs() < near, "{kind:?} {dim}: {found} {truth}");
                }
                for isa in Isa::all() {
                    assert_eq!(found, run(isa), "{kind:?} {dim} {}", isa.name());
                }
            }
        }
    }
}
