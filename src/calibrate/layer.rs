//! One layer quantized with the statistics of its own inputs: GPTQ, AWQ's column scales, or both, whichever loses least.

use std::borrow::Cow;

use calibration::rows;
use formats::block::{DType, Encode};
use formats::model::Encoding;
use kernels::parallel;

use super::activations::{Activations, Inputs, LayerWeights};
use super::choose::{Candidate, Chooser, Target, scale_columns};
use super::gptq::FactoredHessian;
use super::gram::Gram;
use super::importance::{SquareSums, inputs_not_finite};
use super::sequential::{ColumnScales, Method};
use crate::error::Result;
use crate::outcome::{ChosenMethod, Outcome, QuantizedTensor, measure_error};
use crate::plan::{Plan, bias};
use crate::runner::Network;
use crate::runner::layerwise::{Dense, Tap};

/// Batches of more chunks than this are copied together before they are added to the sums.
const MAX_SEPARATE_CHUNKS: usize = 8;

/// One layer of a layer-by-layer run; the one after the last layer is the output matrix.
pub(super) struct Layer<'a> {
    pub network: &'a Network<'a>,
    pub plan: &'a Plan,
    pub method: Method,
    pub layer: usize,
    /// Tokens per chunk.
    pub context: usize,
    /// One of this many chunks is held out; `None` if there are too few.
    pub hold_out_every: Option<usize>,
}

/// A tensor of the plan's layout that is stored in blocks of a type.
#[derive(Clone, Copy)]
pub(super) struct BlockTensor {
    /// Its index in the layout.
    pub tensor: usize,
    pub dtype: DType,
    /// Whether this run quantizes it; otherwise it stays as it is.
    pub quantized: bool,
    /// The index of the tensor with its scale, if it gets one (NVFP4).
    pub scale: Option<usize>,
}

impl BlockTensor {
    /// Finds a tensor by name; `None` if there is none, or it is not stored in blocks.
    pub fn find(plan: &Plan, name: &str) -> Option<Self> {
        let tensor = plan.layout.tensors.iter().position(|t| t.name == name)?;
        let t = &plan.layout.tensors[tensor];
        let Encoding::Blocks(dtype) = t.encoding else { return None };
        let scale = plan.scales.iter().find(|s| s.weight == tensor).map(|s| s.scale);
        let quantized = !t.encoding.is_plain() && plan.decisions[tensor].from != t.encoding;
        Some(Self { tensor, dtype, quantized, scale })
    }
}

/// One attempt at quantizing the matrices of a tap.
struct Attempt {
    /// The sum over the matrices of their loss relative to the baseline.
    total: f64,
    /// AWQ's column scales, if any.
    scales: Option<Vec<f32>>,
    /// The best candidate of each matrix; `None` for matrices that are not stored in blocks.
    candidates: Vec<Option<Candidate>>,
}

impl Layer<'_> {
    /// Quantizes the layer's matrices, tap by tap.
    pub fn quantize(&self, activations: &mut Activations) -> Result<Vec<QuantizedTensor>> {
        let (mut original, mut quantized) = (LayerWeights::default(), LayerWeights::default());
        let mut finished: Vec<QuantizedTensor> = Vec::new();
        for tap in Tap::ALL {
            let width = self.network.width(tap);
            let asymmetric = self.method.asymmetric;
            let (mut gram, mut held_out) = (Gram::new(width, asymmetric), Gram::for_loss(width, asymmetric));
            let mut squares = SquareSums::new(width);
            activations.visit_inputs(self.layer, tap, &[&original, &quantized], &mut |inputs| {
                squares.add(&inputs.by_model[0]);
                self.collect(&inputs, &mut gram, &mut held_out);
                Ok(())
            })?;
            // The weights of earlier taps are not needed again.
            for done in 0..tap as usize {
                (original[done], quantized[done]) = (Vec::new(), Vec::new());
            }
            gram.symmetrize();
            held_out.symmetrize();
            if ![&gram, &held_out].into_iter().all(Gram::is_finite) {
                return Err(inputs_not_finite(self.layer, tap));
            }
            original[tap as usize] = activations.original_weights(self.layer, tap)?;
            quantized[tap as usize] = original[tap as usize].clone();
            let matrices = &mut quantized[tap as usize];
            self.quantize_tap(tap, matrices, &squares.mean_squares(), (gram, held_out), &mut finished)?;
        }
        activations.finish_layer(&[&original, &quantized])?;
        Ok(finished)
    }

    pub fn chooser(&self) -> Chooser<'static> {
        let search = &self.plan.search;
        let how = Encode { importance: None, objective: search.objective, effort: search.effort };
        let Method { sweeps, feedback, also_unscaled, .. } = self.method;
        Chooser { isa: self.network.isa, sweeps, try_all: feedback && also_unscaled, how }
    }

    /// Adds inputs to the sums of their side: calibration or held-out. With too few chunks to hold one out, both sums get
    /// all of them.
    pub fn collect(&self, inputs: &Inputs, gram: &mut Gram, held_out: &mut Gram) {
        let [original, quantized] = &inputs.by_model[..] else { panic!("two models") };
        let part = gram.width * self.context;
        let last = |c: usize| self.hold_out_every.map(|every| (inputs.first + c) % every == every - 1);
        if inputs.count > MAX_SEPARATE_CHUNKS {
            // Many short chunks: the sums are large, so they should be updated rarely.
            for (to, other) in [(gram, true), (held_out, false)] {
                let chunks: Vec<usize> = (0..inputs.count).filter(|c| last(*c) != Some(other)).collect();
                let original = self.method.asymmetric.then(|| rows::select(original, &chunks, part));
                to.add(self.network.isa, &rows::select(quantized, &chunks, part), original.as_deref());
            }
            return;
        }
        let mut c = 0;
        // Consecutive chunks of the same side are added together.
        while c < inputs.count {
            let side = last(c);
            let count = (c..inputs.count).take_while(|c| last(*c) == side).count();
            let (x, y) = (&quantized[c * part..][..count * part], &original[c * part..][..count * part]);
            let y = self.method.asymmetric.then_some(y);
            if side != Some(true) {
                gram.add(self.network.isa, x, y);
            }
            if side != Some(false) {
                held_out.add(self.network.isa, x, y);
            }
            c += count;
        }
    }

    /// Quantizes the matrices of a tap: `matrices` are the original's before, and the decoded quantized ones after. The
    /// encoded tensors, and others that change along with them, are added to `finished`.
    fn quantize_tap(
        &self,
        tap: Tap,
        matrices: &mut [Dense],
        importance: &[f32],
        (mut gram, mut held_out): (Gram, Gram),
        finished: &mut Vec<QuantizedTensor>,
    ) -> Result<()> {
        let isa = self.network.isa;
        let stored: Vec<_> = matrices.iter().map(|m| self.blocks(&m.name)).collect();
        let random = matches!(self.method.column_scales, ColumnScales::Random(_));
        if !random && stored.iter().all(|w| w.is_none_or(|w| !w.quantized)) {
            return Ok(());
        }
        let mean = self.method.bias_correction.then(|| gram.input_means());
        if let Some(mean) = &mean {
            gram.centre(mean);
            held_out.centre(mean);
        }
        let chooser = self.chooser();
        let scales = self.scales(tap, matrices, &stored, importance, (&gram, &held_out), &chooser.how);
        let scales = scales.map(|s| self.limit_to_exact(tap, s, finished));

        let feedback = self.method.feedback;
        // Without scales first: that gives the baseline losses.
        let unscaled_feedback = feedback && (scales.is_none() || self.method.also_unscaled);
        let mut attempts = vec![(None, unscaled_feedback)];
        attempts.extend(scales.map(|s| (Some(s), feedback)));
        let mut best: Option<Attempt> = None;
        let mut baseline: Vec<f64> = Vec::new();
        for (scales, feedback) in attempts {
            if let Some(s) = &scales {
                gram.divide(s);
                held_out.divide(s);
            }
            let regularization = self.method.regularization;
            let (mut sorted, mut natural) = (None, None);
            let count = matrices.iter().map(|m| m.rows).sum();
            let mut candidates = Vec::new();
            for (matrix, stored) in matrices.iter().zip(&stored) {
                let Some(BlockTensor { dtype, quantized, scale, .. }) = *stored else {
                    candidates.push(None);
                    continue;
                };
                let (mut weights, mut importance) =
                    (Cow::Borrowed(&*matrix.weights), Cow::Borrowed(importance));
                if let Some(s) = &scales {
                    scale_columns(weights.to_mut(), s, rows::multiply);
                    scale_columns(importance.to_mut(), s, rows::divide_by_squares);
                }
                let hessian = (feedback && quantized).then(|| {
                    let (hessian, in_order) = match dtype.grid() {
                        Some(_) => (&mut sorted, true),
                        None => (&mut natural, false),
                    };
                    &*hessian.get_or_insert_with(|| {
                        FactoredHessian::new(isa, &gram, regularization, in_order)
                            .prepare_targets(isa, &gram, count)
                    })
                });
                let target = Target { dtype, tensor_scale: scale.is_some(), awq_scaled: scales.is_some() };
                let (mut found, search) =
                    chooser.choose((hessian, &gram, &held_out), target, &weights, &importance);
                match &scales {
                    Some(s) => scale_columns(&mut found.values, s, rows::divide),
                    None => baseline.push(search),
                }
                candidates.push(Some(found));
            }
            let losses = candidates.iter().flatten().zip(&baseline);
            let total = losses.map(|(c, u)| if *u > 0.0 { c.loss / u } else { 1.0 }).sum();
            if best.as_ref().is_none_or(|b| total < b.total || random) {
                best = Some(Attempt { total, scales, candidates });
            }
        }
        let Attempt { scales, candidates, .. } = best.expect("there is at least one attempt");
        let mut baseline = baseline.into_iter();
        for ((matrix, stored), candidate) in matrices.iter_mut().zip(&stored).zip(candidates) {
            let (Some(blocks), Some(c)) = (*stored, candidate) else { continue };
            let baseline = baseline.next().expect("one for each");
            if !blocks.quantized && scales.is_none() {
                continue;
            }
            let ratio = if baseline > 0.0 { c.loss / baseline } else { 1.0 };
            let chosen = Some(ChosenMethod { method: c.name, ratio, share: c.share });
            let tensor = blocks.tensor;
            let outcome = measure_error(&self.plan.layout.tensors[tensor], 0, &matrix.weights, &c.values)?;
            let weights = std::mem::replace(&mut matrix.weights, c.values);
            finished.push(QuantizedTensor { tensor, bytes: c.bytes, outcome: Outcome { chosen, ..outcome } });
            if let (Some(mean), Some(tensor)) = (&mean, self.bias_of(&matrix.name)) {
                let bias = matrix.add_bias(&mean_error(&weights, &matrix.weights, mean));
                let bytes = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
                finished.push(QuantizedTensor { tensor, bytes, outcome: Outcome::default() });
            }
            if let Some(tensor) = blocks.scale {
                let bytes = c.factor.to_le_bytes().to_vec();
                finished.push(QuantizedTensor { tensor, bytes, outcome: Outcome::default() });
            }
        }
        if let Some(s) = scales {
            self.divide_producer(tap, &s, finished);
        }
        Ok(())
    }

    pub fn blocks(&self, name: &str) -> Option<BlockTensor> {
        BlockTensor::find(self.plan, name)
    }

    /// The index in the layout of a matrix's bias, if it has one.
    fn bias_of(&self, weight: &str) -> Option<usize> {
        let name = bias::bias_name(weight)?;
        self.plan.layout.tensors.iter().position(|t| t.name == name)
    }
}

/// The mean error of a matrix's outputs, `[rows]`: (W − Q)·x + W·y, with the means of x and y.
fn mean_error(weights: &[f32], values: &[f32], [x, y]: &[Vec<f32>; 2]) -> Vec<f32> {
    let n = x.len();
    let row = |i: usize| rows::mean_error(&weights[i * n..][..n], &values[i * n..][..n], x, y) as f32;
    parallel::map(weights.len() / n, &row)
}
