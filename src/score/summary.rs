//! Token scores by chunk, and the metrics computed from them.

use serde::Serialize;

use super::stats::{Estimate, covariance_of_means, quantile, sorted};
use super::{Pair, TokenScore};
use kernels::logits::exp;

/// The token scores of a text by chunk. The bootstrap draws whole chunks, since tokens of one chunk are not independent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    rows: Vec<TokenScore>,
    /// The end of each chunk in `rows`.
    ends: Vec<usize>,
}

impl Scores {
    /// No scores.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the scores of the next chunk. A chunk without scores is skipped.
    pub fn push_chunk(&mut self, rows: impl IntoIterator<Item = TokenScore>) {
        let before = self.rows.len();
        self.rows.extend(rows);
        if self.rows.len() > before {
            self.ends.push(self.rows.len());
        }
    }

    /// All scores, in the order of the text.
    pub fn rows(&self) -> &[TokenScore] {
        &self.rows
    }

    /// The scores of each chunk.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &[TokenScore]> {
        self.ends.iter().enumerate().map(|(i, &end)| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.rows[start..end]
        })
    }

    /// The comparisons of all tokens with the reference; `None` if a token has none, or there are no tokens.
    pub fn pairs(&self) -> Option<Vec<Pair>> {
        if self.rows.is_empty() { None } else { self.rows.iter().map(|r| r.pair).collect() }
    }

    /// The metrics; `None` without scores.
    pub fn summary(&self) -> Option<Summary> {
        if self.rows.is_empty() {
            return None;
        }
        let nll = Estimate::mean(self.rows.iter().map(|r| r.nll));
        let perplexity = of_exp(nll);
        let against = self.pairs().map(|pairs| Against::of(nll, &self.rows, &pairs));
        Some(Summary {
            tokens: self.rows.len() as u64,
            chunks: self.ends.len() as u64,
            nll,
            perplexity,
            against,
        })
    }
}

/// e^x with its standard error.
fn of_exp(x: Estimate) -> Estimate {
    let value = exp(x.value);
    x.through(value, value)
}

/// The metrics of a model on a text. Logarithms are natural; probabilities and shares are fractions of 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Scored tokens.
    pub tokens: u64,
    /// Chunks that they are in.
    pub chunks: u64,
    /// Mean negative log-likelihood, in nats per token.
    pub nll: Estimate,
    /// Perplexity, the exponential of `nll`.
    pub perplexity: Estimate,
    /// The comparison with the reference, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
}

/// The metrics of a model compared with a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// The reference's perplexity.
    pub reference_perplexity: Estimate,
    /// ln(PPL / reference PPL). The standard errors of this and the next two take into account that both models saw the
    /// same tokens: √(s² + r² − 2c), with the standard errors s and r and the covariance c of the two means.
    pub ln_ratio: Estimate,
    /// PPL / reference PPL.
    pub ratio: Estimate,
    /// PPL − reference PPL.
    pub difference: Estimate,
    /// Correlation of the two log-likelihoods; `None` where one of them does not vary.
    pub correlation: Option<f64>,
    /// Kullback-Leibler divergence from the reference, in nats per token.
    pub kld: Kld,
    /// Share of tokens where both models' most likely token is the same.
    pub same_top: Estimate,
    /// Change of the probability of the text's token.
    pub dp: Dp,
}

/// The distribution of the tokens' Kullback-Leibler divergence, in nats. Percentiles are interpolated
/// ([`quantile`]).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Kld {
    pub mean: Estimate,
    pub min: f64,
    pub median: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// The distribution of Δp, between −1 and 1. Percentiles are interpolated ([`quantile`]).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Dp {
    pub mean: Estimate,
    /// √ mean(Δp²); its standard error is that of mean(Δp²) over 2·RMS.
    pub rms: Estimate,
    pub min: f64,
    pub p0_1: f64,
    pub p1: f64,
    pub p5: f64,
    pub p10: f64,
    pub p25: f64,
    pub median: f64,
    pub p75: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Against {
    fn of(nll: Estimate, rows: &[TokenScore], pairs: &[Pair]) -> Self {
        let reference = Estimate::mean(pairs.iter().map(|p| p.nll));
        let covariance = covariance_of_means(rows.iter().zip(pairs).map(|(r, p)| (r.nll, p.nll)));
        // The standard error of a·x − b·y, for the means x and y of the two log-likelihoods; rounding can make the variance
        // slightly negative.
        let of_difference = |a: f64, b: f64| {
            let (s, r) = (a * nll.error?, b * reference.error?);
            let error = (s * s + r * r - 2.0 * a * b * covariance?).max(0.0).sqrt();
            Some(error).filter(|e| e.is_finite())
        };
        let correlation = covariance
            .zip(nll.error)
            .zip(reference.error)
            .map(|((c, s), r)| c / (s * r))
            .filter(|c| c.is_finite());

        let ln_ratio = Estimate { value: nll.value - reference.value, error: of_difference(1.0, 1.0) };
        let (perplexity, reference_perplexity) = (of_exp(nll), of_exp(reference));
        let difference = Estimate {
            value: perplexity.value - reference_perplexity.value,
            error: of_difference(perplexity.value, reference_perplexity.value),
        };

        let n = pairs.len() as f64;
        let same = pairs.iter().filter(|p| p.same_top).count() as f64 / n;
        let same_top = Estimate {
            value: same,
            error: (pairs.len() > 1).then(|| (same * (1.0 - same) / (n - 1.0)).sqrt()),
        };
        Self {
            reference_perplexity,
            ln_ratio,
            ratio: of_exp(ln_ratio),
            difference,
            correlation,
            kld: Kld::of(pairs),
            same_top,
            dp: Dp::of(pairs),
        }
    }
}

impl Kld {
    fn of(pairs: &[Pair]) -> Self {
        let kld = pairs.iter().map(|p| p.kld);
        let x = sorted(kld.clone());
        let at = |fraction| quantile(&x, fraction);
        Self {
            mean: Estimate::mean(kld),
            min: at(0.0),
            median: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
        }
    }
}

impl Dp {
    fn of(pairs: &[Pair]) -> Self {
        let dp = pairs.iter().map(|p| p.dp);
        let square = Estimate::mean(dp.clone().map(|x| x * x));
        let rms = square.value.sqrt();
        let x = sorted(dp.clone());
        let at = |fraction| quantile(&x, fraction);
        Self {
            mean: Estimate::mean(dp),
            rms: square.through(rms, if rms > 0.0 { 0.5 / rms } else { 0.0 }),
            min: at(0.0),
            p0_1: at(0.001),
            p1: at(0.01),
            p5: at(0.05),
            p10: at(0.1),
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Chunks of equal length with made-up scores: `scale` is how far the candidate is from the reference.
    pub fn made_up(chunks: usize, rows: usize, scale: f64) -> Scores {
        let mut scores = Scores::new();
        let mut random = crate::random::Random::new(5);
        for _ in 0..chunks {
            let level = 1.0 + random.below(100) as f64 / 100.0;
            scores.push_chunk((0..rows).map(|_| {
                let (a, b) = (random.below(1000) as f64 / 250.0, random.below(1000) as f64 / 1000.0);
                let kld = scale * level * b * b;
                let pair = Pair { nll: a, kld, same_top: b < 0.9, dp: scale * (b - 0.5) };
                TokenScore { nll: a + scale * (b - 0.4), pair: Some(pair) }
            }));
        }
        scores
    }

    #[test]
    fn two_tokens_by_hand() {
        let mut scores = Scores::new();
        scores.push_chunk([]);
        scores.push_chunk([
            TokenScore { nll: 1.0, pair: Some(Pair { nll: 1.0, kld: 0.0, same_top: true, dp: 0.0 }) },
            TokenScore { nll: 3.0, pair: Some(Pair { nll: 2.0, kld: 0.5, same_top: false, dp: -0.2 }) },
        ]);
        let s = scores.summary().unwrap();
        assert_eq!((s.tokens, s.chunks, s.nll), (2, 1, Estimate { value: 2.0, error: Some(1.0) }));
        let near = |e: Estimate, value: f64, error: f64| {
            assert!((e.value - value).abs() < 1e-9 && (e.error.unwrap() - error).abs() < 1e-9, "{e:?}");
        };
        let (p, r) = (2f64.exp(), 1.5f64.exp());
        near(s.perplexity, p, p);
        let a = s.against.unwrap();
        near(a.reference_perplexity, r, 0.5 * r);
        // Errors 1 and 1/2 with a correlation of 1.
        near(a.ln_ratio, 0.5, 0.5);
        near(a.ratio, 0.5f64.exp(), 0.5 * 0.5f64.exp());
        near(a.difference, p - r, p - 0.5 * r);
        assert!((a.correlation.unwrap() - 1.0).abs() < 1e-12);
        near(a.kld.mean, 0.25, 0.25);
        assert_eq!((a.kld.min, a.kld.median, a.kld.max), (0.0, 0.25, 0.5));
        near(a.same_top, 0.5, 0.5);
        near(a.dp.mean, -0.1, 0.1);
        // mean(Δp²) = 0.02 ± 0.02.
        near(a.dp.rms, 0.02f64.sqrt(), 0.01 / 0.02f64.sqrt());
    }

    #[test]
    fn one_token_and_none_have_no_errors() {
        assert_eq!(Scores::new().summary(), None);
        let mut scores = Scores::new();
        scores.push_chunk([TokenScore { nll: 2.0, pair: None }]);
        let s = scores.summary().unwrap();
        assert_eq!((s.perplexity.error, s.against), (None, None));
        scores.push_chunk(made_up(1, 1, 0.1).rows().to_vec());
        assert!(scores.summary().unwrap().against.is_none(), "half of the rows have no reference");
        assert_eq!(scores.chunks().map(<[_]>::len).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_model_beside_itself() {
        let mut scores = Scores::new();
        scores.push_chunk(made_up(1, 50, 0.0).rows().iter().map(|r| {
            let pair = r.pair.unwrap();
            TokenScore { nll: pair.nll, pair: Some(Pair { kld: 0.0, same_top: true, dp: 0.0, ..pair }) }
        }));
        let a = scores.summary().unwrap().against.unwrap();
        let nothing = Estimate { value: 0.0, error: Some(0.0) };
        assert_eq!((a.kld.mean, a.dp.mean, a.dp.rms, a.difference.value), (nothing, nothing, nothing, 0.0));
        assert_eq!((a.same_top.value, a.same_top.error), (1.0, Some(0.0)));
        assert!(a.ln_ratio.error.unwrap() < 1e-8);
    }

    #[test]
    fn json_has_these_names() {
        let json = serde_json::to_value(made_up(2, 20, 0.1).summary()).unwrap();
        for path in [
            "/tokens",
            "/chunks",
            "/nll/value",
            "/perplexity/error",
            "/against/reference_perplexity/value",
            "/against/ln_ratio/error",
            "/against/ratio/value",
            "/against/difference/value",
            "/against/correlation",
            "/against/kld/mean/value",
            "/against/kld/p99_9",
            "/against/same_top/value",
            "/against/dp/rms/value",
            "/against/dp/p0_1",
        ] {
            assert!(json.pointer(path).is_some_and(serde_json::Value::is_number), "{path}");
        }
    }
}
