//! How good a model's predictions are: log-likelihood of text, and distance from a reference model.
//!
//! Every scored position gives a [`TokenScore`]; [`Scores`] gathers rows by chunk and [`Scores::summary`] says what they
//! amount to. The protocol is that of llama.cpp's `tools/perplexity`, so that the numbers can be set beside its: the
//! text is cut into chunks of `n_ctx` tokens, of which those after the middle are predicted ([`scored`]).
//!
//! # Formulae
//! z are logits, p = softmax(z), t is the token that follows in the text; logarithms are natural.
//!
//! * negative log-likelihood: −ln p(t) = ln Σ e^z − z(t); perplexity is the exponential of its mean (Jelinek et al.,
//!   "Perplexity: a measure of the difficulty of speech recognition tasks", 1977)
//! * Kullback-Leibler divergence of the candidate q from the reference p: Σ p (ln p − ln q), over the vocabulary
//!   (Kullback and Leibler, "On information and sufficiency", 1951)
//! * top-token agreement: whether both are largest at the same token, the first one of equals
//! * Δp: q(t) − p(t)
//!
//! # Two kinds of reference
//! [`against_logits`] has both models' logits (two models in one pass) and leaves nothing out. [`against_file`] has
//! what a `--kl-divergence-base` file keeps of the reference: log-probabilities in steps of (their range)/65535, none
//! lower than 16 below the largest. Like llama.cpp it takes those numbers as they are, without making them add up to
//! one again, and leaves out of the sum the entries of the vocabulary whose stored log-probability is −16 or less. So
//! it differs from the first by up to some 1e-3 nats, can come out slightly below zero, and is not zero for a model
//! against its own file: fit to be compared with llama.cpp's own numbers, too coarse for `q8_0`.

pub mod bootstrap;
pub mod histogram;
pub mod logits_file;
pub(crate) mod math;
pub mod stats;
pub mod summary;

use std::ops::Range;

pub use bootstrap::{Interval, Ratio, ratio_interval};
pub use summary::{Scores, Summary};

/// The positions of a chunk of `context` tokens whose predictions are scored: from the middle to the last but one.
/// Position i predicts token i + 1. The first half is there to be looked back at.
pub fn scored(context: usize) -> Range<usize> {
    context / 2..context.saturating_sub(1).max(context / 2)
}

/// What a position tells about a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Negative log-likelihood of the text's token, in nats.
    pub nll: f64,
    /// What it tells beside a reference, where there is one.
    pub pair: Option<Pair>,
}

/// What a position tells about a model beside a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The reference's negative log-likelihood of the text's token, in nats.
    pub nll: f64,
    /// Kullback-Leibler divergence of the model from the reference, in nats.
    pub kld: f64,
    /// Whether both hold the same token for the likeliest.
    pub same_top: bool,
    /// The model's probability of the text's token less the reference's.
    pub dp: f64,
}

/// Logits that have no score.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// A NaN or an infinity.
    #[error("the logit of token {at} is {value}")]
    NotFinite {
        /// The token.
        at: usize,
        /// Its logit.
        value: f32,
    },
    /// No logits.
    #[error("a row without logits")]
    Empty,
    /// The text has a token that the vocabulary does not.
    #[error("token {target} of the text is not in the vocabulary of {vocab}")]
    OutOfVocabulary {
        /// The token.
        target: usize,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// Rows of two vocabularies.
    #[error("the vocabularies differ: {reference} tokens in the reference, {candidate} in the model")]
    LengthMismatch {
        /// The reference's size.
        reference: usize,
        /// The model's.
        candidate: usize,
    },
}

impl From<ScoreError> for crate::Error {
    fn from(e: ScoreError) -> Self {
        let error = Self::refused(e.to_string());
        match e {
            ScoreError::NotFinite { .. } => error.or(
                "the weights or the arithmetic overflow; look for NaN and infinities with `ggufkit verify`",
            ),
            ScoreError::LengthMismatch { .. } => error.or("models are compared that share a tokenizer"),
            _ => error,
        }
    }
}

/// A model by itself: `logits` has an entry for every token of the vocabulary, `target` is the token that follows.
///
/// # Errors
/// A logit that is no finite number, a target out of range.
pub fn alone(logits: &[f32], target: usize) -> Result<TokenScore, ScoreError> {
    let logit = at(logits, target)?;
    let (max, _) = math::peak(logits)?;
    let nll = math::ln(math::sum_exp(logits, max)) + (f64::from(max) - logit);
    Ok(TokenScore { nll, pair: None })
}

/// A model beside a reference, both as logits over the same vocabulary. Nothing is left out of the sum.
///
/// # Errors
/// A logit that is no finite number, a target out of range, rows of different lengths.
pub fn against_logits(reference: &[f32], logits: &[f32], target: usize) -> Result<TokenScore, ScoreError> {
    same_length(reference, logits)?;
    let (p_target, q_target) = (at(reference, target)?, at(logits, target)?);
    let ((p_max, p_top), (q_max, q_top)) = (math::peak(reference)?, math::peak(logits)?);
    let sums = math::pair_sums(reference, p_max, logits, q_max);
    let (p_log, q_log) = (math::ln(sums.p), math::ln(sums.q));
    let nll = q_log + (f64::from(q_max) - q_target);
    let pair = Pair {
        nll: p_log + (f64::from(p_max) - p_target),
        kld: sums.cross / sums.p - p_log + q_log,
        same_top: p_top == q_top,
        dp: 0.0,
    };
    Ok(TokenScore { nll, pair: Some(Pair { dp: math::exp(-nll) - math::exp(-pair.nll), ..pair }) })
}

/// A model beside what a [`logits_file`] keeps of a reference: `log_probs` as the file's reader gives them. Entries at
/// or below [`logits_file::FLOOR`] are left out of the sum, as llama.cpp does.
///
/// # Errors
/// A number that is not finite, a target out of range, rows of different lengths.
pub fn against_file(log_probs: &[f32], logits: &[f32], target: usize) -> Result<TokenScore, ScoreError> {
    same_length(log_probs, logits)?;
    let (p_target, q_target) = (at(log_probs, target)?, at(logits, target)?);
    let ((_, p_top), (q_max, q_top)) = (math::peak(log_probs)?, math::peak(logits)?);
    let log_sum = f64::from(q_max) + math::ln(math::sum_exp(logits, q_max));
    let nll = log_sum - q_target;
    let pair = Pair {
        nll: -p_target,
        kld: math::cross_above(log_probs, logits_file::FLOOR, logits, log_sum),
        same_top: p_top == q_top,
        dp: math::exp(-nll) - math::exp(p_target),
    };
    Ok(TokenScore { nll, pair: Some(pair) })
}

fn at(row: &[f32], target: usize) -> Result<f64, ScoreError> {
    row.get(target).map(|&x| f64::from(x)).ok_or(ScoreError::OutOfVocabulary { target, vocab: row.len() })
}

fn same_length(reference: &[f32], candidate: &[f32]) -> Result<(), ScoreError> {
    let (reference, candidate) = (reference.len(), candidate.len());
    if reference == candidate { Ok(()) } else { Err(ScoreError::LengthMismatch { reference, candidate }) }
}

#[cfg(test)]
mod tests;
