//! The end of a measurement: the output matrix, and the KL divergence of every variant.

use formats::block::{DType, Encode};

use super::measure::{Change, Layer, Measurement, OutputError, SAMPLED_TOKENS, finite, rows_of};
use super::{Matrix, Probe};
use crate::calibrate::importance::SquareSums;
use crate::error::Result;
use crate::runner::KvType;
use crate::runner::layerwise::{Tap, dense};
use crate::runner::linear::Matrix as Stored;
use crate::score::{against_logits, scored};
use kernels::{self, Isa, parallel};

/// Tokens per batch of logits.
const LOGITS: usize = 128;

/// The KL divergences from the original, in nats per token.
#[derive(Default)]
pub struct Divergences {
    /// By index of the matrix and of its probe.
    pub matrices: Vec<((usize, usize), f64)>,
    /// By KV cache type.
    pub caches: Vec<(KvType, f64)>,
}

/// The output matrix, quantized to a probe.
struct Output<'a> {
    /// The index of the matrix and of its probe.
    of: (usize, usize),
    /// The variant with the quantized token embedding, if embeddings are tied.
    variant: Option<usize>,
    /// The quantized matrix.
    quantized: Stored<'a>,
}

impl Measurement<'_> {
    /// Measures the output matrix, and computes the divergence of every variant.
    pub fn end(&mut self) -> Result<Divergences> {
        let network = self.network;
        let n = network.config.hidden as usize;
        let output = network.logits_matrix();
        let mut inputs = Vec::new();
        let every = self.chunks.token_count().div_ceil(SAMPLED_TOKENS);
        let mut squares = SquareSums::new(n);
        for (first, lens) in self.batches() {
            let x = network.output_input(&self.variants[0].x.read(first, lens.iter().sum())?);
            squares.add(&x);
            x.chunks_exact(n).step_by(every).for_each(|row| inputs.extend_from_slice(row));
        }
        let tied = network.embedding_shape().is_none();
        let given = self.given_importance(&output.name, n as u64)?;
        // Tied embeddings without a given importance matrix get none: they serve as the token embedding too.
        let importance = given.or_else(|| (!tied).then(|| squares.mean_squares()));
        let how = Encode { importance: importance.as_deref(), ..self.settings.how };
        let index = self.found.len();
        let weights = decoded(output, &rows_of(output.rows));
        finite(&output.name, &weights, n)?;
        let output_error = OutputError { isa: network.isa, cols: n, weights, inputs: &inputs };
        let found = output_error.all(self.types(n as u64), &how);
        let errors = found.iter().map(|e| (e.0, e.2)).collect();
        let mut matrix = Matrix {
            name: output.name.clone(),
            shape: vec![output.rows as u64, n as u64],
            probes: Vec::new(),
            errors,
        };
        let mut outputs = Vec::new();
        for dtype in self.probes(n as u64) {
            let Some(&(_, error, _)) = found.iter().find(|e| e.0 == dtype) else { continue };
            let p = matrix.probes.len();
            matrix.probes.push(Probe { dtype, error, kld: 0.0 });
            let bytes = encoded(output, dtype, &how);
            let quantized = network.exact(&output.name, dtype, bytes, (output.rows, n));
            // With tied embeddings, the quantized matrix embeds the tokens too.
            let mut variant = None;
            if tied {
                let tokens = self.tokens();
                self.add_variant(Change::None, |first, count| {
                    let mut x = vec![0f32; count * n];
                    parallel::chunks_mut(&mut x, n, &|i, x| quantized.decode(tokens[first + i] as usize, x));
                    Ok(x)
                })?;
                variant = Some(self.variants.len() - 1);
            }
            outputs.push(Output { of: (index, p), variant, quantized });
        }
        if tied {
            let variants: Vec<usize> = outputs.iter().filter_map(|o| o.variant).collect();
            for layer in 0..network.depth() {
                let weights: Layer = Tap::ALL.map(|tap| dense(network, layer, tap));
                variants.iter().try_for_each(|&variant| self.advance(variant, layer, &weights))?;
            }
        }
        self.found.push(matrix);
        self.divergences(output, &outputs)
    }

    fn divergences(&self, output: &Stored, outputs: &[Output]) -> Result<Divergences> {
        let (network, tokens) = (self.network, self.tokens());
        let (n, context) = (network.config.hidden as usize, self.chunks.context());
        let mut sums = vec![0f64; self.variants.len()];
        let mut own = vec![0f64; outputs.len()];
        let mut count = 0usize;
        for chunk in 0..self.chunks.tokens.len() {
            let positions: Vec<usize> = scored(context).map(|i| chunk * context + i).collect();
            for part in positions.chunks(LOGITS) {
                count += part.len();
                let targets: Vec<usize> = part.iter().map(|&i| tokens[i + 1] as usize).collect();
                let logits = |variant: usize, matrix: &Stored| -> Result<Vec<f32>> {
                    let x = self.variants[variant].x.read(part[0], part.len())?;
                    debug_assert_eq!(x.len(), part.len() * n);
                    Ok(network.logits(matrix, &network.output_input(&x)))
                };
                let reference = logits(0, output)?;
                let against = |other: &[f32]| -> Result<f64> {
                    let vocab = output.rows;
                    let rows = parallel::try_map(targets.len(), &|i| {
                        let row = i * vocab..(i + 1) * vocab;
                        against_logits(&reference[row.clone()], &other[row], targets[i])
                    })?;
                    Ok(rows.iter().fold(0.0, |sum, row| sum + row.pair.as_ref().map_or(0.0, |p| p.kld)))
                };
                for (variant, sum) in
                    self.variants.iter().zip(&mut sums).enumerate().map(|(i, (_, s))| (i, s))
                {
                    if !matches!(self.variants[variant].what, Change::None) {
                        *sum += against(&logits(variant, output)?)?;
                    }
                }
                for (output, sum) in outputs.iter().zip(&mut own) {
                    *sum += against(&logits(output.variant.unwrap_or(0), &output.quantized)?)?;
                }
            }
        }
        let per = 1.0 / count.max(1) as f64;
        let mut found = Divergences::default();
        for (variant, sum) in self.variants.iter().zip(sums) {
            match variant.what {
                Change::None => {}
                Change::Matrix(matrix, probe) => found.matrices.push(((matrix, probe), sum * per)),
                Change::Cache(kv) => found.caches.push((kv, (sum * per).max(0.0))),
            }
        }
        found.matrices.extend(outputs.iter().zip(own).map(|(output, sum)| (output.of, sum * per)));
        Ok(found)
    }
}

/// The decoded rows of a matrix, `[rows.len(), cols]`.
fn decoded(matrix: &Stored, rows: &[usize]) -> Vec<f32> {
    let mut out = vec![0f32; rows.len() * matrix.cols];
    parallel::chunks_mut(&mut out, matrix.cols, &|i, out| matrix.decode(rows[i], out));
    out
}

/// A matrix encoded in another type.
fn encoded(matrix: &Stored, dtype: DType, how: &Encode) -> Vec<u8> {
    let codec = kernels::codec_for(dtype, Isa::current()).expect("types have codecs");
    let size = dtype.bytes_for(matrix.cols as u64).expect("whole blocks") as usize;
    let mut bytes = vec![0u8; matrix.rows * size];
    parallel::chunks_mut(&mut bytes, size, &|r, bytes| {
        let mut row = vec![0f32; matrix.cols];
        matrix.decode(r, &mut row);
        codec.encode(&row, how, bytes);
    });
    bytes
}
