//! Confidence intervals by the cluster bootstrap, with chunks as clusters.
//!
//! Tokens of one chunk are correlated, so standard errors that assume independence are too small. Here, chunks are drawn
//! with replacement, as many as there are, and the statistic is computed for each resample; the interval spans the middle
//! 95 % of the results (percentile bootstrap: Efron, "Bootstrap methods: another look at the jackknife", 1979; with
//! clusters: Davison and Hinkley, "Bootstrap methods and their application", 1997, section 3.8). To compare two models on
//! the same text, the same chunks are drawn for both, so that effects common to both cancel.

use serde::Serialize;

use super::Scores;
use super::stats::{quantile, sorted};
use crate::random::Random;
use kernels::logits::exp;

/// The fewest chunks for which an interval is computed. With fewer, the intervals would cover far less than 95 %.
pub const FEWEST: usize = 5;

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Whether two intervals overlap.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// Whether a number lies in the interval.
    pub fn contains(&self, x: f64) -> bool {
        (self.low..=self.high).contains(&x)
    }
}

/// The ratio of one model's metric to another's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// The ratio over all chunks.
    pub value: f64,
    /// Its confidence interval, if there are at least [`FEWEST`] chunks.
    pub interval: Option<Interval>,
}

impl Ratio {
    /// Whether the interval does not contain 1, so that the difference is significant.
    pub fn is_clear(&self) -> bool {
        self.interval.is_some_and(|i| !i.contains(1.0))
    }
}

/// The settings of the bootstrap. The same settings and scores give the same interval on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bootstrap {
    /// The seed of the random numbers.
    pub seed: u64,
    /// The number of resamples.
    pub resamples: u32,
    /// The confidence level, between 0 and 1.
    pub level: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { seed: 1, resamples: 1000, level: 0.95 }
    }
}

/// [`Bootstrap::kld_ratio`] with the default settings.
pub fn ratio_interval(a: &Scores, b: &Scores) -> Option<Ratio> {
    Bootstrap::default().kld_ratio(a, b)
}

impl Bootstrap {
    /// The interval of the mean KLD; `None` without a reference or with fewer than [`FEWEST`] chunks.
    pub fn kld(&self, scores: &Scores) -> Option<Interval> {
        let chunks = sums(scores, |r| Some((r.pair?.kld, 1.0)))?;
        self.interval(&chunks, |kld, n| kld / n)
    }

    /// Mean KLD of `a` over mean KLD of `b`; `None` if they are of different chunks, have no reference, or `b`'s is 0.
    pub fn kld_ratio(&self, a: &Scores, b: &Scores) -> Option<Ratio> {
        let (a, b) = (sums(a, |r| Some((r.pair?.kld, 1.0)))?, sums(b, |r| Some((r.pair?.kld, 1.0)))?);
        let same = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.1 == b.1);
        let pairs: Vec<_> = a.iter().zip(&b).map(|(a, b)| (a.0, b.0)).collect();
        if same { self.ratio(&pairs, |a, b| a / b) } else { None }
    }

    /// Perplexity over the reference's perplexity; `None` without a reference.
    pub fn perplexity_ratio(&self, scores: &Scores) -> Option<Ratio> {
        self.ratio(&sums(scores, |r| Some((r.nll - r.pair?.nll, 1.0)))?, |sum, n| exp(sum / n))
    }

    /// Perplexity of `a` over perplexity of `b`; `None` if they are of different chunks.
    pub fn perplexity_ratio_of(&self, a: &Scores, b: &Scores) -> Option<Ratio> {
        let (a, b) = (sums(a, |r| Some((r.nll, 1.0)))?, sums(b, |r| Some((r.nll, 1.0)))?);
        let same = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.1 == b.1);
        let pairs: Vec<_> = a.iter().zip(&b).map(|(a, b)| (a.0 - b.0, a.1)).collect();
        if same { self.ratio(&pairs, |sum, n| exp(sum / n)) } else { None }
    }

    fn ratio(&self, chunks: &[(f64, f64)], of: impl Fn(f64, f64) -> f64) -> Option<Ratio> {
        let (x, y) = chunks.iter().fold((0.0, 0.0), |s, c| (s.0 + c.0, s.1 + c.1));
        let value = Some(of(x, y)).filter(|v| v.is_finite())?;
        Some(Ratio { value, interval: self.interval(chunks, of) })
    }

    /// The interval of a function of two sums over chunks.
    fn interval(&self, chunks: &[(f64, f64)], of: impl Fn(f64, f64) -> f64) -> Option<Interval> {
        if chunks.len() < FEWEST || self.resamples == 0 {
            return None;
        }
        let mut random = Random::new(self.seed);
        let drawn = (0..self.resamples).map(|_| {
            let (x, y) = (0..chunks.len()).fold((0.0, 0.0), |s, _| {
                let chunk = chunks[random.below(chunks.len() as u64) as usize];
                (s.0 + chunk.0, s.1 + chunk.1)
            });
            of(x, y)
        });
        let drawn = sorted(drawn);
        let tail = (1.0 - self.level.clamp(0.0, 1.0)) / 2.0;
        let interval = Interval { low: quantile(&drawn, tail), high: quantile(&drawn, 1.0 - tail) };
        (interval.low.is_finite() && interval.high.is_finite()).then_some(interval)
    }
}

/// Two numbers per token, summed by chunk; `None` if a token has none.
fn sums(scores: &Scores, of: impl Fn(&super::TokenScore) -> Option<(f64, f64)>) -> Option<Vec<(f64, f64)>> {
    let sum = |rows: &[super::TokenScore]| {
        rows.iter().try_fold((0.0, 0.0), |s, r| {
            let (x, y) = of(r)?;
            Some((s.0 + x, s.1 + y))
        })
    };
    scores.chunks().map(sum).collect::<Option<Vec<_>>>().filter(|chunks| !chunks.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::made_up;
    use super::super::{Pair, TokenScore};
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let scores = made_up(20, 30, 0.1);
        let of = |seed| Bootstrap { seed, ..Bootstrap::default() }.kld(&scores).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let kld = scores.summary().unwrap().against.unwrap().kld.mean;
        assert!(of(1).contains(kld.value));
        // Chunks differ in level here, so that the interval is wider than that of independent tokens.
        assert!(of(1).high - of(1).low > 2.0 * 1.96 * kld.error.unwrap());
    }

    #[test]
    fn few_chunks_have_no_interval() {
        for chunks in 1..FEWEST {
            let (a, b) = (made_up(chunks, 30, 0.1), made_up(chunks, 30, 0.2));
            assert_eq!(Bootstrap::default().kld(&a), None);
            let ratio = ratio_interval(&a, &b).unwrap();
            assert!((ratio.value - 0.5).abs() < 1e-12 && ratio.interval.is_none() && !ratio.is_clear());
            assert_eq!(Bootstrap::default().perplexity_ratio(&a).unwrap().interval, None);
        }
        assert_eq!(Bootstrap::default().kld(&Scores::new()), None);
        assert!(Bootstrap::default().kld(&made_up(FEWEST, 3, 0.1)).is_some());
    }

    #[test]
    fn pairing_cancels_what_both_have() {
        // Twice as far in every chunk: the intervals overlap, the ratio is known exactly.
        let (a, b) = (made_up(20, 30, 0.1), made_up(20, 30, 0.105));
        let settings = Bootstrap::default();
        assert!(settings.kld(&a).unwrap().overlaps(&settings.kld(&b).unwrap()));
        let ratio = ratio_interval(&b, &a).unwrap();
        let interval = ratio.interval.unwrap();
        assert!(
            (interval.low - 1.05).abs() < 1e-9 && (interval.high - 1.05).abs() < 1e-9 && ratio.is_clear()
        );
    }

    #[test]
    fn ratios_of_perplexities() {
        let (a, b) = (made_up(20, 30, 0.1), made_up(20, 30, 0.2));
        let settings = Bootstrap::default();
        let s = |x: &Scores| x.summary().unwrap();
        let to_reference = settings.perplexity_ratio(&a).unwrap();
        assert!((to_reference.value - s(&a).against.unwrap().ratio.value).abs() < 1e-9);
        let each_other = settings.perplexity_ratio_of(&a, &b).unwrap();
        assert!((each_other.value - s(&a).perplexity.value / s(&b).perplexity.value).abs() < 1e-9);
        assert!(each_other.interval.unwrap().contains(each_other.value));
    }

    #[test]
    fn other_chunks_and_no_reference_have_no_ratio() {
        assert_eq!(ratio_interval(&made_up(6, 30, 0.1), &made_up(7, 30, 0.1)), None);
        assert_eq!(ratio_interval(&made_up(6, 30, 0.1), &made_up(6, 29, 0.1)), None);
        let mut alone = Scores::new();
        alone.push_chunk([TokenScore { nll: 1.0, pair: None }]);
        assert_eq!(ratio_interval(&alone, &alone), None);
        let mut same = Scores::new();
        same.push_chunk([TokenScore {
            nll: 1.0,
            pair: Some(Pair { nll: 1.0, kld: 0.0, same_top: true, dp: 0.0 }),
        }]);
        assert_eq!(ratio_interval(&same, &same), None, "0/0");
    }
}
