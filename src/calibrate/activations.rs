//! The activations of a calibration set, computed layer by layer, in the original model and, side by side with it, in the
//! model that is being quantized.

use calibration::rows;
use formats::block::{DType, Encode};

use super::Scratch;
use super::buffer::ActivationBuffer;
use crate::error::{Error, Result};
use crate::outcome::not_finite;
use crate::runner::layerwise::{Dense, Tap, dense};
use crate::runner::{KvType, Network};

/// The matrices of a layer by tap (the points where matrices take their inputs); empty where they are not needed yet.
pub type LayerWeights = [Vec<Dense>; 4];

/// Tokens per batch.
const BATCH: usize = 2048;

/// The activations of one model.
struct ModelState {
    /// The residual stream between layers, `[tokens, hidden]`.
    hidden: ActivationBuffer,
    /// The inputs at [`Tap::Output`] or [`Tap::Down`], whichever was computed last.
    inner: ActivationBuffer,
}

/// The activations of all chunks of a calibration set, in one or more models, at one point of the computation.
pub struct Activations<'a> {
    network: &'a Network<'a>,
    /// Tokens per chunk. Chunks do not attend to each other.
    context: usize,
    chunks: usize,
    models: Vec<ModelState>,
    /// The width of [`ModelState::inner`].
    inner: usize,
}

/// The inputs of a tap's matrices for a batch of chunks.
pub struct Inputs {
    /// The first chunk.
    pub first: usize,
    /// How many chunks there are.
    pub count: usize,
    /// The inputs in each model, `[tokens, width]`.
    pub by_model: Vec<Vec<f32>>,
}

impl<'a> Activations<'a> {
    /// Embeds chunks of equal length, for `models` models.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for tokens beyond the vocabulary; [`Error::Io`] if activations that do not fit into memory
    /// cannot be written to `scratch`.
    pub fn new(
        network: &'a Network<'a>,
        chunks: &[Vec<u32>],
        models: usize,
        scratch: &Scratch,
    ) -> Result<Self> {
        let vocab = network.vocab();
        if let Some(&token) = chunks.iter().flatten().find(|&&t| t as usize >= vocab) {
            return Err(Error::UnknownToken { token, vocabulary: vocab });
        }
        let context = chunks.first().map_or(0, Vec::len);
        let tokens = context * chunks.len();
        let inner = network.width(Tap::Output).max(network.width(Tap::Down));
        let hidden = network.width(Tap::Attention);
        let bytes = (models * tokens * (hidden + inner) * 4) as u64;
        let scratch = (bytes > scratch.memory).then_some(&*scratch.folder);
        let mut states = Vec::new();
        for _ in 0..models {
            states.push(ModelState {
                hidden: ActivationBuffer::new(tokens, hidden, scratch)?,
                inner: ActivationBuffer::new(tokens, inner, scratch)?,
            });
        }
        let mut activations = Self { network, context, chunks: chunks.len(), models: states, inner };
        for (first, count) in activations.batches() {
            let tokens: Vec<u32> = chunks[first..first + count].concat();
            let x = network.embed(&tokens);
            for model in &mut activations.models {
                model.hidden.write(first * context, &x)?;
            }
        }
        Ok(activations)
    }

    /// The first chunk and the number of chunks of each batch.
    fn batches(&self) -> Vec<(usize, usize)> {
        let together = (BATCH / self.context.max(1)).max(1);
        (0..self.chunks).step_by(together).map(|c| (c, together.min(self.chunks - c))).collect()
    }

    /// How many models the activations are computed in.
    pub fn models(&self) -> usize {
        self.models.len()
    }

    /// Passes the hidden states of a model to `write`, as little-endian f32, in pieces.
    ///
    /// # Errors
    /// [`Error::Io`] if the activations cannot be read back from disk; the inner result is that of `write`.
    pub fn save(
        &self,
        model: usize,
        mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>> {
        for (first, count) in self.batches() {
            let x = self.models[model].hidden.read(first * self.context, count * self.context)?;
            if let Err(e) = write(&little_endian(&x)) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }

    /// Restores hidden states that [`Activations::save`] wrote.
    ///
    /// # Errors
    /// Those of `read`; [`Error::Io`] if the activations cannot be written to disk.
    pub fn restore(&mut self, model: usize, mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        let hidden = self.network.width(Tap::Attention);
        for (first, count) in self.batches() {
            let mut bytes = vec![0u8; count * self.context * hidden * 4];
            read(&mut bytes)?;
            let mut x = vec![0f32; bytes.len() / 4];
            kernels::codec(DType::F32).expect("floats have codecs").decode(&bytes, &mut x);
            self.models[model].hidden.write(first * self.context, &x)?;
        }
        Ok(())
    }

    /// The original model's matrices at a tap of a layer.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if one of the weights is NaN or infinite.
    pub fn original_weights(&self, layer: usize, tap: Tap) -> Result<Vec<Dense>> {
        let all = dense(self.network, layer, tap);
        for m in &all {
            if let Some(at) = rows::first_not_finite(&m.weights) {
                return Err(not_finite(&m.name, at as u64, m.cols as u64, m.weights[at]));
            }
        }
        Ok(all)
    }

    /// Computes the inputs at a tap of a layer and passes them to `visit`, batch by batch. `weights` are each model's
    /// matrices of this layer; those of the taps before this one are used. Taps must be visited in order.
    ///
    /// # Errors
    /// Those of `visit`; [`Error::Io`] if activations cannot be written to disk or read back.
    pub fn visit_inputs(
        &mut self,
        layer: usize,
        tap: Tap,
        weights: &[&LayerWeights],
        visit: &mut dyn FnMut(Inputs) -> Result<()>,
    ) -> Result<()> {
        let (network, context) = (self.network, self.context);
        for (first, count) in self.batches() {
            let lens = vec![context; count];
            let (at, tokens) = (first * context, count * context);
            let mut by_model = Vec::new();
            for (model, weights) in self.models.iter_mut().zip(weights) {
                let mut x = model.hidden.read(at, tokens)?;
                by_model.push(match tap {
                    Tap::Attention => network.attention_input(layer, &x),
                    Tap::Output => {
                        let input = network.attention_input(layer, &x);
                        let mixed = network.mix(layer, &lens, &input, &weights[0], KvType::F32)?;
                        put(&mut model.inner, at, self.inner, &mixed, tokens)?;
                        mixed
                    }
                    Tap::FeedForward => {
                        let mixed = take(&model.inner, at, self.inner, tokens, weights[1][0].cols)?;
                        network.add(&mut x, &weights[1][0], &mixed);
                        model.hidden.write(at, &x)?;
                        network.feed_forward_input(layer, &x)
                    }
                    Tap::Down => {
                        let input = network.feed_forward_input(layer, &x);
                        let gated = network.gated(layer, &input, &weights[2]);
                        put(&mut model.inner, at, self.inner, &gated, tokens)?;
                        gated
                    }
                });
            }
            visit(Inputs { first, count, by_model })?;
        }
        Ok(())
    }

    /// Adds the outputs of the last tap, [`Tap::Down`], to the hidden states, which completes the layer.
    ///
    /// # Errors
    /// [`Error::Io`] if activations cannot be written to disk or read back.
    pub fn finish_layer(&mut self, weights: &[&LayerWeights]) -> Result<()> {
        for (first, count) in self.batches() {
            let (at, tokens) = (first * self.context, count * self.context);
            for (model, weights) in self.models.iter_mut().zip(weights) {
                let mut x = model.hidden.read(at, tokens)?;
                let gated = take(&model.inner, at, self.inner, tokens, weights[3][0].cols)?;
                self.network.add(&mut x, &weights[3][0], &gated);
                model.hidden.write(at, &x)?;
            }
        }
        Ok(())
    }

    /// Lets `change` modify a model's hidden states, batch by batch, `[tokens, hidden]`.
    ///
    /// # Errors
    /// [`Error::Io`] if activations cannot be written to disk or read back.
    pub fn edit_hidden_states(&mut self, model: usize, mut change: impl FnMut(&mut [f32])) -> Result<()> {
        for (first, count) in self.batches() {
            let at = first * self.context;
            let mut x = self.models[model].hidden.read(at, count * self.context)?;
            change(&mut x);
            self.models[model].hidden.write(at, &x)?;
        }
        Ok(())
    }

    /// Passes the output matrix's inputs in each model to `visit`, batch by batch. To be called after the last layer.
    ///
    /// # Errors
    /// [`Error::Io`] if activations cannot be read back from disk.
    pub fn visit_output_inputs(&self, visit: &mut dyn FnMut(Inputs)) -> Result<()> {
        for (first, count) in self.batches() {
            let mut by_model = Vec::new();
            for model in &self.models {
                let x = model.hidden.read(first * self.context, count * self.context)?;
                by_model.push(self.network.output_input(&x));
            }
            visit(Inputs { first, count, by_model });
        }
        Ok(())
    }
}

/// The bytes of numbers, little-endian.
fn little_endian(x: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0u8; 4 * x.len()];
    kernels::codec(DType::F32).expect("floats have codecs").encode(x, &Encode::default(), &mut bytes);
    bytes
}

/// Stores rows that may be narrower than those of the buffer, padded with zeros.
fn put(buffer: &mut ActivationBuffer, at: usize, width: usize, x: &[f32], tokens: usize) -> Result<()> {
    let own = x.len() / tokens;
    if own == width {
        return buffer.write(at, x);
    }
    let mut wide = vec![0f32; tokens * width];
    wide.chunks_exact_mut(width).zip(x.chunks_exact(own)).for_each(|(w, x)| w[..own].copy_from_slice(x));
    buffer.write(at, &wide)
}

/// Reads back the first `own` columns of rows that [`put`] stored.
fn take(buffer: &ActivationBuffer, at: usize, width: usize, tokens: usize, own: usize) -> Result<Vec<f32>> {
    let wide = buffer.read(at, tokens)?;
    if own == width {
        return Ok(wide);
    }
    Ok(rows::select_columns(&wide, width, 0..own))
}
