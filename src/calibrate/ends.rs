//! What comes before the first layer and after the last: the embedding, and the output matrix.

use formats::block::Encode;
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSliceMut;

use super::choose::Wanted;
use super::gptq::FactoredHessian;
use super::gram::Gram;
use super::importance::Squares;
use super::sequential::{Blocks, Layer};
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, QuantizedTensor, Winner, measure_error};
use crate::plan::Plan;
use crate::runner::Network;

/// Rows of the output matrix that are made together: there may be a quarter of a million.
const ROWS: usize = 8192;

/// Lets the second model begin with the embedding as it will be, so that the layers make up for that too.
///
/// # Errors
/// The system's.
pub fn round_embedding(network: &Network, plan: &Plan, walk: &mut Walk) -> Result<()> {
    let Some(Blocks { tensor, dtype, scale: None, .. }) = Blocks::find(plan, "token_embd.weight") else {
        return Ok(());
    };
    let (Some(codec), hidden) = (kernels::codec_for(dtype, network.isa), network.config.hidden) else {
        return Ok(());
    };
    let Some(size) = dtype.bytes_for(hidden) else { return Ok(()) };
    if plan.decisions[tensor].from == plan.layout.tensors[tensor].encoding {
        return Ok(());
    }
    let importance = plan.search.columns(tensor).map(|mut c| c.of(0..hidden).to_vec());
    let how = Encode {
        importance: importance.as_deref(),
        objective: plan.search.objective,
        effort: plan.search.effort,
    };
    walk.begin(1, |x| {
        x.par_chunks_exact_mut(hidden as usize).for_each(|x| {
            let mut bytes = vec![0u8; size as usize];
            codec.encode(x, &how, &mut bytes);
            codec.decode(&bytes, x);
        });
    })
}

impl Layer<'_> {
    /// Makes the output matrix, where it is one of its own: an embedding that serves as one has to be good at both.
    ///
    /// # Errors
    /// The system's; inputs or weights that are not finite.
    pub fn output(&self, walk: &Walk) -> Result<Vec<QuantizedTensor>> {
        let network = self.network;
        let Some((name, _)) = network.output_rows(0..0) else { return Ok(Vec::new()) };
        // Rows are made in parts: a scale of them all is for the search.
        let found = Blocks::find(self.plan, name);
        let Some(blocks) = found.filter(|b| b.quantized && b.scale.is_none()) else {
            return Ok(Vec::new());
        };
        let (isa, n, rows) = (network.isa, network.config.hidden as usize, network.vocab());
        let two = self.method.asymmetric;
        let (mut gram, mut held) = (Gram::new(n, two), Gram::judging(n, two));
        let mut squares = Squares::new(n);
        walk.finish(|inputs| {
            squares.add(&inputs.of[0]);
            self.collect(&inputs, &mut gram, &mut held);
        })?;
        gram.finish();
        held.finish();
        if ![&gram, &held].into_iter().all(Gram::is_finite) {
            let why = format!("the inputs of {name} are not finite");
            return Err(Error::refused(why)
                .or("the model cannot be computed; ggufkit verify says what is wrong with it"));
        }
        let importance = squares.means();
        let sorted = blocks.dtype.grid().is_some();
        let ground = self
            .method
            .feedback
            .then(|| FactoredHessian::new(isa, &gram, self.method.ridge, sorted).for_rows(isa, &gram, rows));
        let wanted = Wanted { dtype: blocks.dtype, scaled: false, folded: false };
        let t = &self.plan.layout.tensors[blocks.tensor];
        let mut made =
            QuantizedTensor { tensor: blocks.tensor, bytes: Vec::new(), outcome: Outcome::default() };
        // Rows have nothing to do with each other: each part of them is made, and judged, by itself.
        let (mut loss, mut usual, mut share, mut name) = (0.0, 0.0, 0.0, "search");
        for first in (0..rows).step_by(ROWS) {
            let range = first..(first + ROWS).min(rows);
            let part = range.len() as f64 / rows as f64;
            let (_, weights) = network.output_rows(range).expect("there is one");
            let (found, search) =
                self.chooser().choose((ground.as_ref(), &gram, &held), wanted, &weights, &importance);
            made.outcome.add(measure_error(t, (first * n) as u64, &weights, &found.values)?);
            made.bytes.extend(found.bytes);
            (loss, usual, share) = (loss + found.loss, usual + search, share + part * found.share);
            if found.name != "search" {
                name = found.name;
            }
        }
        let ratio = if usual > 0.0 { loss / usual } else { 1.0 };
        made.outcome.won = Some(Winner { method: name, ratio, share });
        Ok(vec![made])
    }
}
