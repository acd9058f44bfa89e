//! Sampling: choosing the next token by its logits.
//!
//! Top-k, top-p and min-p filters are applied in this order; then the temperature, and one of the tokens that are left
//! is drawn. That is the order of llama.cpp's default chain; the filters see probabilities at temperature 1. Everything
//! is computed in double precision by the crate's own functions, so that a seed gives the same tokens on every machine.

use crate::error::Result;
use crate::random::Random;
use crate::score::ScoreError;
use kernels::logits::{exp, ln, peak};

/// Sampling parameters. The defaults are llama.cpp's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Sampling temperature, which logits are divided by. 0 is greedy: the largest logit, and the first of equals.
    pub temperature: f64,
    /// Top-k: keep this many of the most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Top-p: keep the most probable tokens that together have this probability, and at least one.
    pub top_p: f64,
    /// Min-p: keep tokens whose probability is at least this times that of the most probable token.
    pub min_p: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05 }
    }
}

/// Chooses one token after the other, with random numbers from a seed.
#[derive(Debug, Clone)]
pub struct Sampler {
    settings: Settings,
    random: Random,
    /// Tokens with their logits; a field to reuse the memory.
    kept: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler. The same seed gives the same tokens for the same logits.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self { settings, random: Random::new(seed), kept: Vec::new() }
    }

    /// Chooses a token by the logits of the whole vocabulary.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) for no logits, or logits that are not finite.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32> {
        let (max, first) = peak(logits).map_err(ScoreError::from)?;
        let Settings { temperature, .. } = self.settings;
        if temperature <= 0.0 {
            return Ok(first as u32);
        }
        self.keep(logits, f64::from(max));
        let weight = |l: f32| exp((f64::from(l) - f64::from(max)) / temperature);
        let sum: f64 = self.kept.iter().map(|&(_, l)| weight(l)).sum();
        let mut left = self.random.unit() * sum;
        for &(id, l) in &self.kept {
            left -= weight(l);
            if left < 0.0 {
                return Ok(id);
            }
        }
        // Rounding errors may leave `left` positive after the last token.
        Ok(self.kept.iter().rev().find(|&&(_, l)| weight(l) > 0.0).map_or(first as u32, |&(id, _)| id))
    }

    /// Applies the filters: `kept` are the tokens to draw from, most probable first.
    fn keep(&mut self, logits: &[f32], max: f64) {
        let Settings { top_k, top_p, min_p, .. } = self.settings;
        let kept = &mut self.kept;
        kept.clear();
        kept.extend((0..).zip(logits.iter().copied()));
        // A total order without equals, so the result does not depend on the sorting algorithm.
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if (1..kept.len()).contains(&top_k) {
            kept.select_nth_unstable_by(top_k - 1, order);
            kept.truncate(top_k);
        }
        kept.sort_unstable_by(order);
        if top_p < 1.0 {
            let weight = |l: f32| exp(f64::from(l) - max);
            let enough = top_p * kept.iter().map(|&(_, l)| weight(l)).sum::<f64>();
            let mut sum = 0.0;
            let at = kept.iter().position(|&(_, l)| {
                sum += weight(l);
                sum >= enough
            });
            kept.truncate(at.map_or(kept.len(), |at| at + 1));
        }
        // Smaller values exclude no token that could ever be drawn, and `ln` takes normal numbers only.
        if min_p >= f64::MIN_POSITIVE {
            let least = max + ln(min_p);
            let n = kept.partition_point(|&(_, l)| f64::from(l) >= least);
            kept.truncate(n.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Settings = Settings { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

    fn counts(settings: Settings, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(settings, 3);
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.next(logits).unwrap() as usize] += 1;
        }
        counts
    }

    /// Logits of these probabilities.
    fn logits(p: &[f64]) -> Vec<f32> {
        p.iter().map(|p| p.ln() as f32).collect()
    }

    /// The tokens that are ever drawn.
    fn drawn(settings: Settings, p: &[f64]) -> Vec<usize> {
        let counts = counts(settings, &logits(p), 4000);
        (0..p.len()).filter(|&i| counts[i] > 0).collect()
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        let p = [0.1, 0.4, 0.05, 0.25, 0.2];
        for (n, p) in counts(ALL, &logits(&p), 20_000).iter().zip(p) {
            let (expected, deviation) = (20_000.0 * p, (20_000.0 * p * (1.0 - p)).sqrt());
            assert!((*n as f64 - expected).abs() < 4.0 * deviation, "{n} {expected}");
        }
        // At temperature 2, probabilities are as their square roots.
        let cold = counts(Settings { temperature: 2.0, ..ALL }, &logits(&[0.8, 0.2]), 20_000);
        assert!((cold[0] as f64 / cold[1] as f64 - 2.0).abs() < 0.1, "{cold:?}");
    }

    #[test]
    fn each_filter_keeps_what_it_should() {
        let p = [0.1, 0.4, 0.05, 0.25, 0.2];
        assert_eq!(drawn(ALL, &p), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(Settings { top_k: 3, ..ALL }, &p), [1, 3, 4]);
        assert_eq!(drawn(Settings { top_k: 99, ..ALL }, &p), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(Settings { top_p: 0.6, ..ALL }, &p), [1, 3]);
        assert_eq!(drawn(Settings { top_p: 0.66, ..ALL }, &p), [1, 3, 4]);
        assert_eq!(drawn(Settings { top_p: 0.0, ..ALL }, &p), [1]);
        assert_eq!(drawn(Settings { min_p: 0.24, ..ALL }, &p), [0, 1, 3, 4]);
        assert_eq!(drawn(Settings { min_p: 1.0, ..ALL }, &p), [1]);
        // Top-p sees the probabilities of the tokens that top-k left (0.4 of 0.65 is 0.62), at temperature 1.
        let both = Settings { top_k: 2, top_p: 0.61, temperature: 100.0, ..ALL };
        assert_eq!(drawn(both, &p), [1]);
        assert_eq!(drawn(Settings { temperature: 1e-300, ..ALL }, &p), [1]);
    }

    #[test]
    fn equal_logits_go_by_their_place() {
        let same = [0.5f32; 6];
        assert_eq!(Sampler::new(Settings { temperature: 0.0, ..ALL }, 1).next(&same).unwrap(), 0);
        assert_eq!(counts(Settings { top_k: 2, ..ALL }, &same, 200)[2..], [0; 4]);
        assert_eq!(Sampler::new(Settings { temperature: 0.0, ..ALL }, 1).next(&[1.0, 3.0, 3.0]).unwrap(), 1);
    }

    #[test]
    fn logits_that_are_no_numbers_are_errors() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for temperature in [0.0, 1.0] {
                let e = Sampler::new(Settings { temperature, ..ALL }, 1).next(&[0.0, bad]).unwrap_err();
                assert!(e.to_string().contains("token 1"), "{e}");
            }
        }
        assert!(Sampler::new(ALL, 1).next(&[]).is_err());
        // The widest that floats can lie apart.
        assert_eq!(Sampler::new(ALL, 1).next(&[f32::MIN, f32::MAX]).unwrap(), 1);
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_there_and_is_repeated(
            logits in prop::collection::vec(-30f32..30.0, 1..200),
            (temperature, top_k, top_p, min_p) in (0f64..3.0, 0usize..250, 0f64..=1.0, 0f64..=1.0),
            seed: u64,
        ) {
            let settings = Settings { temperature, top_k, top_p, min_p };
            let (mut a, mut b) = (Sampler::new(settings, seed), Sampler::new(settings, seed));
            let max = logits.iter().copied().fold(f32::MIN, f32::max);
            for _ in 0..10 {
                let id = a.next(&logits).unwrap();
                prop_assert_eq!(id, b.next(&logits).unwrap());
                let l = logits[id as usize];
                prop_assert!(f64::from(l) >= f64::from(max) + min_p.ln() - 1e-9);
                if top_k > 0 {
                    prop_assert!(logits.iter().filter(|x| **x > l).count() < top_k);
                }
            }
        }

        #[test]
        fn keeping_is_the_same_as_by_definition(
            logits in prop::collection::vec((-20i8..20).prop_map(|l| f32::from(l) / 4.0), 1..60),
            top_k in 1usize..70,
        ) {
            let mut sampler = Sampler::new(Settings { top_k, ..ALL }, 0);
            sampler.keep(&logits, 5.0);
            let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
            all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap()); // stable: equal logits in the order of ids
            all.truncate(top_k);
            prop_assert_eq!(&sampler.kept, &all);
        }
    }
}
