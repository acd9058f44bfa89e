//! Sensitivity: how much the quantization error of each matrix changes a model's predictions, so that bits can go to where
//! they matter.
//!
//! Quantization errors are small and nearly independent: the KL divergence of a quantized model is about the sum of the
//! divergences that each matrix causes alone ([docs/fitting.md](../../docs/fitting.md) shows how far that holds), and the
//! divergence that a matrix causes is about proportional to the squared error of its outputs. So [`measure`] quantizes one
//! matrix at a time to one type (a probe), runs a text through the model, and measures the KL divergence; and it computes
//! the output error for every type. [`quick`] estimates both from typical values, without running the model.

mod divergence;
mod file;
pub mod measure;
pub mod quick;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use calibration::Statistics;
use formats::block::{DType, Effort, Encode};
use formats::model::Tensor;

use crate::calibrate::{Chunks, Scratch};
use crate::error::Result;
use crate::resources::{Limits, Watcher};
use crate::runner::{KvType, Network, Options};
use crate::source::Source;
use crate::source::sample::Measured;

pub use file::{parse, print, read};

/// The default number of tokens per chunk.
pub const DEFAULT_CONTEXT: usize = 256;

/// The default probe: the type that matrices are quantized to while the divergence is measured. Its errors are well above
/// those of rounding activations to 8 bits, and small enough to add up.
pub const DEFAULT_PROBE: DType = DType::Q3_K;

/// The sensitivity of a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sensitivity {
    /// How it was obtained.
    pub origin: Origin,
    /// The matrices, in the order of their computation.
    pub matrices: Vec<Matrix>,
    /// The KL divergence that each type of KV cache causes, in nats per token.
    pub cache: Vec<(KvType, f64)>,
}

/// How a sensitivity was obtained.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The names of the texts; empty for an estimate.
    pub texts: Vec<String>,
    /// `sha256:` and the hash of the texts' bytes.
    pub hash: String,
    /// Tokens per chunk.
    pub context: usize,
    /// Chunks.
    pub chunks: usize,
    /// The model; `None` for an estimate, and in files of earlier versions.
    pub model: Option<Measured>,
}

/// The sensitivity of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Its tensor's name.
    pub name: String,
    /// Its shape, `[rows, cols]`.
    pub shape: Vec<u64>,
    /// The types that it was quantized to while the divergence was measured, by ascending error.
    pub probes: Vec<Probe>,
    /// The relative output error for each type that divides its rows: the squared error of its outputs over their square.
    /// Inputs are rounded to 8 bits where the type's kernels do so.
    pub errors: Vec<(DType, f64)>,
}

/// A measurement with one matrix quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// The matrix's type.
    pub dtype: DType,
    /// Its relative output error, with inputs in full precision.
    pub error: f64,
    /// The KL divergence of the model with only this matrix quantized, in nats per token.
    pub kld: f64,
}

impl Matrix {
    /// The KL divergence, in nats per token, that the matrix causes in a type; `None` if the type's error is not known.
    pub fn loss(&self, dtype: DType) -> Option<f64> {
        let error = self.errors.iter().find(|e| e.0 == dtype)?.1;
        self.at(error)
    }

    /// The KL divergence at a relative output error: interpolated between two probes on logarithmic scales, proportional to
    /// the error elsewhere.
    fn at(&self, error: f64) -> Option<f64> {
        if error <= 0.0 {
            return Some(0.0);
        }
        let wrong: Vec<&Probe> = self.probes.iter().filter(|p| p.error > 0.0).collect();
        if !wrong.is_empty() && wrong.iter().all(|p| p.kld <= 0.0) {
            // Its errors do not reach the output.
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

    /// KL divergence over relative output error, in nats, at the first probe.
    pub fn coefficient(&self) -> f64 {
        self.probes.first().map_or(0.0, |p| if p.error > 0.0 { p.kld / p.error } else { 0.0 })
    }
}

impl Sensitivity {
    /// All matrices by the names of their tensors.
    pub fn by_name(&self) -> HashMap<&str, &Matrix> {
        // Of two with one name, the first counts, as in `matrix`.
        self.matrices.iter().rev().map(|m| (m.name.as_str(), m)).collect()
    }

    /// The matrix of a tensor. [`Sensitivity::by_name`] finds many faster.
    pub fn matrix(&self, name: &str) -> Option<&Matrix> {
        self.matrices.iter().find(|m| m.name == name)
    }

    /// The KL divergence that a type of KV cache causes, in nats per token, if it is known.
    pub fn cache(&self, kv: KvType) -> Option<f64> {
        self.cache.iter().find(|c| c.0 == kv).map(|c| c.1)
    }

    /// The predicted KL divergence of a model with these types, in nats per token; `None` if a type's error is not known.
    /// Tensors without an entry, such as norms, count as exact.
    pub fn predict<'a>(&self, types: impl IntoIterator<Item = (&'a str, DType)>) -> Option<f64> {
        let all = self.by_name();
        let matrices = types.into_iter().filter_map(|(name, dtype)| Some((*all.get(name)?, dtype)));
        matrices.map(|(matrix, dtype)| matrix.loss(dtype)).sum()
    }

    /// Checks that it is of this model, as far as is known. `file` is where it comes from. Gives a note if it was measured on
    /// another version of the model.
    ///
    /// # Errors
    /// [`crate::Error::OtherModel`] if it was measured on another model; those of [`Measured::check`].
    pub fn check(&self, source: &Source, file: &Path) -> Result<Option<String>> {
        let check = |model: &Measured| model.check(source, &format!("{}: the sensitivities", file.display()));
        self.origin.model.as_ref().map_or(Ok(None), check)
    }

    /// How it was obtained, in words.
    pub fn summary(&self) -> String {
        let Origin { texts, context, chunks, .. } = &self.origin;
        match texts.is_empty() {
            true => "estimated from typical values, not measured".into(),
            false => format!("measured on {}, {chunks} chunks of {context} tokens", texts.join(", ")),
        }
    }
}

/// The settings of a measurement.
pub struct Measuring<'a> {
    /// Types whose output errors are computed.
    pub types: &'a [DType],
    /// Types that matrices are quantized to while the divergence is measured.
    pub probes: &'a [DType],
    /// Threads and memory.
    pub limits: Limits,
    /// The folder for activations that do not fit into memory.
    pub folder: &'a Path,
    /// An importance matrix for the encoders; measured on the same text unless given.
    pub importance: Option<&'a Statistics>,
}

impl Measuring<'_> {
    /// Measures an open model on a text.
    ///
    /// # Errors
    /// Those of [`Network::new`], [`Limits::pool`], [`measure::measure`] and [`Measured::of`].
    pub fn run(&self, source: &Source, chunks: &Chunks, watcher: &dyn Watcher) -> Result<Sensitivity> {
        let pool = self.limits.pool()?;
        let network = pool.install(|| Network::new(source, Options { exact: true, isa: None }))?;
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
        let mut found = pool.install(|| measure::measure(&network, chunks, settings, &scratch, on_layer))?;
        found.origin.model = Measured::of(source)?;
        Ok(found)
    }
}

/// The default number of chunks. The time grows with the number of weights times that of matrices, and few chunks do nearly
/// as well as many.
pub fn default_chunks(source: &Source) -> usize {
    match source.model.tensors.iter().map(Tensor::elements).fold(0, u64::saturating_add) {
        0..50_000_000 => 16,
        50_000_000..1_000_000_000 => 4,
        _ => 2,
    }
}
