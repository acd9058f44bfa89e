//! What layer by layer is computed and chosen, against the definitions.

mod activations;
mod awq;
mod gptq;

use std::path::Path;

use crate::random::Random;
use crate::source::Source;

fn demo(name: &str) -> Source {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name);
    crate::open(&path, &crate::Options::default()).unwrap()
}

/// The tiny checkpoints of every architecture in the folder of published files, which is beside the repository or where
/// `GGUFKIT_SHARED` says.
fn published() -> impl Iterator<Item = Source> {
    let folder = std::env::var_os("GGUFKIT_SHARED").map(std::path::PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let names = ["llama", "llama-tied-mha", "llama3-rope", "mistral", "qwen2", "qwen3", "bitnet-bf16"];
    names.into_iter().map(move |name| {
        let found = folder.join("data/reference-logits").join(name);
        let why = "see CONTRIBUTING.md, or set GGUFKIT_SHARED";
        crate::open(&found, &crate::Options::default()).unwrap_or_else(|e| panic!("{e}: {why}"))
    })
}

/// Chunks of tokens without a pattern.
fn chunks(count: usize, context: usize, vocab: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut random = Random::new(seed);
    (0..count).map(|_| (0..context).map(|_| random.below(vocab as u64) as u32).collect()).collect()
}

/// Numbers around zero.
fn numbers(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| ((0..4).map(|_| random.unit()).sum::<f64>() - 2.0) as f32).collect()
}

/// Inputs that have something in common, and columns of very different sizes.
fn inputs(random: &mut Random, tokens: usize, width: usize) -> Vec<f32> {
    let sizes: Vec<f32> = (0..width).map(|_| (2.0 * random.unit() - 1.0).exp() as f32).collect();
    let mixes = numbers(random, 3 * width);
    let mut out = Vec::new();
    for _ in 0..tokens {
        let (own, common) = (numbers(random, width), numbers(random, 3));
        out.extend((0..width).map(|i| {
            let shared: f32 = (0..3).map(|c| common[c] * mixes[c * width + i]).sum();
            sizes[i] * (own[i] + 0.6 * shared)
        }));
    }
    out
}

/// Root mean square of the difference over that of the second.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (error / b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()).sqrt()
}
