//! Layer-by-layer quantization: each matrix is quantized for the inputs that the already quantized layers produce.

use std::path::PathBuf;

use super::activations::Activations;
use super::gptq::Regularization;
use super::layer::Layer;
use super::output;
use super::state::State;
use super::{Chunks, Scratch};
use crate::arch::Blk;
use crate::error::Result;
use crate::outcome::QuantizedTensor;
use crate::plan::Plan;
use crate::runner::Network;
use crate::text;

/// How matrices are quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Method {
    /// GPTQ: each column's rounding error is fed back into the columns not yet rounded.
    pub feedback: bool,
    /// AWQ: columns are scaled before they are quantized.
    pub column_scales: ColumnScales,
    /// Whether GPTQ without column scales is tried too.
    pub also_unscaled: bool,
    /// One of this many chunks is held out, to measure losses on.
    pub hold_out_every: usize,
    /// How Hessians are regularized.
    pub regularization: Regularization,
    /// Whether matrices compensate for the error of the layers before them (GPTAQ).
    pub asymmetric: bool,
    /// Sweeps of coordinate descent, at most.
    pub sweeps: usize,
    /// Whether matrices get biases that cancel their mean error.
    pub bias_correction: bool,
}

impl Method {
    /// What the command line and metadata call it: "awq", "gptq", "awq+gptq" or "auto"; `None` for bias correction alone.
    pub fn name(&self) -> Option<&'static str> {
        match (self.feedback, self.column_scales != ColumnScales::None, self.also_unscaled) {
            (false, false, _) => None,
            (false, true, _) => Some("awq"),
            (true, false, _) => Some("gptq"),
            (true, true, false) => Some("awq+gptq"),
            (true, true, true) => Some("auto"),
        }
    }
}

/// AWQ's column scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnScales {
    /// None.
    None,
    /// The scales with the least loss, wherever any are better than none.
    Searched,
    /// Random scales everywhere, from a seed: for tests that the model still computes the same.
    Random(u64),
}

impl Default for Method {
    fn default() -> Self {
        Self {
            feedback: true,
            column_scales: ColumnScales::None,
            also_unscaled: false,
            hold_out_every: 5,
            regularization: Regularization::default(),
            asymmetric: true,
            sweeps: 3,
            bias_correction: false,
        }
    }
}

/// A layer-by-layer run.
#[derive(Debug, Clone)]
pub struct Sequential {
    /// How matrices are quantized.
    pub method: Method,
    /// The calibration set.
    pub chunks: Chunks,
    /// The folder in which finished layers are saved, so that the run can be resumed.
    pub state: Option<PathBuf>,
}

/// Calibration tokens per column of a matrix from which on more tokens bring little: for error feedback, and for the
/// compensation of the error of earlier layers.
const TOKENS_PER_COLUMN: [u64; 2] = [24, 72];

impl Sequential {
    /// What the user should know about the calibration set's size.
    pub fn notes(&self, plan: &Plan) -> Vec<String> {
        [self.few_tokens(plan), self.few_chunks()].into_iter().flatten().collect()
    }

    /// A note if there are too few chunks to hold one out.
    fn few_chunks(&self) -> Option<String> {
        let chunks = self.chunks.tokens.len();
        (chunks < self.method.hold_out_every).then(|| {
            format!(
                "none of the {chunks} chunks is held out, so losses are those on the tokens that matrices were quantized \
                 for ({} chunks are enough to hold one out)",
                self.method.hold_out_every
            )
        })
    }

    /// A note if the calibration set is small for error feedback.
    fn few_tokens(&self, plan: &Plan) -> Option<String> {
        if !self.method.feedback {
            return None;
        }
        let tokens = self.chunks.token_count() as u64;
        let quantized =
            plan.layout.tensors.iter().filter(|t| Blk::parse(&t.name).is_some() && !t.encoding.is_plain());
        let widest = quantized.max_by_key(|t| t.cols())?;
        let cols = widest.cols();
        (tokens < TOKENS_PER_COLUMN[1] * cols).then(|| {
            let effect = match tokens / cols {
                per if per < TOKENS_PER_COLUMN[0] => "more tokens would help",
                _ => "more tokens would help a little",
            };
            format!(
                "the calibration set has {} tokens, {:.1} for each column of {}: {effect} ({} to {} per column are enough)",
                text::count(tokens),
                tokens as f64 / cols as f64,
                widest.name,
                TOKENS_PER_COLUMN[0],
                TOKENS_PER_COLUMN[1],
            )
        })
    }
}

/// Quantizes the plan's matrices layer by layer. `done` is given each finished tensor, including norms and biases that
/// change along with the matrices; `on_layer` is told how many layers are finished. Layers that `state` already has are
/// read from it.
///
/// # Errors
/// [`crate::Error::UnknownToken`] for tokens beyond the vocabulary; [`crate::Error::InputsNotFinite`] and
/// [`crate::Error::NotFinite`] for activations and weights that are NaN or infinite; [`crate::Error::OutOfRange`] for
/// weights that a type cannot hold; [`crate::Error::DamagedState`] for a damaged state; [`crate::Error::Io`] if activations
/// or the state cannot be written or read; those of `done`.
pub fn run(
    network: &Network,
    plan: &Plan,
    Sequential { chunks, method, .. }: &Sequential,
    scratch: &Scratch,
    mut state: Option<&mut State>,
    mut done: impl FnMut(QuantizedTensor) -> Result<()>,
    mut on_layer: impl FnMut(usize),
) -> Result<()> {
    let mut activations = Activations::new(network, &chunks.tokens, 2, scratch)?;
    let mut first = 0;
    if let Some(state) = &mut state {
        first = state.resume(plan, &mut activations, &mut done)?;
    }
    if first == 0 {
        output::quantize_embedding(network, plan, &mut activations)?;
    }
    let depth = network.depth();
    on_layer(first.min(depth));
    // With too few chunks to hold one out, all are used both to quantize and to measure losses.
    let every = method.hold_out_every.min(chunks.tokens.len() + 1);
    let hold_out_every = (every <= chunks.tokens.len()).then_some(every);
    // The output matrix counts as one more layer.
    for layer in first..=depth {
        let this = Layer { network, plan, method: *method, layer, context: chunks.context(), hold_out_every };
        let tensors =
            if layer < depth { this.quantize(&mut activations)? } else { this.output(&activations)? };
        if let Some(state) = &mut state {
            state.save_layer(layer, &tensors, &activations)?;
        }
        tensors.into_iter().try_for_each(&mut done)?;
        on_layer((layer + 1).min(depth));
    }
    Ok(())
}
