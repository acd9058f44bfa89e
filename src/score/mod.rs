//! Metrics of a model's predictions: perplexity, and KL divergence from a reference model.
//!
//! Every scored token gives a [`TokenScore`]; [`Scores`] collects them by chunk and [`Scores::summary`] computes the
//! metrics. The protocol is that of llama.cpp's `tools/perplexity`, so that the numbers can be compared with its own: the
//! text is cut into chunks of `n_ctx` tokens, and predictions in the second half are scored ([`scored`]).
//!
//! # Formulae
//! z are logits, p = softmax(z), t is the token that follows in the text; logarithms are natural.
//!
//! * negative log-likelihood: −ln p(t) = ln Σ e^z − z(t); perplexity is the exponential of its mean (Jelinek et al.,
//!   "Perplexity: a measure of the difficulty of speech recognition tasks", 1977)
//! * Kullback-Leibler divergence of the candidate q from the reference p: Σ p (ln p − ln q), over the vocabulary
//!   (Kullback and Leibler, "On information and sufficiency", 1951)
//! * top-token agreement: whether both distributions have their maximum at the same token (the first of equals)
//! * Δp: q(t) − p(t)
//!
//! # Two kinds of reference
//! [`against_logits`] has the logits of both models, which run in one pass, and sums over the whole vocabulary.
//! [`against_file`] has the reference's log-probabilities from a `--kl-divergence-base` file: quantized to 65535 steps of
//! their range, and clipped at 16 below the largest. Like llama.cpp, it does not normalize them again, and leaves tokens
//! with a stored log-probability of −16 or less out of the sum. So its result differs by up to some 1e-3 nats, can be
//! slightly negative, and is not zero for a model against its own file. It can be compared with llama.cpp's numbers, but is
//! too coarse for `q8_0`.

pub mod bootstrap;
pub mod histogram;
pub mod logits_file;
pub mod stats;
pub mod summary;

use std::ops::Range;

use kernels::logits;

pub use bootstrap::{Interval, Ratio, ratio_interval};
pub use summary::{Scores, Summary};

/// The positions of a chunk of `context` tokens whose predictions are scored: from the middle to the last but one.
/// Position i predicts token i + 1. The first half only serves as context.
pub fn scored(context: usize) -> Range<usize> {
    context / 2..context.saturating_sub(1).max(context / 2)
}

/// The score of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Negative log-likelihood of the text's token, in nats.
    pub nll: f64,
    /// The comparison with the reference, if there is one.
    pub pair: Option<Pair>,
}

/// The comparison of two models' predictions of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The reference's negative log-likelihood of the text's token, in nats.
    pub nll: f64,
    /// Kullback-Leibler divergence of the model from the reference, in nats.
    pub kld: f64,
    /// Whether both models' most likely token is the same.
    pub same_top: bool,
    /// Δp: the model's probability of the text's token minus the reference's.
    pub dp: f64,
}

impl From<logits::RowError> for ScoreError {
    fn from(e: logits::RowError) -> Self {
        match e {
            logits::RowError::NotFinite { at, value } => Self::NotFinite { at, value },
            logits::RowError::Empty => Self::Empty,
        }
    }
}

/// Logits that cannot be scored.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// A logit is NaN or infinite.
    #[error("the logit of token {at} is {value}")]
    NotFinite {
        /// The token.
        at: usize,
        /// Its logit.
        value: f32,
    },
    /// There are no logits.
    #[error("a row without logits")]
    Empty,
    /// The text has a token beyond the vocabulary.
    #[error("token {target} of the text is not in the vocabulary of {vocab}")]
    OutOfVocabulary {
        /// The token.
        target: usize,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// The reference and the model have vocabularies of different sizes.
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
                "the weights or the arithmetic overflow; look for NaN and infinities with `ggufkit verify MODEL`",
            ),
            ScoreError::LengthMismatch { .. } => error.or("compare models that share a tokenizer"),
            _ => error,
        }
    }
}

/// The score of a model without a reference: `logits` has an entry for every token of the vocabulary, `target` is the token
/// that follows in the text.
///
/// # Errors
/// [`ScoreError::NotFinite`] or [`ScoreError::Empty`] for such logits; [`ScoreError::OutOfVocabulary`] for the target.
pub fn alone(logits: &[f32], target: usize) -> Result<TokenScore, ScoreError> {
    let logit = at(logits, target)?;
    let (max, _) = logits::peak(logits)?;
    let nll = logits::ln(logits::sum_exp(logits, max)) + (f64::from(max) - logit);
    Ok(TokenScore { nll, pair: None })
}

/// The score of a model compared with a reference, both as logits over the same vocabulary.
///
/// # Errors
/// Those of [`alone`]; [`ScoreError::LengthMismatch`] for rows of different lengths.
pub fn against_logits(reference: &[f32], logits: &[f32], target: usize) -> Result<TokenScore, ScoreError> {
    same_length(reference, logits)?;
    let (p_target, q_target) = (at(reference, target)?, at(logits, target)?);
    let ((p_max, p_top), (q_max, q_top)) = (logits::peak(reference)?, logits::peak(logits)?);
    let sums = logits::pair_sums(reference, p_max, logits, q_max);
    let (p_log, q_log) = (logits::ln(sums.p), logits::ln(sums.q));
    let nll = q_log + (f64::from(q_max) - q_target);
    let pair = Pair {
        nll: p_log + (f64::from(p_max) - p_target),
        kld: sums.cross / sums.p - p_log + q_log,
        same_top: p_top == q_top,
        dp: 0.0,
    };
    Ok(TokenScore { nll, pair: Some(Pair { dp: logits::exp(-nll) - logits::exp(-pair.nll), ..pair }) })
}

/// The score of a model compared with a reference's log-probabilities from a [`logits_file`]. Tokens at or below
/// [`logits_file::FLOOR`] are left out of the sum, as in llama.cpp.
///
/// # Errors
/// Those of [`against_logits`].
pub fn against_file(log_probs: &[f32], logits: &[f32], target: usize) -> Result<TokenScore, ScoreError> {
    same_length(log_probs, logits)?;
    let (p_target, q_target) = (at(log_probs, target)?, at(logits, target)?);
    let ((_, p_top), (q_max, q_top)) = (logits::peak(log_probs)?, logits::peak(logits)?);
    let log_sum = f64::from(q_max) + logits::ln(logits::sum_exp(logits, q_max));
    let nll = log_sum - q_target;
    let pair = Pair {
        nll: -p_target,
        kld: logits::cross_above(log_probs, logits_file::FLOOR, logits, log_sum),
        same_top: p_top == q_top,
        dp: logits::exp(-nll) - logits::exp(p_target),
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
