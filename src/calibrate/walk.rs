//! A text's way through a model, layer by layer: of the original, and beside it of the one that is being made.

use super::Scratch;
use super::stream::Stream;
use crate::error::{Error, Result};
use crate::outcome::not_finite;
use crate::runner::layerwise::{Dense, Tap, dense};
use crate::runner::{KvType, Network};

/// The matrices of a layer that are known so far, by tap.
pub type Weights = [Vec<Dense>; 4];

/// Tokens whose vectors are computed together.
const BATCH: usize = 2048;

/// Vectors of the tokens of a text in one model.
struct Path {
    /// Between the layers, `[tokens, hidden]`.
    x: Stream,
    /// What the matrices [`Tap::Output`] and [`Tap::Down`] take.
    middle: Stream,
}

/// Chunks of a text on their way.
pub struct Walk<'a> {
    network: &'a Network<'a>,
    /// Tokens of each chunk; chunks do not see each other.
    context: usize,
    chunks: usize,
    paths: Vec<Path>,
    /// Widths of [`Path::middle`].
    middle: usize,
}

/// The inputs of matrices for some chunks.
pub struct Inputs {
    /// The first chunk.
    pub first: usize,
    /// Its number and those after it.
    pub count: usize,
    /// `[tokens, width]` of each model.
    pub of: Vec<Vec<f32>>,
}

impl<'a> Walk<'a> {
    /// Chunks of equal length before the first layer, for so many models.
    ///
    /// # Errors
    /// The system's; tokens that the vocabulary does not have.
    pub fn new(
        network: &'a Network<'a>,
        chunks: &[Vec<u32>],
        models: usize,
        scratch: &Scratch,
    ) -> Result<Self> {
        let vocab = network.vocab();
        if let Some(t) = chunks.iter().flatten().find(|&&t| t as usize >= vocab) {
            let why = format!("token {t} is beyond the vocabulary of {vocab}");
            return Err(Error::refused(why).or("does the tokenizer belong to this model?"));
        }
        let context = chunks.first().map_or(0, Vec::len);
        let tokens = context * chunks.len();
        let middle = network.width(Tap::Output).max(network.width(Tap::Down));
        let hidden = network.width(Tap::Attention);
        let bytes = (models * tokens * (hidden + middle) * 4) as u64;
        let scratch = (bytes > scratch.memory).then_some(&*scratch.folder);
        let mut paths = Vec::new();
        for _ in 0..models {
            paths.push(Path {
                x: Stream::new(tokens, hidden, scratch)?,
                middle: Stream::new(tokens, middle, scratch)?,
            });
        }
        let mut walk = Self { network, context, chunks: chunks.len(), paths, middle };
        for (first, count) in walk.batches() {
            let tokens: Vec<u32> = chunks[first..first + count].concat();
            let x = network.embed(&tokens);
            for path in &mut walk.paths {
                path.x.write(first * context, &x)?;
            }
        }
        Ok(walk)
    }

    /// Chunks that go together.
    fn batches(&self) -> Vec<(usize, usize)> {
        let together = (BATCH / self.context.max(1)).max(1);
        (0..self.chunks).step_by(together).map(|c| (c, together.min(self.chunks - c))).collect()
    }

    /// Models that the text goes through.
    pub fn models(&self) -> usize {
        self.paths.len()
    }

    /// Gives the vectors of a model between two layers to `write`, in pieces.
    ///
    /// # Errors
    /// The system's; inside, what `write` gives.
    pub fn save(
        &self,
        model: usize,
        mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>> {
        for (first, count) in self.batches() {
            let x = self.paths[model].x.read(first * self.context, count * self.context)?;
            let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
            if let Err(e) = write(&bytes) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }

    /// Puts vectors back that [`Walk::save`] gave.
    ///
    /// # Errors
    /// The system's; what `read` gives.
    pub fn restore(&mut self, model: usize, mut read: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        let hidden = self.network.width(Tap::Attention);
        for (first, count) in self.batches() {
            let mut bytes = vec![0u8; count * self.context * hidden * 4];
            read(&mut bytes)?;
            let x: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            self.paths[model].x.write(first * self.context, &x)?;
        }
        Ok(())
    }

    /// The weights of the original's layer that a tap's inputs are computed from.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub fn original(&self, layer: usize, tap: Tap) -> Result<Vec<Dense>> {
        let all = dense(self.network, layer, tap);
        for m in &all {
            if let Some(at) = m.weights.iter().position(|x| !x.is_finite()) {
                return Err(not_finite(&m.name, at as u64, m.cols as u64, m.weights[at]));
            }
        }
        Ok(all)
    }

    /// Goes on to a tap of a layer, and shows what its matrices are given. `weights` are those of each model's
    /// layer, of which the taps before this one are used.
    ///
    /// # Errors
    /// The system's; what `see` gives.
    pub fn arrive(
        &mut self,
        layer: usize,
        tap: Tap,
        weights: &[&Weights],
        mut see: impl FnMut(Inputs) -> Result<()>,
    ) -> Result<()> {
        let (network, context) = (self.network, self.context);
        for (first, count) in self.batches() {
            let lens = vec![context; count];
            let (at, tokens) = (first * context, count * context);
            let mut of = Vec::new();
            for (path, weights) in self.paths.iter_mut().zip(weights) {
                let mut x = path.x.read(at, tokens)?;
                of.push(match tap {
                    Tap::Attention => network.attention_input(layer, &x),
                    Tap::Output => {
                        let input = network.attention_input(layer, &x);
                        let mixed = network.mix(layer, &lens, &input, &weights[0], KvType::F32)?;
                        put(&mut path.middle, at, self.middle, &mixed, tokens)?;
                        mixed
                    }
                    Tap::FeedForward => {
                        let mixed = take(&path.middle, at, self.middle, tokens, weights[1][0].cols)?;
                        network.add(&mut x, &weights[1][0], &mixed);
                        path.x.write(at, &x)?;
                        network.feed_forward_input(layer, &x)
                    }
                    Tap::Down => {
                        let input = network.feed_forward_input(layer, &x);
                        let gated = network.gated(layer, &input, &weights[2]);
                        put(&mut path.middle, at, self.middle, &gated, tokens)?;
                        gated
                    }
                });
            }
            see(Inputs { first, count, of })?;
        }
        Ok(())
    }

    /// Leaves the layer whose last tap was [`Tap::Down`].
    ///
    /// # Errors
    /// The system's.
    pub fn leave(&mut self, weights: &[&Weights]) -> Result<()> {
        for (first, count) in self.batches() {
            let (at, tokens) = (first * self.context, count * self.context);
            for (path, weights) in self.paths.iter_mut().zip(weights) {
                let mut x = path.x.read(at, tokens)?;
                let gated = take(&path.middle, at, self.middle, tokens, weights[3][0].cols)?;
                self.network.add(&mut x, &weights[3][0], &gated);
                path.x.write(at, &x)?;
            }
        }
        Ok(())
    }

    /// Changes a model's vectors before the first layer: `change` is given those of some tokens, `[tokens, hidden]`.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(&mut self, model: usize, mut change: impl FnMut(&mut [f32])) -> Result<()> {
        for (first, count) in self.batches() {
            let at = first * self.context;
            let mut x = self.paths[model].x.read(at, count * self.context)?;
            change(&mut x);
            self.paths[model].x.write(at, &x)?;
        }
        Ok(())
    }

    /// Shows what the output matrix takes of each model, behind the last layer.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&self, mut see: impl FnMut(Inputs)) -> Result<()> {
        for (first, count) in self.batches() {
            let mut of = Vec::new();
            for path in &self.paths {
                let x = path.x.read(first * self.context, count * self.context)?;
                of.push(self.network.output_input(&x));
            }
            see(Inputs { first, count, of });
        }
        Ok(())
    }
}

/// Vectors that may be narrower than the stream, whose rows they begin.
fn put(stream: &mut Stream, at: usize, width: usize, x: &[f32], tokens: usize) -> Result<()> {
    let own = x.len() / tokens;
    if own == width {
        return stream.write(at, x);
    }
    let mut wide = vec![0f32; tokens * width];
    wide.chunks_exact_mut(width).zip(x.chunks_exact(own)).for_each(|(w, x)| w[..own].copy_from_slice(x));
    stream.write(at, &wide)
}

fn take(stream: &Stream, at: usize, width: usize, tokens: usize, own: usize) -> Result<Vec<f32>> {
    let wide = stream.read(at, tokens)?;
    if own == width {
        return Ok(wide);
    }
    Ok(wide.chunks_exact(width).flat_map(|w| &w[..own]).copied().collect())
}
