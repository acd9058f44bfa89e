//! The mean squares of every matrix's inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use calibration::imatrix::HASH;
use calibration::{Entry, Statistics};
use formats::metadata::{Metadata, Value};
use formats::model::{Model, Tensor};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use super::walk::{Walk, Weights};
use super::{Chunks, Scratch};
use crate::error::{Error, Result};
use crate::runner::Network;
use crate::runner::layerwise::Tap;

/// Sums of squares of columns.
pub(crate) struct Squares {
    sums: Vec<f64>,
    tokens: u64,
}

/// Columns that a thread takes at a time.
const COLUMNS: usize = 128;

impl Squares {
    pub fn new(width: usize) -> Self {
        Self { sums: vec![0.0; width], tokens: 0 }
    }

    pub fn add(&mut self, x: &[f32]) {
        let width = self.sums.len();
        self.tokens += (x.len() / width) as u64;
        self.sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, sums)| {
            for row in x.chunks_exact(width) {
                for (s, x) in sums.iter_mut().zip(&row[i * COLUMNS..]) {
                    *s += f64::from(*x) * f64::from(*x);
                }
            }
        });
    }

    /// The mean squares.
    pub fn means(&self) -> Vec<f32> {
        self.sums.iter().map(|s| (s / self.tokens.max(1) as f64) as f32).collect()
    }

    /// Makes an entry for each of the matrices that take these inputs.
    fn enter<'n>(
        &self,
        matrices: impl IntoIterator<Item = &'n String>,
        entries: &mut BTreeMap<String, Arc<Entry>>,
    ) -> Result<()> {
        let mut matrices = matrices.into_iter().peekable();
        let sums = self.sums.iter().map(|s| *s as f32).collect();
        let entry = Entry::new(sums, vec![self.tokens]).ok_or_else(|| {
            let matrix = matrices.peek().map_or("a matrix", |name| name.as_str());
            Error::refused(format!("the inputs of {matrix} are not finite"))
                .or("look for infinities and NaNs in the weights: ggufkit verify MODEL")
        })?;
        let entry = Arc::new(entry);
        entries.extend(matrices.map(|name| (name.clone(), entry.clone())));
        Ok(())
    }
}

/// Says where a model's numbers end.
pub(crate) fn too_large(layer: usize, tap: Tap) -> Error {
    let (matrix, hint) =
        (tap.matrices()[0], "the model cannot be computed; ggufkit verify says what is wrong with it");
    Error::refused(format!("the inputs of blk.{layer}.{matrix}.weight are not finite")).or(hint)
}

/// Measures the inputs of all matrices of all layers; `tick` is told of every layer that is done.
///
/// # Errors
/// The system's, where vectors do not fit into memory; inputs that are not finite.
pub fn importance(
    network: &Network,
    chunks: &Chunks,
    scratch: &Scratch,
    tick: impl FnMut(usize),
) -> Result<Statistics> {
    measure(network, chunks, scratch, false, tick)
}

/// The same; `output` measures the input of the output matrix too. Where the token embedding serves as one, the entry
/// has its name.
///
/// # Errors
/// The system's, where vectors do not fit into memory.
pub fn measure(
    network: &Network,
    chunks: &Chunks,
    scratch: &Scratch,
    output: bool,
    mut tick: impl FnMut(usize),
) -> Result<Statistics> {
    let mut walk = Walk::new(network, &chunks.tokens, 1, scratch)?;
    let mut entries = BTreeMap::new();
    for layer in 0..network.depth() {
        let mut weights = Weights::default();
        for tap in Tap::ALL {
            let mut squares = Squares::new(network.width(tap));
            walk.arrive(layer, tap, &[&weights], |inputs| {
                squares.add(&inputs.of[0]);
                Ok(())
            })?;
            weights[tap as usize] = walk.original(layer, tap)?;
            let matrices = weights[tap as usize].iter().map(|matrix| &matrix.name);
            squares.enter(matrices, &mut entries)?;
        }
        walk.leave(&[&weights])?;
        tick(layer);
    }
    if output {
        let mut squares = Squares::new(network.width(Tap::Attention));
        walk.finish(|inputs| squares.add(&inputs.of[0]))?;
        squares.enter(network.matrices().last().map(|output| &output.name), &mut entries)?;
    }
    Ok(statistics(entries, chunks))
}

/// What there will be about the matrices of layers and the output matrix, with all columns alike: for plans whose matrices are made layer by
/// layer, where inputs are measured on the way.
pub fn unmeasured(model: &Model, chunks: &Chunks) -> Statistics {
    let parts: Vec<_> = Tap::ALL.iter().flat_map(|tap| tap.matrices()).collect();
    let made = |name: &str| {
        let part = name.strip_suffix(".weight").and_then(|n| n.strip_prefix("blk.")?.split_once('.'));
        name == "output.weight" || part.is_some_and(|(_, part)| parts.iter().any(|p| **p == part))
    };
    let tokens = chunks.count() as u64;
    let matrices = model.tensors.iter().filter(|t| made(&t.name));
    let alike = |t: &Tensor| Entry::new(vec![tokens as f32; t.cols() as usize], vec![tokens]);
    let entries = matrices.filter_map(|t| Some((t.name.clone(), Arc::new(alike(t)?)))).collect();
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
