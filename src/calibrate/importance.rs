//! The importance matrix: the mean square of every column of every matrix's inputs (llama.cpp's `tools/imatrix`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use calibration::imatrix::{self, HASH};
use calibration::{Entry, Statistics, rows};
use formats::metadata::{Metadata, Value};
use formats::model::{Model, Tensor};
use kernels::parallel;

use super::activations::{Activations, LayerWeights};
use super::{Chunks, Scratch};
use crate::arch::Blk;
use crate::disk::{RunFiles, instead};
use crate::error::{Error, IMPORTANCE, Result};
use crate::kind::Wanted;
use crate::runner::Network;
use crate::runner::layerwise::Tap;
use crate::source::Source;
use crate::source::sample::{Measured, Sample};

/// The sum of squares of each column of a matrix's inputs.
pub(crate) struct SquareSums {
    sums: Vec<f64>,
    tokens: u64,
}

/// Columns per thread and step.
const COLUMNS: usize = 128;

impl SquareSums {
    pub fn new(width: usize) -> Self {
        Self { sums: vec![0.0; width], tokens: 0 }
    }

    pub fn add(&mut self, x: &[f32]) {
        let width = self.sums.len();
        self.tokens += (x.len() / width) as u64;
        parallel::chunks_mut(&mut self.sums, COLUMNS, &|i, sums| {
            rows::add_squares(sums, x, width, i * COLUMNS);
        });
    }

    /// The mean squares, `[width]`.
    pub fn mean_squares(&self) -> Vec<f32> {
        self.sums.iter().map(|s| (s / self.tokens.max(1) as f64) as f32).collect()
    }

    /// Adds an entry for each of the matrices that take these inputs; they share it.
    fn add_entries<'n>(
        &self,
        matrices: impl IntoIterator<Item = &'n String>,
        entries: &mut BTreeMap<String, Arc<Entry>>,
    ) -> Result<()> {
        let mut matrices = matrices.into_iter().peekable();
        let sums = self.sums.iter().map(|s| *s as f32).collect();
        let entry = Entry::new(sums, vec![self.tokens]).ok_or_else(|| {
            let matrix = matrices.peek().map_or("a matrix", |name| name.as_str()).into();
            Error::InputsNotFinite { matrix }
        })?;
        let entry = Arc::new(entry);
        entries.extend(matrices.map(|name| (name.clone(), entry.clone())));
        Ok(())
    }
}

/// The error for activations that are NaN or infinite.
pub(crate) fn inputs_not_finite(layer: usize, tap: Tap) -> Error {
    Error::InputsNotFinite { matrix: format!("blk.{layer}.{}.weight", tap.matrices()[0]) }
}

/// Measures the inputs of all matrices of all layers. `on_layer` is called with the index of each finished layer.
///
/// # Errors
/// Those of [`measure`].
pub fn importance(
    network: &Network,
    chunks: &Chunks,
    scratch: &Scratch,
    on_layer: &mut dyn FnMut(usize),
) -> Result<Statistics> {
    measure(network, chunks, scratch, false, on_layer)
}

/// Like [`importance`]; with `output`, measures the inputs of the output matrix too. With tied embeddings, that entry has
/// the name of the token embedding.
///
/// # Errors
/// [`Error::UnknownToken`] for tokens beyond the vocabulary; [`Error::NotFinite`] for weights and
/// [`Error::InputsNotFinite`] for activations that are NaN or infinite; [`Error::Io`] if activations that do not fit into
/// memory cannot be written to `scratch`.
pub fn measure(
    network: &Network,
    chunks: &Chunks,
    scratch: &Scratch,
    output: bool,
    on_layer: &mut dyn FnMut(usize),
) -> Result<Statistics> {
    let mut activations = Activations::new(network, &chunks.tokens, 1, scratch)?;
    let mut entries = BTreeMap::new();
    for layer in 0..network.depth() {
        let mut weights = LayerWeights::default();
        for tap in Tap::ALL {
            let mut squares = SquareSums::new(network.width(tap));
            activations.visit_inputs(layer, tap, &[&weights], &mut |inputs| {
                squares.add(&inputs.by_model[0]);
                Ok(())
            })?;
            weights[tap as usize] = activations.original_weights(layer, tap)?;
            let matrices = weights[tap as usize].iter().map(|matrix| &matrix.name);
            squares.add_entries(matrices, &mut entries)?;
        }
        activations.finish_layer(&[&weights])?;
        on_layer(layer);
    }
    if output {
        let mut squares = SquareSums::new(network.width(Tap::Attention));
        activations.visit_output_inputs(&mut |inputs| squares.add(&inputs.by_model[0]))?;
        squares.add_entries(network.matrices().last().map(|output| &output.name), &mut entries)?;
    }
    Ok(statistics(entries, chunks))
}

/// The longest importance matrix that is read, in bytes: those of models of a trillion weights have less than half of that.
const MOST: u64 = 4 << 30;

/// Reads an importance matrix; `map` maps it into memory.
///
/// # Errors
/// Those of [`RunFiles::open`]; [`Error::Refused`] if it is too long; [`Error::Statistics`] if it is not an importance
/// matrix.
pub fn read(run: &RunFiles, path: &Path, map: bool) -> Result<Statistics> {
    let read = || {
        let file = run.open(path, map)?;
        if file.len > MOST {
            let (name, len) = (file.name(), file.len);
            return Err(Error::refused(format!(
                "{name}: an importance matrix must have at most {MOST} bytes (found {len})"
            ))
            .or("name the file that `ggufkit calibrate` or llama-imatrix wrote, not a model"));
        }
        Ok(imatrix::read(file.name(), &file.read(0, file.len)?)?)
    };
    read().map_err(|e| instead(path, Wanted::IMATRIX, e))
}

/// The keys of the model that was measured: the name of its file, and some of its weights ([`Sample::text`]).
const MODEL: &str = "ggufkit.calibration.model";
const WEIGHTS: &str = "ggufkit.calibration.weights";

/// Notes in an importance matrix of which model it is.
///
/// # Errors
/// Those of [`Measured::of`].
pub fn sign(statistics: &mut Statistics, source: &Source) -> Result<()> {
    if let Some(Measured { name, sample }) = Measured::of(source)? {
        statistics.metadata.set(MODEL, Value::text(&name));
        statistics.metadata.set(WEIGHTS, Value::text(&sample.text()));
    }
    Ok(())
}

/// Checks that an importance matrix is of this model, as far as its file says. Gives a note if it was measured on another
/// version of the model.
///
/// # Errors
/// [`Error::OtherModel`] if it was measured on another model; those of [`Measured::check`].
pub fn check(statistics: &Statistics, source: &Source) -> Result<Option<String>> {
    let text = |key| statistics.metadata.text(key);
    let Some(sample) = text(WEIGHTS).and_then(Sample::parse) else { return Ok(None) };
    // Two files that are put together may have names of their own.
    let name = text(MODEL).unwrap_or("a model").to_string();
    Measured { name, sample }.check(source, &format!("{}: the {IMPORTANCE}", statistics.file))
}

/// A placeholder for an importance matrix that will be measured while quantizing layer by layer: the entries that it will
/// have, with all columns equally important. Plans need to know which tensors have an entry.
pub fn placeholder(model: &Model, chunks: &Chunks) -> Statistics {
    let parts: Vec<_> = Tap::ALL.iter().flat_map(|tap| tap.matrices()).collect();
    let will_have = |name: &str| {
        let part = Blk::parse(name).and_then(|blk| blk.weight());
        name == "output.weight" || part.is_some_and(|part| parts.iter().any(|p| **p == part))
    };
    let tokens = chunks.token_count() as u64;
    let matrices = model.tensors.iter().filter(|t| will_have(&t.name));
    let uniform = |t: &Tensor| Entry::new(vec![tokens as f32; t.cols() as usize], vec![tokens]);
    let entries = matrices.filter_map(|t| Some((t.name.clone(), Arc::new(uniform(t)?)))).collect();
    statistics(entries, chunks)
}

fn statistics(entries: BTreeMap<String, Arc<Entry>>, chunks: &Chunks) -> Statistics {
    let mut more = Metadata::new();
    if !chunks.hash.is_empty() {
        more.set(HASH, Value::text(&chunks.hash));
    }
    Statistics {
        file: chunks.names.join(", "),
        entries,
        datasets: chunks.names.clone(),
        chunks: Some(chunks.tokens.len() as u64),
        chunk_size: Some(chunks.context() as u64),
        metadata: more,
        ..Statistics::default()
    }
}
