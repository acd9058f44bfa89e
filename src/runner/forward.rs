//! The computation of a decoder with RMS norms, rotary embeddings (RoPE), grouped-query attention and a gated
//! feed-forward network, in reading order (arXiv 2302.13971, section 2.2; 2505.09388 for norms of attention heads;
//! 2504.12285 for BitNet's sub-norms).

use super::linear::multiply;
use super::network::{Layer, Linear, Network};
use super::state::State;
use crate::error::{Error, Result};
use kernels::attention::KvHead;
use kernels::{Aligned, float, parallel};

/// New tokens of a sequence.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The index of the sequence in the [`State`].
    pub sequence: usize,
    /// The tokens that follow those in the KV cache.
    pub tokens: &'a [u32],
}

/// Processes tokens, appends their keys and values to the KV cache, and gives the logits of the tokens in `wanted`, of
/// shape `[wanted.len(), vocab]`. `wanted` has ascending indices into the tokens of all runs, one run after the other.
///
/// # Errors
/// [`Error::UnknownToken`]; [`Error::ContextFull`]. The state is then unchanged.
///
/// # Panics
/// If a sequence does not exist or comes twice, or an index in `wanted` is out of range.
pub fn forward(network: &Network, state: &mut State, runs: &[Run], wanted: &[usize]) -> Result<Vec<f32>> {
    let (config, isa) = (&network.config, network.isa);
    let (hidden, head) = (config.hidden as usize, config.head as usize);
    let epsilon = config.epsilon as f32;
    let tokens: Vec<u32> = runs.iter().flat_map(|r| r.tokens).copied().collect();
    check(network, state, runs, &tokens)?;
    let rope = rope_table(network, state, runs);
    let mut count = tokens.len();

    let mut x = vec![0f32; count * hidden];
    for (x, &token) in x.chunks_exact_mut(hidden).zip(&tokens) {
        network.embedding.decode(token as usize, x);
    }

    let mut normed = vec![0f32; count * hidden];
    let (queries, keys) = (config.heads as usize * head, config.kv_heads as usize * head);
    let inner = config.intermediate as usize;
    let (mut q, mut k, mut v) =
        (vec![0f32; count * queries], vec![0f32; count * keys], vec![0f32; count * keys]);
    let mut mixed = vec![0f32; count * queries];
    let (mut gate, mut up) = (vec![0f32; count * inner], vec![0f32; count * inner]);
    let mut out = vec![0f32; count * hidden];

    for (n, layer) in network.layers.iter().enumerate() {
        norm(isa, &x, &layer.attn_norm, epsilon, &mut normed);
        let inputs = &mut state.inputs;
        apply(
            isa,
            |jobs| multiply(inputs, &normed, jobs),
            [(&layer.q, &mut q[..]), (&layer.k, &mut k[..]), (&layer.v, &mut v[..])],
        );
        each(count, &mut q, |t, q| {
            apply_rope(network, layer.q_norm.as_deref(), &rope[t * head..][..head], q)
        });
        each(count, &mut k, |t, k| {
            apply_rope(network, layer.k_norm.as_deref(), &rope[t * head..][..head], k)
        });
        attend(network, state, runs, n, &q, &k, &v, &mut mixed);
        if n + 1 == network.layers.len() {
            // All that follows concerns the wanted tokens only.
            pick(&mut x, wanted, hidden);
            pick(&mut mixed, wanted, queries);
            count = wanted.len();
            if count == 0 {
                break;
            }
            normed.truncate(count * hidden);
            out.truncate(count * hidden);
            gate.truncate(count * inner);
            up.truncate(count * inner);
        }
        if let Some(weight) = &layer.attn_sub_norm {
            norm_in_place(isa, &mut mixed, weight, epsilon);
        }
        let inputs = &mut state.inputs;
        apply(isa, |jobs| multiply(inputs, &mixed, jobs), [(&layer.o, &mut out[..])]);
        add(isa, &mut x, &out, hidden);

        norm(isa, &x, &layer.ffn_norm, epsilon, &mut normed);
        feed_forward(network, layer, state, &normed, &mut gate, &mut up, &mut out);
        add(isa, &mut x, &out, hidden);
    }

    for run in runs {
        state.sequences[run.sequence].len += run.tokens.len();
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    norm(isa, &x, &network.output_norm, epsilon, &mut normed);
    let mut logits = vec![0f32; wanted.len() * network.vocab()];
    let output = network.output.as_ref().unwrap_or(&network.embedding);
    multiply(&mut state.inputs, &normed, vec![(output, &mut logits[..])]);
    Ok(logits)
}

fn check(network: &Network, state: &State, runs: &[Run], tokens: &[u32]) -> Result<()> {
    if let Some(t) = tokens.iter().find(|&&t| t as usize >= network.vocab()) {
        return Err(Error::UnknownToken { token: *t, vocabulary: network.vocab() });
    }
    for (i, run) in runs.iter().enumerate() {
        assert!(runs[..i].iter().all(|r| r.sequence != run.sequence));
        let (tokens, context) = (state.len(run.sequence) + run.tokens.len(), state.capacity);
        if tokens > context {
            return Err(Error::ContextFull { tokens, context });
        }
    }
    Ok(())
}

/// Keeps the wanted rows, of `len` numbers each.
fn pick(rows: &mut Vec<f32>, wanted: &[usize], len: usize) {
    for (to, &from) in wanted.iter().enumerate() {
        rows.copy_within(from * len..(from + 1) * len, to * len);
    }
    rows.truncate(wanted.len() * len);
}

/// The RoPE table: for every token the cosines, then the sines, of its position's angles; `[tokens, head]`.
pub(super) fn rope_table(network: &Network, state: &State, runs: &[Run]) -> Vec<f32> {
    let (angles, size) = &network.angles;
    let mut all = Vec::new();
    for run in runs {
        let start = state.len(run.sequence);
        for position in start..start + run.tokens.len() {
            let of = |f: fn(f64) -> f64| angles.iter().map(move |a| (f(position as f64 * a) * size) as f32);
            all.extend(of(libm::cos));
            all.extend(of(libm::sin));
        }
    }
    all
}

/// Below this many numbers, one thread does all the work.
const SMALL: usize = 1 << 14;
/// So many numbers are worth a task.
const TASK: usize = 1 << 13;

/// Calls `f` with each token's index and its part of `all`, which has equal parts for `count` tokens.
pub(super) fn each(count: usize, all: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    let len = all.len() / count.max(1);
    if all.len() < SMALL {
        all.chunks_exact_mut(len).enumerate().for_each(|(t, x)| f(t, x));
    } else {
        let tokens = (TASK / len).max(1);
        parallel::chunks_mut(all, tokens * len, &|i, all| {
            all.chunks_exact_mut(len).enumerate().for_each(|(t, x)| f(i * tokens + t, x));
        });
    }
}

pub(super) fn norm(isa: kernels::Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let n = weight.len();
    each(x.len() / n, out, |t, out| float::rms_norm(isa, &x[t * n..][..n], weight, epsilon, out));
}

pub(super) fn norm_in_place(isa: kernels::Isa, x: &mut [f32], weight: &[f32], epsilon: f32) {
    each(x.len() / weight.len(), x, |_, x| {
        let before = x.to_vec();
        float::rms_norm(isa, &before, weight, epsilon, x);
    });
}

pub(super) fn add(isa: kernels::Isa, x: &mut [f32], y: &[f32], hidden: usize) {
    each(x.len() / hidden, x, |t, x| float::add(isa, x, &y[t * hidden..][..hidden]));
}

/// Multiplies matrices with the same vectors, then applies their scales and biases.
fn apply<'m, 'a: 'm, const N: usize>(
    isa: kernels::Isa,
    multiply: impl FnOnce(Vec<(&'m super::linear::Matrix<'a>, &mut [f32])>),
    mut jobs: [(&'m Linear<'a>, &mut [f32]); N],
) {
    multiply(jobs.iter_mut().map(|(l, out)| (&l.matrix, &mut **out)).collect());
    for (linear, out) in jobs {
        if let Some(scale) = linear.scale {
            each(out.len() / linear.matrix.rows, out, |_, x| x.iter_mut().for_each(|x| *x *= scale));
        }
        if let Some(bias) = &linear.bias {
            add_bias(isa, out, bias);
        }
    }
}

pub(super) fn add_bias(isa: kernels::Isa, out: &mut [f32], bias: &[f32]) {
    each(out.len() / bias.len(), out, |_, x| float::add(isa, x, bias));
}

/// Applies the RMS norm of attention heads, where there is one, and RoPE to all heads of a token.
pub(super) fn apply_rope(network: &Network, weight: Option<&[f32]>, rope: &[f32], heads: &mut [f32]) {
    for head in heads.chunks_exact_mut(rope.len()) {
        if let Some(weight) = weight {
            let before = head.to_vec();
            float::rms_norm(network.isa, &before, weight, network.config.epsilon as f32, head);
        }
        float::rotate(network.isa, head, rope, network.halves);
    }
}

/// Appends the tokens' keys and values to the KV cache, and computes attention for their queries: `out` is
/// `[tokens, heads × head]`.
#[allow(clippy::too_many_arguments)]
pub(super) fn attend(
    network: &Network,
    state: &mut State,
    runs: &[Run],
    layer: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
) {
    let config = &network.config;
    let (dim, heads, kv_heads) = (config.head as usize, config.heads as usize, config.kv_heads as usize);
    let group = heads / kv_heads;
    let scale = 1.0 / (dim as f32).sqrt();
    // A task for each key/value head of each run, with all query heads that share it (grouped-query attention).
    struct Task<'a> {
        head: &'a mut KvHead,
        index: usize,
        first: usize,
        count: usize,
        start: usize,
    }
    let mut first_of = vec![None; state.sequences.len()];
    let mut first = 0;
    for run in runs {
        first_of[run.sequence] = Some((first, run.tokens.len()));
        first += run.tokens.len();
    }
    let mut tasks = Vec::new();
    for (sequence, range) in state.sequences.iter_mut().zip(first_of) {
        let Some((first, count)) = range else { continue };
        for (index, head) in sequence.heads[layer].iter_mut().enumerate() {
            tasks.push(Task { head, index, first, count, start: sequence.len });
        }
    }
    let work = |task: Task| -> (usize, usize, Vec<f32>) {
        let Task { head, index, first, count, start } = task;
        for t in 0..count {
            let at = ((first + t) * kv_heads + index) * dim;
            head.put(start + t, &k[at..at + dim], &v[at..at + dim]);
        }
        let mut queries = Vec::with_capacity(count * group * dim);
        for t in first..first + count {
            queries.extend_from_slice(&q[(t * heads + index * group) * dim..][..group * dim]);
        }
        let mut out = vec![0f32; queries.len()];
        let seen = |i: usize| start + i / group + 1;
        head.attend(network.isa, &queries, seen, scale, &mut Aligned::default(), &mut out);
        (index, first, out)
    };
    let last = state_len(runs, &tasks.iter().map(|t| t.start).max().unwrap_or(0));
    let results: Vec<_> = if last * q.len() < SMALL {
        tasks.into_iter().map(work).collect()
    } else {
        parallel::map_items(tasks, &|_, task| work(task))
    };
    for (index, first, part) in results {
        for (t, part) in part.chunks_exact(group * dim).enumerate() {
            out[((first + t) * heads + index * group) * dim..][..group * dim].copy_from_slice(part);
        }
    }
}

/// Tokens that the longest sequence will have.
fn state_len(runs: &[Run], start: &usize) -> usize {
    start + runs.iter().map(|r| r.tokens.len()).max().unwrap_or(0)
}

fn feed_forward(
    network: &Network,
    layer: &Layer,
    state: &mut State,
    x: &[f32],
    gate: &mut [f32],
    up: &mut [f32],
    out: &mut [f32],
) {
    let isa = network.isa;
    let inner = network.config.intermediate as usize;
    let inputs = &mut state.inputs;
    apply(isa, |jobs| multiply(inputs, x, jobs), [(&layer.gate, &mut *gate), (&layer.up, &mut *up)]);
    let times = if network.relu2 { float::relu2_times } else { float::silu_times };
    each(gate.len() / inner, gate, |t, gate| times(isa, gate, &up[t * inner..][..inner]));
    if let Some(weight) = &layer.ffn_sub_norm {
        norm_in_place(isa, gate, weight, network.config.epsilon as f32);
    }
    let inputs = &mut state.inputs;
    apply(isa, |jobs| multiply(inputs, gate, jobs), [(&layer.down, out)]);
}
