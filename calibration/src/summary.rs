//! Figures about statistics, and warnings where too little was measured.

use std::fmt;

use crate::statistics::{Entry, Statistics};

/// Fewer tokens than this are too few for a mean square: for normal numbers, its standard deviation is then 4.5 % (√(2/n)),
/// and activations have heavier tails.
pub const FEW_TOKENS: u64 = 1000;

/// Up to this mean square, llama-imatrix counts a column as inactive.
pub const INACTIVE: f64 = 1e-5;

/// Figures of an entry, by the definitions of llama-imatrix (`--show-statistics`). All but the first five are about the mean
/// squares of the matrices that were measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The columns of a matrix; those of all stacked matrices together, if they share a count.
    pub columns: usize,
    /// Matrices (experts) with a count of their own.
    pub matrices: usize,
    /// Matrices that were not measured.
    pub unseen: usize,
    /// The tokens of all matrices together.
    pub count: u64,
    /// The tokens of the matrix with the fewest, among those that were measured.
    pub fewest: u64,
    /// The number of mean squares: columns of all matrices that were measured (N in llama-imatrix).
    pub values: usize,
    /// The tokens of a matrix, on average over those that were measured.
    pub tokens_per_column: f64,
    /// The sum of the mean squares (Σ(Act²)).
    pub sum: f64,
    /// The smallest mean square.
    pub min: f64,
    /// The largest mean square.
    pub max: f64,
    /// The mean of the mean squares (μ).
    pub mean: f64,
    /// The standard deviation of the mean squares (σ), of the population.
    pub deviation: f64,
    /// The share of active columns: those above [`INACTIVE`].
    pub active: f64,
    /// The entropy of the mean squares as shares of their sum, in bits.
    pub entropy: f64,
    /// The entropy divided by its maximum, that of equal columns; 1 for a single column.
    pub entropy_ratio: f64,
    /// The ZD score: the share of columns that are more than σ above μ.
    pub outliers: f64,
}

/// A tensor of which too little was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Matrices that were measured on few tokens.
    Few {
        /// The tensor.
        tensor: String,
        /// The fewest tokens of one of them.
        tokens: u64,
        /// How many matrices have too few.
        few: usize,
        /// How many there are.
        of: usize,
    },
    /// Experts that the text never used.
    Unseen {
        /// The tensor.
        tensor: String,
        /// Their indices.
        matrices: Vec<usize>,
        /// How many there are.
        of: usize,
    },
}

impl Summary {
    /// The figures of an entry whose counts are tokens; `None` if none of its matrices was measured.
    pub fn of(entry: &Entry) -> Option<Self> {
        let seen = || entry.matrices().filter(|(_, count)| *count > 0);
        let x: Vec<f64> =
            seen().flat_map(|(sums, count)| sums.iter().map(move |&s| f64::from(s / count as f32))).collect();
        let n = x.len() as f64;
        let fewest = seen().map(|(_, count)| count).min()?;
        let count = seen().fold(0u64, |sum, (_, count)| sum.saturating_add(count));
        let sum: f64 = x.iter().sum();
        let mean = sum / n;
        let deviation = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let share = |of: &dyn Fn(f64) -> bool| x.iter().filter(|&&x| of(x)).count() as f64 / n;
        let bits = |x: f64| if x > 0.0 { -(x / sum) * (x / sum).log2() } else { 0.0 };
        let entropy = x.iter().map(|&x| bits(x)).sum::<f64>() + 0.0;
        let matrices = entry.counts().len();
        let measured = seen().count();
        Some(Self {
            columns: entry.cols(),
            matrices,
            unseen: matrices - measured,
            count,
            fewest,
            values: x.len(),
            tokens_per_column: count as f64 / measured as f64,
            sum,
            min: x.iter().copied().fold(f64::INFINITY, f64::min),
            max: x.iter().copied().fold(0.0, f64::max),
            mean,
            deviation,
            active: share(&|x| x > INACTIVE),
            entropy,
            entropy_ratio: if x.len() > 1 { entropy / n.log2() } else { 1.0 },
            outliers: share(&|x| deviation > 0.0 && (x - mean) / deviation > 1.0),
        })
    }
}

/// The cosine similarity of the sums of two entries: 1 if they are proportional. `None` if their sizes differ or one is all
/// zeros. llama-imatrix shows it for a tensor and the one of the same name in the layer before.
pub fn cosine_similarity(a: &Entry, b: &Entry) -> Option<f64> {
    let dot = |a: &Entry, b: &Entry| -> f64 {
        a.sums().iter().zip(b.sums()).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    (a.sums().len() == b.sums().len() && norms > 0.0).then(|| dot(a, b) / norms)
}

impl Statistics {
    /// The figures of every entry in which something was measured, by name. Chunks are converted to tokens as by
    /// [`Statistics::in_tokens`].
    pub fn summaries(&self) -> Vec<(String, Summary)> {
        let tokens = self.in_tokens();
        tokens.entries.iter().filter_map(|(name, entry)| Some((name.clone(), Summary::of(entry)?))).collect()
    }

    /// Entries measured on fewer tokens than `least` (usually [`FEW_TOKENS`]), or not at all, by name. Chunks are converted to
    /// tokens as by [`Statistics::in_tokens`].
    pub fn warnings(&self, least: u64) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for (name, entry) in &self.in_tokens().entries {
            let (tensor, counts) = (name.clone(), entry.counts());
            let of = counts.len();
            let few: Vec<u64> = counts.iter().copied().filter(|n| (1..least).contains(n)).collect();
            if let Some(&tokens) = few.iter().min() {
                warnings.push(Warning::Few { tensor: tensor.clone(), tokens, few: few.len(), of });
            }
            let matrices: Vec<usize> = (0..of).filter(|&i| counts[i] == 0).collect();
            if !matrices.is_empty() {
                warnings.push(Warning::Unseen { tensor, matrices, of });
            }
        }
        warnings
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = |n: &u64| if *n == 1 { "1 token".to_string() } else { format!("{n} tokens") };
        match self {
            Self::Few { tensor, tokens: n, of: 1, .. } => {
                write!(f, "{tensor} was measured on only {}", tokens(n))
            }
            Self::Few { tensor, tokens: n, few, of } => {
                write!(
                    f,
                    "{tensor}: {few} of {of} experts were measured on few tokens, one on only {}",
                    tokens(n)
                )
            }
            Self::Unseen { tensor, of: 1, .. } => write!(f, "{tensor} was never used by the text"),
            Self::Unseen { tensor, matrices, of } => {
                const SHOWN: usize = 8;
                let first: Vec<_> = matrices.iter().take(SHOWN).map(usize::to_string).collect();
                let more = if matrices.len() > SHOWN { ", ..." } else { "" };
                let (few, first) = (matrices.len(), first.join(", "));
                write!(f, "{tensor}: {few} of {of} experts were never used by the text ({first}{more})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::statistics::Unit;

    fn entry(sums: &[f32], counts: &[u64]) -> Entry {
        Entry::new(sums.to_vec(), counts.to_vec()).unwrap()
    }

    #[test]
    fn figures_of_a_small_example() {
        // Means 1, 1, 2, 4 and 0; the middle matrix is unseen, so its sums do not matter.
        let s = Summary::of(&entry(&[2.0, 2.0, 4.0, 7.0, 7.0, 7.0, 32.0, 0.0, 0.0], &[2, 0, 8])).unwrap();
        assert_eq!((s.columns, s.matrices, s.unseen, s.values), (3, 3, 1, 6));
        assert_eq!((s.count, s.fewest, s.tokens_per_column), (10, 2, 5.0));
        assert_eq!((s.sum, s.min, s.max), (8.0, 0.0, 4.0));
        assert_eq!(s.mean, 8.0 / 6.0);
        let squares: f64 = (1.0 + 1.0 + 4.0 + 16.0) / 6.0;
        assert!((s.deviation - (squares - s.mean * s.mean).sqrt()).abs() < 1e-12);
        // Shares 1/8, 1/8, 1/4, 1/2.
        assert_eq!(s.entropy, 3.0 / 8.0 + 3.0 / 8.0 + 2.0 / 4.0 + 1.0 / 2.0);
        assert_eq!(s.entropy_ratio, s.entropy / 6f64.log2());
        assert_eq!((s.active, s.outliers), (4.0 / 6.0, 1.0 / 6.0));
    }

    #[test]
    fn figures_without_measurements() {
        assert!(Summary::of(&entry(&[1.0, 2.0], &[0])).is_none());
        let zeros = Summary::of(&entry(&[0.0, 0.0], &[3])).unwrap();
        assert_eq!((zeros.sum, zeros.deviation, zeros.active, zeros.entropy), (0.0, 0.0, 0.0, 0.0));
        assert_eq!((zeros.entropy_ratio, zeros.outliers), (0.0, 0.0));
        let one = Summary::of(&entry(&[5.0], &[5])).unwrap();
        assert_eq!((one.entropy, one.entropy_ratio, one.active), (0.0, 1.0, 1.0));
    }

    #[test]
    fn cosine_similarity_of_simple_vectors() {
        let a = entry(&[1.0, 2.0, 0.0], &[1]);
        let near = |x: Option<f64>, y: f64| assert!((x.unwrap() - y).abs() < 1e-12, "{x:?}");
        near(cosine_similarity(&a, &entry(&[10.0, 20.0, 0.0], &[7])), 1.0);
        near(cosine_similarity(&a, &entry(&[0.0, 0.0, 3.0], &[1])), 0.0);
        assert_eq!(cosine_similarity(&a, &entry(&[0.0; 3], &[1])), None);
        assert_eq!(cosine_similarity(&a, &entry(&[1.0; 2], &[1])), None);
    }

    #[test]
    fn few_tokens_give_warnings() {
        let entries = [
            ("a", entry(&[1.0], &[999])),
            ("b", entry(&[1.0], &[1000])),
            ("c", entry(&[1.0; 4], &[0, 1, 5000, 30])),
            ("d", entry(&[1.0], &[0])),
            ("e", entry(&[1.0; 20], &[0; 20])),
        ];
        let entries = entries.map(|(name, entry)| (name.to_string(), Arc::new(entry))).into();
        let mut s = Statistics { file: "x".into(), entries, ..Statistics::default() };
        let said = |s: &Statistics| s.warnings(FEW_TOKENS).iter().map(Warning::to_string).collect::<Vec<_>>();
        let unseen = [
            "c: 1 of 4 experts were never used by the text (0)",
            "d was never used by the text",
            "e: 20 of 20 experts were never used by the text (0, 1, 2, 3, 4, 5, 6, 7, ...)",
        ];
        let few = [
            "a was measured on only 999 tokens",
            "c: 2 of 4 experts were measured on few tokens, one on only 1 token",
        ];
        assert_eq!(said(&s), [few[0], few[1], unseen[0], unseen[1], unseen[2]]);
        assert_eq!(s.summaries().iter().map(|(name, _)| name.as_str()).collect::<String>(), "abc");
        // One chunk has 512 tokens.
        s.unit = Unit::Chunks;
        let few = "c: 1 of 4 experts were measured on few tokens, one on only 512 tokens";
        assert_eq!(said(&s), [few, unseen[0], unseen[1], unseen[2]]);
        assert_eq!(s.summaries()[0].1.count, 999 * 512);
    }

    proptest! {
        #[test]
        fn figures_stay_in_their_bounds(sums in proptest::collection::vec(0f32..1e6, 1..50), count in 1..1000u64) {
            let s = Summary::of(&entry(&sums, &[count])).unwrap();
            prop_assert!(s.min <= s.mean * (1.0 + 1e-12) && s.mean <= s.max * (1.0 + 1e-12));
            for share in [s.active, s.outliers] {
                prop_assert!((0.0..=1.0).contains(&share));
            }
            prop_assert!((0.0..=1.0 + 1e-12).contains(&s.entropy_ratio));
        }
    }
}
