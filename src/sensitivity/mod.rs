//! What an error in each matrix does to a model's predictions, so that bits can go to where they count.
//!
//! Errors of matrices are small, and hardly know of each other: the KL divergence of a model is about the sum of what each
//! matrix's errors by themselves bring ([docs/fitting.md](../../docs/fitting.md) shows how far that holds). What a matrix
//! brings is about proportional to the squared error of its outputs. So [`measure`] makes every matrix in one type or two,
//! runs a text through the model with that one matrix replaced, and reads the divergence; and it computes the error of the
//! outputs for every type. [`quick`] guesses both by what matrices usually are like.

mod divergence;
mod file;
pub mod measure;
pub mod quick;
#[cfg(test)]
mod tests;

use std::path::Path;

use calibration::Statistics;
use formats::block::{DType, Effort, Encode};
use formats::model::Tensor;

use crate::calibrate::{Chunks, Scratch};
use crate::error::Result;
use crate::resources::{Limits, Watcher};
use crate::runner::{KvType, Network, Options};
use crate::source::Source;

pub use file::{parse, print, read};

/// Tokens of a chunk, unless another number is asked for.
pub const DEFAULT_CONTEXT: usize = 256;

/// The type that matrices are quantized to while the divergence is measured, unless others are asked for: its errors are
/// well above those of rounding activations, and small enough that they add up.
pub const DEFAULT_PROBE: DType = DType::Q3_K;

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sensitivity {
    /// Where that is from: texts, or a guess.
    pub origin: Origin,
    /// Matrices, in the order of their computation.
    pub matrices: Vec<Matrix>,
    /// What keys and values kept in a kind of cache cost, in nats of KL divergence.
    pub cache: Vec<(KvType, f64)>,
}

/// Where numbers are from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Names of texts; none where it is a guess.
    pub texts: Vec<String>,
    /// `sha256:` and the hash of the texts' bytes.
    pub hash: String,
    /// Tokens of a chunk.
    pub context: usize,
    /// Chunks.
    pub chunks: usize,
}

/// A matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Its tensor's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// What was found by making it in some types, from the one with the least error.
    pub probes: Vec<Probe>,
    /// The error of its outputs in each type that divides its rows, over what the outputs are: without a unit. Inputs are
    /// rounded to 8 bits where the type's products have them so.
    pub errors: Vec<(DType, f64)>,
}

/// A matrix made in a type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// The type.
    pub dtype: DType,
    /// Its error, with inputs as they are.
    pub error: f64,
    /// The KL divergence of the model in which it alone is made so, in nats.
    pub kld: f64,
}

impl Matrix {
    /// The KL divergence that the matrix brings in a type, in nats; `None` for a type of which nothing is known.
    pub fn loss(&self, dtype: DType) -> Option<f64> {
        let error = self.errors.iter().find(|e| e.0 == dtype)?.1;
        self.at(error)
    }

    /// The same at an error. Between two probes, logarithms are interpolated; elsewhere it is proportional.
    fn at(&self, error: f64) -> Option<f64> {
        if error <= 0.0 {
            return Some(0.0);
        }
        let wrong: Vec<&Probe> = self.probes.iter().filter(|p| p.error > 0.0).collect();
        if !wrong.is_empty() && wrong.iter().all(|p| p.kld <= 0.0) {
            // Nothing that it says gets through.
            return Some(0.0);
        }
        let probes: Vec<&Probe> = wrong.into_iter().filter(|p| p.kld > 0.0).collect();
        let (first, last) = (probes.first()?, probes.last()?);
        if error <= first.error {
            return Some(first.kld * error / first.error);
        }
        let between = probes.windows(2).find(|p| error <= p[1].error && p[1].error > p[0].error);
        let Some(&[a, b]) = between else { return Some(last.kld * error / last.error) };
        let part = (error / a.error).ln() / (b.error / a.error).ln();
        Some(a.kld * (b.kld / a.kld).powf(part))
    }

    /// How sensitive it is: nats for an error as large as the outputs are, if it stayed proportional.
    pub fn coefficient(&self) -> f64 {
        self.probes.first().map_or(0.0, |p| if p.error > 0.0 { p.kld / p.error } else { 0.0 })
    }
}

impl Sensitivity {
    /// The matrix of a tensor.
    pub fn matrix(&self, name: &str) -> Option<&Matrix> {
        self.matrices.iter().find(|m| m.name == name)
    }

    /// What a kind of cache costs, in nats, where that is known.
    pub fn cache(&self, kind: KvType) -> Option<f64> {
        self.cache.iter().find(|c| c.0 == kind).map(|c| c.1)
    }

    /// The KL divergence of a model of these types, in nats; `None` if nothing is known of one. Tensors that are no
    /// matrices here, such as norms, bring nothing.
    pub fn predict<'a>(&self, types: impl IntoIterator<Item = (&'a str, DType)>) -> Option<f64> {
        let known = types.into_iter().filter_map(|(name, dtype)| Some((self.matrix(name)?, dtype)));
        known.map(|(matrix, dtype)| matrix.loss(dtype)).sum()
    }

    /// In words, where it is from.
    pub fn summary(&self) -> String {
        let Origin { texts, context, chunks, .. } = &self.origin;
        match texts.is_empty() {
            true => "guessed from what matrices of their kinds usually are like".into(),
            false => format!("measured on {}, {chunks} chunks of {context} tokens", texts.join(", ")),
        }
    }
}

/// What is measured, and with what.
pub struct Measuring<'a> {
    /// Types whose errors are computed.
    pub types: &'a [DType],
    /// Types that matrices are quantized to while the divergence is measured.
    pub probes: &'a [DType],
    /// Threads and memory.
    pub limits: Limits,
    /// The folder for activations that do not fit into memory.
    pub folder: &'a Path,
    /// An importance matrix that was measured before; else it is measured on the same text.
    pub importance: Option<&'a Statistics>,
}

impl Measuring<'_> {
    /// Measures an open model on a text.
    ///
    /// # Errors
    /// A model that the runner cannot run, those of [`measure::measure`], and those of starting threads.
    pub fn run(&self, source: &Source, chunks: &Chunks, watcher: &dyn Watcher) -> Result<Sensitivity> {
        let network = Network::new(source, Options { exact: true, isa: None })?;
        let scratch = Scratch { memory: self.limits.memory, folder: self.folder.to_path_buf() };
        let settings = measure::Settings {
            types: self.types,
            probes: self.probes,
            importance: self.importance,
            how: Encode { importance: None, objective: None, effort: Effort::Normal },
        };
        // The output matrix counts as a layer.
        let layers = network.depth() + 1;
        watcher.layers(0, layers);
        let on_layer = |done| watcher.layers(done, layers);
        self.limits.pool()?.install(|| measure::measure(&network, chunks, settings, &scratch, on_layer))
    }
}

/// The number of chunks, unless another is asked for. Measuring takes weights times matrices, and little text does nearly
/// as well as much.
pub fn default_chunks(source: &Source) -> usize {
    match source.model.tensors.iter().map(Tensor::elements).fold(0, u64::saturating_add) {
        0..50_000_000 => 16,
        50_000_000..1_000_000_000 => 4,
        _ => 2,
    }
}
