//! Sensitivities measured: a text goes through the model once for every matrix and probe, with that matrix replaced.
//!
//! All of these variants go together, layer by layer: a layer's weights are decoded once, and a variant begins where its matrix
//! stands, with the vectors that the original has there. So a model of L layers costs about L/2 times its matrices times
//! its probes as much as a run of it.

use std::collections::BTreeMap;

use calibration::Statistics;
use formats::block::{DType, Encode};

use super::divergence::Divergences;
use super::{Matrix, Origin, Probe, Sensitivity};
use crate::calibrate::buffer::ActivationBuffer;
use crate::calibrate::choose::encode_rows;
use crate::calibrate::importance::{SquareSums, inputs_not_finite};
use crate::calibrate::{Chunks, Scratch};
use crate::error::{Error, Result};
use crate::outcome::not_finite;
use crate::runner::layerwise::{Dense, Tap, dense};
use crate::runner::{KvType, Network};
use kernels::gemm::{View, product};
use kernels::{self, Isa};

/// What is measured.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Types whose errors are computed.
    pub types: &'a [DType],
    /// Types that matrices are made in; where one does not divide a row, its fallback.
    pub probes: &'a [DType],
    /// Importances, where they were measured before; else those of the same text are used.
    pub importance: Option<&'a Statistics>,
    /// How blocks are searched.
    pub how: Encode<'a>,
}

/// Tokens whose vectors are computed together.
const BATCH: usize = 2048;
/// Tokens by which the errors of types are judged, at most.
pub(super) const SAMPLED_TOKENS: usize = 1024;
/// Rows by which they are, at most.
const SAMPLED_ROWS: usize = 256;

/// A text on its variant through the model with one thing changed.
pub(super) struct Variant {
    pub x: ActivationBuffer,
    pub what: Change,
}

pub(super) enum Change {
    /// Nothing.
    None,
    /// The matrix with this index, as this probe.
    Matrix(usize, usize),
    /// The cache of all layers.
    Cache(KvType),
}

/// The weights of a layer, by tap.
pub(super) type Layer = [Vec<Dense>; 4];

pub(super) struct Measurement<'a> {
    pub network: &'a Network<'a>,
    pub chunks: &'a Chunks,
    pub settings: Settings<'a>,
    scratch: &'a Scratch,
    pub found: Vec<Matrix>,
    pub variants: Vec<Variant>,
    /// Bytes of vectors that are in memory.
    held: u64,
}

/// Measures a model; `on_layer` is told of layers that are done, with the output as one more.
///
/// # Errors
/// The system's, where vectors do not fit into memory; weights, inputs or logits that are not finite; tokens that the
/// vocabulary does not have.
///
/// # Panics
/// If there are no probes.
pub fn measure(
    network: &Network,
    chunks: &Chunks,
    settings: Settings,
    scratch: &Scratch,
    mut on_layer: impl FnMut(usize),
) -> Result<Sensitivity> {
    assert!(!settings.probes.is_empty());
    let vocab = network.vocab();
    if let Some(t) = chunks.tokens.iter().flatten().find(|&&t| t as usize >= vocab) {
        let why = format!("token {t} is beyond the vocabulary of {vocab}");
        return Err(Error::refused(why).or("does the tokenizer belong to this model?"));
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
        // What is nothing but rounding may come out below nothing.
        found[matrix].probes[probe].kld = kld.max(0.0);
    }
    for matrix in &mut found {
        matrix.probes.sort_by(|a, b| a.error.total_cmp(&b.error));
    }
    let origin = Origin {
        texts: chunks.names.clone(),
        hash: chunks.hash.clone(),
        context: chunks.context(),
        chunks: chunks.tokens.len(),
    };
    Ok(Sensitivity { origin, matrices: found, cache: caches })
}

impl Measurement<'_> {
    /// Chunks that go together: the first token's place, and lengths.
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

    /// A variant that begins where the original is, before the layer that comes next.
    fn branch(&mut self, what: Change) -> Result<()> {
        let mut x = self.new_buffer()?;
        for (first, lens) in self.batches() {
            x.write(first, &self.variants[0].x.read(first, lens.iter().sum())?)?;
        }
        self.variants.push(Variant { x, what });
        Ok(())
    }

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

    /// Types that a matrix is probed in: those that divide its rows, or what stands for them.
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

    /// Types whose errors in rows of so many weights are computed.
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
        for kind in [KvType::F16, KvType::Q8_0] {
            if kind != KvType::Q8_0 || network.config.head.is_multiple_of(32) {
                self.add_variant(Change::Cache(kind), at)?;
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
        let rows = network.embed(&distinct);
        finite(&name, &rows, n)?;
        let importance = self.given_importance(&name, shape[1])?;
        let how = Encode { importance: importance.as_deref(), ..self.settings.how };
        // An error counts as often as its token comes.
        let square = |x: &[f32], t: u32| counts[&t] * x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let all: f64 = rows.chunks_exact(n).zip(&distinct).map(|(x, &t)| square(x, t)).sum();
        let made = |dtype| -> (f64, Vec<f32>) {
            let (_, values) = encode_rows(network.isa, dtype, &rows, n, &how);
            let off: Vec<f32> = rows.iter().zip(&values).map(|(a, b)| a - b).collect();
            let sum: f64 = off.chunks_exact(n).zip(&distinct).map(|(x, &t)| square(x, t)).sum();
            (sum / all.max(f64::MIN_POSITIVE), values)
        };
        let errors = finite_errors(self.types(shape[1]), |t| made(t).0);
        let mut probes = Vec::new();
        for dtype in self.probes(shape[1]) {
            let (p, (error, values)) = (probes.len(), made(dtype));
            if !error.is_finite() {
                continue;
            }
            probes.push(Probe { dtype, error, kld: 0.0 });
            let place = |t: &u32| distinct.binary_search(t).expect("one of them") * n;
            let from = |first: usize, count: usize| {
                Ok(tokens[first..first + count]
                    .iter()
                    .flat_map(|t| &values[place(t)..][..n])
                    .copied()
                    .collect())
            };
            self.add_variant(Change::Matrix(0, p), from)?;
        }
        self.found.push(Matrix { name, shape: shape.to_vec(), probes, errors });
        Ok(())
    }

    /// The importance of a matrix's columns, if it was measured before.
    pub fn given_importance(&self, name: &str, cols: u64) -> Result<Option<Vec<f32>>> {
        let Some(statistics) = self.settings.importance else { return Ok(None) };
        let found = statistics.importance(name, &[1, cols])?;
        Ok(found.map(|i| i.columns().of(0..cols).to_vec()))
    }

    fn layer(&mut self, layer: usize) -> Result<()> {
        let network = self.network;
        let mut weights: Layer = Tap::ALL.map(|tap| dense(network, layer, tap));
        for matrix in weights.iter().flatten() {
            finite(&matrix.name, &matrix.weights, matrix.cols)?;
        }
        // Those that have begun before this layer.
        for i in 1..self.variants.len() {
            self.advance(i, layer, &weights)?;
        }
        let mut squares = Tap::ALL.map(|tap| SquareSums::new(network.width(tap)));
        let mut inputs: [Vec<f32>; 4] = Default::default();
        let every = self.chunks.token_count().div_ceil(SAMPLED_TOKENS);
        // The original stays before the layer until all variants have left it.
        let mut after = self.new_buffer()?;
        for (first, lens) in self.batches() {
            let x = self.variants[0].x.read(first, lens.iter().sum())?;
            let see = |tap: Tap, x: &[f32]| {
                let (n, to) = (network.width(tap), &mut inputs[tap as usize]);
                squares[tap as usize].add(x);
                to.extend(x.chunks_exact(n).step_by(every).flatten());
            };
            after.write(first, &run_layer(network, layer, &lens, x, &weights, KvType::F32, see)?)?;
        }
        for (tap, squares) in Tap::ALL.iter().zip(&squares) {
            if squares.mean_squares().iter().any(|x| !x.is_finite()) {
                return Err(inputs_not_finite(layer, *tap));
            }
        }
        for tap in Tap::ALL {
            for i in 0..weights[tap as usize].len() {
                let matrix = &weights[tap as usize][i];
                let known = self.given_importance(&matrix.name, matrix.cols as u64)?;
                let importance = known.unwrap_or_else(|| squares[tap as usize].mean_squares());
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

    /// Takes a variant through a layer.
    pub fn advance(&mut self, variant: usize, layer: usize, weights: &Layer) -> Result<()> {
        for (first, lens) in self.batches() {
            let variant = &mut self.variants[variant];
            let kind = if let Change::Cache(kind) = variant.what { kind } else { KvType::F32 };
            let x = variant.x.read(first, lens.iter().sum())?;
            variant.x.write(first, &run_layer(self.network, layer, &lens, x, weights, kind, |_, _| {})?)?;
        }
        Ok(())
    }

    /// A matrix's errors, with its probes yet without divergences.
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

/// Errors of types; those that cannot hold the weights at all have none.
pub(super) fn finite_errors(types: Vec<DType>, error: impl Fn(DType) -> f64) -> Vec<(DType, f64)> {
    types.into_iter().map(|t| (t, error(t))).filter(|e| e.1.is_finite()).collect()
}

/// Takes vectors through a layer, and shows the inputs of its taps.
fn run_layer(
    network: &Network,
    layer: usize,
    lens: &[usize],
    mut x: Vec<f32>,
    weights: &Layer,
    kind: KvType,
    mut see: impl FnMut(Tap, &[f32]),
) -> Result<Vec<f32>> {
    let input = network.attention_input(layer, &x);
    see(Tap::Attention, &input);
    let mixed = network.mix(layer, lens, &input, &weights[0], kind)?;
    see(Tap::Output, &mixed);
    network.add(&mut x, &weights[1][0], &mixed);
    let input = network.feed_forward_input(layer, &x);
    see(Tap::FeedForward, &input);
    let gated = network.gated(layer, &input, &weights[2]);
    see(Tap::Down, &gated);
    network.add(&mut x, &weights[3][0], &gated);
    Ok(x)
}

pub(super) fn finite(name: &str, weights: &[f32], cols: usize) -> Result<()> {
    match weights.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(not_finite(name, at as u64, cols as u64, weights[at])),
        None => Ok(()),
    }
}

/// Some rows of a matrix, and some of its inputs.
pub(super) struct OutputError<'a> {
    pub isa: Isa,
    pub cols: usize,
    pub weights: Vec<f32>,
    pub inputs: &'a [f32],
}

impl<'a> OutputError<'a> {
    fn new(network: &Network, matrix: &Dense, inputs: &'a [f32]) -> Self {
        let rows = rows_of(matrix.rows);
        let weights = rows.iter().flat_map(|r| &matrix.weights[r * matrix.cols..][..matrix.cols]).copied();
        Self { isa: network.isa, cols: matrix.cols, weights: weights.collect(), inputs }
    }

    /// Inputs times weights, `[tokens, rows]`.
    fn product(&self, inputs: &[f32], weights: &[f32]) -> Vec<f32> {
        let (tokens, rows, n) = (inputs.len() / self.cols, weights.len() / self.cols, self.cols);
        product(self.isa, (tokens, rows, n), View::rows(inputs, n), View::rows(weights, n).transposed())
    }

    /// The mean square of the outputs of these weights.
    fn square(&self, inputs: &[f32], weights: &[f32]) -> f64 {
        mean_square(&self.product(inputs, weights))
    }

    /// The same for several types; those that cannot hold the weights at all are left out.
    pub fn all(&self, types: Vec<DType>, how: &Encode) -> Vec<(DType, f64, f64)> {
        let all = types.into_iter().map(|t| (t, self.errors(t, how)));
        all.filter(|e| e.1.iter().all(|x| x.is_finite())).map(|(t, [a, b])| (t, a, b)).collect()
    }

    /// The error of the outputs in a type, over the outputs: of the weights alone, and with inputs in 8 bits as the type's
    /// products have them.
    pub fn errors(&self, dtype: DType, how: &Encode) -> [f64; 2] {
        let (_, values) = encode_rows(self.isa, dtype, &self.weights, self.cols, how);
        let off: Vec<f32> = self.weights.iter().zip(&values).map(|(a, b)| a - b).collect();
        let all = self.square(self.inputs, &self.weights).max(f64::MIN_POSITIVE);
        let alone = self.square(self.inputs, &off) / all;
        let Some((group, _)) = kernels::integer(dtype) else { return [alone; 2] };
        // W·x − Ŵ·x̂ = (W − Ŵ)·x̂ + W·(x − x̂): small numbers are not taken off large ones.
        let lost = rounding(self.inputs, group);
        let rounded: Vec<f32> = self.inputs.iter().zip(&lost).map(|(x, l)| x - l).collect();
        let mut out = self.product(&rounded, &off);
        let more = self.product(&lost, &self.weights);
        out.iter_mut().zip(&more).for_each(|(a, b)| *a += b);
        [alone, mean_square(&out) / all]
    }
}

/// What inputs lose where so many of them share a scale of 8-bit codes.
fn rounding(x: &[f32], group: usize) -> Vec<f32> {
    let mut lost = vec![0f32; x.len()];
    for (lost, x) in lost.chunks_mut(group).zip(x.chunks(group)) {
        let scale = x.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
        if scale > 0.0 {
            lost.iter_mut().zip(x).for_each(|(l, x)| *l = x - scale * (x / scale).round());
        }
    }
    lost
}

fn mean_square(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len().max(1) as f64
}

/// Rows that stand for all.
pub(super) fn rows_of(rows: usize) -> Vec<usize> {
    let count = rows.min(SAMPLED_ROWS);
    (0..count).map(|i| i * rows / count).collect()
}
