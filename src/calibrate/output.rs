//! The token embedding, before the first layer, and the output matrix, after the last.

use formats::block::Encode;
use kernels::parallel;

use super::activations::Activations;
use super::choose::Target;
use super::gptq::FactoredHessian;
use super::gram::Gram;
use super::importance::SquareSums;
use super::layer::{BlockTensor, Layer};
use crate::error::{Error, Result};
use crate::outcome::{ChosenMethod, Outcome, QuantizedTensor, measure_error};
use crate::plan::Plan;
use crate::runner::Network;

/// Rows of the output matrix that are quantized together: vocabularies have up to a quarter of a million.
const ROWS: usize = 8192;

/// Quantizes the embedded tokens of the second model as the plan will, so that the layers compensate for that error too.
///
/// # Errors
/// [`Error::Io`] if activations cannot be written to disk or read back.
pub fn quantize_embedding(network: &Network, plan: &Plan, activations: &mut Activations) -> Result<()> {
    let Some(BlockTensor { tensor, dtype, scale: None, .. }) = BlockTensor::find(plan, "token_embd.weight")
    else {
        return Ok(());
    };
    let (Some(codec), hidden) = (kernels::codec_for(dtype, network.isa), network.config.hidden) else {
        return Ok(());
    };
    let Some(size) = dtype.bytes_for(hidden) else { return Ok(()) };
    if plan.decisions[tensor].from == plan.layout.tensors[tensor].encoding {
        return Ok(());
    }
    let importance = plan.search.columns(tensor).map(|mut c| c.of(0..hidden).to_vec());
    let how = Encode {
        importance: importance.as_deref(),
        objective: plan.search.objective,
        effort: plan.search.effort,
    };
    activations.edit_hidden_states(1, |x| {
        parallel::chunks_mut(x, hidden as usize, &|_, x| {
            let mut bytes = vec![0u8; size as usize];
            codec.encode(x, &how, &mut bytes);
            codec.decode(&bytes, x);
        });
    })
}

impl Layer<'_> {
    /// Quantizes the output matrix. Tied embeddings are left to the plain search, since they have to serve both purposes.
    ///
    /// # Errors
    /// [`Error::InputsNotFinite`] for activations and [`Error::NotFinite`] for weights that are NaN or infinite;
    /// [`Error::Io`] if activations cannot be read back from disk.
    pub fn output(&self, activations: &Activations) -> Result<Vec<QuantizedTensor>> {
        let network = self.network;
        let Some((name, _)) = network.output_rows(0..0) else { return Ok(Vec::new()) };
        // Rows are quantized in parts; a type with a scale of the whole tensor is left to the plain search.
        let found = BlockTensor::find(self.plan, name);
        let Some(blocks) = found.filter(|b| b.quantized && b.scale.is_none()) else {
            return Ok(Vec::new());
        };
        let (isa, n, rows) = (network.isa, network.config.hidden as usize, network.vocab());
        let two = self.method.asymmetric;
        let (mut gram, mut held_out) = (Gram::new(n, two), Gram::for_loss(n, two));
        let mut squares = SquareSums::new(n);
        activations.visit_output_inputs(&mut |inputs| {
            squares.add(&inputs.by_model[0]);
            self.collect(&inputs, &mut gram, &mut held_out);
        })?;
        gram.symmetrize();
        held_out.symmetrize();
        if ![&gram, &held_out].into_iter().all(Gram::is_finite) {
            return Err(Error::InputsNotFinite { matrix: name.into() });
        }
        let importance = squares.mean_squares();
        let sorted = blocks.dtype.grid().is_some();
        let hessian = self.method.feedback.then(|| {
            FactoredHessian::new(isa, &gram, self.method.regularization, sorted)
                .prepare_targets(isa, &gram, rows)
        });
        let target = Target { dtype: blocks.dtype, tensor_scale: false, awq_scaled: false };
        let t = &self.plan.layout.tensors[blocks.tensor];
        let mut quantized =
            QuantizedTensor { tensor: blocks.tensor, bytes: Vec::new(), outcome: Outcome::default() };
        // Rows are independent: a method is chosen for each part separately.
        let (mut loss, mut baseline, mut share, mut name) = (0.0, 0.0, 0.0, "search");
        for first in (0..rows).step_by(ROWS) {
            let range = first..(first + ROWS).min(rows);
            let part = range.len() as f64 / rows as f64;
            let (_, weights) = network.output_rows(range).expect("there is one");
            let (found, search) =
                self.chooser().choose((hessian.as_ref(), &gram, &held_out), target, &weights, &importance);
            quantized.outcome.add(measure_error(t, (first * n) as u64, &weights, &found.values)?);
            quantized.bytes.extend(found.bytes);
            (loss, baseline, share) = (loss + found.loss, baseline + search, share + part * found.share);
            if found.name != "search" {
                name = found.name;
            }
        }
        let ratio = if baseline > 0.0 { loss / baseline } else { 1.0 };
        quantized.outcome.chosen = Some(ChosenMethod { method: name, ratio, share });
        Ok(vec![quantized])
    }
}
