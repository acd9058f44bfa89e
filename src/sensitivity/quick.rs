//! Sensitivities guessed without looking at weights or texts: what matrices of a kind usually are like.
//!
//! The figures are those of a small model that was measured (`ggufkit sensitivity`, docs/fitting.md), with values and the
//! variant down raised towards what is known of models of 7 billion weights, where they are said to be the most sensitive
//! (llama.cpp, issue 1256). They put types in a sensible order; their sum is no more than an order of magnitude.

use formats::block::{DType, TYPES};
use formats::model::Tensor;

use super::{Matrix, Origin, Probe, Sensitivity};
use crate::arch::Blk;
use crate::error::Result;
use crate::runner::KvType;
use crate::scheme::{Role, role};
use crate::source::Source;

/// What errors cost by kind: nats for an error as large as the outputs; and the error in [`DType::Q4_K`].
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

/// How much more sensitive a layer is than those in the middle.
fn layer_factor(role: Role, layer: u64, layers: u64) -> f64 {
    let end = layer < layers.div_ceil(8) || layer.saturating_add(layers.div_ceil(8)) >= layers;
    match role {
        Role::FfnDown if layer < 2 => 3.0,
        Role::FfnDown | Role::FfnGate | Role::FfnUp if end => 1.6,
        // The first layer's attention sees single tokens only.
        Role::AttnQ | Role::AttnK if layer == 0 => 0.3,
        _ => 1.0,
    }
}

/// Guesses what errors in a model's matrices cost.
///
/// # Errors
/// None; the same type as for what is measured.
pub fn guess(source: &Source) -> Result<Sensitivity> {
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
    Ok(Sensitivity {
        origin: Origin::default(),
        matrices: tensors.iter().filter(|t| t.shape.len() > 1).map(matrix).collect(),
        // A cache in 8 bits loses about this much (llama.cpp, pull request 7412: 0.0008 for a model of 8 billion weights).
        cache: vec![(KvType::F16, 0.0), (KvType::Q8_0, 0.0008)],
    })
}
