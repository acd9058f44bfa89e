//! Sensitivities estimated from a tensor's role and layer alone, without weights or texts.
//!
//! The values are measurements of a small model (`ggufkit sensitivity`, docs/fitting.md), with those of the value and down
//! projections raised towards what is reported of models of 7 billion weights, where they are the most sensitive
//! (llama.cpp, issue 1256). They rank types sensibly; their sum gives only the order of magnitude.

use formats::block::{DType, TYPES};
use formats::model::Tensor;

use super::{Matrix, Origin, Probe, Sensitivity};
use crate::arch::Blk;
use crate::runner::KvType;
use crate::scheme::{Role, role};
use crate::source::Source;

/// By role: KL divergence over relative output error, in nats, and the relative output error in [`DType::Q4_K`].
fn typical_cost(role: Role) -> (f64, f64) {
    match role {
        Role::Output => (2.85, 0.0014),
        Role::Embedding => (0.14, 0.0055),
        Role::AttnQ => (0.013, 0.001),
        Role::AttnK => (0.022, 0.001),
        Role::AttnV | Role::AttnQkv | Role::AttnKvB => (0.03, 0.0025),
        Role::AttnOutput => (0.026, 0.001),
        Role::FfnGate => (0.05, 0.0014),
        Role::FfnUp => (0.03, 0.0022),
        Role::FfnDown => (0.06, 0.0025),
        Role::Other | Role::Exempt => (0.02, 0.002),
    }
}

/// How many times as sensitive a layer is as those in the middle of the model.
fn layer_factor(role: Role, layer: u64, layers: u64) -> f64 {
    let end = layer < layers.div_ceil(8) || layer.saturating_add(layers.div_ceil(8)) >= layers;
    match role {
        Role::FfnDown if layer < 2 => 3.0,
        Role::FfnDown | Role::FfnGate | Role::FfnUp if end => 1.6,
        // The first layer's queries and keys see the token embedding only.
        Role::AttnQ | Role::AttnK if layer == 0 => 0.3,
        _ => 1.0,
    }
}

/// Estimates the sensitivity of a model.
pub fn estimate(source: &Source) -> Sensitivity {
    let tensors = &source.model.tensors;
    let layer = |t: &Tensor| Blk::parse(&t.name).map(|blk| blk.layer);
    let layers = tensors.iter().filter_map(layer).max().map_or(1, |n| n.saturating_add(1));
    let tied = !tensors.iter().any(|t| role(&t.name) == Role::Output);
    let matrix = |t: &Tensor| {
        let role = match role(&t.name) {
            Role::Embedding if tied => Role::Output,
            role => role,
        };
        let (coefficient, error) = typical_cost(role);
        let coefficient = coefficient * layer(t).map_or(1.0, |l| layer_factor(role, l, layers));
        Matrix {
            name: t.name.clone(),
            shape: t.shape.clone(),
            probes: vec![Probe { dtype: DType::Q4_K, error, kld: coefficient * error }],
            errors: TYPES.iter().filter_map(|t| Some((t.dtype, t.error? * error))).collect(),
        }
    };
    Sensitivity {
        origin: Origin::default(),
        matrices: tensors.iter().filter(|t| t.shape.len() > 1).map(matrix).collect(),
        // From llama.cpp, pull request 7412: a q8_0 KV cache of a model of 8 billion weights.
        cache: vec![(KvType::F16, 0.0), (KvType::Q8_0, 0.0008)],
    }
}
