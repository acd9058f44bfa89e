//! Measures speed: tokens per second of prompts and of generation, and the memory bandwidth to compare them with.

use std::time::Instant;

use serde::Serialize;

use super::{KvType, Network, Run, State, forward};
use crate::error::Result;
use kernels::{float, parallel};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens that are generated.
    pub generate: usize,
    /// How often each measurement is repeated.
    pub repeats: usize,
    /// Tokens of a prompt that are processed at a time.
    pub batch: usize,
    /// The type of the KV cache.
    pub kv: KvType,
}

/// The median, the smallest and the largest of several measurements.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of at least one number; NaN for none.
    pub fn of(mut x: Vec<f64>) -> Self {
        x.sort_by(f64::total_cmp);
        let at = |i: usize| x.get(i).copied().unwrap_or(f64::NAN);
        let n = x.len().max(1);
        Self { median: (at((n - 1) / 2) + at(n / 2)) / 2.0, min: at(0), max: at(n - 1) }
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Tokens per second of the prompt.
    pub prompt_tokens_per_second: Option<Spread>,
    /// Seconds from the prompt to the first new token.
    pub seconds_to_first_token: Option<Spread>,
    /// Tokens per second of generation.
    pub generate_tokens_per_second: Option<Spread>,
    /// Bytes of weights read per second during generation.
    pub weight_bytes_per_second: Option<Spread>,
    /// Bytes per second at which the same threads read the same weights without computing.
    pub read_bytes_per_second: Spread,
    /// Bytes of weights that are read for each token.
    pub weight_bytes: u64,
    /// The process's anonymous memory in bytes after the measurement, where the operating system tells (Linux:
    /// `RssAnon`).
    pub peak_own_bytes: Option<u64>,
    /// Peak of the resident memory in bytes, mapped files included, where the operating system tells (Linux: `VmHWM`).
    pub peak_resident_bytes: Option<u64>,
}

/// Measures prompts, generation and plain reading of the weights, in turn; `tick` is called after each.
///
/// # Errors
/// Those of [`State::new`] and [`forward`].
pub fn measure(network: &Network, plan: Plan, tick: &dyn Fn()) -> Result<Measured> {
    let mut state = State::new(network, plan.kv, 1, plan.prompt.max(1) + plan.generate)?;
    let vocab = network.vocab() as u64;
    // Arbitrary tokens, the same each time.
    let token = |i: usize| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % vocab;
    let prompt: Vec<u32> = (0..plan.prompt).map(|i| token(i) as u32).collect();
    let (mut prompts, mut firsts, mut generated, mut reads) = (vec![], vec![], vec![], vec![]);
    read(network);
    forward(network, &mut state, &[Run { sequence: 0, tokens: &[token(0) as u32] }], &[0])?;
    for _ in 0..plan.repeats {
        state.clear();
        if plan.prompt > 0 {
            let start = Instant::now();
            take_in(network, &mut state, &prompt, plan.batch)?;
            let seconds = start.elapsed().as_secs_f64();
            prompts.push(plan.prompt as f64 / seconds);
            firsts.push(seconds);
            tick();
        }
        if plan.generate > 0 {
            state.clear();
            let start = Instant::now();
            for i in 0..plan.generate {
                forward(network, &mut state, &[Run { sequence: 0, tokens: &[token(i) as u32] }], &[0])?;
            }
            generated.push(plan.generate as f64 / start.elapsed().as_secs_f64());
            tick();
        }
        reads.push(read(network));
    }
    let weight_bytes = network.bytes_per_token();
    let some = |x: Vec<f64>| (!x.is_empty()).then(|| Spread::of(x));
    Ok(Measured {
        prompt_tokens_per_second: some(prompts),
        seconds_to_first_token: some(firsts),
        weight_bytes_per_second: some(generated.iter().map(|g| g * weight_bytes as f64).collect()),
        generate_tokens_per_second: some(generated),
        read_bytes_per_second: Spread::of(reads),
        weight_bytes,
        peak_own_bytes: status("RssAnon"),
        peak_resident_bytes: status("VmHWM"),
    })
}

/// Processes a prompt in batches of `batch` tokens, and gives the logits after its last token.
///
/// # Errors
/// Those of [`forward`].
pub fn take_in(network: &Network, state: &mut State, tokens: &[u32], batch: usize) -> Result<Vec<f32>> {
    let mut logits = Vec::new();
    let parts = tokens.len().div_ceil(batch);
    for (i, tokens) in tokens.chunks(batch).enumerate() {
        let wanted = if i + 1 == parts { vec![tokens.len() - 1] } else { vec![] };
        logits = forward(network, state, &[Run { sequence: 0, tokens }], &wanted)?;
    }
    Ok(logits)
}

/// Bytes per second at which the weights are read without computing.
fn read(network: &Network) -> f64 {
    let start = Instant::now();
    let parts: Vec<&[u8]> = network.matrices().flat_map(|m| m.stored().chunks(1 << 20)).collect();
    std::hint::black_box(parallel::map_items(parts, &|_, part| float::touch(network.isa, part)));
    network.bytes_per_token() as f64 / start.elapsed().as_secs_f64()
}

/// A value of Linux' `/proc/self/status`, in bytes.
fn status(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
