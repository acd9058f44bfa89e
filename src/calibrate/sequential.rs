//! Matrices made one after another, each for the inputs that those before it leave.

use std::borrow::Cow;
use std::path::PathBuf;

use formats::block::{DType, Encode, Family};
use formats::model::Encoding;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::choose::{Candidate, Chooser, Wanted, scale_columns};
use super::ends;
use super::fold::{self, Consumer, Producer};
use super::gptq::{FactoredHessian, Ridge};
use super::gram::Gram;
use super::importance::Squares;
use super::importance::too_large;
use super::state::State;
use super::walk::{Inputs, Walk, Weights};
use super::{Chunks, Scratch};
use crate::arch::Blk;
use crate::error::Result;
use crate::outcome::{Outcome, QuantizedTensor, Winner, measure_error};
use crate::plan::{Plan, bias};
use crate::runner::Network;
use crate::runner::layerwise::{Dense, Tap};
use crate::text;

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
    /// How little is made of Hessians.
    pub ridge: Ridge,
    /// Whether targets make up for what the layers before have lost.
    pub asymmetric: bool,
    /// Sweeps of descent, at most.
    pub sweeps: usize,
    /// Whether matrices get biases that make up for their mean error.
    pub bias: bool,
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
            ridge: Ridge::default(),
            asymmetric: true,
            sweeps: 3,
            bias: false,
        }
    }
}

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

/// Tokens for each column of a matrix with which feedback has nearly its whole effect, and with which making up for what
/// earlier layers have lost has.
const ENOUGH: [u64; 2] = [24, 72];

impl Sequential {
    /// What the user should know about the calibration set's size.
    pub fn notes(&self, plan: &Plan) -> Vec<String> {
        [self.few_tokens(plan), self.few_chunks()].into_iter().flatten().collect()
    }

    /// Whether no chunk can be held out to measure the loss on.
    fn few_chunks(&self) -> Option<String> {
        let chunks = self.chunks.tokens.len();
        (chunks < self.method.hold).then(|| {
            format!(
                "none of the {chunks} chunks is held out, so losses are those on the tokens that matrices were quantized \
                 for ({} chunks are enough to hold one out)",
                self.method.hold
            )
        })
    }

    /// Whether the text is short for error feedback.
    fn few_tokens(&self, plan: &Plan) -> Option<String> {
        if !self.method.feedback {
            return None;
        }
        let tokens = self.chunks.count() as u64;
        let made =
            plan.layout.tensors.iter().filter(|t| Blk::parse(&t.name).is_some() && !t.encoding.is_plain());
        let widest = made.max_by_key(|t| t.cols())?;
        let cols = widest.cols();
        (tokens < ENOUGH[1] * cols).then(|| {
            let effect = match tokens / cols {
                per if per < ENOUGH[0] => "more tokens bring more",
                _ => "more tokens bring a little more",
            };
            format!(
                "the calibration set has {} tokens, {:.1} for each column of {}: {effect} (nearly all is had with {} to {})",
                text::count(tokens),
                tokens as f64 / cols as f64,
                widest.name,
                ENOUGH[0],
                ENOUGH[1],
            )
        })
    }
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
    scratch: &Scratch,
    mut state: Option<&mut State>,
    mut done: impl FnMut(QuantizedTensor) -> Result<()>,
    mut tick: impl FnMut(usize),
) -> Result<()> {
    let mut walk = Walk::new(network, &chunks.tokens, 2, scratch)?;
    let mut first = 0;
    if let Some(state) = &mut state {
        first = state.resume(&mut walk, &mut done)?;
    }
    if first == 0 {
        ends::round_embedding(network, plan, &mut walk)?;
    }
    let depth = network.depth();
    tick(first.min(depth));
    // Of very few chunks none can be spared, and all serve for both.
    let hold = method.hold.min(chunks.tokens.len() + 1);
    let hold = (hold <= chunks.tokens.len()).then_some(hold);
    // The output matrix comes last, as one layer more.
    for layer in first..=depth {
        let this = Layer { network, plan, method: *method, layer, context: chunks.context(), hold };
        let made = if layer < depth { this.make(&mut walk)? } else { this.output(&walk)? };
        if let Some(state) = &mut state {
            state.keep(layer, &made, &walk)?;
        }
        made.into_iter().try_for_each(&mut done)?;
        tick((layer + 1).min(depth));
    }
    Ok(())
}

/// Chunks that are added to sums by themselves, at most.
const FEW: usize = 8;

/// What a layer is made with.
pub(super) struct Layer<'a> {
    pub network: &'a Network<'a>,
    pub plan: &'a Plan,
    pub method: Method,
    pub layer: usize,
    pub context: usize,
    /// Of so many chunks, one is held out.
    pub hold: Option<usize>,
}

/// A tensor of the layout that is of blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub tensor: usize,
    pub dtype: DType,
    /// Whether it is quantized here, or stays as it is.
    pub quantized: bool,
    /// The tensor with its scale, if it gets one.
    pub scale: Option<usize>,
}

impl Blocks {
    /// The tensor of the layout, if it is of blocks.
    pub fn find(plan: &Plan, name: &str) -> Option<Self> {
        let tensor = plan.layout.tensors.iter().position(|t| t.name == name)?;
        let t = &plan.layout.tensors[tensor];
        let Encoding::Blocks(dtype) = t.encoding else { return None };
        let scale = plan.scales.iter().find(|s| s.weight == tensor).map(|s| s.scale);
        let quantized = !t.encoding.is_plain() && plan.decisions[tensor].from != t.encoding;
        Some(Self { tensor, dtype, quantized, scale })
    }
}

/// The matrices of a tap as one way makes them: the sum of their losses' ratios, scales, and candidates.
type Way = (f64, Option<Vec<f32>>, Vec<Option<Candidate>>);

impl Layer<'_> {
    fn make(&self, walk: &mut Walk) -> Result<Vec<QuantizedTensor>> {
        let (mut original, mut made) = (Weights::default(), Weights::default());
        let mut finished: Vec<QuantizedTensor> = Vec::new();
        for tap in Tap::ALL {
            let width = self.network.width(tap);
            let two = self.method.asymmetric;
            let (mut gram, mut held) = (Gram::new(width, two), Gram::judging(width, two));
            let mut squares = Squares::new(width);
            walk.arrive(self.layer, tap, &[&original, &made], |inputs| {
                squares.add(&inputs.of[0]);
                self.collect(&inputs, &mut gram, &mut held);
                Ok(())
            })?;
            // Those of the taps before have led here, and are not needed again.
            for done in 0..tap as usize {
                (original[done], made[done]) = (Vec::new(), Vec::new());
            }
            gram.finish();
            held.finish();
            if ![&gram, &held].into_iter().all(Gram::is_finite) {
                return Err(too_large(self.layer, tap));
            }
            original[tap as usize] = walk.original(self.layer, tap)?;
            made[tap as usize] = original[tap as usize].clone();
            self.tap(tap, &mut made[tap as usize], &squares.means(), (gram, held), &mut finished)?;
        }
        walk.leave(&[&original, &made])?;
        Ok(finished)
    }

    pub fn chooser(&self) -> Chooser<'static> {
        let search = &self.plan.search;
        let how = Encode { importance: None, objective: search.objective, effort: search.effort };
        let Method { sweeps, feedback, both, .. } = self.method;
        Chooser { isa: self.network.isa, sweeps, all: feedback && both, how }
    }

    /// Takes inputs in, those of held-out chunks apart. Where there is too little to hold out, all is used for both.
    pub fn collect(&self, inputs: &Inputs, gram: &mut Gram, held: &mut Gram) {
        let [original, made] = &inputs.of[..] else { panic!("two models") };
        let part = gram.width * self.context;
        let last = |c: usize| self.hold.map(|hold| (inputs.first + c) % hold == hold - 1);
        if inputs.count > FEW {
            // Many short chunks: the sums are large, and gone through as seldom as may be.
            for (to, other) in [(gram, true), (held, false)] {
                let take = |all: &[f32]| -> Vec<f32> {
                    let chunks = all.chunks_exact(part).enumerate();
                    let of = chunks.filter(|(c, _)| last(*c) != Some(other));
                    of.flat_map(|(_, x)| x).copied().collect()
                };
                let original = self.method.asymmetric.then(|| take(original));
                to.add(self.network.isa, &take(made), original.as_deref());
            }
            return;
        }
        let mut c = 0;
        // Chunks that follow each other on the same side go together.
        while c < inputs.count {
            let side = last(c);
            let count = (c..inputs.count).take_while(|c| last(*c) == side).count();
            let (x, y) = (&made[c * part..][..count * part], &original[c * part..][..count * part]);
            let y = self.method.asymmetric.then_some(y);
            if side != Some(true) {
                gram.add(self.network.isa, x, y);
            }
            if side != Some(false) {
                held.add(self.network.isa, x, y);
            }
            c += count;
        }
    }

    /// Makes the matrices of a tap, which are those of the original when it begins.
    fn tap(
        &self,
        tap: Tap,
        matrices: &mut [Dense],
        importance: &[f32],
        (mut gram, mut held): (Gram, Gram),
        finished: &mut Vec<QuantizedTensor>,
    ) -> Result<()> {
        let isa = self.network.isa;
        let wanted: Vec<_> = matrices.iter().map(|m| self.blocks(&m.name)).collect();
        let random = matches!(self.method.folds, Folds::Random(_));
        if !random && wanted.iter().all(|w| w.is_none_or(|w| !w.quantized)) {
            return Ok(());
        }
        let mean = self.method.bias.then(|| gram.mean());
        if let Some(mean) = &mean {
            gram.centre(mean);
            held.centre(mean);
        }
        let chooser = self.chooser();
        let scales = self.scales(tap, matrices, &wanted, importance, (&gram, &held), &chooser.how);
        let scales = scales.map(|s| self.within_reach(tap, s, finished));

        let feedback = self.method.feedback;
        let plain = feedback && (scales.is_none() || self.method.both);
        let mut tries = vec![(None, plain)];
        tries.extend(scales.map(|s| (Some(s), feedback)));
        let mut best: Option<Way> = None;
        let mut usual: Vec<f64> = Vec::new();
        for (scales, feedback) in tries {
            if let Some(s) = &scales {
                gram.divide(s);
                held.divide(s);
            }
            let ridge = self.method.ridge;
            let (mut sorted, mut natural) = (None, None);
            let rows = matrices.iter().map(|m| m.rows).sum();
            let mut candidates = Vec::new();
            for (matrix, wanted) in matrices.iter().zip(&wanted) {
                let Some(Blocks { dtype, quantized, scale, .. }) = *wanted else {
                    candidates.push(None);
                    continue;
                };
                let (mut weights, mut importance) =
                    (Cow::Borrowed(&*matrix.weights), Cow::Borrowed(importance));
                if let Some(s) = &scales {
                    scale_columns(weights.to_mut(), s, |w, s| w * s);
                    scale_columns(importance.to_mut(), s, |i, s| i / (s * s));
                }
                let ground = (feedback && quantized).then(|| {
                    let (ground, in_order) = match dtype.grid() {
                        Some(_) => (&mut sorted, true),
                        None => (&mut natural, false),
                    };
                    &*ground.get_or_insert_with(|| {
                        FactoredHessian::new(isa, &gram, ridge, in_order).for_rows(isa, &gram, rows)
                    })
                });
                let wanted = Wanted { dtype, scaled: scale.is_some(), folded: scales.is_some() };
                let (mut found, search) =
                    chooser.choose((ground, &gram, &held), wanted, &weights, &importance);
                match &scales {
                    Some(s) => scale_columns(&mut found.values, s, |q, s| q / s),
                    None => usual.push(search),
                }
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
            let (Some(blocks), Some(c)) = (*wanted, candidate) else { continue };
            let usual = usual.next().expect("one for each");
            if !blocks.quantized && scales.is_none() {
                continue;
            }
            let ratio = if usual > 0.0 { c.loss / usual } else { 1.0 };
            let won = Some(Winner { method: c.name, ratio, share: c.share });
            let tensor = blocks.tensor;
            let outcome = measure_error(&self.plan.layout.tensors[tensor], 0, &matrix.weights, &c.values)?;
            let weights = std::mem::replace(&mut matrix.weights, c.values);
            finished.push(QuantizedTensor { tensor, bytes: c.bytes, outcome: Outcome { won, ..outcome } });
            if let (Some(mean), Some(tensor)) = (&mean, self.bias_of(&matrix.name)) {
                let bias = matrix.add_bias(&mean_error(&weights, &matrix.weights, mean));
                let bytes = bias.iter().flat_map(|b| b.to_le_bytes()).collect();
                finished.push(QuantizedTensor { tensor, bytes, outcome: Outcome::default() });
            }
            if let Some(tensor) = blocks.scale {
                let bytes = c.factor.to_le_bytes().to_vec();
                finished.push(QuantizedTensor { tensor, bytes, outcome: Outcome::default() });
            }
        }
        if let Some(s) = scales {
            self.give_back(tap, &s, finished);
        }
        Ok(())
    }

    fn blocks(&self, name: &str) -> Option<Blocks> {
        Blocks::find(self.plan, name)
    }

    /// The place of a matrix's bias, if it has one.
    fn bias_of(&self, weight: &str) -> Option<usize> {
        let name = bias::bias_name(weight)?;
        self.plan.layout.tensors.iter().position(|t| t.name == name)
    }

    /// The scales for a tap's columns, if they can be moved and that helps.
    fn scales(
        &self,
        tap: Tap,
        matrices: &[Dense],
        wanted: &[Option<Blocks>],
        importance: &[f32],
        grams: (&Gram, &Gram),
        how: &Encode,
    ) -> Option<Vec<f32>> {
        if self.method.folds == Folds::None || self.network.has_sub_norm(self.layer, tap) {
            return None;
        }
        let (name, bias) = self.names(tap);
        self.blocks(&name).filter(|p| match fold::producer(tap) {
            Producer::Norm(_) => !p.quantized,
            Producer::Rows(_) => fold::scalable(p.dtype),
        })?;
        if let Some(bias) = bias {
            self.blocks(&bias).filter(|p| !p.quantized)?;
        }
        let mut consumers = Vec::new();
        for (m, w) in matrices.iter().zip(wanted) {
            let Blocks { tensor, dtype, quantized, scale } = (*w)?;
            // What stays as it is stays as it is, unless it is plain numbers.
            let kept = !quantized && !self.plan.layout.tensors[tensor].encoding.is_plain();
            if dtype.info().family == Family::Ternary || scale.is_some() || kept {
                return None;
            }
            if quantized {
                consumers.push(Consumer { weights: &m.weights, dtype, importance });
            }
        }
        let config = &self.network.config;
        match self.method.folds {
            Folds::Random(seed) => Some(fold::random(config, tap, grams.0.width, seed + self.layer as u64)),
            _ => fold::search(self.network.isa, config, tap, grams, &consumers, how),
        }
    }

    /// The names of what makes a tap's input, and of the bias that goes with it, if there is one.
    fn names(&self, tap: Tap) -> (String, Option<String>) {
        let layer = self.layer as u64;
        let name = |part: &str, kind: &str| Blk { layer, part: &format!("{part}.{kind}") }.to_string();
        match fold::producer(tap) {
            Producer::Norm(part) => (name(part, "weight"), None),
            Producer::Rows(part) => {
                let bias = name(part, "bias");
                let there = self.plan.layout.tensors.iter().any(|t| t.name == bias);
                (name(part, "weight"), there.then_some(bias))
            }
        }
    }

    /// The producer's or its bias's place in the layout, its type, and its blocks as they are so far.
    fn blocks_of(&self, name: &str, finished: &[QuantizedTensor]) -> (usize, DType, Vec<u8>) {
        let Blocks { tensor, dtype, .. } = self.blocks(name).expect("looked at before");
        if let Some(made) = finished.iter().find(|m| m.tensor == tensor) {
            return (tensor, dtype, made.bytes.clone());
        }
        let weights = self.network.weights_of(self.layer, name);
        let mut bytes = vec![0u8; dtype.bytes_for(weights.len() as u64).expect("whole blocks") as usize];
        let codec = kernels::codec(dtype).expect("plans encode into types that have a codec");
        codec.encode(&weights, &Encode::default(), &mut bytes);
        (tensor, dtype, bytes)
    }

    /// Scales by which the rows of what makes a tap's input can be divided without a loss.
    fn within_reach(&self, tap: Tap, mut s: Vec<f32>, finished: &[QuantizedTensor]) -> Vec<f32> {
        if let Producer::Rows(_) = fold::producer(tap) {
            let (_, dtype, bytes) = self.blocks_of(&self.names(tap).0, finished);
            let config = &self.network.config;
            let row = bytes.len() / fold::channels(config, tap, &s).len();
            fold::limit(config, tap, &mut s, |c, by| fold::exact(dtype, &bytes[c * row..][..row], by));
        }
        s
    }

    /// Divides what makes a tap's input by its columns' scales.
    fn give_back(&self, tap: Tap, s: &[f32], finished: &mut Vec<QuantizedTensor>) {
        let (name, bias) = self.names(tap);
        let s = fold::channels(&self.network.config, tap, s);
        for name in [Some(name), bias].into_iter().flatten() {
            let (tensor, dtype, mut bytes) = self.blocks_of(&name, finished);
            let row = bytes.len() / s.len();
            bytes.par_chunks_exact_mut(row).zip(&s).for_each(|(row, s)| fold::divide(dtype, row, *s));
            match finished.iter_mut().find(|m| m.tensor == tensor) {
                Some(made) => made.bytes = bytes,
                None => finished.push(QuantizedTensor { tensor, bytes, outcome: Outcome::default() }),
            }
        }
    }
}

/// What a matrix's outputs lose in the mean: (W − Q)·x + W·y, of the means of x and y.
fn mean_error(weights: &[f32], values: &[f32], [x, y]: &[Vec<f32>; 2]) -> Vec<f32> {
    let rows = weights.par_chunks_exact(x.len()).zip(values.par_chunks_exact(x.len()));
    rows.map(|(w, q)| {
        let of = |y: &[f32]| w.iter().zip(y).map(|(w, y)| f64::from(*w) * f64::from(*y)).sum::<f64>();
        let lost = w.iter().zip(q).zip(x).map(|((w, q), x)| f64::from(w - q) * f64::from(*x));
        (lost.sum::<f64>() + of(y)) as f32
    })
    .collect()
}
