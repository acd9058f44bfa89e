//! The measurement of sensitivities: for every matrix and probe, the text is run through a variant of the model in which
//! that one matrix is quantized.
//!
//! All variants advance together, layer by layer: a layer's weights are decoded once, and a variant branches off at its
//! matrix's layer with the hidden states of the original. So for a model of L layers, a measurement costs about L/2 ×
//! (matrices per layer) × (probes) times as much as running the text through the model.

use std::collections::BTreeMap;

use calibration::{Statistics, rows};
use formats::block::{DType, Encode};

use super::divergence::Divergences;
use super::{Matrix, Origin, Probe, Sensitivity};
use crate::calibrate::buffer::ActivationBuffer;
use crate::calibrate::choose::encode_rows;
use crate::calibrate::importance::{SquareSums, inputs_not_finite};
use crate::calibrate::{Chunks, Scratch};
use crate::error::{Error, Result};
use crate::order;
use crate::outcome::not_finite;
use crate::runner::layerwise::{Dense, Tap, dense};
use crate::runner::{KvType, Network};
use kernels::gemm::{View, product};
use kernels::{self, Isa};

/// What is measured.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Types whose output errors are computed.
    pub types: &'a [DType],
    /// Types that matrices are quantized to while the divergence is measured; the fallback of a type that does not divide
    /// a matrix's rows.
    pub probes: &'a [DType],
    /// An importance matrix for the encoders; measured on the same text unless given.
    pub importance: Option<&'a Statistics>,
    /// The other options of the encoders.
    pub how: Encode<'a>,
}

/// Tokens per batch.
const BATCH: usize = 2048;
/// Tokens on which output errors are computed, at most.
pub(super) const SAMPLED_TOKENS: usize = 1024;
/// Rows of a matrix of which output errors are computed, at most.
const SAMPLED_ROWS: usize = 256;

/// The model with one thing changed.
pub(super) struct Variant {
    /// The hidden states of all tokens, `[tokens, hidden]`.
    pub x: ActivationBuffer,
    pub what: Change,
}

/// The change of a variant.
pub(super) enum Change {
    /// None: the original model.
    None,
    /// The matrix with this index is quantized to its probe with this index.
    Matrix(usize, usize),
    /// All layers have a KV cache of this type.
    Cache(KvType),
}

/// The matrices of a layer by tap (the points where matrices take their inputs).
pub(super) type Layer = [Vec<Dense>; 4];

pub(super) struct Measurement<'a> {
    pub network: &'a Network<'a>,
    pub chunks: &'a Chunks,
    pub settings: Settings<'a>,
    scratch: &'a Scratch,
    pub found: Vec<Matrix>,
    /// The original first.
    pub variants: Vec<Variant>,
    /// Bytes of hidden states so far; beyond the limit they go to disk.
    held: u64,
}

/// Measures a model. `on_layer` is given the number of finished layers, with the output matrix as one more.
///
/// # Errors
/// [`Error::UnknownToken`] for tokens beyond the vocabulary; [`Error::NotFinite`] and [`Error::InputsNotFinite`] for weights
/// and activations that are NaN or infinite; [`Error::Refused`] for such logits, or an importance matrix of another shape;
/// [`Error::Io`] if activations that do not fit into memory cannot be written to disk.
///
/// # Panics
/// If `settings` has no probes.
pub fn measure(
    network: &Network,
    chunks: &Chunks,
    settings: Settings,
    scratch: &Scratch,
    mut on_layer: impl FnMut(usize),
) -> Result<Sensitivity> {
    assert!(!settings.probes.is_empty());
    let vocab = network.vocab();
    if let Some(&token) = chunks.tokens.iter().flatten().find(|&&t| t as usize >= vocab) {
        return Err(Error::UnknownToken { token, vocabulary: vocab });
    }
    let mut m =
        Measurement { network, chunks, settings, scratch, found: Vec::new(), variants: Vec::new(), held: 0 };
    m.begin()?;
    for layer in 0..network.depth() {
        m.layer(layer)?;
        on_layer(layer + 1);
    }
    let Divergences { matrices, caches } = m.end()?;
    on_layer(network.depth() + 1);
    let Measurement { mut found, .. } = m;
    for ((matrix, probe), kld) in matrices {
        // Rounding can make a divergence of almost 0 negative.
        found[matrix].probes[probe].kld = kld.max(0.0);
    }
    for matrix in &mut found {
        order::by(&mut matrix.probes, |a, b| a.error.total_cmp(&b.error));
    }
    let origin = Origin {
        texts: chunks.names.clone(),
        hash: chunks.hash.clone(),
        context: chunks.context(),
        chunks: chunks.tokens.len(),
        model: None,
    };
    Ok(Sensitivity { origin, matrices: found, cache: caches })
}

impl Measurement<'_> {
    /// The first token and the chunks' lengths of each batch.
    pub fn batches(&self) -> Vec<(usize, Vec<usize>)> {
        let (context, chunks) = (self.chunks.context(), self.chunks.tokens.len());
        let together = (BATCH / context.max(1)).max(1);
        let batch = |c: usize| (c * context, vec![context; together.min(chunks - c)]);
        (0..chunks).step_by(together).map(batch).collect()
    }

    pub fn tokens(&self) -> Vec<u32> {
        self.chunks.tokens.concat()
    }

    fn new_buffer(&mut self) -> Result<ActivationBuffer> {
        let (tokens, hidden) = (self.chunks.token_count(), self.network.config.hidden as usize);
        self.held += (tokens * hidden * 4) as u64;
        let scratch = (self.held > self.scratch.memory).then_some(&*self.scratch.folder);
        ActivationBuffer::new(tokens, hidden, scratch)
    }

    /// Adds a variant with the hidden states of the original before the next layer.
    fn branch(&mut self, what: Change) -> Result<()> {
        let mut x = self.new_buffer()?;
        for (first, lens) in self.batches() {
            x.write(first, &self.variants[0].x.read(first, lens.iter().sum())?)?;
        }
        self.variants.push(Variant { x, what });
        Ok(())
    }

    /// Adds a variant with hidden states from `from`, which is given a batch's first token and number of tokens.
    pub fn add_variant(
        &mut self,
        what: Change,
        from: impl Fn(usize, usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let mut x = self.new_buffer()?;
        for (first, lens) in self.batches() {
            x.write(first, &from(first, lens.iter().sum())?)?;
        }
        self.variants.push(Variant { x, what });
        Ok(())
    }

    /// The probes of a matrix with rows of `cols` weights: the types that divide them, or their fallbacks.
    pub fn probes(&self, cols: u64) -> Vec<DType> {
        let mut probes: Vec<DType> = Vec::new();
        for &p in self.settings.probes {
            let fits = crate::scheme::fallback(p, cols);
            if !probes.contains(&fits) {
                probes.push(fits);
            }
        }
        probes
    }

    /// The types whose output errors are computed for rows of `cols` weights.
    pub fn types(&self, cols: u64) -> Vec<DType> {
        let mut types: Vec<DType> =
            self.settings.types.iter().copied().filter(|t| t.bytes_for(cols).is_some()).collect();
        types.extend(self.probes(cols).into_iter().filter(|p| !self.settings.types.contains(p)));
        types
    }

    /// The variants that begin before the first layer: the original, those with other caches, and those with another
    /// embedding.
    fn begin(&mut self) -> Result<()> {
        let (network, tokens) = (self.network, self.tokens());
        let at = |first: usize, count: usize| Ok(network.embed(&tokens[first..first + count]));
        self.add_variant(Change::None, at)?;
        for kv in [KvType::F16, KvType::Q8_0] {
            if kv != KvType::Q8_0 || network.config.head.is_multiple_of(32) {
                self.add_variant(Change::Cache(kv), at)?;
            }
        }
        let Some((name, shape)) = network.embedding_shape() else { return Ok(()) };
        let (name, n) = (name.to_string(), shape[1] as usize);
        let mut distinct = tokens.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let counts: BTreeMap<u32, f64> = tokens.iter().fold(BTreeMap::new(), |mut counts, &t| {
            *counts.entry(t).or_default() += 1.0;
            counts
        });
        let embedded = network.embed(&distinct);
        finite(&name, &embedded, n)?;
        let importance = self.given_importance(&name, shape[1])?;
        let how = Encode { importance: importance.as_deref(), ..self.settings.how };
        // The error of a token's row counts as often as the token occurs.
        let square = |x: &[f32], t: u32| counts[&t] * rows::square(x);
        let all: f64 = embedded.chunks_exact(n).zip(&distinct).map(|(x, &t)| square(x, t)).sum();
        let quantize = |dtype| -> (f64, Vec<f32>) {
            let (_, values) = encode_rows(network.isa, dtype, &embedded, n, &how);
            let mut off = embedded.clone();
            rows::subtract(&mut off, &values);
            let sum: f64 = off.chunks_exact(n).zip(&distinct).map(|(x, &t)| square(x, t)).sum();
            (sum / all.max(f64::MIN_POSITIVE), values)
        };
        let errors = finite_errors(self.types(shape[1]), |t| quantize(t).0);
        let mut probes = Vec::new();
        for dtype in self.probes(shape[1]) {
            let (p, (error, values)) = (probes.len(), quantize(dtype));
            if !error.is_finite() {
                continue;
            }
            probes.push(Probe { dtype, error, kld: 0.0 });
            let row = |t: &u32| distinct.binary_search(t).expect("one of them");
            let from = |first: usize, count: usize| {
                let wanted: Vec<usize> = tokens[first..first + count].iter().map(row).collect();
                Ok(rows::select(&values, &wanted, n))
            };
            self.add_variant(Change::Matrix(0, p), from)?;
        }
        self.found.push(Matrix { name, shape: shape.to_vec(), probes, errors });
        Ok(())
    }

    /// The importance of a matrix's columns from the given importance matrix, if it has any.
    pub fn given_importance(&self, name: &str, cols: u64) -> Result<Option<Vec<f32>>> {
        let Some(statistics) = self.settings.importance else { return Ok(None) };
        let found = statistics.importance(name, &[1, cols])?;
        Ok(found.map(|i| i.columns().of(0..cols).to_vec()))
    }

    /// Takes all variants through a layer, and adds variants for the layer's matrices.
    fn layer(&mut self, layer: usize) -> Result<()> {
        let network = self.network;
        let mut weights: Layer = Tap::ALL.map(|tap| dense(network, layer, tap));
        for matrix in weights.iter().flatten() {
            finite(&matrix.name, &matrix.weights, matrix.cols)?;
        }
        // Variants that branched off before this layer.
        for i in 1..self.variants.len() {
            self.advance(i, layer, &weights)?;
        }
        let mut squares = Tap::ALL.map(|tap| SquareSums::new(network.width(tap)));
        let mut inputs: [Vec<f32>; 4] = Default::default();
        let every = self.chunks.token_count().div_ceil(SAMPLED_TOKENS);
        // The original stays before this layer until all of the layer's variants have branched off.
        let mut after = self.new_buffer()?;
        for (first, lens) in self.batches() {
            let x = self.variants[0].x.read(first, lens.iter().sum())?;
            let visit = |tap: Tap, x: &[f32]| {
                let (n, to) = (network.width(tap), &mut inputs[tap as usize]);
                squares[tap as usize].add(x);
                x.chunks_exact(n).step_by(every).for_each(|row| to.extend_from_slice(row));
            };
            after.write(first, &run_layer(network, layer, &lens, x, &weights, KvType::F32, visit)?)?;
        }
        for (tap, squares) in Tap::ALL.iter().zip(&squares) {
            if rows::first_not_finite(&squares.mean_squares()).is_some() {
                return Err(inputs_not_finite(layer, *tap));
            }
        }
        for tap in Tap::ALL {
            for i in 0..weights[tap as usize].len() {
                let matrix = &weights[tap as usize][i];
                let given = self.given_importance(&matrix.name, matrix.cols as u64)?;
                let importance = given.unwrap_or_else(|| squares[tap as usize].mean_squares());
                let how = Encode { importance: Some(&importance), ..self.settings.how };
                let output_error = OutputError::new(network, matrix, &inputs[tap as usize]);
                self.found.push(self.new_matrix(&output_error, matrix, &how));
                let index = self.found.len() - 1;
                for p in 0..self.found[index].probes.len() {
                    let dtype = self.found[index].probes[p].dtype;
                    let matrix = &mut weights[tap as usize][i];
                    let (_, mut values) = encode_rows(network.isa, dtype, &matrix.weights, matrix.cols, &how);
                    std::mem::swap(&mut matrix.weights, &mut values);
                    self.branch(Change::Matrix(index, p))?;
                    let last = self.variants.len() - 1;
                    self.advance(last, layer, &weights)?;
                    std::mem::swap(&mut weights[tap as usize][i].weights, &mut values);
                }
            }
        }
        self.variants[0].x = after;
        Ok(())
    }

    /// Runs a variant through a layer.
    pub fn advance(&mut self, variant: usize, layer: usize, weights: &Layer) -> Result<()> {
        for (first, lens) in self.batches() {
            let variant = &mut self.variants[variant];
            let kv = if let Change::Cache(kv) = variant.what { kv } else { KvType::F32 };
            let x = variant.x.read(first, lens.iter().sum())?;
            variant.x.write(first, &run_layer(self.network, layer, &lens, x, weights, kv, |_, _| {})?)?;
        }
        Ok(())
    }

    /// A matrix with its output errors; the divergences of its probes are still 0.
    fn new_matrix(&self, output_error: &OutputError, matrix: &Dense, how: &Encode) -> Matrix {
        let cols = matrix.cols as u64;
        let found = output_error.all(self.types(cols), how);
        let probe = |dtype| Some(Probe { dtype, error: found.iter().find(|e| e.0 == dtype)?.1, kld: 0.0 });
        let errors = found.iter().map(|e| (e.0, e.2)).collect();
        Matrix {
            name: matrix.name.clone(),
            shape: vec![matrix.rows as u64, cols],
            probes: self.probes(cols).into_iter().filter_map(probe).collect(),
            errors,
        }
    }
}

/// The error of each type; types that cannot represent the weights at all (the error is not finite) are left out.
pub(super) fn finite_errors(types: Vec<DType>, error: impl Fn(DType) -> f64) -> Vec<(DType, f64)> {
    types.into_iter().map(|t| (t, error(t))).filter(|e| e.1.is_finite()).collect()
}

/// Runs hidden states `x`, `[tokens, hidden]`, of chunks with lengths `lens` through a layer. `visit` is given the inputs at
/// each tap.
fn run_layer(
    network: &Network,
    layer: usize,
    lens: &[usize],
    mut x: Vec<f32>,
    weights: &Layer,
    kv: KvType,
    mut visit: impl FnMut(Tap, &[f32]),
) -> Result<Vec<f32>> {
    let input = network.attention_input(layer, &x);
    visit(Tap::Attention, &input);
    let mixed = network.mix(layer, lens, &input, &weights[0], kv)?;
    visit(Tap::Output, &mixed);
    network.add(&mut x, &weights[1][0], &mixed);
    let input = network.feed_forward_input(layer, &x);
    visit(Tap::FeedForward, &input);
    let gated = network.gated(layer, &input, &weights[2]);
    visit(Tap::Down, &gated);
    network.add(&mut x, &weights[3][0], &gated);
    Ok(x)
}

pub(super) fn finite(name: &str, weights: &[f32], cols: usize) -> Result<()> {
    match rows::first_not_finite(weights) {
        Some(at) => Err(not_finite(name, at as u64, cols as u64, weights[at])),
        None => Ok(()),
    }
}

/// The relative output error of a matrix, on a sample of its rows and inputs.
pub(super) struct OutputError<'a> {
    pub isa: Isa,
    pub cols: usize,
    /// The sampled rows, `[rows, cols]`.
    pub weights: Vec<f32>,
    /// The sampled inputs, `[tokens, cols]`.
    pub inputs: &'a [f32],
}

impl<'a> OutputError<'a> {
    fn new(network: &Network, matrix: &Dense, inputs: &'a [f32]) -> Self {
        let weights = rows::select(&matrix.weights, &rows_of(matrix.rows), matrix.cols);
        Self { isa: network.isa, cols: matrix.cols, weights, inputs }
    }

    /// The outputs, `[tokens, rows]`.
    fn product(&self, inputs: &[f32], weights: &[f32]) -> Vec<f32> {
        let (tokens, rows, n) = (inputs.len() / self.cols, weights.len() / self.cols, self.cols);
        product(self.isa, (tokens, rows, n), View::rows(inputs, n), View::rows(weights, n).transposed())
    }

    /// The mean square of the outputs.
    fn square(&self, inputs: &[f32], weights: &[f32]) -> f64 {
        mean_square(&self.product(inputs, weights))
    }

    /// [`OutputError::errors`] of several types; types that cannot represent the weights at all are left out.
    pub fn all(&self, types: Vec<DType>, how: &Encode) -> Vec<(DType, f64, f64)> {
        let all = types.into_iter().map(|t| (t, self.errors(t, how)));
        all.filter(|e| e.1.iter().all(|x| x.is_finite())).map(|(t, [a, b])| (t, a, b)).collect()
    }

    /// The relative output error in a type: of the weights alone, and with inputs rounded to 8 bits as the type's kernels
    /// do.
    pub fn errors(&self, dtype: DType, how: &Encode) -> [f64; 2] {
        let (_, values) = encode_rows(self.isa, dtype, &self.weights, self.cols, how);
        let mut off = self.weights.clone();
        rows::subtract(&mut off, &values);
        let all = self.square(self.inputs, &self.weights).max(f64::MIN_POSITIVE);
        let alone = self.square(self.inputs, &off) / all;
        let Some((group, _)) = kernels::integer(dtype) else { return [alone; 2] };
        // W·x − Ŵ·x̂ = (W − Ŵ)·x̂ + W·(x − x̂), which avoids the difference of two large numbers.
        let lost = rows::rounding(self.inputs, group);
        let mut rounded = self.inputs.to_vec();
        rows::subtract(&mut rounded, &lost);
        let mut out = self.product(&rounded, &off);
        let more = self.product(&lost, &self.weights);
        rows::add(&mut out, &more);
        [alone, mean_square(&out) / all]
    }
}

fn mean_square(x: &[f32]) -> f64 {
    rows::square(x) / x.len().max(1) as f64
}

/// The sampled rows of a matrix.
pub(super) fn rows_of(rows: usize) -> Vec<usize> {
    let count = rows.min(SAMPLED_ROWS);
    (0..count).map(|i| i * rows / count).collect()
}
