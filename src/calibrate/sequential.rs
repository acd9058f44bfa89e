//! Matrices made one after another, each for the inputs that those before it leave.

use std::path::PathBuf;

use formats::block::{DType, Encode, Objective};
use formats::model::Encoding;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::fit::{self, Fit, Ground, Judge};
use super::fold::{self, Consumer, Producer};
use super::gram::Gram;
use super::importance::too_large;
use super::state::State;
use super::walk::{Inputs, Walk, Weights};
use super::{Chunks, Room};
use crate::error::Result;
use crate::kernels::{self, Isa};
use crate::plan::Plan;
use crate::quantize::{Outcome, sums};
use crate::runner::Network;
use crate::runner::layerwise::{Dense, Site};

/// How matrices are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Method {
    /// Whether codes make up for each other's errors (GPTQ).
    pub feedback: bool,
    /// Whether scales are moved from columns into what makes them (AWQ).
    pub folds: Folds,
    /// Whether feedback is tried without folds too.
    pub both: bool,
    /// Of every so many chunks, one is held out to judge by.
    pub hold: usize,
    /// What is added to a Hessian's diagonal, in parts of its mean.
    pub damping: f32,
    /// Whether targets make up for what the layers before have lost.
    pub asymmetric: bool,
    /// Sweeps of descent, at most.
    pub sweeps: usize,
}

/// Scales that are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folds {
    /// None.
    None,
    /// Those that lose least, if any are better than none.
    Searched,
    /// Any, everywhere, whatever that loses: to see that the model stays the same.
    Random(u64),
}

impl Default for Method {
    fn default() -> Self {
        Self {
            feedback: true,
            folds: Folds::None,
            both: false,
            hold: 5,
            damping: 0.01,
            asymmetric: true,
            sweeps: 6,
        }
    }
}

/// Tokens for each column below which a Hessian says less than its diagonal.
pub const FEW: u64 = 4;

/// What is to be made that way, of which text.
#[derive(Debug, Clone)]
pub struct Sequential {
    /// How.
    pub method: Method,
    /// The text.
    pub chunks: Chunks,
    /// Where what is done is kept, so that the run can be taken up again.
    pub state: Option<PathBuf>,
}

/// What became of a matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Won {
    /// The candidate that was taken.
    pub method: &'static str,
    /// Its loss on held-out tokens, over that of the plain search with importance.
    pub ratio: f64,
    /// How much of the loss of the layers before is made up for: 0 to 1.
    pub share: f64,
}

/// A finished tensor.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its index in the plan's layout.
    pub tensor: usize,
    /// Its blocks, little-endian.
    pub bytes: Vec<u8>,
    /// What that did to the weights, and how it was made; scales that were moved are no error.
    pub outcome: Outcome,
}

/// Makes the plan's quantized matrices, layer by layer. `done` gets each tensor as it is finished, with those that
/// change along with it; `tick` is told how many layers are done. With a `state`, layers that it has are not made again.
///
/// # Errors
/// The system's; inputs that are not finite; what `done` gives.
pub fn run(
    network: &Network,
    plan: &Plan,
    Sequential { chunks, method, .. }: &Sequential,
    room: &Room,
    mut state: Option<&mut State>,
    mut done: impl FnMut(Made) -> Result<()>,
    mut tick: impl FnMut(usize),
) -> Result<()> {
    let mut walk = Walk::new(network, &chunks.tokens, 2, room)?;
    let mut first = 0;
    if let Some(state) = &mut state {
        first = state.resume(&mut walk, &mut done)?;
    }
    tick(first);
    for layer in first..network.depth() {
        // Of very few chunks none can be spared, and all serve for both.
        let hold = method.hold.min(chunks.tokens.len() + 1);
        let hold = (hold <= chunks.tokens.len()).then_some(hold);
        let made = Layer { network, plan, method: *method, layer, context: chunks.context(), hold };
        let made = made.make(&mut walk)?;
        if let Some(state) = &mut state {
            state.keep(layer, &made, &walk)?;
        }
        made.into_iter().try_for_each(&mut done)?;
        tick(layer + 1);
    }
    Ok(())
}

struct Layer<'a> {
    network: &'a Network<'a>,
    plan: &'a Plan,
    method: Method,
    layer: usize,
    context: usize,
    /// Of so many chunks, one is held out.
    hold: Option<usize>,
}

/// A matrix as one way makes it.
struct Candidate {
    bytes: Vec<u8>,
    values: Vec<f32>,
    loss: f64,
    name: &'static str,
    share: f64,
}

/// The matrices of a site as one way makes them: the sum of their losses' ratios, scales, and candidates.
type Way = (f64, Option<Vec<f32>>, Vec<Option<Candidate>>);

impl Layer<'_> {
    fn make(&self, walk: &mut Walk) -> Result<Vec<Made>> {
        let (mut original, mut made) = (Weights::default(), Weights::default());
        let mut finished: Vec<Made> = Vec::new();
        for site in Site::ALL {
            let width = self.network.width(site);
            let two = self.method.asymmetric;
            let (mut gram, mut held) = (Gram::new(width, two), Gram::judging(width, two));
            walk.arrive(self.layer, site, &[&original, &made], |inputs| {
                self.collect(&inputs, &mut gram, &mut held);
                Ok(())
            })?;
            gram.finish();
            held.finish();
            if ![&gram, &held].into_iter().all(Gram::is_finite) {
                return Err(too_large(self.layer, site));
            }
            original[site as usize] = walk.original(self.layer, site)?;
            made[site as usize] = original[site as usize].clone();
            self.site(site, &mut made[site as usize], gram, held, &mut finished);
        }
        walk.leave(&[&original, &made])?;
        Ok(finished)
    }

    /// Takes inputs in, those of held-out chunks apart. Where there is too little to hold out, all is used for both.
    fn collect(&self, inputs: &Inputs, gram: &mut Gram, held: &mut Gram) {
        let [original, made] = &inputs.of[..] else { panic!("two models") };
        let part = gram.width * self.context;
        let (mut kept, mut out) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for c in 0..inputs.count {
            let last = self.hold.map(|hold| (inputs.first + c) % hold == hold - 1);
            for (to, takes) in [(&mut kept, last != Some(true)), (&mut out, last != Some(false))] {
                if takes {
                    to[0].extend_from_slice(&made[c * part..(c + 1) * part]);
                    to[1].extend_from_slice(&original[c * part..(c + 1) * part]);
                }
            }
        }
        for (x, gram) in [(kept, gram), (out, held)] {
            gram.add(self.network.isa, &x[0], self.method.asymmetric.then_some(&x[1]));
        }
    }

    /// Makes the matrices of a site, which are those of the original when it begins.
    fn site(
        &self,
        site: Site,
        matrices: &mut [Dense],
        mut gram: Gram,
        mut held: Gram,
        finished: &mut Vec<Made>,
    ) {
        let isa = self.network.isa;
        let wanted: Vec<_> = matrices.iter().map(|m| self.blocks(&m.name)).collect();
        let random = matches!(self.method.folds, Folds::Random(_));
        if !random && wanted.iter().all(|w| w.is_none_or(|w| !w.2)) {
            return;
        }
        let n = gram.width;
        let known: Vec<Vec<f32>> = wanted
            .iter()
            .map(|w| {
                let known = w.and_then(|w| self.plan.search.columns(w.0));
                known.map_or_else(|| gram.means(), |mut c| c.of(0..n as u64).to_vec())
            })
            .collect();
        let how = Encode {
            importance: None,
            objective: self.plan.search.objective,
            effort: self.plan.search.effort,
        };
        let scales = self.scales(site, matrices, &wanted, &known, (&gram, &held), &how);
        let scales = scales.map(|s| self.within_reach(site, s, finished));

        let feedback = self.method.feedback && gram.tokens >= FEW * n as u64;
        let plain = feedback && (scales.is_none() || self.method.both);
        let mut tries = vec![(None, plain)];
        tries.extend(scales.map(|s| (Some(s), feedback)));
        let mut best: Option<Way> = None;
        let mut usual: Vec<f64> = Vec::new();
        for (scales, feedback) in tries {
            let ones = vec![1f32; n];
            let s = scales.as_deref().unwrap_or(&ones);
            if scales.is_some() {
                gram.divide(s);
                held.divide(s);
            }
            let ground = Ground::new(isa, &gram, self.method.damping, true);
            let mut natural = None;
            let mut candidates = Vec::new();
            for ((matrix, wanted), known) in matrices.iter().zip(&wanted).zip(&known) {
                let Some((_, dtype, quantized)) = *wanted else {
                    candidates.push(None);
                    continue;
                };
                let weights: Vec<f32> = columns(&matrix.weights, s, |w, s| w * s);
                let importance = columns(known, s, |i, s| i / (s * s));
                let with = feedback && quantized;
                let ground = if dtype.grid().is_none() && with {
                    natural.get_or_insert_with(|| Ground::new(isa, &gram, self.method.damping, false))
                } else {
                    &ground
                };
                let (mut found, search) = self.choose(
                    ground,
                    (&gram, &held),
                    dtype,
                    &weights,
                    &importance,
                    &how,
                    with,
                    scales.is_some(),
                );
                if scales.is_none() {
                    usual.push(search);
                }
                found.values = columns(&found.values, s, |q, s| q / s);
                candidates.push(Some(found));
            }
            let losses = candidates.iter().flatten().zip(&usual);
            let total = losses.map(|(c, u)| if *u > 0.0 { c.loss / u } else { 1.0 }).sum();
            if best.as_ref().is_none_or(|b| total < b.0 || random) {
                best = Some((total, scales, candidates));
            }
        }
        let (_, scales, candidates) = best.expect("there is at least one way");
        let mut usual = usual.into_iter();
        for ((matrix, wanted), candidate) in matrices.iter_mut().zip(&wanted).zip(candidates) {
            let (Some((tensor, _, quantized)), Some(c)) = (*wanted, candidate) else { continue };
            let usual = usual.next().expect("one for each");
            if !quantized && scales.is_none() {
                continue;
            }
            let ratio = if usual > 0.0 { c.loss / usual } else { 1.0 };
            let won = Some(Won { method: c.name, ratio, share: c.share });
            let outcome = Outcome { won, ..sums(&matrix.weights, &c.values) };
            matrix.weights = c.values;
            finished.push(Made { tensor, bytes: c.bytes, outcome });
        }
        if let Some(s) = scales {
            self.give_back(site, &s, finished);
        }
    }

    /// The tensor of the layout, its type, and whether it is quantized, if it is of blocks that are made here.
    fn blocks(&self, name: &str) -> Option<(usize, DType, bool)> {
        let plan = self.plan;
        let i = plan.layout.tensors.iter().position(|t| t.name == name)?;
        let t = &plan.layout.tensors[i];
        let Encoding::Blocks(dtype) = t.encoding else { return None };
        if plan.scales.iter().any(|s| s.weight == i) {
            return None;
        }
        Some((i, dtype, !t.encoding.is_plain() && plan.steps[i].from != t.encoding))
    }

    /// The scales for a site's columns, if they can be moved and that helps.
    fn scales(
        &self,
        site: Site,
        matrices: &[Dense],
        wanted: &[Option<(usize, DType, bool)>],
        known: &[Vec<f32>],
        grams: (&Gram, &Gram),
        how: &Encode,
    ) -> Option<Vec<f32>> {
        if self.method.folds == Folds::None || self.network.has_sub_norm(self.layer, site) {
            return None;
        }
        let (name, bias) = self.names(site);
        self.blocks(&name).filter(|p| match fold::producer(site) {
            Producer::Norm(_) => !p.2,
            Producer::Rows(_) => fold::scalable(p.1),
        })?;
        if let Some(bias) = bias {
            self.blocks(&bias).filter(|p| !p.2)?;
        }
        let mut consumers = Vec::new();
        for ((m, w), known) in matrices.iter().zip(wanted).zip(known) {
            let (_, dtype, quantized) = (*w)?;
            if matches!(dtype, DType::TQ1_0 | DType::TQ2_0) {
                return None;
            }
            if quantized {
                consumers.push(Consumer { weights: &m.weights, dtype, importance: known });
            }
        }
        let config = &self.network.config;
        match self.method.folds {
            Folds::Random(seed) => Some(fold::random(config, site, grams.0.width, seed + self.layer as u64)),
            _ => fold::search(self.network.isa, config, site, grams, &consumers, how),
        }
    }

    /// The names of what makes a site's input, and of the bias that goes with it, if there is one.
    fn names(&self, site: Site) -> (String, Option<String>) {
        let name = |part: &str, kind: &str| format!("blk.{}.{part}.{kind}", self.layer);
        match fold::producer(site) {
            Producer::Norm(part) => (name(part, "weight"), None),
            Producer::Rows(part) => {
                let bias = name(part, "bias");
                let there = self.plan.layout.tensors.iter().any(|t| t.name == bias);
                (name(part, "weight"), there.then_some(bias))
            }
        }
    }

    /// The producer's or its bias's place in the layout, its type, and its blocks as they are so far.
    fn blocks_of(&self, name: &str, finished: &[Made]) -> (usize, DType, Vec<u8>) {
        let (tensor, dtype, _) = self.blocks(name).expect("looked at before");
        if let Some(made) = finished.iter().find(|m| m.tensor == tensor) {
            return (tensor, dtype, made.bytes.clone());
        }
        let weights = self.network.weights_of(self.layer, name);
        let mut bytes = vec![0u8; dtype.bytes_for(weights.len() as u64).expect("whole blocks") as usize];
        let codec = kernels::codec(dtype).expect("plans encode into types that have a codec");
        codec.encode(&weights, &Encode::default(), &mut bytes);
        (tensor, dtype, bytes)
    }

    /// Scales by which the rows of what makes a site's input can be divided without a loss.
    fn within_reach(&self, site: Site, mut s: Vec<f32>, finished: &[Made]) -> Vec<f32> {
        if let Producer::Rows(_) = fold::producer(site) {
            let (_, dtype, bytes) = self.blocks_of(&self.names(site).0, finished);
            let config = &self.network.config;
            let row = bytes.len() / fold::channels(config, site, &s).len();
            fold::limit(config, site, &mut s, |c, by| fold::exact(dtype, &bytes[c * row..][..row], by));
        }
        s
    }

    /// Divides what makes a site's input by its columns' scales.
    fn give_back(&self, site: Site, s: &[f32], finished: &mut Vec<Made>) {
        let (name, bias) = self.names(site);
        let s = fold::channels(&self.network.config, site, s);
        for name in [Some(name), bias].into_iter().flatten() {
            let (tensor, dtype, mut bytes) = self.blocks_of(&name, finished);
            let row = bytes.len() / s.len();
            bytes.par_chunks_exact_mut(row).zip(&s).for_each(|(row, s)| fold::divide(dtype, row, *s));
            match finished.iter_mut().find(|m| m.tensor == tensor) {
                Some(made) => made.bytes = bytes,
                None => finished.push(Made { tensor, bytes, outcome: Outcome::default() }),
            }
        }
    }

    /// Makes a matrix in several ways; gives the one with the least loss, and the loss of the search with importance.
    #[allow(clippy::too_many_arguments)]
    fn choose(
        &self,
        ground: &Ground,
        (gram, held): (&Gram, &Gram),
        dtype: DType,
        weights: &[f32],
        importance: &[f32],
        how: &Encode,
        feedback: bool,
        folded: bool,
    ) -> (Candidate, f64) {
        let isa = self.network.isa;
        let judge = Judge::new(isa, weights, held);
        let (bytes, values) = search(isa, dtype, weights, &Encode { importance: Some(importance), ..*how });
        let name = if folded { "awq" } else { "search" };
        let mut best = Candidate { loss: judge.loss(&values), bytes, values, name, share: 0.0 };
        let usual = best.loss;
        let mut offer = |bytes: Vec<u8>, values: Vec<f32>, name, share| {
            let loss = judge.loss(&values);
            if loss < best.loss {
                best = Candidate { bytes, values, loss, name, share };
            }
        };
        if !feedback {
            // What the type does not do by itself may still be better here.
            if how.objective.is_none() {
                let other =
                    Encode { importance: Some(importance), objective: Some(Objective::Error), ..*how };
                let (bytes, values) = search(isa, dtype, weights, &other);
                offer(bytes, values, name, 0.0);
            }
            return (best, usual);
        }
        let (targets, share) = judge.target(weights, gram, ground);
        let name = if folded { "awq+gptq" } else { "gptq" };
        match Fit::new(isa, ground, dtype, &targets, how) {
            Some(mut fitted) => {
                fitted.feed_back();
                fitted.descend(self.method.sweeps, 2);
                offer(fitted.pack(), fitted.values, name, share);
            }
            None => {
                let (bytes, values) = fit::feed_back_blocks(isa, ground, dtype, &targets, how);
                offer(bytes, values, name, share);
            }
        }
        (best, usual)
    }
}

/// Each number with its column's scale.
fn columns(x: &[f32], s: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    x.chunks_exact(s.len()).flat_map(|row| row.iter().zip(s).map(|(x, s)| f(*x, *s))).collect()
}

/// The type's own search, row by row: bytes, and what they mean.
fn search(isa: Isa, dtype: DType, weights: &[f32], how: &Encode) -> (Vec<u8>, Vec<f32>) {
    let n = how.importance.map_or(0, <[f32]>::len);
    let codec = kernels::codec_for(dtype, isa).expect("plans encode into types that have a codec");
    let size = dtype.bytes_for(n as u64).expect("whole blocks") as usize;
    let mut bytes = vec![0u8; weights.len() / n * size];
    let mut values = vec![0f32; weights.len()];
    bytes
        .par_chunks_exact_mut(size)
        .zip(values.par_chunks_exact_mut(n))
        .zip(weights.par_chunks_exact(n))
        .for_each(|((bytes, values), x)| {
            codec.encode(x, how, bytes);
            codec.decode(bytes, values);
        });
    (bytes, values)
}
